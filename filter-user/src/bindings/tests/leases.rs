//! Leases over time, sleep and reboots; holds; what a policy suspends and resumes.

use super::fixture::*;
use crate::bindings::requests::*;

fn events(lines: &[serde_json::Value]) -> Vec<String> {
    let event = |line: &serde_json::Value| {
        let of = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        format!("{} {}", of("what"), of("credential"))
    };
    let told = lines.iter().filter(|line| line["what"] != "renewals");
    told.map(event).collect()
}

#[tokio::test]
async fn lease_ends_on_time_and_a_put_puts_it_in_force_again() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 60)).await.unwrap();
    f.clock.pass(59);
    f.settle().await;
    assert_eq!(f.state("gateway", "key-1"), State::Active);
    // A renewal at the last moment.
    f.put("key-1", &body("192.0.2.1", 60)).await.unwrap();
    f.clock.pass(59);
    f.settle().await;
    assert_eq!(f.kernel.owners().len(), 1);
    f.clock.pass(1);
    assert_eq!(f.state("gateway", "key-1"), State::Ended);
    f.settle().await;
    assert!(f.kernel.owners().is_empty());
    assert_eq!(events(&f.audit_lines()), ["put key-1", "expire key-1"]);
    let again = f.put("key-1", &body("192.0.2.1", 60)).await.unwrap();
    assert_eq!(
        (again.outcome, again.binding.state),
        (Outcome::Renewed, State::Active)
    );
    assert_eq!(f.kernel.owners().len(), 1);
    // A day after its end it is gone.
    f.clock.pass(60);
    f.settle().await;
    f.clock.pass(24 * 3_600 - 1);
    f.settle().await;
    assert_eq!(f.list("gateway").await.len(), 1);
    f.clock.pass(1);
    f.settle().await;
    assert!(f.list("gateway").await.is_empty());
}

#[tokio::test]
async fn jumps_of_the_wall_clock_change_no_lease() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 60)).await.unwrap();
    for years in [10, -20] {
        f.clock.change(|now| now.wall_ms += years * 365 * 86_400_000);
        f.settle().await;
        assert_eq!(f.state("gateway", "key-1"), State::Active);
        // Nor what is told to be left of it.
        let shown = f.bindings.get("gateway", "key-1").unwrap();
        assert_eq!(shown.ends_in_ms, Some(60_000));
    }
    let f = f.restart().await;
    assert_eq!(f.kernel.owners().len(), 1);
    f.clock.pass(60);
    f.settle().await;
    assert!(f.kernel.owners().is_empty());
}

#[tokio::test]
async fn after_a_suspend_the_kernel_learns_the_ends_anew() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    f.put("key-2", &body("192.0.2.1", 100)).await.unwrap();
    // Asleep: the monotonic clock stands still.
    f.clock.change(|now| {
        now.boot_ms += 300_000;
        now.wall_ms += 300_000;
    });
    f.settle().await;
    let left = f.kernel.owner("binding/gateway/key-1").unwrap().end - START.monotonic_ns;
    assert_eq!(left, 300_000_000_000);
    assert_eq!(
        f.kernel.owner("binding/gateway/key-2"),
        None,
        "it ended in the sleep"
    );
}

#[tokio::test]
async fn after_a_reboot_with_a_wrong_clock_nobody_has_more_than_was_left() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    f.clock.pass(60);
    f.put("key-2", &body("192.0.2.2", 600)).await.unwrap();
    f.clock.change(|now| {
        now.wall_ms = 0;
        now.boot_ms = 20_000;
        now.monotonic_ns = 20_000_000_000;
        now.boot_id = 2;
    });
    let f = f.restart().await;
    let left = |f: &Fixture, owner: &str| f.kernel.owner(owner).map(|g| g.end / 1_000_000_000 - 20);
    assert_eq!(left(&f, "binding/gateway/key-1"), Some(540));
    assert_eq!(left(&f, "binding/gateway/key-2"), Some(600));
    // Another reboot, an hour later by a right clock: over, and told.
    f.clock.change(|now| {
        *now = START;
        now.wall_ms += 3_600_000;
        now.boot_ms = 5_000;
        now.boot_id = 3;
    });
    let f = f.restart().await;
    assert!(f.kernel.owners().is_empty());
    f.settle().await;
    assert_eq!(f.state("gateway", "key-1"), State::Ended);
    let lines = events(&f.audit_lines());
    assert!(lines.contains(&"expire key-2".to_owned()), "{lines:?}");
}

