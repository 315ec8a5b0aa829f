//! Every documented path: its methods, who may ask it on which listener, and what answers.
//!
//! One table; the routers of the listeners, the 404, 405 and 501 answers, and the labels of the HTTP metrics follow
//! from it. What this build does not do yet is here too, so that a caller hears that instead of "not found".

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, any};

use super::answers::{Action, answer};
use super::{Context, authorize};
use crate::engine::snapshot::BoxFuture;
use crate::metrics::ROUTE_OTHER;
use crate::policy::model::Role;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Put,
    Post,
    Delete,
    Any,
}

/// One method of one path.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) verb: Verb,
    /// A listener needs one of these; none: every listener answers.
    pub(super) roles: &'static [Role],
    pub(super) action: Action,
}

const EVERYONE: &[Role] = &[];
const READ: &[Role] = &[Role::Read];
const LIST: &[Role] = &[Role::Publish, Role::Read, Role::Operate];
const PUBLISH: &[Role] = &[Role::Publish, Role::Operate];
const AUTHORIZE: &[Role] = &[Role::Authorize];
const OPERATE: &[Role] = &[Role::Operate];
const DENY: &[Role] = &[Role::Deny];

const fn route(verb: Verb, path: &'static str, roles: &'static [Role], action: Action) -> Route {
    Route {
        path,
        verb,
        roles,
        action,
    }
}

const BATCH: &str = "/v1/bindings/batch";

pub(super) const ROUTES: &[Route] = &[
    route(Verb::Get, "/livez", EVERYONE, Action::Live),
    route(Verb::Get, "/readyz", EVERYONE, Action::Ready),
    route(Verb::Get, "/metrics", &[Role::Metrics], Action::Metrics),
    route(Verb::Get, "/v1/status", READ, Action::Status),
    route(Verb::Post, "/v1/reload", OPERATE, Action::Reload),
    route(Verb::Get, "/openapi.json", EVERYONE, Action::OpenApi),
    route(Verb::Get, "/v1/bindings", LIST, Action::List),
    route(Verb::Put, "/v1/bindings", PUBLISH, Action::Sync),
    route(Verb::Post, BATCH, PUBLISH, Action::Batch),
    // A credential may have this name.
    route(Verb::Get, BATCH, LIST, Action::Get),
    route(Verb::Put, BATCH, PUBLISH, Action::Put),
    route(Verb::Delete, BATCH, PUBLISH, Action::Delete),
    route(Verb::Get, "/v1/bindings/{credential}", LIST, Action::Get),
    route(Verb::Put, "/v1/bindings/{credential}", PUBLISH, Action::Put),
    route(Verb::Delete, "/v1/bindings/{credential}", PUBLISH, Action::Delete),
    route(Verb::Get, "/v1/watch", LIST, Action::Watch),
    route(Verb::Any, authorize::PATH, AUTHORIZE, Action::Authorize),
    route(Verb::Any, authorize::PATH_BELOW, AUTHORIZE, Action::Authorize),
    route(Verb::Get, "/v1/denies", DENY, Action::Denies),
    route(Verb::Put, "/v1/denies/{name}", DENY, Action::PutDeny),
    route(Verb::Delete, "/v1/denies/{name}", DENY, Action::DeleteDeny),
    route(Verb::Get, "/v1/explain", READ, Action::Explain),
    route(Verb::Get, "/v1/why", READ, Action::Why),
    route(Verb::Get, "/v1/drops", READ, Action::Drops),
    route(Verb::Get, "/v1/capture", OPERATE, Action::Capture),
    route(Verb::Get, "/v1/top", READ, Action::Top),
    route(Verb::Get, "/v1/audit", OPERATE, Action::Audit),
    route(Verb::Get, "/v1/policy/history", READ, Action::History),
    route(Verb::Post, "/v1/policy/plan", OPERATE, Action::Plan),
    route(Verb::Post, "/v1/policy/apply", OPERATE, Action::Apply),
    route(Verb::Post, "/v1/policy/confirm", OPERATE, Action::Confirm),
    route(Verb::Post, "/v1/policy/rollback", OPERATE, Action::Rollback),
    route(Verb::Post, "/v1/detach", OPERATE, Action::Detach),
    route(Verb::Post, "/v1/observe", OPERATE, Action::Observe),
    route(Verb::Post, "/v1/backup", OPERATE, Action::Backup),
    route(Verb::Post, "/v1/restore", OPERATE, Action::Restore),
];

/// All but what a credential's name brings about: `batch` is one of `{credential}` where it is not asked by POST.
pub(super) fn documented() -> impl Iterator<Item = &'static Route> {
    let apart = |route: &&Route| route.path != BATCH || matches!(route.action, Action::Batch);
    ROUTES.iter().filter(apart)
}

