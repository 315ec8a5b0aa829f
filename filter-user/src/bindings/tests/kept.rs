//! Full syncs beside other writes: what these left is kept, and counted.

use tokio::time::timeout;

use super::fixture::*;
use super::streams::{PATIENCE, end, put_line};
use crate::bindings::requests::*;

#[tokio::test]
async fn sync_counts_as_kept_what_others_write_while_it_is_read() {
    let f = start();
    let lines: Vec<String> = (0..4)
        .map(|at| {
            let line = put_line(&format!("key-{at}"), "192.0.2.1");
            line.replace("\"lease_seconds\": 600", "\"lease_seconds\": null") + "\n"
        })
        .collect();
    let options = || SyncOptions {
        publisher: "endless".to_owned(),
        ..SyncOptions::default()
    };
    let publisher = actor("endless");
    for (written, kept, unchanged) in [(false, 0, 0), (true, 3, 2)] {
        let mut input = f.bindings.sync(&publisher, options()).unwrap();
        input.push(lines.concat().as_bytes()).await.unwrap();
        if written {
            // All four were as they stood when their lines were read.
            let put = |credential: &str| Put {
                publisher: "endless".to_owned(),
                credential: credential.to_owned(),
                body: body("192.0.2.99", 60).into(),
                conditions: Conditions::default(),
            };
            f.bindings.put(&publisher, put("key-1")).await.unwrap();
            f.bindings.put(&publisher, put("new")).await.unwrap();
            let delete = Delete {
                publisher: "endless".to_owned(),
                credential: "key-2".to_owned(),
                row_version: None,
                conditions: Conditions::default(),
            };
            f.bindings.delete(&publisher, delete).await.unwrap();
        }
        input.push(format!("{}\n", end(4)).as_bytes()).await.unwrap();
        let summary = timeout(PATIENCE, input.finish()).await.unwrap().unwrap();
        let counts = (summary.kept_newer, summary.unchanged, summary.revoked);
        assert_eq!(counts, (kept, unchanged, 0));
    }
}
