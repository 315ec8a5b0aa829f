//! What the kernel has counted and no daemon will write any more: written when the filter is taken off without one.
//!
//! The tables are opened before the pins go and read after the links are gone, so that no packet comes behind it. With a
//! daemon alive they are its own, and it writes them itself. Exact once: a command that is killed in between loses what
//! it had not written, since nothing is left that could be asked again. docs/RECORDS.md says so.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::sync::Arc;

use nix::net::if_::if_indextoname;

use super::{Kernel, Naming, Records};
use crate::compiler::{owner_hash, owner_name};
use crate::engine;
use crate::kernel::pins::{Found, Pins};
use crate::kernel::records::{Accounting, packets};
use crate::kernel::state::State;
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::policy::model::SinkType;

/// What is left to be written; made before the pins go.
pub struct Last(Left);

enum Left {
    /// A daemon has the tables, or there are none.
    Nothing,
    /// `policy` names the sinks; `Err` is why there are none.
    Tables {
        pins: Pins,
        accounting: Accounting,
        policy: Result<Box<Policy>, String>,
    },
    Unreadable(String),
}

impl Last {
    /// Looks at the pins of an instance; `file` is the policy that its daemon ran by.
    pub fn before(pins: &Pins, file: &Path, instance: &str) -> Self {
        match pins.look() {
            // What is missing is told below.
            Ok(Found::Ours(_) | Found::Torn(_)) => {}
            Ok(Found::Other(meta)) => {
                let version = meta.layout_version;
                return Self(Left::Unreadable(format!(
                    "they are of an older layout (version {version})"
                )));
            }
            Ok(Found::Nothing | Found::Half) => return Self(Left::Nothing),
            Err(error) => return Self(Left::Unreadable(error.to_string())),
        }
        // A daemon that lives holds it, and writes what is left by itself.
        match pins.lock() {
            Ok(Some(_)) => {}
            Ok(None) => return Self(Left::Nothing),
            Err(error) => return Self(Left::Unreadable(error.to_string())),
        }
        let opened = pins
            .check_shapes()
            .map_err(|error| error.to_string())
            .and_then(|()| Accounting::pinned(pins).map_err(|error| error.to_string()));
        Self(match opened {
            Ok(accounting) => Left::Tables {
                pins: pins.clone(),
                accounting,
                policy: policy(file, instance).map(Box::new),
            },
            Err(why) => Left::Unreadable(why),
        })
    }

    /// `detach`, and what was left goes to the sinks. Answers what a person should hear of it, a line each.
    pub fn write_after<E>(self, detach: impl FnOnce() -> Result<(), E>) -> Result<Vec<String>, E> {
        match self.0 {
            Left::Nothing => detach().map(|()| Vec::new()),
            Left::Unreadable(why) => {
                detach()?;
                Ok(vec![format!(
                    "what was dropped and not yet recorded is lost, and not known: {why}"
                )])
            }
            Left::Tables {
                pins,
                accounting,
                policy,
            } => {
                // The maps live as long as somebody holds them.
                let state = State::pinned(&pins);
                detach()?;
                let count = unwritten(&accounting);
                if count == 0 {
                    return Ok(Vec::new());
                }
                let written = match (state, policy) {
                    (Ok(state), Ok(policy)) => write(accounting, state, &policy),
                    (Err(error), _) => Err(error.to_string()),
                    (_, Err(why)) => Err(why),
                };
                Ok(match written {
                    Ok(mut said) => {
                        said.insert(0, format!("recorded what nobody had: {count} packets"));
                        said
                    }
                    Err(why) => vec![format!(
                        "{count} packets that nobody had recorded yet are lost: {why}"
                    )],
                })
            }
        }
    }
}

/// Packets in both halves that no sink has had.
fn unwritten(accounting: &Accounting) -> u64 {
    let (_, _, in_force) = accounting.so_far();
    // Without a first epoch there is none before it.
    let pending = match accounting.is_new() {
        true => None,
        false => accounting.pending(),
    };
    let pending = pending
        .map(|epoch| accounting.read(epoch.number))
        .unwrap_or_default();
    let sums = [in_force, pending].map(|records| packets(&records).iter().sum::<u64>());
    sums.iter().sum()
}

fn policy(file: &Path, instance: &str) -> Result<Policy, String> {
    let loaded = engine::load_policy(file);
    let shown = file.display();
    let policy = loaded
        .policy
        .ok_or_else(|| format!("{shown} cannot be read as a policy, which would name the sinks"))?;
    match policy.daemon.instance == instance {
        true => Ok(policy),
        false => Err(format!(
            "{shown} is the policy of instance {}: name the one of {instance} with --policy",
            policy.daemon.instance
        )),
    }
}

/// Answers what else a person should hear.
fn write(accounting: Accounting, state: State, policy: &Policy) -> Result<Vec<String>, String> {
    let state = Arc::new(state);
    let naming = Names {
        state: Arc::clone(&state),
        owners: policy
            .clients
            .iter()
            .map(|client| owner_name(&client.name))
            .map(|name| (owner_hash(&name), name))
            .collect(),
    };
    let source = Kernel::alone(accounting, state);
    let opened = Records::open(
        policy,
        Box::new(source),
        Box::new(naming),
        Arc::new(Metrics::new()),
    );
    let (mut records, handle) = opened.map_err(|error| error.to_string())?;
    // The half that a killed daemon left, then the one in force.
    records.write();
    records.stop();
    let said = keep_owners(policy);
    match handle.figures.failing().as_slice() {
        [] => Ok(said),
        failing => Err(format!("not every sink took them: {}", failing.join("; "))),
    }
}

/// A file that root has made now is the daemon's next time.
fn keep_owners(policy: &Policy) -> Vec<String> {
    let files = policy.sinks.iter().filter(|sink| sink.kind == SinkType::File);
    let failed = files.filter_map(|sink| {
        let folder = fs::metadata(sink.path.parent()?).ok()?;
        let error = chown(&sink.path, Some(folder.uid()), Some(folder.gid())).err()?;
        Some(format!("{} keeps its owner: {error}", sink.path.display()))
    });
    failed.collect()
}

/// Names by the kernel's tables and the policy; owners of bindings have none here.
struct Names {
    state: Arc<State>,
    owners: HashMap<[u8; 16], String>,
}

impl Naming for Names {
    fn service(&self, number: u32) -> Option<String> {
        self.state.service_name(number)
    }
    fn owners(&self, numbers: &HashSet<u32>) -> HashMap<u32, String> {
        let name = |number: &u32| {
            Some((
                *number,
                self.owners.get(&self.state.owner_hash(*number)?)?.clone(),
            ))
        };
        numbers.iter().filter_map(name).collect()
    }
    fn interface(&self, number: u32) -> Option<String> {
        if_indextoname(number).ok()?.into_string().ok()
    }
}
