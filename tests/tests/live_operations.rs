//! docs/OPERATIONS.md, word for word: its commands run on a booted machine with the package, before a client and a
//! stranger; its tables are those of the program.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{io::Write as _, thread};

use filter_common::verdict::Reason;
use filter_user::api::Code;
use filter_user::bindings::refusal;
use keyfence_tests::harness::{Files, INSIDE, Machine, Namespace, OUTSIDE, Probe, Site, StopOnDrop, until};
use socket2::{Domain, Protocol, Socket, Type};

/// As the page has them.
const API: &str = "203.0.113.10";
const ACME: &str = "198.51.100.7";
const STRANGER: &str = "198.51.100.66";
const DEB: &str = "/opt/keyfence.deb";

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATIONS.md");
    std::fs::read_to_string(path).expect("the page is there")
}

/// A block of commands, with the word that its fence has for the tests.
struct Block {
    line: usize,
    word: String,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (at, line) in page.lines().enumerate() {
        let trimmed = line.trim_start();
        if let Some(words) = trimmed.strip_prefix("```") {
            open = !open;
            if open {
                let word = words
                    .strip_prefix("sh")
                    .expect("every block is of commands")
                    .trim();
                blocks.push(Block {
                    line: at + 2,
                    word: word.to_owned(),
                    text: String::new(),
                });
            }
        } else if let (true, Some(block)) = (open, blocks.last_mut()) {
            // Of a list, indented.
            let margin = line.len() - trimmed.len();
            block.text.push_str(&line[margin.min(3)..]);
            block.text.push('\n');
        }
    }
    blocks
}

/// The host as the page has it: the API listens, and two parties are outside.
fn site() -> Site {
    let site = Site::raw();
    site.server.ip(&format!("addr add {API}/24 dev {INSIDE}"));
    site.server.ip(&format!("route add 198.51.100.0/24 dev {INSIDE}"));
    site.outside.ip(&format!("link set {OUTSIDE} up"));
    for party in [ACME, STRANGER] {
        site.outside.ip(&format!("addr add {party}/24 dev {OUTSIDE}"));
    }
    site.outside
        .ip(&format!("route add 203.0.113.0/24 dev {OUTSIDE}"));
    site
}

/// Whether a connection from this address is taken.
fn is_served(outside: &Namespace, from: &str) -> bool {
    let address = |ip: &str, port| SocketAddr::new(ip.parse().expect("an address"), port).into();
    outside.inside(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.bind(&address(from, 0)).expect("the address is ours");
        socket
            .connect_timeout(&address(API, 443), Duration::from_millis(500))
            .is_ok()
    })
}

/// Takes connections at the API's port until told to stop.
fn serve(server: &Namespace, stop: &AtomicBool) {
    server.enter();
    let listener = TcpListener::bind((API, 443)).expect("the port is free");
    listener.set_nonblocking(true).expect("a socket can be asked");
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut stream, _)) => drop(stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n")),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn run(machine: &Machine, block: &Block) -> String {
    let ended = machine.run(&["sh", "-euc", &block.text]);
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = said(&ended.stdout) + &said(&ended.stderr);
    println!("docs/OPERATIONS.md:{}:\n{}{all}", block.line, block.text);
    assert!(
        ended.status.success(),
        "docs/OPERATIONS.md:{}: {}\n{}{all}",
        block.line,
        ended.status,
        block.text
    );
    all
}

#[test]
fn its_commands_do_what_it_says() {
    let site = site();
    let files = Files::new();
    files.package("0.1.0", &DEB[1..]);
    let machine = files.boot(&[], &site.server, site.bpf.path());
    machine.dpkg(&["--install", DEB]);
    let stop = AtomicBool::new(false);
    let served = |from: &str| is_served(&site.outside, from);
    thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| serve(&site.server, &stop));
        until("the API answers", || served(ACME).then_some(()));
        let (mut enforced, mut open, mut observed) = (false, false, false);
        for block in blocks(&page()).iter().filter(|block| block.word == "run") {
            let said = run(&machine, block);
            let text = &block.text;
            // Each of the two comes again after each step, so that there is something to see in the next.
            let (acme, stranger) = (served(ACME), served(STRANGER));
            if text.contains("keyfence learn") {
                assert!(said.contains(ACME) && said.contains(STRANGER), "{said}");
            }
            enforced |= text.contains("/mode = \"enforce\"/");
            open = (open || text.contains("keyfence detach --yes")) && !text.contains("systemctl start");
            observed = (observed || text.contains("observe --for 15m")) && !text.contains("observe --for 0s");
            let line = block.line;
            assert!(acme, "docs/OPERATIONS.md:{line}: acme is served all along");
            assert_eq!(
                stranger,
                open || observed || !enforced,
                "docs/OPERATIONS.md:{line}: the stranger is served"
            );
        }
    });
}

