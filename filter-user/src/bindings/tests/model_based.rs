//! Random operations against a model that is plain enough to be believed: answers, list, kernel and audit log agree
//! after each, over restarts, kills, refusals of the kernel and the passing of time.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::fixture::*;
use crate::bindings::refusal::Code;
use crate::bindings::requests::*;
use crate::bindings::seam::GrantError;
use crate::cases::cases;

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u8,
        source: u8,
        lease: u8,
        version: Option<u8>,
    },
    Delete {
        key: u8,
        version: Option<u8>,
    },
    Pass(u8),
    KernelRefuses,
    Restart,
    Kill,
}

#[derive(Clone, Debug, PartialEq)]
struct Plain {
    source: u8,
    version: Option<u8>,
    ends: i64,
}

#[derive(Default)]
struct Model {
    rows: BTreeMap<u8, Plain>,
    tombstones: BTreeMap<u8, u8>,
    now: i64,
}

impl Model {
    fn version_fault(&self, key: u8, given: Option<u8>, same: bool) -> Option<Code> {
        let row = self.rows.get(&key);
        let known = row.map_or(self.tombstones.get(&key).copied(), |row| row.version)?;
        match given {
            None => Some(Code::RowVersionRequired),
            Some(given) if given < known => Some(Code::StaleRowVersion),
            Some(given) if given == known && !(row.is_some() && same) => Some(Code::StaleRowVersion),
            Some(_) => None,
        }
    }

    fn put(&mut self, key: u8, plain: Plain) -> Result<(), Code> {
        let same = self.rows.get(&key).is_some_and(|row| row.source == plain.source);
        if let Some(code) = self.version_fault(key, plain.version, same) {
            return Err(code);
        }
        self.rows.insert(key, plain);
        self.tombstones.remove(&key);
        Ok(())
    }

    fn delete(&mut self, key: u8, version: Option<u8>) -> Result<bool, Code> {
        match self.rows.get(&key) {
            Some(row) => {
                let kept = version.or(row.version);
                if let Some(code) = self.version_fault(key, version, true) {
                    return Err(code);
                }
                self.rows.remove(&key);
                if let Some(version) = kept {
                    self.tombstones.insert(key, version);
                }
                Ok(true)
            }
            None => {
                if let Some(version) = version {
                    let kept = self.tombstones.entry(key).or_insert(version);
                    *kept = version.max(*kept);
                }
                Ok(false)
            }
        }
    }

    fn running(&self) -> Vec<u8> {
        let running = self.rows.iter().filter(|(_, row)| row.ends > self.now);
        running.map(|(key, _)| *key).collect()
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let version = || prop::option::of(0u8..6);
    let step = prop_oneof![
        8 => (0u8..5, 0u8..3, 1u8..40, version())
            .prop_map(|(key, source, lease, version)| Step::Put { key, source, lease, version }),
        4 => (0u8..5, version()).prop_map(|(key, version)| Step::Delete { key, version }),
        2 => (1u8..30).prop_map(Step::Pass),
        1 => Just(Step::KernelRefuses),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 1..40)
}

async fn check(f: &Fixture, model: &Model) {
    f.settle().await;
    let list = f.list("gateway").await;
    let shown: BTreeMap<u8, (String, State)> = list
        .iter()
        .map(|item| {
            let key = item.credential.strip_prefix("key-").unwrap().parse().unwrap();
            (key, (item.sources[0].to_string(), item.state))
        })
        .collect();
    let expected = model.rows.iter().map(|(key, row)| {
        let state = if row.ends > model.now {
            State::Active
        } else {
            State::Ended
        };
        (*key, (format!("192.0.2.{}/32", row.source), state))
    });
    assert_eq!(shown, expected.collect());
    let owners: Vec<String> = model
        .running()
        .iter()
        .map(|key| format!("binding/gateway/key-{key}"))
        .collect();
    assert_eq!(f.kernel.owners(), owners);
    for key in model.running() {
        let granted = f.kernel.owner(&format!("binding/gateway/key-{key}")).unwrap();
        let end = START.monotonic_ns + model.rows[&key].ends.unsigned_abs() * 1_000_000_000;
        assert_eq!(granted.end, end);
    }
    crate::bindings::audit::verify(&f.audit_path(), None).unwrap();
}

async fn run(steps: Vec<Step>) {
    let mut f = start();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Put {
                key,
                source,
                lease,
                version,
            } => {
                let mut text = body(&format!("192.0.2.{source}"), lease.into());
                if let Some(version) = version {
                    text = text.replace('}', &format!(", \"row_version\": {version}}}"));
                }
                let ends = model.now + i64::from(lease);
                let expected = model.put(
                    key,
                    Plain {
                        source,
                        version,
                        ends,
                    },
                );
                let answer = f.put(&format!("key-{key}"), &text).await;
                assert_eq!(answer.map(drop).map_err(|refusal| refusal.code), expected);
            }
            Step::Delete { key, version } => {
                let expected = model.delete(key, version);
                let answer = f.delete(&format!("key-{key}"), version.map(u64::from)).await;
                assert_eq!(
                    answer.map(|a| a.removed).map_err(|refusal| refusal.code),
                    expected
                );
            }
            Step::Pass(seconds) => {
                model.now += i64::from(seconds);
                f.clock.pass(seconds.into());
            }
            Step::KernelRefuses => {
                f.settle().await;
                f.kernel.held.lock().unwrap().refuse = Some(GrantError::Failed("no".to_owned()));
                let fresh = f.put("key-9", &body("192.0.2.9", 60)).await;
                assert_eq!(code(fresh), Code::Unavailable);
            }
            Step::Restart => f = f.restart().await,
            Step::Kill => {
                let (folder, clock) = f.kill().await;
                f = start_in(folder, clock, POLICY);
            }
        }
        check(&f, &model).await;
    }
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn answers_list_kernel_and_log_agree_with_a_plain_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
