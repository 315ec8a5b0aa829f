//! Policies over the API, for good and for a time.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use keyfence_tests::harness::until;
use serde_json::{Value, json};

use super::actions::Storm;

/// Of the kernel, until it goes back by itself.
const SECONDS: u64 = 1;

impl Storm<'_> {
    /// Another policy; gives the hash of the one before.
    pub(super) fn apply(&mut self, confirm_seconds: Option<u64>) -> Value {
        self.write_policy();
        let text = fs::read_to_string(self.site.policy_file()).expect("it is there");
        let body = json!({
            "root": "keyfence.toml",
            "files": {"keyfence.toml": text},
            "confirm_seconds": confirm_seconds,
        });
        self.done("POST", "/v1/policy/apply", &body)["base"].clone()
    }

    /// Changes of bindings meanwhile are in force either way.
    pub(super) fn apply_for_a_time(&mut self) {
        let way = self.below(4);
        let base = match way {
            0 | 1 => self.apply(Some(60)),
            _ => self.apply(Some(SECONDS)),
        };
        self.bind(false);
        self.unbind();
        match way {
            0 => drop(self.done("POST", "/v1/policy/confirm", &Value::Null)),
            1 => drop(self.done("POST", "/v1/policy/rollback", &Value::Null)),
            2 => {}
            // The kernel goes back alone.
            _ => {
                self.kill();
                sleep(Duration::from_secs(SECONDS) + Duration::from_millis(100));
                self.start();
            }
        }
        if way != 0 {
            until("the policy before is back", || {
                (self.daemon().status()["policy"]["hash"] == base).then_some(())
            });
        }
    }
}