/// A block waits for a command that this build does not have yet, and for no other reason.
#[test]
fn what_waits_is_not_there_yet() {
    for block in blocks(&page()).iter().filter(|block| block.word == "waits") {
        let verbs = block
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("keyfence ")?.split(' ').next());
        let missing = verbs.filter(|verb| {
            let mut help = keyfence_tests::harness::keyfence();
            !help
                .args(["help", verb])
                .output()
                .expect("keyfence can be started")
                .status
                .success()
        });
        assert!(
            missing.count() > 0,
            "docs/OPERATIONS.md:{}: `sh run` by now",
            block.line
        );
    }
}

/// The first column's words of the table whose heading begins so.
fn listed(heading: &str) -> Vec<String> {
    let page = page();
    let (_, table) = page
        .split_once(&format!("\n| {heading} |"))
        .expect("the table is there");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| Some(row.split('`').nth(1)?.to_owned()))
        .collect()
}

#[test]
fn every_reason_and_every_code_says_what_to_do() {
    let mut reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    reasons.sort_unstable();
    let mut told = listed("reason");
    told.sort();
    assert_eq!(told, reasons);

    let own = Code::ALL.iter().map(|code| (code.slug(), code.status().as_u16()));
    let all = own.chain(refusal::Code::ALL.iter().map(|code| (code.slug(), code.status())));
    let mut all: Vec<String> = all
        .map(|(slug, status)| format!("| `{slug}` | {status} |"))
        .collect();
    all.sort();
    all.dedup();
    let page = page();
    for row in &all {
        assert!(
            page.contains(row.as_str()),
            "{row} is missing in docs/OPERATIONS.md"
        );
    }
    assert_eq!(listed("code | status").len(), all.len(), "a code that is none");
}

#[test]
fn every_exit_code_is_told() {
    let page = page();
    for code in 0..=6 {
        assert!(page.contains(&format!("\n| {code} | ")), "{code}");
    }
}

/// The page's commands for the tarball, each run in a folder that has one tarball.
#[test]
fn tarball_is_installed_upgraded_and_removed_as_it_says() {
    const OPTIONS: &str = "/etc/default/keyfence";
    let page = page();
    let all: Vec<Block> = blocks(&page)
        .into_iter()
        .filter(|block| block.word == "tarball")
        .collect();
    let [install, upgrade, remove] = &all[..] else {
        panic!("{} blocks of the tarball", all.len())
    };
    let site = Site::new();
    let mut probe = Probe::open(&site);
    let files = Files::new();
    files.tarball("0.1.0", "opt/first");
    files.tarball("0.1.1", "opt/second");
    let machine = files.boot(&[], &site.server, site.bpf.path());
    let within = |folder: &str, block: &Block| {
        let text = format!("cd /opt/{folder}\n{}", block.text);
        let line = block.line;
        run(
            &machine,
            &Block {
                line,
                text,
                word: String::new(),
            },
        )
    };
    let state = |property: &str| machine.show("keyfence.service", property);

    within("first", install);
    assert_eq!(state("UnitFileState"), "enabled");
    assert_eq!(
        machine.ask(&["stat", "--format=%U %a", "/usr/bin/keyfence"]),
        "root 755"
    );
    let policy = format!(
        "version = 1\n[filter]\ninterfaces = [\"{INSIDE}\"]\n{}",
        Probe::ENTRIES
    );
    let write = format!("cat >/etc/keyfence/keyfence.toml <<'END'\n{policy}END\necho '# ours' >>{OPTIONS}");
    machine.ask(&["sh", "-c", &write]);
    probe.assert_open();
    machine.ask(&["systemctl", "start", "keyfence"]);
    probe.assert_filtered();

    // The filter goes on while the daemon is another.
    let before = state("MainPID");
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| within("second", upgrade));
        while !upgrade.is_finished() {
            probe.assert_filtered();
        }
        upgrade.join().expect("it has succeeded");
    });
    probe.assert_filtered();
    assert_ne!(state("MainPID"), before);
    assert_eq!(state("ActiveState"), "active");
    assert!(
        machine.ask(&["cat", OPTIONS]).ends_with("# ours"),
        "what was changed is kept"
    );

    within("second", remove);
    probe.assert_open();
    assert_gone(&machine);
}

/// What the tarball brought, and nothing else.
fn assert_gone(machine: &Machine) {
    let has = |path: &str| machine.run(&["test", "-e", path]).status.success();
    for gone in [
        "/usr/bin/keyfence",
        "/usr/lib/systemd/system/keyfence.service",
        "/sys/fs/bpf/keyfence/main",
    ] {
        assert!(!has(gone), "{gone}");
    }
    for kept in ["/etc/keyfence/keyfence.toml", "/var/lib/keyfence"] {
        assert!(has(kept), "{kept}");
    }
}
