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
    command(UNITS.iter().any(|unit| Path::new(unit).exists()))
}

fn command(is_installed: bool) -> &'static str {
    match is_installed {
        true => "systemctl start keyfence",
        false => "keyfence run",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_is_started_by_its_manager() {
        assert_eq!(command(true), "systemctl start keyfence");
        assert_eq!(command(false), "keyfence run");
    }
}
