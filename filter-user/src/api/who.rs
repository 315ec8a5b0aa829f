//! Who asks, on which listener, and for whom: what a caller may see and touch.
//!
//! The first section of API.md: a publisher its own bindings, an operator all, anyone else none. What the kernel
//! tells of a peer is as of its connect, so it is asked once a connection.

use std::sync::Arc;

use tokio::sync::OnceCell;

use super::Context;
use super::peer::{Operators, Peer};
use super::problem::{Code, Problem};
use super::publisher::NotAPublisher;
use crate::bindings::refusal;
use crate::bindings::requests::{self, Actor, Caller};
use crate::policy::model::Role;

/// The listener that a connection came by.
#[derive(Debug)]
pub(super) struct Listening {
    /// As in the policy: `unix:/run/keyfence/api.sock`.
    pub(super) address: String,
    pub(super) roles: Vec<Role>,
    pub(super) assert: bool,
}

/// The other end of a connection, and the listener.
#[derive(Debug)]
pub(super) struct Who {
    pub(super) listener: Arc<Listening>,
    pub(super) peer: Peer,
    pub(super) pid: Option<i32>,
    /// All groups of the peer, as of its connect.
    pub(super) groups: Vec<u32>,
    user: OnceCell<Option<String>>,
    operator: OnceCell<bool>,
}

/// A caller and whose bindings the request is about.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) actor: Actor,
    /// `None`: those of all publishers.
    pub(super) publisher: Option<String>,
}

/// How an operator writes all publishers; no name can be this.
const ALL_PUBLISHERS: &str = "*";

impl Who {
    pub(super) fn new(listener: Arc<Listening>, peer: Peer, pid: Option<i32>, groups: Vec<u32>) -> Who {
        Who {
            listener,
            peer,
            pid,
            groups,
            user: OnceCell::new(),
            operator: OnceCell::new(),
        }
    }

    fn has(&self, role: Role) -> bool {
        self.listener.roles.contains(&role)
    }

    /// Whether the peer is one of `[daemon] operators`, wherever it asks.
    pub(super) async fn is_operator(&self, context: &Context) -> bool {
        let ask = || async {
            let operators = context.operators.clone();
            // The host's databases may be on a network.
            let operators = tokio::task::spawn_blocking(move || Operators::of(&operators)).await;
            operators.is_ok_and(|operators| operators.have(self.peer, &self.groups))
        };
        *self.operator.get_or_init(ask).await
    }

    /// The peer's user, as this host names it.
    async fn user(&self) -> Option<String> {
        let ask = || async {
            let peer = self.peer;
            tokio::task::spawn_blocking(move || peer.user())
                .await
                .ok()
                .flatten()
        };
        self.user.get_or_init(ask).await.clone()
    }

    async fn name(&self) -> String {
        let user = self.user().await;
        user.unwrap_or_else(|| self.peer.describe())
    }

    async fn actor(&self, caller: Caller) -> Actor {
        let uid = match self.peer {
            Peer::Unix { uid, .. } => Some(uid),
            Peer::Unknown => None,
        };
        let user = self.user().await;
        let pid = self.pid;
        Actor {
            caller,
            peer: requests::Peer { pid, uid, user },
        }
    }

    async fn publisher(&self, context: &Context) -> Result<String, NotAPublisher> {
        let unknown = || NotAPublisher::Unknown {
            who: self.peer.describe(),
        };
        let backing = context.backing.as_ref().ok_or_else(unknown)?;
        if !self.has(Role::Publish) {
            return Err(self.cannot_publish());
        }
        let (epoch, policy) = backing.grants.policy();
        let publishers = context.directory.publishers(epoch, &policy).await;
        let found = publishers.find(&self.listener.address, self.peer, &self.groups);
        found.map(str::to_owned)
    }

    fn cannot_publish(&self) -> NotAPublisher {
        NotAPublisher::RoleLacking {
            listener: self.listener.address.clone(),
        }
    }