/// What this build answers, as in `GET /v1/status`: shown in the status.
pub(super) fn available() -> Vec<String> {
    let routes = documented();
    routes
        .map(|route| format!("{} {}", methods(route.verb), route.path))
        .collect()
}

pub(super) fn methods(verb: Verb) -> &'static str {
    match verb {
        Verb::Get => "GET",
        Verb::Put => "PUT",
        Verb::Post => "POST",
        Verb::Delete => "DELETE",
        Verb::Any => "ANY",
    }
}

/// `"publish" or "operate"`
pub(super) fn role_names(roles: &[Role]) -> String {
    let names: Vec<String> = roles
        .iter()
        .map(|role| format!("\"{}\"", role_name(*role)))
        .collect();
    names.join(" or ")
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Publish => "publish",
        Role::Authorize => "authorize",
        Role::Read => "read",
        Role::Operate => "operate",
        Role::Deny => "deny",
        Role::Metrics => "metrics",
    }
}

/// Who answers GET answers HEAD as well.
fn allowed(offered: &[&Route]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for route in offered {
        names.push(methods(route.verb));
        if route.verb == Verb::Get {
            names.push("HEAD");
        }
    }
    names.join(", ")
}

/// What a listener with these roles answers.
pub(super) fn router(roles: &[Role], context: &Arc<Context>) -> Router {
    let mut paths: Vec<&'static str> = ROUTES.iter().map(|route| route.path).collect();
    paths.dedup();
    let mut router = Router::new();
    for path in paths {
        let all: Vec<&'static Route> = ROUTES.iter().filter(|route| route.path == path).collect();
        router = router.route(path, methods_of(path, &all, roles, context));
        // What follows may be nothing: a gateway appends `/` alone for its root.
        if let Some(bare) = path.strip_suffix("{*rest}") {
            router = router.route(bare, methods_of(path, &all, roles, context));
        }
    }
    let body_bytes_max = usize::try_from(context.bounds.body_bytes_max).unwrap_or(usize::MAX);
    let unknown = handler(context, ROUTE_OTHER, Action::Unknown);
    router
        .fallback_service(any(unknown))
        .layer(DefaultBodyLimit::max(body_bytes_max))
}

fn methods_of(
    path: &'static str,
    all: &[&'static Route],
    roles: &[Role],
    context: &Arc<Context>,
) -> MethodRouter {
    let admits =
        |route: &&&Route| route.roles.is_empty() || route.roles.iter().any(|role| roles.contains(role));
    let offered: Vec<&'static Route> = all.iter().filter(admits).copied().collect();
    // What no listener answers here: of a path that this one does not answer at all, a role is lacking first.
    let beside = match offered.is_empty() {
        true => Action::RoleLacking(all.first().map_or(EVERYONE, |route| route.roles)),
        false => Action::WrongMethod(allowed(&offered), EVERYONE),
    };
    let mut router = MethodRouter::new().fallback(handler(context, path, beside));
    for route in all {
        let action = if admits(&route) {
            route.action.clone()
        } else if offered.is_empty() {
            Action::RoleLacking(route.roles)
        } else {
            Action::WrongMethod(allowed(&offered), route.roles)
        };
        let handler = handler(context, path, action);
        router = match route.verb {
            Verb::Get => router.on(MethodFilter::GET, handler),
            Verb::Put => router.on(MethodFilter::PUT, handler),
            Verb::Post => router.on(MethodFilter::POST, handler),
            Verb::Delete => router.on(MethodFilter::DELETE, handler),
            Verb::Any => any(handler),
        };
    }
    router
}

/// Binds an action to its path, which is its label in the metrics.
fn handler(
    context: &Arc<Context>,
    label: &'static str,
    action: Action,
) -> impl Fn(Request) -> BoxFuture<Response> + Clone + Send + Sync + 'static {
    let context = Arc::clone(context);
    move |request| Box::pin(answer(Arc::clone(&context), label, action.clone(), request))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::HTTP_ROUTES;

    #[test]
    fn every_path_is_a_label_of_the_metrics_and_every_label_a_path() {
        let mut paths: Vec<_> = ROUTES
            .iter()
            .map(|route| route.path)
            .chain([ROUTE_OTHER])
            .collect();
        let mut labels = HTTP_ROUTES.to_vec();
        paths.sort_unstable();
        paths.dedup();
        labels.sort_unstable();
        assert_eq!(paths, labels);
    }

    #[test]
    fn methods_of_a_path_stand_together() {
        let mut paths: Vec<_> = ROUTES.iter().map(|route| route.path).collect();
        paths.dedup();
        let together = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), together);
    }
}
