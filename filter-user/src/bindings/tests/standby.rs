//! A policy stands by: what is pushed is told as that policy has it, beside the one in force.

use super::fixture::*;
use crate::bindings::seam::Change;

/// What was told, without its content.
fn short(change: &Change) -> (&'static str, &str) {
    let what = match change {
        Change::Put(_) => "put",
        Change::End { .. } => "end",
        Change::Remove { .. } => "remove",
        Change::Kept { .. } => "kept",
        Change::Deny { name, .. } => return ("deny", name),
        Change::Undeny { name } => return ("undeny", name),
    };
    (what, change.owner().unwrap())
}

#[tokio::test]
async fn what_stands_by_is_told_what_holds_under_it() {
    let f = start();
    f.put("before", &body("192.0.2.9", 60)).await.unwrap();
    let less = POLICY.replace(
        "services = [\"payments\", \"ledger\"]",
        "services = [\"payments\"]",
    );
    f.kernel.held.lock().unwrap().standby = Some((7, policy(&less)));
    let of_ledger = body("192.0.2.2", 60).replace("payments", "ledger");
    f.put("both", &body("192.0.2.1", 60)).await.unwrap();
    f.put("one", &of_ledger).await.unwrap();
    f.put("one", &body("192.0.2.2", 60)).await.unwrap();
    f.put("one", &of_ledger).await.unwrap();
    f.delete("both", None).await.unwrap();
    let held = f.kernel.held.lock().unwrap();
    let told: Vec<_> = held.told_standby.iter().map(short).collect();
    let [both, one] = ["both", "one"].map(|name| format!("binding/gateway/{name}"));
    let expected = [
        ("put", both.as_str()),
        ("kept", &one),
        ("put", &one),
        ("remove", &one),
        ("remove", &both),
    ];
    assert_eq!(told, expected);
    // All the while it was in force as the policy there has it.
    let in_force: Vec<&str> = held.owners.keys().map(AsRef::as_ref).collect();
    assert_eq!(in_force, ["binding/gateway/before", &one]);
}
