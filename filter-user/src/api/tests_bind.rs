//! Binding Unix sockets: what is never replaced, what is, and with which rights.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};

use super::tests::listener;
use super::*;
use crate::policy::model::{Listener, ListenerAddress, Role, Tls};

fn unix(path: &Path) -> Listener {
    listener(ListenerAddress::Unix(path.to_owned()), &[Role::Read])
}

fn inode(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).unwrap().ino()
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    (folder, path)
}

#[tokio::test]
async fn live_socket_is_never_replaced() {
    let (_folder, path) = folder();
    let live = StdUnixListener::bind(&path).unwrap();
    let before = inode(&path);
    let error = bind(&[unix(&path)]).await.unwrap_err();
    assert!(matches!(error.fault, Fault::Live), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert_eq!(inode(&path), before);
    drop(live);
}

#[tokio::test]
async fn live_socket_with_a_full_backlog_is_never_replaced() {
    let (_folder, path) = folder();
    let flags = nix::sys::socket::SockFlag::empty();
    let family = nix::sys::socket::AddressFamily::Unix;
    let socket = nix::sys::socket::socket(family, nix::sys::socket::SockType::Stream, flags, None).unwrap();
    let address = nix::sys::socket::UnixAddr::new(&path).unwrap();
    nix::sys::socket::bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &address).unwrap();
    nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::net::UnixStream::connect(&path).await {
        waiting.push(stream);
    }
    let error = bind(&[unix(&path)]).await.unwrap_err();
    assert!(matches!(error.fault, Fault::Live), "{error}");
}

#[tokio::test]
async fn stale_socket_is_replaced() {
    let (_folder, path) = folder();
    drop(StdUnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let bound = bind(&[unix(&path)]).await.unwrap();
    assert!(tokio::net::UnixStream::connect(&path).await.is_ok());
    assert_eq!(bound[0].name(), format!("unix:{}", path.display()));
}

#[tokio::test]
async fn file_folder_and_link_at_the_path_are_left_as_they_are() {
    let (folder, path) = folder();
    let refused = async |path: &Path| {
        let before = inode(path);
        let error = bind(&[unix(path)]).await.unwrap_err();
        assert!(matches!(error.fault, Fault::NotASocket), "{error}");
        assert_eq!(inode(path), before);
    };
    std::fs::write(&path, "mine").unwrap();
    refused(&path).await;
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    refused(folder.path()).await;
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("/nowhere", &link).unwrap();
    refused(&link).await;
}

#[tokio::test]
async fn socket_gets_its_mode_and_group_and_missing_folders_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/keyfence/api.sock");
    let gid = nix::unistd::getgid();
    let group = nix::unistd::Group::from_gid(gid).unwrap().unwrap().name;
    let listener = Listener {
        mode: 0o620,
        group,
        group_written: true,
        ..unix(&path)
    };
    let _bound = bind(&[listener]).await.unwrap();
    let metadata = std::fs::symlink_metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o620);
    assert_eq!(metadata.gid(), gid.as_raw());
    for made in ["run", "run/keyfence"] {
        let mode = std::fs::metadata(folder.path().join(made))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o755, "{made}");
    }
}

#[tokio::test]
async fn written_group_that_is_missing_is_an_error_and_a_missing_default_is_not() {
    let (_folder, path) = folder();
    let written = Listener {
        group: "no-such-group".to_owned(),
        group_written: true,
        ..unix(&path)
    };
    let error = bind(&[written]).await.unwrap_err();
    assert!(
        error.to_string().contains("groupadd --system no-such-group"),
        "{error}"
    );
    assert!(!path.exists());
    let default = Listener {
        group: "no-such-group".to_owned(),
        ..unix(&path)
    };
    let _bound = bind(&[default]).await.unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().gid(),
        nix::unistd::getegid().as_raw()
    );
}

#[tokio::test]
async fn socket_file_goes_with_its_listener_and_another_at_its_path_stays() {
    let (folder, path) = folder();
    drop(bind(&[unix(&path)]).await.unwrap());
    assert!(!path.exists());
    let bound = bind(&[unix(&path)]).await.unwrap();
    std::fs::rename(&path, folder.path().join("moved")).unwrap();
    let other = StdUnixListener::bind(&path).unwrap();
    drop(bound);
    assert!(path.exists());
    drop(other);
}

#[tokio::test]
async fn listener_that_cannot_be_opened_takes_no_other_with_it() {
    let (_folder, path) = folder();
    let occupied = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = listener(
        ListenerAddress::Tcp(occupied.local_addr().unwrap()),
        &[Role::Metrics],
    );
    let (bound, faults) = bind_each(&[taken, unix(&path)], Vec::new()).await;
    assert_eq!(bound.len(), 1);
    assert!(bound[0].name().starts_with("unix:") && path.exists());
    assert!(
        matches!(
            faults[..],
            [ListenError {
                fault: Fault::Tcp(_),
                ..
            }]
        ),
        "{faults:?}"
    );
}

#[tokio::test]
async fn fault_of_one_listener_closes_all_and_names_its_place() {
    let (folder, path) = folder();
    let occupied = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = occupied.local_addr().unwrap();
    let origin = crate::policy::model::Origin {
        file: "keyfence.toml".into(),
        line: 12,
    };
    let second = Listener {
        origin: Some(origin),
        ..listener(ListenerAddress::Tcp(address), &[Role::Metrics])
    };
    let error = bind(&[unix(&path), second]).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("keyfence.toml:12: listener tcp:{address}: ")),
        "{error}"
    );
    assert!(!path.exists());
    let tls = Tls {
        certificate: folder.path().into(),
        key: folder.path().into(),
        client_ca: None,
    };
    let error = bind(&[Listener {
        tls: Some(tls),
        ..unix(&path)
    }])
    .await
    .unwrap_err();
    assert!(matches!(error.fault, Fault::Tls), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_starts_at_one_stale_socket_exactly_one_wins() {
    let (_folder, path) = folder();
    drop(StdUnixListener::bind(&path).unwrap());
    let starts: Vec<_> = (0..16)
        .map(|_| {
            let listener = unix(&path);
            tokio::spawn(async move { bind(&[listener]).await })
        })
        .collect();
    let mut winners = Vec::new();
    for start in starts {
        match start.await.unwrap() {
            Ok(bound) => winners.push(bound),
            Err(error) => assert!(matches!(error.fault, Fault::Live), "{error}"),
        }
    }
    assert_eq!(winners.len(), 1);
    assert!(tokio::net::UnixStream::connect(&path).await.is_ok());
}

#[tokio::test]
async fn start_waits_for_another_that_holds_the_folder_and_touches_nothing_meanwhile() {
    let (folder, path) = folder();
    drop(StdUnixListener::bind(&path).unwrap());
    let before = inode(&path);
    let other = std::fs::File::open(folder.path()).unwrap();
    other.lock().unwrap();
    let listeners = [unix(&path)];
    let mut start = std::pin::pin!(bind(&listeners));
    assert!(
        tokio::time::timeout(std::time::Duration::from_millis(200), &mut start)
            .await
            .is_err()
    );
    assert_eq!(inode(&path), before);
    other.unlock().unwrap();
    let _bound = start.await.unwrap();
    assert!(tokio::net::UnixStream::connect(&path).await.is_ok());
}
