//! Who may capture, and what is refused before anything is put in a packet's way. The live tests have the rest.

use std::collections::{HashMap, HashSet};

use super::fixture::{Running, me};
use super::*;
use crate::kernel::capture::Tap;
use crate::records::Naming;

/// Knows no names.
struct Nobody;

impl Naming for Nobody {
    fn service(&self, _number: u32) -> Option<String> {
        None
    }
    fn owners(&self, _numbers: &HashSet<u32>) -> HashMap<u32, String> {
        HashMap::new()
    }
    fn interface(&self, _number: u32) -> Option<String> {
        None
    }
}

/// Without a filter behind them.
fn captures(most: usize) -> Captures {
    let tap = Tap::new("/no/such/folder/DESK".into());
    Captures::new(Arc::new(tap), Arc::new(Nobody), most)
}

#[tokio::test]
async fn only_operators_capture() {
    let running = Running::capturing(&[], captures(1)).await;
    let answer = running.ask("GET /v1/capture", "").await;
    answer.is_problem(403, "not-an-operator");
    // What is asked for is read first: a fault is told to anyone.
    let answer = running.ask("GET /v1/capture?verdict=dropped", "").await;
    answer.is_problem(400, "bad-query");
}

#[tokio::test]
async fn capture_that_cannot_begin_says_why() {
    let running = Running::capturing(&[&me()], captures(1)).await;
    let answer = running.ask("GET /v1/capture", "").await;
    answer.is_problem(500, "capture-failed");
    let answer = running.ask("GET /v1/capture?service=none", "").await;
    answer.is_problem(400, "bad-query");
    let full = Running::capturing(&[&me()], captures(0)).await;
    let answer = full.ask("GET /v1/capture", "").await;
    answer.is_problem(409, "captures-max");
}
