//! nginx asks at every request, over connections that it keeps, while the daemon under a real systemd is restarted,
//! upgraded and brought back: no request with the right key fails, and none with a wrong one succeeds.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use keyfence_tests::harness::{
    Files, INSIDE, Machine, PATIENCE, Pace, Probe, Site, StopOnDrop, keyfence_path, next_path, system, until,
};

const UNIT: &str = "keyfence.service";
const THIS: &str = "/opt/keyfence-this";
const NEXT: &str = "/opt/keyfence-next";
/// Let in by the client `door`, from loopback.
const KEY: &str = "secret-1";
/// Connections that are kept, of those with the right key.
const CLIENTS: usize = 4;
const PER_SECOND: u32 = 100;

fn policy() -> String {
    format!(
        "version = 1\n[filter]\ninterfaces = [\"{INSIDE}\"]\n{}\
         [[service]]\nname = \"payments\"\nprotocol = \"tcp\"\nports = [8443]\n\
         [[client]]\nname = \"door\"\nsources = [\"127.0.0.1\"]\nservices = [\"payments\"]\n\
         credentials = [\"sha256:f7e7c36e458e80e6b6a2c67d0a9ec09bd718dadd7bfa8d6bf6e7ad526e46c2f7\"]\n",
        Probe::ENTRIES
    )
}

struct Gateway {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("it is bound").port()
}

impl Gateway {
    /// With its file of config/gateways; behind it nginx again, which answers 200.
    fn before(socket: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/gateways/nginx.conf");
        let text = fs::read_to_string(path).expect("it is in the repository");
        let (front, back) = (free_port(), free_port());
        let inner = text
            .replace("/run/keyfence/api.sock", &socket.display().to_string())
            .replace("listen 8443", &format!("listen 127.0.0.1:{front}"))
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{back}"));
        let shown = folder.path().display();
        let text = format!(
            "daemon off;\nmaster_process off;\npid {shown}/nginx.pid;\nerror_log {shown}/nginx.log;\n\
             events {{ worker_connections 256; }}\nhttp {{ access_log off; keepalive_requests 1000000;\n{inner}\n\
             server {{ listen 127.0.0.1:{back}; location / {{ return 200 \"answered\"; }} }} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, text).expect("a temporary folder can be written");
        let child = system("nginx")
            .arg("-c")
            .arg(file)
            .arg("-e")
            .arg(folder.path().join("nginx.log"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx can be started");
        until("the gateway listens", || {
            TcpStream::connect(("127.0.0.1", front)).ok()
        });
        Self {
            child,
            port: front,
            _folder: folder,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the gateway listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a time can be set");
        stream
    }
}

/// One request on a connection that stays open: its status.
fn ask(stream: &mut TcpStream, key: &str) -> String {
    let request = format!("GET /v1/things HTTP/1.1\r\nHost: api\r\nX-Api-Key: {key}\r\n\r\n");
    if let Err(error) = stream.write_all(request.as_bytes()) {
        return error.to_string();
    }
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if let Err(error) = stream.read_exact(&mut byte) {
            return error.to_string();
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    if let Err(error) = stream.read_exact(&mut body) {
        return error.to_string();
    }
    head.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

/// Asks on one connection until it is over; what was answered otherwise than it should be.
fn keep_asking(
    gateway: &Gateway,
    (key, right): (&str, &[&str]),
    over: &AtomicBool,
    asked: &AtomicU64,
) -> Vec<String> {
    let (mut stream, mut pace, mut wrong) = (gateway.connect(), Pace::per_second(PER_SECOND), Vec::new());
    while !over.load(Ordering::Relaxed) {
        let status = ask(&mut stream, key);
        if right.contains(&status.as_str()) {
            asked.fetch_add(1, Ordering::Relaxed);
        } else {
            wrong.push(status);
            stream = gateway.connect();
        }
        pace.wait();
    }
    wrong
}

fn layout(machine: &Machine) -> String {
    machine.ask(&["keyfence", "version"])
}

fn is_active(machine: &Machine) -> bool {
    machine.show(UNIT, "ActiveState") == "active"
}

fn install(machine: &Machine, program: &str) {
    machine.ask(&["install", "-m", "755", program, "/usr/bin/keyfence"]);
}

/// As OPERATIONS.md says: the start that is refused says what is to be done, and the service is tried again each second.
fn go_back(machine: &Machine) {
    machine.ask(&[
        "sh",
        "-c",
        "echo KEYFENCE_OPTIONS=--downgrade >>/etc/default/keyfence",
    ]);
    install(machine, THIS);
    let journal = || machine.ask(&["journalctl", "--no-pager", "--output=cat", "--unit", UNIT]);
    let before = journal().len();
    machine.run(&["systemctl", "restart", UNIT]);
    let mut done: Vec<String> = Vec::new();
    until("the older build is in its place again", || {
        if is_active(machine) {
            return Some(());
        }
        let journal = journal();
        let named = journal
            .get(before..)
            .unwrap_or_default()
            .split('`')
            .filter(|command| command.starts_with("mv "));
        for way in named.map(str::to_owned).collect::<Vec<String>>() {
            if !done.contains(&way) {
                machine.ask(&["sh", "-ec", &way]);
                done.push(way);
            }
        }
        None
    });
    assert_eq!(done.len(), 2, "policies and store: {done:#?}");
}

#[test]
fn no_request_of_a_gateway_fails_while_the_daemon_is_restarted_and_upgraded() {
    let site = Site::new();
    let mut probe = Probe::open(&site);
    let files = Files::new();
    files.install();
    files.write("etc/keyfence/keyfence.toml", &policy());
    files.copy(&keyfence_path(), &THIS[1..]);
    files.copy(&next_path(), &NEXT[1..]);
    let machine = files.boot(&[UNIT], &site.server, site.bpf.path());
    let gateway = Gateway::before(&machine.path("/run/keyfence/api.sock"));
    let before = layout(&machine);
    let (over, asked, refused) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let wrong: Vec<String> = thread::scope(|scope| {
        let mut asking = Vec::new();
        for _ in 0..CLIENTS {
            asking.push(scope.spawn(|| keep_asking(&gateway, (KEY, &["200"]), &over, &asked)));
        }
        asking.push(scope.spawn(|| keep_asking(&gateway, ("secret-9", &["401", "403"]), &over, &refused)));
        let stop = StopOnDrop(&over);
        let go_on = || {
            let (with, without) = (asked.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
            until("requests are answered", || {
                let more = asked.load(Ordering::Relaxed) > with + 100;
                (more && refused.load(Ordering::Relaxed) > without + 10).then_some(())
            });
        };
        go_on();
        for _ in 0..2 {
            machine.ask(&["systemctl", "restart", UNIT]);
            go_on();
        }
        for _ in 0..2 {
            install(&machine, NEXT);
            machine.ask(&["systemctl", "restart", UNIT]);
            assert_ne!(layout(&machine), before);
            probe.assert_filtered();
            go_on();
            go_back(&machine);
            assert_eq!(layout(&machine), before);
            probe.assert_filtered();
            go_on();
            machine.ask(&[
                "sh",
                "-c",
                "rm -r /var/lib/keyfence/*.newer; sed -i /--downgrade/d /etc/default/keyfence",
            ]);
        }
        drop(stop);
        let ended = asking
            .into_iter()
            .flat_map(|asking| asking.join().expect("it only asks"));
        ended.collect()
    });
    println!(
        "{} requests let in, {} refused",
        asked.load(Ordering::Relaxed),
        refused.load(Ordering::Relaxed)
    );
    assert!(wrong.is_empty(), "{} answered wrongly: {wrong:?}", wrong.len());
}