#[tokio::test]
async fn several_boots_with_a_wrong_clock_give_nobody_more_than_was_left() {
    let mut f = start();
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    for boot in 2..6_u32 {
        f.clock.change(|now| {
            now.wall_ms = 0;
            now.boot_ms = 10_000;
            now.monotonic_ns = 10_000_000_000;
            now.boot_id = boot.into();
        });
        f = f.restart().await;
        let owner = f.kernel.owner("binding/gateway/key-1").unwrap();
        let left = owner.end / 1_000_000_000 - 10;
        assert_eq!(left, 600 - 100 * u64::from(boot - 2), "boot {boot}");
        // Until what is written says so in this boot's time.
        f.clock.pass(100);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while f
            .bindings
            .shared
            .store
            .leases_of_other_boots(boot.into())
            .unwrap()
            > 0
        {
            assert!(std::time::Instant::now() < deadline, "it was never folded");
            f.bindings.shared.nudge.notify_one();
            tokio::task::yield_now().await;
        }
        f.put("key-2", &body("192.0.2.2", 30)).await.unwrap();
    }
}

#[tokio::test]
async fn held_leases_admit_until_their_publisher_succeeds_and_never_hold_a_delete() {
    let f = start();
    let put = |credential: &'static str| {
        let (f, text) = (&f, body("192.0.2.1", 30));
        async move {
            f.put_as("holding", credential, &text, Conditions::default())
                .await
                .unwrap()
        }
    };
    put("key-1").await;
    put("key-2").await;
    let owner = f.kernel.owner("binding/holding/key-1").unwrap();
    assert_eq!(
        owner.end,
        START.monotonic_ns + 90_000_000_000,
        "the hold is in the kernel's end"
    );
    f.clock.pass(40);
    f.settle().await;
    assert_eq!(f.state("holding", "key-1"), State::Held);
    assert_eq!(f.kernel.owners().len(), 2);
    assert_eq!(f.bindings.status().alarms.len(), 1);
    // Over a restart the hold goes on.
    let f = f.restart().await;
    assert_eq!(f.state("holding", "key-1"), State::Held);
    assert_eq!(f.kernel.owners().len(), 2);
    f.settle().await;
    let delete = Delete {
        publisher: "holding".to_owned(),
        credential: "key-2".to_owned(),
        row_version: None,
        conditions: Conditions::default(),
    };
    // An operator's success is not the publisher's.
    f.bindings.delete(&operator(), delete).await.unwrap();
    assert_eq!(f.kernel.owners(), ["binding/holding/key-1"]);
    f.bindings.succeeded("holding");
    f.settle().await;
    assert_eq!(f.state("holding", "key-1"), State::Ended);
    assert!(f.kernel.owners().is_empty() && f.bindings.status().alarms.is_empty());
    // It has written nothing else, and yet a restart changes nothing.
    let f = f.restart().await;
    f.settle().await;
    assert_eq!(f.state("holding", "key-1"), State::Ended);
    assert!(f.kernel.owners().is_empty());
    let last = events(&f.audit_lines()).pop();
    assert_eq!(last.as_deref(), Some("expire key-1"));
}

#[tokio::test]
async fn success_counts_for_nobody_before_it_is_on_disk() {
    let f = start();
    let text = body("192.0.2.1", 30);
    f.put_as("holding", "key-1", &text, Conditions::default())
        .await
        .unwrap();
    f.clock.pass(40);
    f.settle().await;
    f.bindings.succeeded("holding");
    // The writer has not run since: a crash now leaves it held, and nobody was told otherwise.
    assert_eq!(f.state("holding", "key-1"), State::Held);
    let (folder, clock) = f.kill().await;
    let f = start_in(folder, clock, POLICY);
    assert_eq!(f.state("holding", "key-1"), State::Held);
    assert_eq!(f.kernel.owners().len(), 1);
}

