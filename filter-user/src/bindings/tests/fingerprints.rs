//! Keys under one scheme and the other, while publishers change over.

use std::sync::Arc;

use super::fixture::*;
use crate::bindings::requests::*;

const KEY: &str = "the-key";
/// `printf %s the-key | sha256sum`, and the same with `openssl dgst -sha256 -hmac s`.
const PLAIN: &str = "sha256:ad44dc8e51cfbfa55e81ddbb626b466241069045066846e7e4cd096131505290";
const KEYED: &str = "hmac-sha256:k1:a1d335e5ba36d1ed4c4dabfe1e6009aacd7558194968fb226a178eaf6985c254";

fn verdict(f: &Fixture) -> (Verdict, String) {
    let answer = f.bindings.authorize(&Ask {
        service: "payments",
        key: AskedKey::Secret(KEY.as_bytes()),
        address: "192.0.2.1".parse().unwrap(),
        source_port: None,
        observing: [false; 2],
    });
    (answer.verdict, answer.credential)
}

fn alarm(f: &Fixture) -> Option<String> {
    let mut alarms = f.bindings.status().alarms.into_iter();
    alarms.find(|alarm| alarm.contains("hmac-sha256:"))
}

#[tokio::test]
async fn plain_fingerprint_is_found_until_the_keyed_one_takes_its_place_and_none_is_lost_without_a_word() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let secret = folder.path().join("k1");
    std::fs::write(&secret, "s\n").unwrap();
    let keyed = format!(
        "{POLICY}[credentials]\nscheme = \"hmac-sha256\"\nsecret-files = [{{ id = \"k1\", file = \"{}\" }}]\n",
        secret.display()
    );
    let allowed = |credential: &str| (Verdict::Allowed, credential.to_owned());
    let f = start_in(folder, start().clock, POLICY);
    f.put(PLAIN, &body("192.0.2.1", 3_600)).await.unwrap();
    assert_eq!(verdict(&f), allowed(PLAIN));
    assert_eq!(f.bindings.unfound_under(&policy(&keyed)), None);

    // The daemon is restarted with the scheme, and the publisher follows.
    let (folder, clock) = f.stop().await;
    let f = start_in(folder, clock, &keyed);
    assert_eq!((verdict(&f), alarm(&f)), (allowed(PLAIN), None));
    f.put(KEYED, &body("192.0.2.1", 3_600)).await.unwrap();
    assert_eq!((verdict(&f), alarm(&f)), (allowed(KEYED), None));
    f.delete(PLAIN, None).await.unwrap();
    assert_eq!(verdict(&f), allowed(KEYED));
    // Whoever would go back is told.
    let told = f.bindings.unfound_under(&policy(POLICY)).unwrap();
    assert!(
        told.contains("1 binding stands as hmac-sha256:…") && told.contains("(k1)"),
        "{told}"
    );

    let (folder, clock) = f.stop().await;
    let f = start_in(folder, clock, POLICY);
    assert_eq!(verdict(&f).0, Verdict::Unknown);
    assert_eq!(alarm(&f).as_ref(), Some(&told));
    assert_eq!(
        f.bindings.not_ready(),
        Vec::<String>::new(),
        "a publisher alone does not make a daemon unready"
    );
    f.clock.pass(3_600);
    assert_eq!(alarm(&f), None, "it has ended");
}

#[tokio::test]
async fn credentials_of_clients_are_counted_too() {
    let two = POLICY.replace(
        "\"acme-key\"",
        &format!("\"{KEYED}\", \"{}\"", KEYED.replace("k1", "k2")),
    );
    assert_ne!(two, POLICY);
    let f = start();
    f.put(&KEYED.replace("k1", "k9"), &body("192.0.2.1", 60))
        .await
        .unwrap();
    let told = f.bindings.unfound_under(&policy(&two)).unwrap();
    let parts = [
        "1 binding and 2 credentials of clients stand as",
        "(k1, k2, k9): authorize will not find",
    ];
    assert!(parts.iter().all(|part| told.contains(part)), "{told}");
}
