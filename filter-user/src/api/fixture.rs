//! Listeners with bindings behind them, for tests: a policy, a store of their own, and a kernel that holds anything.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::authorize::tests::policy;
use super::tests::{Answer, ask, listener};
use super::{Backing, Bounds, bind, serve};
use crate::bindings::clock::SystemClock;
use crate::bindings::seam::{BoxFuture, Changes, GrantError, Grants, OwnerUse};
use crate::bindings::{Bindings, Options};
use crate::engine::fixture::FakeView;
use crate::engine::snapshot::View;
use crate::metrics::Metrics;
use crate::policies::{Policies, Seen, Start};
use crate::policy::Policy;
use crate::policy::model::{Listener, ListenerAddress, Role};
use crate::records::capture::Captures;

pub(super) const ALL: [Role; 6] = [
    Role::Publish,
    Role::Authorize,
    Role::Read,
    Role::Operate,
    Role::Deny,
    Role::Metrics,
];

/// Takes every change, unless a test says otherwise, and holds nothing.
pub(super) struct AnyGrants {
    policy: Arc<Policy>,
    pub(super) answer: Mutex<Kernel>,
}

/// What becomes of changes.
#[derive(Clone, Debug)]
pub(super) enum Kernel {
    Takes,
    Refuses(GrantError),
    NeverAnswers,
}

impl Grants for AnyGrants {
    fn change(&self, _epoch: u64, changes: Changes) -> BoxFuture<Result<(), GrantError>> {
        let answer = match changes.is_empty() {
            true => Kernel::Takes,
            false => self.answer.lock().unwrap().clone(),
        };
        Box::pin(async {
            match answer {
                Kernel::Takes => Ok(()),
                Kernel::Refuses(error) => Err(error),
                Kernel::NeverAnswers => std::future::pending().await,
            }
        })
    }

    fn policy(&self) -> (u64, Arc<Policy>) {
        (1, Arc::clone(&self.policy))
    }

    fn used(&self, _owner: &str) -> Option<OwnerUse> {
        None
    }
}

/// Two services, and what a test adds.
pub(super) fn policy_with(entries: &str) -> Arc<Policy> {
    policy(&format!(
        "version = 1\n[filter]\ninterfaces = [\"eth0\"]\n\
         [[service]]\nname = \"payments\"\nprotocol = \"tcp\"\nports = [443]\n\
         [[service]]\nname = \"beta\"\nprotocol = \"tcp\"\nports = [444]\nmode = \"observe\"\n\
         [[management]]\nname = \"ssh\"\nsources = [\"192.0.2.0/24\"]\nprotocol = \"tcp\"\nports = [22]\n{entries}\n"
    ))
}

pub(super) fn me() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid());
    user.unwrap().unwrap().name
}

/// A publisher of this user, with these further keys.
pub(super) fn publisher(name: &str, keys: &str) -> String {
    format!(
        "[[publisher]]\nname = \"{name}\"\nuser = \"{}\"\nservices = [\"*\"]\nenvironments = [\"production\"]\n{keys}\n",
        me()
    )
}

/// The file that the daemon was given, as far as policies go.
pub(super) const POLICY_FILE: &str = "keyfence.toml";

/// A policy's text: two services, one management entry, any interface; and what a test adds.
pub(super) fn policy_text(entries: &str) -> String {
    format!(
        "version = 1\n[filter]\ninterfaces = [\"*\"]\n\
         [[service]]\nname = \"payments\"\nprotocol = \"tcp\"\nports = [443]\n\
         [[service]]\nname = \"beta\"\nprotocol = \"tcp\"\nports = [444]\nmode = \"observe\"\n\
         [[management]]\nname = \"ssh\"\nsources = [\"192.0.2.0/24\"]\nprotocol = \"tcp\"\nports = [22]\n{entries}\n"
    )
}

/// Of that file, with a store of their own.
fn policies(folder: &Path, view: &Arc<FakeView>, grants: Arc<dyn Grants>, bindings: &Bindings) -> Policies {
    let file = folder.join(POLICY_FILE);
    if !file.exists() {
        std::fs::write(&file, policy_text("")).unwrap();
    }
    let start = Start::of(&file, Some(&folder.join("state")), &|_| None);
    let start = start.unwrap_or_else(|_| panic!("the file is valid"));
    view.change(|snapshot| snapshot.policy.hash.clone_from(&start.hash));
    let view = Arc::clone(view) as Arc<dyn View>;
    Policies::new(start, Seen::of(&view, &grants, bindings, None))
}

