//! The daemon as the service that the package makes of it.

use std::path::Path;

/// As whom its unit runs; its group has the same name.
pub(super) const USER: &str = "keyfence";
/// Where packages and administrators put units.
const UNITS: [&str; 3] = [
    "/etc/systemd/system/keyfence.service",
    "/usr/lib/systemd/system/keyfence.service",
    "/lib/systemd/system/keyfence.service",
];

/// How the daemon is started on this host. By hand it would run as another user than the one whose pins are there.
pub(super) fn start() -> &'static str {
    let is_installed = UNITS.iter().any(|unit| Path::new(unit).exists());
    command(is_installed, Path::new(super::POLICY_FILE).exists())
}

fn command(is_installed: bool, has_policy: bool) -> &'static str {
    match (is_installed, has_policy) {
        (true, true) => "systemctl start keyfence",
        // Its condition is a policy: it would not start, and not say so.
        (true, false) => "keyfence init --output /etc/keyfence/keyfence.toml && systemctl start keyfence",
        (false, _) => "keyfence run",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_is_started_by_its_manager() {
        assert_eq!(command(true, true), "systemctl start keyfence");
        assert!(command(true, false).starts_with("keyfence init"));
        assert_eq!(command(false, true), "keyfence run");
    }
}
