//! The example of an API server's client, config/clients/keyfence.py, against listeners with a store.

use std::path::PathBuf;

use keyfence_tests::harness::{Listeners, run, system};

const ENTRIES: &str = r#"
[[publisher]]
name = "gateway"
socket = "unix:SOCKET"
services = ["payments"]
environments = ["production"]
[[listener]]
address = "unix:SOCKET"
roles = ["publish"]
"#;

/// Each step says what it expects.
const SCRIPT: &str = r#"
import sys, threading
import keyfence

client = keyfence.Keyfence(sys.argv[1])
row = lambda number: {"sources": [f"198.51.100.{number}"], "services": ["payments"]}
rows = {f"key-{number}": row(number) for number in range(1, 6)}
follower = keyfence.Follower(client, lambda: rows, lease_seconds=600)

summary = follower.start()
assert summary["created"] == 5, summary
assert follower.start()["created"] == 0

# Another write is newer than the rows: the sync keeps it.
as_of, _ = client.now()
client.put("key-9", {**row(9), "lease_seconds": 60})
assert client.sync({name: {**row, "lease_seconds": 600} for name, row in rows.items()}, as_of=as_of)["revoked"] == 0
revision, store, items = client.list(limit=2)
assert sorted(item["credential"] for item in items) == [f"key-{n}" for n in (1, 2, 3, 4, 5, 9)], items

# A watch tells what others change, from the last sync on.
follower.start()
seen = []
writer = threading.Timer(0, lambda: client.put("key-7", {**row(7), "lease_seconds": 60}))
writer.start()
follower.follow(seen.append, until=lambda: any(line["credential"] == "key-7" for line in seen))
writer.join()
assert follower.revision == seen[-1]["revision"]

# Of another store: it is forgotten, and the next start lists again.
follower.store = "another"
follower.follow(seen.append)
assert follower.revision is None and follower.store is None
follower.start()
assert follower.store == store

assert follower.renew() == []
rows["key-8"] = row(8)
assert follower.renew() == ["key-8"]
times = {follower.next_renewal(0) for _ in range(20)}
assert len(times) > 10 and all(180 <= time <= 220 for time in times), times

# Refusals are exceptions with the code.
try:
    client.put("key-1", {"sources": ["198.51.100.7/24"], "services": ["payments"], "lease_seconds": 60})
    raise SystemExit("host bits were taken")
except keyfence.Problem as problem:
    assert (problem.status, problem.code) == (422, "invalid"), problem
assert client.delete("key-5")["removed"] is True

# A million of rows is never held whole: the body goes out in chunks, and may be larger than any buffer.
many = {f"many-{number}": row(number % 250) for number in range(20000)}
summary = client.sync({name: {**row, "lease_seconds": 600} for name, row in many.items()}, revoke_max=100)
assert summary["created"] == 20000, summary
print("done")
"#;

#[test]
fn client_syncs_watches_lists_again_and_renews() {
    let listeners = Listeners::start(ENTRIES);
    let script = listeners.folder().join("script.py");
    std::fs::write(&script, SCRIPT).expect("a temporary folder can be written");
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/clients");
    let mut command = system("python3");
    command.arg(script).arg(listeners.socket());
    command
        .env("PYTHONPATH", folder)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    assert_eq!(run(&mut command), "done\n");
}