/// Listeners under way; they end with this.
pub(super) struct Running {
    pub(super) folder: tempfile::TempDir,
    pub(super) stop: watch::Sender<bool>,
    /// The bindings' writer alone.
    pub(super) stop_writer: watch::Sender<bool>,
    pub(super) grants: Arc<AnyGrants>,
    pub(super) view: Arc<FakeView>,
    pub(super) serving: JoinHandle<()>,
}

impl Running {
    /// With one socket, `api.sock`, that has all roles.
    pub(super) async fn with(policy: Arc<Policy>, operators: &[&str]) -> Running {
        Running::on(policy, operators, Bounds::default(), |folder| {
            vec![listener(ListenerAddress::Unix(folder.join("api.sock")), &ALL)]
        })
        .await
    }

    pub(super) async fn on(
        policy: Arc<Policy>,
        operators: &[&str],
        bounds: Bounds,
        listeners: impl FnOnce(&Path) -> Vec<Listener>,
    ) -> Running {
        Running::in_folder(
            tempfile::tempdir().unwrap(),
            policy,
            operators,
            bounds,
            None,
            listeners,
        )
        .await
    }

    /// The same state under a new process, with one socket that has all roles.
    pub(super) async fn again(self) -> Running {
        let policy = Arc::clone(&self.grants.policy);
        self.again_under(policy, &[]).await
    }

    /// The same under another policy.
    pub(super) async fn again_under(self, policy: Arc<Policy>, operators: &[&str]) -> Running {
        self.stop_writer.send(true).unwrap();
        self.stop.send(true).unwrap();
        self.serving.await.unwrap();
        // The store has one owner at a time.
        while Arc::strong_count(&self.grants) > 1 {
            tokio::task::yield_now().await;
        }
        Running::in_folder(
            self.folder,
            policy,
            operators,
            Bounds::default(),
            None,
            |folder| vec![listener(ListenerAddress::Unix(folder.join("api.sock")), &ALL)],
        )
        .await
    }

    /// The same where captures may be asked for.
    pub(super) async fn capturing(operators: &[&str], captures: Captures) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let captures = Some(Arc::new(captures));
        let bounds = Bounds::default();
        Running::in_folder(folder, policy_with(""), operators, bounds, captures, |folder| {
            vec![listener(ListenerAddress::Unix(folder.join("api.sock")), &ALL)]
        })
        .await
    }

    async fn in_folder(
        folder: tempfile::TempDir,
        policy: Arc<Policy>,
        operators: &[&str],
        bounds: Bounds,
        captures: Option<Arc<Captures>>,
        listeners: impl FnOnce(&Path) -> Vec<Listener>,
    ) -> Running {
        let bound = bind(&listeners(folder.path())).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let options = Options {
            folder: folder.path().join("state"),
            clock: Arc::new(SystemClock::new().unwrap()),
            witness: None,
        };
        let (bindings, writer) = Bindings::open(options, Arc::clone(&policy)).unwrap();
        let grants = Arc::new(AnyGrants {
            policy: Arc::clone(&policy),
            answer: Mutex::new(Kernel::Takes),
        });
        let (stop_writer, writer_stopped) = watch::channel(false);
        tokio::spawn(writer.run(Arc::clone(&grants) as Arc<dyn Grants>, writer_stopped));
        let mut backing = Backing::new(bindings, Arc::clone(&grants) as Arc<dyn Grants>, &policy);
        backing.captures = captures;
        let view = Arc::new(FakeView::default());
        let seen: Arc<dyn View> = Arc::clone(&view) as Arc<dyn View>;
        backing.policies = Some(policies(
            folder.path(),
            &view,
            Arc::clone(&grants) as Arc<dyn Grants>,
            &backing.bindings,
        ));
        let operators = operators.iter().map(|name| (*name).to_owned()).collect();
        let serving = tokio::spawn(serve(
            bound,
            seen,
            Some(backing),
            Arc::new(Metrics::new()),
            operators,
            bounds,
            stopped,
        ));
        Running {
            folder,
            stop,
            stop_writer,
            grants,
            view,
            serving,
        }
    }

    pub(super) fn socket(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Asks at `api.sock`; `rest` as for `ask`.
    pub(super) async fn ask(&self, line: &str, rest: &str) -> Answer {
        self.ask_at("api.sock", line, rest).await
    }

    pub(super) async fn ask_at(&self, socket: &str, line: &str, rest: &str) -> Answer {
        ask(
            UnixStream::connect(self.socket(socket)).await.unwrap(),
            line,
            rest,
        )
        .await
    }
}
