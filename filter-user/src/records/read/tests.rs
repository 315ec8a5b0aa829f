//! Questions to logs that were written by hand.

use super::*;

fn line(sequence: u64, source: &str, reason: &str, packets: u64) -> String {
    let minute = sequence;
    let address = source.contains('/').then_some(source);
    let ip = source.split('/').next();
    let record = json!({
        "event": {
            "sequence": sequence,
            "start": format!("2026-11-22T12:{minute:02}:00Z"),
            "end": format!("2026-11-22T12:{minute:02}:10Z"),
        },
        "source": { "ip": ip, "address": address },
        "network": { "packets": packets, "bytes": packets * 60 },
        "keyfence": { "kind": "record", "verdict": "drop", "reason": reason, "service": "web" },
    });
    format!("{record}\n")
}

/// A log with what it was moved to.
fn written(folder: &Path) -> Vec<PathBuf> {
    let log = folder.join("drops.jsonl");
    let old = folder.join("drops.jsonl.1");
    let checkpoint = "{\"keyfence\":{\"kind\":\"checkpoint\"}}\n";
    fs::write(&old, line(1, "10.0.0.1", "unlisted", 5) + checkpoint).unwrap();
    let torn = "{\"event\":";
    let newest = [
        line(2, "10.0.0.2", "denied", 7),
        line(3, "10.0.0.1", "unlisted", 1),
        line(4, "10.0.0.0/16", "unlisted", 9),
    ];
    fs::write(&log, newest.concat() + torn).unwrap();
    let files = files(&log).unwrap();
    assert_eq!(files, [old, log]);
    files
}

fn from(text: &str) -> Query {
    Query {
        source: text.parse().ok(),
        ..Query::default()
    }
}

#[test]
fn what_matches_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let files = written(folder.path());
    let limit = 10;
    let found = |query: Query| {
        let answer = answer(&files, &Query { limit, ..query }).unwrap();
        let records = answer["records"].as_array().unwrap().iter();
        records
            .map(|record| record["event"]["sequence"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    // A network's record may be of the one who is sought.
    assert_eq!(found(from("10.0.0.1")), [1, 3, 4]);
    assert_eq!(found(from("10.0.0.0/24")), [1, 2, 3, 4]);
    assert!(found(from("192.0.2.1")).is_empty());
    let reason = Some("denied".to_owned());
    assert_eq!(
        found(Query {
            reason,
            ..Query::default()
        }),
        [2]
    );
    assert_eq!(
        found(Query {
            after: Some(2),
            ..Query::default()
        }),
        [3, 4]
    );
    let (since, until) = (
        "2026-11-22T12:02:05Z".parse().ok(),
        "2026-11-22T12:03:30Z".parse().ok(),
    );
    assert_eq!(
        found(Query {
            since,
            until,
            ..Query::default()
        }),
        [2, 3]
    );
    assert!("nobody".parse::<Sought>().is_err());
}

#[test]
fn what_matches_is_added_up() {
    let folder = tempfile::tempdir().unwrap();
    let files = written(folder.path());
    let ask = |query: Query| answer(&files, &query).unwrap();
    let limit = 10;
    let all = ask(Query {
        limit,
        top: 2,
        ..Query::default()
    });
    assert_eq!(all["matched"]["packets"]["drop"], 22);
    assert_eq!(
        (&all["matched"]["records"], &all["last_sequence"]),
        (&4.into(), &4.into())
    );
    assert_eq!(all["top"][0]["source"], "10.0.0.0/16");
    assert_eq!(
        (&all["top"][1]["source"], &all["top"][1]["bytes"]),
        (&"10.0.0.2".into(), &420.into())
    );
    let one = ask(Query {
        limit: 1,
        ..Query::default()
    });
    assert_eq!(
        (
            one["records"].as_array().unwrap().len(),
            &one["records"][0]["event"]["sequence"]
        ),
        (1, &4.into())
    );
}

#[test]
fn network_around_an_address_is_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let files = written(folder.path());
    let ask = |query: Query| answer(&files, &query).unwrap();
    let host = ask(from("10.0.0.1"));
    assert_eq!(
        (&host["of_networks"], &host["not_compared"]),
        (&9.into(), &0.into())
    );
    let hint = host["hint"].as_str().unwrap();
    assert!(
        hint.starts_with("9 of the packets are recorded for a network around"),
        "{hint}"
    );
    assert_eq!(
        ask(from("10.0.0.0/8"))["hint"],
        Value::Null,
        "all of it is in there"
    );
}

#[test]
fn address_is_found_behind_its_pseudonym_by_who_has_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let (log, key) = (
        folder.path().join("drops.jsonl"),
        folder.path().join("records.key"),
    );
    fs::write(&key, [7; 32]).unwrap();
    let pseudonyms = Pseudonyms::read(&key).unwrap();
    let hidden = |sequence, host: &str, packets| {
        let record = line(sequence, host, "unlisted", packets);
        let address = format!("\"{}\"", pseudonyms.of(host.parse().unwrap()));
        let record = record.replace("\"address\":null", &format!("\"address\":{address}"));
        record.replace(&format!("\"ip\":\"{host}\""), "\"ip\":null")
    };
    let lines = [
        hidden(1, "10.0.0.1", 5),
        hidden(2, "10.0.0.2", 7),
        // Before addresses were hidden.
        line(3, "10.0.0.1", "unlisted", 2),
    ];
    fs::write(&log, lines.concat()).unwrap();
    let ask = |text: &str, pseudonyms: Option<&Pseudonyms>| {
        let query = Query {
            source: text.parse().ok(),
            pseudonyms: pseudonyms.cloned(),
            ..Query::default()
        };
        answer(std::slice::from_ref(&log), &query).unwrap()
    };
    let found = |answer: &Value| {
        (
            answer["matched"]["packets"]["drop"].clone(),
            answer["not_compared"].clone(),
        )
    };
    let known = ask("10.0.0.1", Some(&pseudonyms));
    assert_eq!(
        (found(&known), &known["hint"]),
        ((7.into(), 0.into()), &Value::Null)
    );
    assert_eq!(found(&ask("10.0.0.3", Some(&pseudonyms))), (0.into(), 0.into()));
    let own = pseudonyms.of("10.0.0.2".parse().unwrap());
    assert_eq!(found(&ask(&own, None)), (7.into(), 0.into()));
    let unknown = ask("10.0.0.1", None);
    assert_eq!(found(&unknown), (2.into(), 12.into()));
    assert!(
        unknown["hint"]
            .as_str()
            .unwrap()
            .contains("where their key is at hand")
    );
    let prefix = ask("10.0.0.0/24", Some(&pseudonyms));
    assert_eq!(found(&prefix), (2.into(), 12.into()));
    assert!(
        prefix["hint"]
            .as_str()
            .unwrap()
            .contains("cannot be compared with a prefix")
    );
}
