//! What keeps the daemon from starting is told with its fix, and leaves nothing behind.

use std::process::Command;

use keyfence_tests::harness::{
    Attach, Daemon, Ended, INSIDE, Policy, Probe, Site, keyfence_path, output, run, system,
};
use nix::sys::signal::Signal;

fn policy() -> Policy {
    Policy::new(Attach::Auto, Probe::ENTRIES)
}

/// What `run` says of a policy that it cannot put in force; nothing of it stays.
fn refusal(site: &Site, policy: &Policy, command: &mut Command) -> String {
    site.write(policy);
    let Ended { code, log } = Daemon::refused(site, command);
    assert_eq!(code, Some(1), "{log}");
    assert!(
        site.bpf.list("keyfence/main").is_empty(),
        "{:?}",
        site.bpf.list("keyfence")
    );
    assert!(!site.socket().exists());
    // The bindings' store is opened before the filter: an empty one may stay, a lock may not.
    assert!(!site.state().join("main.lock").exists(), "the lock stays");
    log
}

fn assert_says(log: &str, parts: &[&str]) {
    for part in parts {
        assert!(log.contains(part), "{part:?} is not in\n{log}");
    }
}

#[test]
fn interface_that_does_not_exist_is_named_with_those_that_do() {
    let site = Site::raw();
    let log = refusal(&site, &policy().interface("eth9"), &mut Daemon::command(&site));
    assert_says(&log, &["interface eth9 does not exist", INSIDE]);
    let log = refusal(&site, &policy().interface("wl*"), &mut Daemon::command(&site));
    assert_says(&log, &["no interface matches wl*", "`ip link`"]);
}

/// Whoever may take a port, or a secret away, must not decide whether the host is filtered.
#[test]
fn filter_comes_before_listeners_and_secrets() {
    let site = Site::new();
    // A socket's folder cannot be made below a file, nor a secret read there.
    let file = site.folder().join("file");
    std::fs::write(&file, "").expect("a temporary folder");
    let below = file.display();
    let tables = format!(
        "[[listener]]\naddress = \"unix:{below}/gw.sock\"\nroles = [\"authorize\"]\ngroup = \"root\"\n\
         [credentials]\nscheme = \"hmac-sha256\"\nsecret-files = [{{ id = \"k1\", file = \"{below}/k1\" }}]\n"
    );
    site.write(&policy().and(&tables));
    let daemon = Daemon::start_unready(&site);
    Probe::open(&site).assert_filtered();
    let ready = daemon.get("/readyz").expect("it answers");
    assert_eq!(ready.status, 503);
    assert_says(
        &ready.body,
        &[
            "/gw.sock: ",
            "nobody is answered there until the daemon is restarted",
            "[credentials]: ",
            "authorize refuses",
        ],
    );
    daemon.kill();
    std::fs::remove_file(&file).expect("ours");
    std::fs::create_dir(&file).expect("a temporary folder");
    std::fs::write(file.join("k1"), "secret\n").expect("a temporary folder");
    let daemon = Daemon::start_again(&site);
    assert_eq!(daemon.get("/readyz").expect("it answers").status, 200);
}

#[test]
fn interface_that_is_not_ethernet_is_refused() {
    let site = Site::raw();
    let log = refusal(&site, &policy().interface("lo"), &mut Daemon::command(&site));
    assert_says(&log, &["lo is no Ethernet interface"]);
}

#[test]
fn hook_held_by_another_instance_is_told_and_left_to_it() {
    let site = Site::new();
    let other = Daemon::elsewhere(&site, "other", &policy());
    let before = site.server.ip(&format!("link show dev {INSIDE}"));
    let log = refusal(&site, &policy(), &mut Daemon::command(&site));
    assert_says(&log, &["the filter of instance other holds the XDP hook of srv0"]);
    let fix = log
        .split('`')
        .find(|quoted| quoted.starts_with("keyfence detach"));
    let fix = fix.unwrap_or_else(|| panic!("no command in {log}")).to_owned();
    assert_eq!(site.server.ip(&format!("link show dev {INSIDE}")), before);
    assert_eq!(other.get("/readyz").map(|answer| answer.status), Some(200));
    other.kill();

    // The fix that it names.
    let mut detach = Command::new(keyfence_path());
    run(detach.args(fix.split(' ').skip(1)));
    drop(Daemon::start(&site, &policy()));
}

/// A program that no link holds, and that goes by the command that the error names.
fn hook_held_by_hand_is_freed_by_the_fix(kind: &str) {
    let site = Site::new();
    site.server.ip("link add held0 type veth peer name held1");
    site.server.ip("link set held0 up");
    let other = Daemon::elsewhere(&site, "other", &policy());
    let program = site.pins("other").join("keyfence");
    let bpftool = system("bpftool");
    let mut attach = site.server.command(bpftool.get_program());
    attach
        .args(["net", "attach", kind, "pinned"])
        .arg(program)
        .args(["dev", "held0"]);
    run(&mut attach);

    let log = refusal(&site, &policy().interface("held0"), &mut Daemon::command(&site));
    assert_says(&log, &["holds the XDP hook of held0"]);
    let fix = log.split('`').find(|quoted| quoted.starts_with("ip link set"));
    let fix = fix.unwrap_or_else(|| panic!("no command in {log}"));
    site.server
        .ip(fix.strip_prefix("ip ").expect("it begins with ip"));
    let daemon = Daemon::start(&site, &policy().interface("held0"));
    drop((daemon, other));
}