    async fn may_operate(&self, context: &Context) -> bool {
        self.has(Role::Operate) && self.is_operator(context).await
    }

    /// For lists, watches and reads: a publisher sees its own, an operator all, or `named`.
    pub(super) async fn reads(&self, context: &Context, named: Option<String>) -> Result<Scope, Problem> {
        let own = self.publisher(context).await;
        match (own, named) {
            (Ok(own), None) => Ok(self.own(own).await),
            (Ok(own), Some(named)) if own == named => Ok(self.own(own).await),
            (_, Some(named)) => {
                self.operator(context).await?;
                Ok(Scope {
                    actor: self.actor(Caller::Operator(self.name().await)).await,
                    publisher: named_publisher(context, named)?,
                })
            }
            (Err(reason), None) => {
                if !self.may_operate(context).await {
                    return Err(not_a_publisher(reason.to_string()));
                }
                Ok(Scope {
                    actor: self.actor(Caller::Operator(self.name().await)).await,
                    publisher: None,
                })
            }
        }
    }

    /// For changes: always of one publisher.
    pub(super) async fn writes(
        &self,
        context: &Context,
        named: Option<String>,
    ) -> Result<(Actor, String), Problem> {
        let lacking = named.is_none();
        let Scope { actor, publisher } = self.reads(context, named).await?;
        match publisher {
            Some(publisher) => Ok((actor, publisher)),
            None if lacking => {
                // An operator who is no publisher here, or not by this listener.
                let why = match self.has(Role::Publish) {
                    true => format!("{} is no publisher of the policy", self.peer.describe()),
                    false => self.cannot_publish().to_string(),
                };
                Err(not_a_publisher(format!(
                    "{why}; as an operator, name one with `?publisher=NAME`"
                )))
            }
            None => Err(Problem::new(
                Code::BadQuery,
                "`publisher` is one publisher's name here",
            )),
        }
    }

    /// For denies: anyone whom the listener admits; an operator is bound by less.
    pub(super) async fn denies(&self, context: &Context) -> Actor {
        if self.may_operate(context).await {
            return self.actor(Caller::Operator(self.name().await)).await;
        }
        match self.publisher(context).await {
            Ok(publisher) => self.actor(Caller::Publisher(publisher)).await,
            Err(_) => self.actor(Caller::Other(self.name().await)).await,
        }
    }

    /// For what only operators may.
    pub(super) async fn operator(&self, context: &Context) -> Result<Actor, Problem> {
        if self.may_operate(context).await {
            return Ok(self.actor(Caller::Operator(self.name().await)).await);
        }
        let detail = match self.has(Role::Operate) {
            true => format!(
                "{} is none of `[daemon] operators`; use sudo, or add the user there",
                self.peer.describe()
            ),
            false => format!(
                "the listener {} lacks the role `operate`: add \"operate\" to its roles (roles are read at start)",
                self.listener.address
            ),
        };
        Err(Problem::new(Code::NotAnOperator, detail))
    }

    async fn own(&self, publisher: String) -> Scope {
        Scope {
            actor: self.actor(Caller::Publisher(publisher.clone())).await,
            publisher: Some(publisher),
        }
    }
}

fn named_publisher(context: &Context, named: String) -> Result<Option<String>, Problem> {
    if named == ALL_PUBLISHERS {
        return Ok(None);
    }
    let policy = context.backing.as_ref().map(|backing| backing.grants.policy().1);
    let known =
        policy.is_some_and(|policy| policy.publishers.iter().any(|publisher| publisher.name == named));
    // One that left the policy left its bindings, and somebody must be able to take them away.
    let stored = || context.bindings().is_ok_and(|bindings| bindings.has_of(&named));
    if known || stored() {
        return Ok(Some(named));
    }
    Err(Problem::new(
        Code::BadQuery,
        "`publisher` is none of the policy's publishers, and none that the store has bindings of",
    ))
}

fn not_a_publisher(detail: String) -> Problem {
    Problem::new(Code::Refused(refusal::Code::NotAPublisher), detail)
}
