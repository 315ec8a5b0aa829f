//! One batch after another.

use tokio::time::timeout;

use super::fixture::*;
use super::streams::{PATIENCE, end, put_line};
use crate::bindings::requests::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_batch_may_begin_as_soon_as_the_summary_of_the_one_before_is_read() {
    let f = start();
    for round in 0..500 {
        let begun = f.bindings.batch(&actor("gateway"), "gateway", false);
        let (mut input, mut output) = begun.unwrap_or_else(|refusal| panic!("{round}: {refusal:?}"));
        tokio::spawn(async move {
            let lines = format!("{}\n{}\n", put_line("key-1", "192.0.2.1"), end(1));
            input.push(lines.as_bytes()).await.unwrap();
            input.finish().await.unwrap();
        });
        let told = timeout(PATIENCE, output.next()).await.unwrap();
        assert!(matches!(told, Some(BatchLine::Summary { .. })), "{told:?}");
    }
}