#[test]
fn hook_held_natively_by_hand_is_freed_by_the_fix_of_the_error() {
    hook_held_by_hand_is_freed_by_the_fix("xdpdrv");
}

#[test]
fn hook_held_generically_by_hand_is_freed_by_the_fix_of_the_error() {
    hook_held_by_hand_is_freed_by_the_fix("xdpgeneric");
}

#[test]
fn missing_capabilities_are_named() {
    let site = Site::raw();
    let setpriv = system("setpriv");
    let mut command = site.server.command(setpriv.get_program());
    command
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(keyfence_path());
    command.args(Daemon::arguments(&site));
    let log = refusal(&site, &policy(), &mut command);
    assert_says(&log, &["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "root"]);
}

#[test]
fn ordinary_user_is_told_what_is_missing() {
    let site = Site::raw();
    site.write(&policy());
    let setpriv = system("setpriv");
    let program = site.program_for_everyone();
    let mut command = site.server.command(setpriv.get_program());
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(program);
    command.args(Daemon::arguments(&site));
    let Ended { code, log } = Daemon::refused(&site, &mut command);
    assert_eq!(code, Some(1), "{log}");
    // Not the first file that it may not write.
    assert_says(
        &log,
        &["run as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"],
    );
    assert!(!log.contains("ermission denied"), "{log}");
}

#[test]
fn folder_that_is_no_bpf_file_system_is_told_with_the_mount_command() {
    let site = Site::raw();
    let plain = site.folder().join("plain");
    std::fs::create_dir(&plain).expect("a temporary folder");
    let plain = plain.display().to_string();
    let mut command = site.server.command(keyfence_path());
    let mut arguments = Daemon::arguments(&site);
    let at = arguments.iter().position(|argument| argument == "--bpf-fs");
    arguments[at.expect("it is given") + 1].clone_from(&plain);
    let log = refusal(&site, &policy(), command.args(&arguments));
    assert_says(
        &log,
        &[
            &format!("{plain} is not a BPF file system"),
            "mount -t bpf -o mode=0700 bpf",
            "--bpf-fs",
        ],
    );

    // The fix that it names.
    let mut mount = Command::new("mount");
    let mounted = output(mount.args(["-t", "bpf", "bpf", &plain]));
    assert!(mounted.status.success(), "{mounted:?}");
    site.write(&policy().daemon("on-exit = \"detach\""));
    let daemon = Daemon::start_as(&site, site.server.command(keyfence_path()).args(&arguments));
    assert_eq!(daemon.end(Signal::SIGTERM).code(), Some(0));
    let mut umount = Command::new("umount");
    assert!(output(umount.arg(&plain)).status.success());
}

/// A wire whose driver takes no program: its outside end has more queues than the inside one could serve.
fn unwilling() -> Site {
    let words =
        "link add srv0 numrxqueues 1 numtxqueues 1 type veth peer name cli0 numrxqueues 4 numtxqueues 4";
    let site = Site::joined(words);
    site.inhabit(&site.outside);
    site
}

#[test]
fn driver_that_refuses_is_told_where_native_is_asked_for() {
    let site = unwilling();
    let native = Policy::new(Attach::Native, Probe::ENTRIES);
    let log = refusal(&site, &native, &mut Daemon::command(&site));
    assert_says(
        &log,
        &[
            "the driver of srv0 takes no XDP program",
            "attach = \"auto\" or \"generic\"",
        ],
    );
}

#[test]
fn driver_that_refuses_is_filtered_generically_and_said_so() {
    let site = unwilling();
    let daemon = Daemon::start(&site, &policy());
    assert_says(
        &daemon.log(),
        &["the driver takes no XDP program", "attached in generic mode"],
    );
    assert_eq!(daemon.status()["interfaces"][0]["mode"], "generic");
    assert_eq!(
        daemon.metric("keyfence_filter_attached{interface=\"srv0\",mode=\"generic\"}"),
        1.0
    );
    Probe::open(&site).assert_filtered();
}

/// veth takes programs of one buffer only up to a page; ours reads frames in several.
#[test]
fn wire_with_jumbo_frames_is_filtered_natively() {
    let site = Site::new();
    site.outside.ip("link set cli0 mtu 9000");
    site.server.ip("link set srv0 mtu 9000");
    let daemon = Daemon::start(&site, &Policy::new(Attach::Native, Probe::ENTRIES));
    assert_eq!(daemon.status()["interfaces"][0]["mode"], "native");
    let mut probe = Probe::open(&site);
    probe.assert_filtered();
}

#[test]
fn instance_that_is_no_name_is_refused_and_nothing_is_removed() {
    let site = Site::raw();
    let _daemon = Daemon::start(&site, &policy());
    let outside = site.folder().join("outside");
    std::fs::create_dir_all(outside.join("links")).expect("a temporary folder");
    for instance in ["../../outside", "", "a/b", ".", ".."] {
        let mut command = site.server.command(keyfence_path());
        command.args(["detach", "--yes", "--instance", instance, "--bpf-fs"]);
        let ended = output(command.arg(site.bpf.path()));
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{instance}: {said}");
        assert!(said.contains("a name is a letter or digit"), "{said}");
    }
    assert!(outside.join("links").is_dir() && site.pins("main").join("links").is_dir());
}