#[tokio::test]
async fn success_between_an_end_and_its_timer_ends_the_lease() {
    let f = start();
    let text = body("192.0.2.1", 30);
    f.clock.change(|now| now.boot_ms += 300);
    f.put_as("holding", "key-1", &text, Conditions::default())
        .await
        .unwrap();
    f.clock.pass(30);
    f.clock.change(|now| now.boot_ms += 100);
    f.bindings.succeeded("holding");
    f.clock.pass(1);
    f.settle().await;
    f.settle().await;
    assert_eq!(f.state("holding", "key-1"), State::Ended);
    let f = f.restart().await;
    assert_eq!(f.state("holding", "key-1"), State::Ended);
}

#[tokio::test]
async fn hold_ends_by_itself() {
    let f = start();
    let text = body("192.0.2.1", 30);
    f.put_as("holding", "key-1", &text, Conditions::default())
        .await
        .unwrap();
    f.clock.pass(30);
    f.settle().await;
    assert_eq!(f.kernel.owners().len(), 1);
    f.clock.pass(60);
    assert_eq!(f.state("holding", "key-1"), State::Ended);
    f.settle().await;
    assert!(f.kernel.owners().is_empty() && f.bindings.status().alarms.is_empty());
}

#[tokio::test]
async fn policy_suspends_and_resumes_and_deletes_nothing() {
    let f = start();
    f.put("key-1", &body("192.0.2.1", 600)).await.unwrap();
    let ledger = body("192.0.2.2", 600).replace("payments", "ledger");
    f.put("key-2", &ledger).await.unwrap();
    let without = POLICY.replacen(
        r#"services = ["payments", "ledger"]"#,
        r#"services = ["payments"]"#,
        1,
    );
    f.apply(&without);
    f.settle().await;
    assert_eq!(f.kernel.owners(), ["binding/gateway/key-1"]);
    let shown = f.bindings.get("gateway", "key-2").unwrap();
    assert_eq!(shown.state, State::Suspended);
    assert_eq!(
        shown.suspended_because.unwrap(),
        "the publisher may not open ledger"
    );
    // What is suspended can be renewed by nobody under this policy, and its lease runs on.
    assert!(f.put("key-2", &ledger).await.is_err());
    f.clock.pass(300);
    f.apply(POLICY);
    f.settle().await;
    assert_eq!(f.state("gateway", "key-2"), State::Active);
    let end = f.kernel.owner("binding/gateway/key-2").unwrap().end;
    assert_eq!(end, START.monotonic_ns + 600_000_000_000);
    let lines = events(&f.audit_lines());
    assert_eq!(lines, ["put key-1", "put key-2", "suspend key-2", "resume key-2"]);
    // A publisher that is gone has nothing in force.
    f.apply(&POLICY.replace("name = \"gateway\"", "name = \"another\""));
    f.settle().await;
    assert!(f.kernel.owners().is_empty());
    assert_eq!(f.list("gateway").await.len(), 2);
}

#[tokio::test]
async fn write_that_meets_a_policy_change_is_judged_by_the_new_one() {
    let f = start();
    // In force in the kernel, but not yet told to the bindings.
    {
        let mut held = f.kernel.held.lock().unwrap();
        held.epoch += 1;
        held.policy = policy(&POLICY.replacen(
            r#"services = ["payments", "ledger"]"#,
            r#"services = ["ledger"]"#,
            1,
        ));
    }
    let answer = f.put("key-1", &body("192.0.2.1", 60)).await;
    assert_eq!(code(answer), crate::bindings::refusal::Code::ServiceNotAllowed);
    f.put("key-1", &body("192.0.2.1", 60).replace("payments", "ledger"))
        .await
        .unwrap();
    assert_eq!(f.kernel.owners().len(), 1);
}
