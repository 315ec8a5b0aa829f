//! What to try next: commands that work as they are printed, while the lab stays up.

use std::{env, fmt::Write as _, path::Path};

use super::names::{self, Host, METRICS, SERVER_V4, SERVER_V6, namespace_file};

/// For the lab's machines.
pub(super) fn lab(keyfence: &Path, daemon: u32) -> String {
    let sudo = sudo();
    let inside = |host: Host| {
        format!(
            "{sudo}nsenter --net={}",
            namespace_file(host.namespace()).display()
        )
    };
    let namespaces: Vec<&str> = Host::ALL.map(Host::namespace).into();
    list(
        "Try next, in another terminal:",
        &[
            (
                "the metrics",
                format!("{} curl -s http://{METRICS}/metrics", inside(Host::Server)),
            ),
            ("the daemon's own view", status(keyfence)),
            (
                "a request as acme",
                format!("{} curl http://{SERVER_V4}/", inside(Host::Client)),
            ),
            (
                "the same as the stranger",
                format!("{} curl -m 3 http://[{SERVER_V6}]/", inside(Host::Stranger)),
            ),
            ("a shell on the server", format!("{} bash", inside(Host::Server))),
            (
                "  or on another machine",
                format!("the same with one of {}", namespaces[1..].join(", ")),
            ),
            ("another policy", change(daemon)),
            (
                "the daemon's log",
                format!("{sudo}tail -f {}", names::daemon_log().display()),
            ),
        ],
    )
}

/// For a real interface.
pub(super) fn real(keyfence: &Path, daemon: u32) -> String {
    let log = format!("{}tail -f {}", sudo(), names::daemon_log().display());
    list(
        "Try next, in another terminal:",
        &[
            ("the daemon's own view", status(keyfence)),
            ("another policy", change(daemon)),
            ("the daemon's log", log),
        ],
    )
}

fn status(keyfence: &Path) -> String {
    format!(
        "{}{} status --socket {}",
        sudo(),
        keyfence.display(),
        names::socket().display()
    )
}

fn change(daemon: u32) -> String {
    format!(
        "edit {}, then {}kill -HUP {daemon}",
        names::policy().display(),
        sudo()
    )
}

fn list(heading: &str, lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(what, _)| what.len()).max().unwrap_or(0);
    let mut text = format!("{heading}\n");
    for (what, command) in lines {
        // Writing to a string cannot fail.
        _ = writeln!(text, "  {what:<width$}  {command}");
    }
    text
}

/// The lab runs as root; whoever called it by sudo reads this as himself.
fn sudo() -> &'static str {
    if env::var_os("SUDO_UID").is_some() {
        "sudo "
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hints_name_the_daemon_and_each_machine() {
        let text = lab(Path::new("target/release/keyfence"), 42);
        assert!(text.contains("kill -HUP 42"), "{text}");
        for host in Host::ALL {
            assert!(
                text.contains(host.namespace()),
                "{} is missing in\n{text}",
                host.namespace()
            );
        }
    }
}
