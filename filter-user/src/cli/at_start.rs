//! What `check` can see of this host that a start of the service would go without.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Gid, Group, User, geteuid, getgrouplist};

use super::service::USER;
use crate::engine;
use crate::policy::Policy;
use crate::policy::model::{Listener, ListenerAddress};

/// Where its drop-ins are.
const DROP_INS: &str = "/etc/systemd/system/keyfence.service.d";

/// `files` are those that the policy was read from.
pub(super) fn lacking<'f>(files: impl Iterator<Item = &'f Path>, policy: &Policy) -> Vec<String> {
    // Their ports are the running daemon's own, as a rule: `plan` asks it.
    let is_tcp = |listener: &&Listener| matches!(listener.address, ListenerAddress::Tcp(_));
    let ports: Vec<Listener> = policy.listeners.iter().filter(is_tcp).cloned().collect();
    let mut told = engine::lacking_at_start(&ports, policy);
    // Root is a member of every group; the service is not.
    if geteuid().is_root()
        && let Ok(Some(user)) = User::from_name(USER)
    {
        told.extend(
            policy
                .listeners
                .iter()
                .filter_map(|listener| barred(listener, &user)),
        );
        // Elsewhere are drafts, which `plan` and `apply` send.
        let folder = Path::new(super::POLICY_FILE).parent().unwrap_or(Path::new("/"));
        let own = files.filter(|file| file.starts_with(folder));
        told.extend(own.filter_map(|file| unread(file, "its start, and each reload, would fail", &user)));
        let secrets = policy.credentials.secret_files.iter();
        let without = "its start goes without, and keys that are known by it are answered 401";
        told.extend(secrets.filter_map(|(_, file)| unread(file, without, &user)));
    }
    told
}

/// A file that the user may not read; access lists are not looked at.
fn unread(file: &Path, then: &str, user: &User) -> Option<String> {
    const READ: u32 = 4;
    const ENTER: u32 = 1;
    let groups = groups(user)?;
    let may = |path: &Path, right: u32| {
        let found = path.metadata().ok()?;
        let shift = if found.uid() == user.uid.as_raw() {
            6
        } else if groups.contains(&Gid::from_raw(found.gid())) {
            3
        } else {
            0
        };
        Some(found.mode() >> shift & right == right)
    };
    let folder = file
        .ancestors()
        .skip(1)
        .find(|folder| may(folder, ENTER) == Some(false));
    let name = &user.name;
    let fix = match (folder, may(file, READ)) {
        (Some(folder), _) => format!("chgrp {name} {0} && chmod 750 {0}", folder.display()),
        (None, Some(false)) => format!("chgrp {name} {0} && chmod 640 {0}", file.display()),
        (None, _) => return None,
    };
    Some(format!(
        "{} cannot be read by the service's user {name}: {then}; `{fix}`",
        file.display()
    ))
}

fn groups(user: &User) -> Option<Vec<Gid>> {
    let name = CString::new(user.name.as_str()).ok()?;
    getgrouplist(&name, user.gid).ok()
}

/// A group that neither the database nor a drop-in gives the service's user.
fn barred(listener: &Listener, user: &User) -> Option<String> {
    let ListenerAddress::Unix(path) = &listener.address else {
        return None;
    };
    let name = &listener.group;
    let group = Group::from_name(name).ok().flatten()?.gid;
    let is_member = groups(user)?.contains(&group) || supplemented(Path::new(DROP_INS)).contains(name);
    (!is_member).then(|| {
        format!(
            "listener unix:{}: the service's user {USER} is no member of the group {name:?}, so its start goes without \
             this listener: `systemctl edit keyfence` with [Service] and SupplementaryGroups={name}",
            path.display()
        )
    })
}

/// The groups that drop-ins add.
fn supplemented(folder: &Path) -> Vec<String> {
    // Without the folder there are none; what cannot be read adds none that is known of.
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let texts = entries
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    let groups = texts.flat_map(|text| {
        let lines = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("SupplementaryGroups="));
        let words = lines.flat_map(|line| line.split_whitespace().map(str::to_owned));
        words.collect::<Vec<String>>()
    });
    groups.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_drop_ins_add_are_known() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(supplemented(&folder.path().join("none")), [""; 0]);
        let text = "[Service]\nIPAddressAllow=10.0.0.0/8\nSupplementaryGroups=www-data haproxy\n";
        std::fs::write(folder.path().join("override.conf"), text).unwrap();
        assert_eq!(supplemented(folder.path()), ["www-data", "haproxy"]);
    }

    #[test]
    fn file_that_the_user_may_not_read_is_told_with_what_bars_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let nobody = User::from_name("nobody").unwrap().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
        let file = folder.path().join("keyfence.toml");
        std::fs::write(&file, "").unwrap();
        mode(folder.path(), 0o755).unwrap();
        mode(&file, 0o644).unwrap();
        assert_eq!(unread(&file, "it would fail", &nobody), None);
        mode(&file, 0o640).unwrap();
        let told = unread(&file, "it would fail", &nobody).unwrap();
        assert!(
            told.contains("user nobody") && told.contains("chmod 640"),
            "{told}"
        );
        mode(folder.path(), 0o750).unwrap();
        assert!(
            unread(&file, "it would fail", &nobody)
                .unwrap()
                .contains("chmod 750")
        );
    }

    #[test]
    fn socket_of_a_group_that_the_user_is_not_in_is_told() {
        let nobody = User::from_name("nobody").unwrap().unwrap();
        let listener = |group: &str| Listener {
            address: ListenerAddress::Unix("/run/keyfence/gw.sock".into()),
            mode: 0o660,
            group: group.to_owned(),
            group_written: true,
            assert: false,
            tls: None,
            roles: Vec::new(),
            roles_written: true,
            origin: None,
        };
        let told = barred(&listener("sys"), &nobody).unwrap();
        assert!(told.contains("SupplementaryGroups=sys"), "{told}");
        let own = Group::from_gid(nobody.gid).unwrap().unwrap();
        assert_eq!(barred(&listener(&own.name), &nobody), None);
    }
}
