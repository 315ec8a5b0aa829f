//! The second layer behind gateways: nginx and Caddy themselves, with their files of config/gateways, and for others
//! what their documentation says they send.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;

use keyfence_tests::harness::{Listeners, PATIENCE, system, until};
use socket2::{Domain, Socket, Type};

/// `secret-1` is let in from 127.0.0.2 alone.
const ENTRIES: &str = r#"
[[client]]
name = "acme"
sources = ["127.0.0.2"]
services = ["payments"]
credentials = ["sha256:f7e7c36e458e80e6b6a2c67d0a9ec09bd718dadd7bfa8d6bf6e7ad526e46c2f7", "key-1"]
[[client]]
name = "beta"
sources = ["127.0.0.3"]
services = ["payments"]
credentials = ["sha256:35224d0d3465d74e855f8d69a136e79c744ea35a675d3393360a327cbf6359a2"]
[[listener]]
address = "unix:SOCKET"
mode = "0666"
roles = ["authorize", "metrics"]
"#;
/// Behind a proxy at 127.0.0.9, which the policy trusts.
const BEHIND_PROXIES: &str =
    "[authorize]\naddress-header = \"X-Forwarded-For\"\ntrusted-proxies = [\"127.0.0.9\", \"127.0.0.1\"]\n";

/// A file of config/gateways with this test's socket and ports.
fn configuration(name: &str, socket: &Path, front: u16, back: u16) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../config/gateways")
        .join(name);
    let text = fs::read_to_string(&path).expect("the configuration is in the repository");
    for part in ["/run/keyfence/api.sock", "8443", "127.0.0.1:8080"] {
        assert!(text.contains(part), "{name} has no {part}");
    }
    text.replace("/run/keyfence/api.sock", &socket.display().to_string())
        .replace("8443", &front.to_string())
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{back}"))
}

/// The API behind the gateway: answers with the credential it was told.
fn api() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    port
}

fn serve(stream: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let (mut told, mut line) = (String::from("none"), String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line == "\r\n" {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("keyfence-credential")
            {
                value.trim().clone_into(&mut told);
            }
        }
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{told}", told.len());
        reader.get_mut().write_all(answer.as_bytes()).ok()?;
    }
}

struct Gateway {
    child: Child,
    port: u16,
    _listeners: Listeners,
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
    fn nginx(policy: &str) -> Self {
        Self::start(policy, |listeners, front, back| {
            let folder = listeners.folder();
            let inner = configuration("nginx.conf", &listeners.socket(), front, back);
            let text = format!(
                "daemon off;\nmaster_process off;\npid {0}/nginx.pid;\nerror_log {0}/nginx.log;\n\
                 events {{ worker_connections 64; }}\nhttp {{ access_log off;\n{inner}\n}}\n",
                folder.display()
            );
            let path = folder.join("nginx.conf");
            fs::write(&path, text).expect("a temporary folder can be written");
            let mut command = system("nginx");
            command
                .arg("-c")
                .arg(path)
                .arg("-e")
                .arg(folder.join("nginx.log"));
            command
        })
    }

    fn caddy(policy: &str) -> Self {
        Self::start(policy, |listeners, front, back| {
            let path = listeners.folder().join("Caddyfile");
            let text = configuration("Caddyfile", &listeners.socket(), front, back);
            fs::write(&path, text).expect("a temporary folder can be written");
            let mut command = system("caddy");
            command
                .args(["run", "--adapter", "caddyfile", "--config"])
                .arg(path);
            command.env("HOME", listeners.folder());
            command
        })
    }

    fn start(policy: &str, command: impl FnOnce(&Listeners, u16, u16) -> std::process::Command) -> Self {
        let listeners = Listeners::start(policy);
        let (front, back) = (free_port(), api());
        let mut command = command(&listeners, front, back);
        let log =
            fs::File::create(listeners.folder().join("log")).expect("a temporary folder can be written");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let gateway = Self {
            child: child.expect("the gateway can be started"),
            port: front,
            _listeners: listeners,
        };
        until("the gateway listens", || {
            TcpStream::connect(("127.0.0.1", front)).ok()
        });
        gateway
    }

    fn connect(&self, from: &str) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("sockets can be made");
        let address: IpAddr = from.parse().expect("it is an address");
        socket
            .bind(&SocketAddr::new(address, 0).into())
            .expect("all of 127/8 is ours");
        let to: SocketAddr = ([127, 0, 0, 1], self.port).into();
        socket.connect(&to.into()).expect("the gateway listens");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a time can be set");
        socket.into()
    }

    /// Status and body of a request from this address.
    fn ask(&self, from: &str, headers: &str) -> (u16, String) {
        let mut stream = self.connect(from);
        ask(&mut stream, headers)
    }
}

/// One request on a connection that stays open.
fn ask(stream: &mut (impl Read + Write), headers: &str) -> (u16, String) {
    let request = format!("GET /v1/things?x=y HTTP/1.1\r\nHost: api\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("the gateway reads");
    let (status, head) = read_head(stream);
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("the body is whole");
    (status, String::from_utf8_lossy(&body).into_owned())
}

fn read_head(stream: &mut impl Read) -> (u16, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.expect("a status"), head)
}

const KEY: &str = "X-Api-Key: secret-1\r\n";

fn keys_work_from_their_addresses_alone(gateway: &Gateway) {
    let (status, told) = gateway.ask("127.0.0.2", KEY);
    assert_eq!(status, 200, "{told}");
    assert!(told.starts_with("sha256:f7e7c36e"), "{told}");
    let bearer = "Authorization: Bearer secret-1\r\n";
    assert_eq!(gateway.ask("127.0.0.2", bearer).0, 200);
    for (from, headers, status) in [
        // The right key, and another listed address.
        ("127.0.0.3", KEY.to_owned(), 403),
        ("127.0.0.2", "X-Api-Key: secret-3\r\n".to_owned(), 401),
        ("127.0.0.2", String::new(), 401),
        // What a client claims of itself.
        (
            "127.0.0.3",
            format!("{KEY}Keyfence-Client-Address: 127.0.0.2\r\n"),
            403,
        ),
        ("127.0.0.3", format!("{KEY}X-Forwarded-For: 127.0.0.2\r\n"), 403),
        ("127.0.0.2", "Keyfence-Credential: key-1\r\n".to_owned(), 401),
        ("127.0.0.2", format!("{KEY}X-Api-Key: other\r\n"), 401),
    ] {
        assert_eq!(gateway.ask(from, &headers).0, status, "from {from}: {headers}");
    }
    // The API is never told a credential that the client made up.
    let forged = format!("{KEY}Keyfence-Credential: key-1\r\n");
    let (status, told) = gateway.ask("127.0.0.2", &forged);
    assert!(
        status == 200 && told.starts_with("sha256:f7e7c36e"),
        "{status} {told}"
    );
    // Each request of a connection is judged.
    let mut kept = gateway.connect("127.0.0.2");
    for _ in 0..20 {
        assert_eq!(ask(&mut kept, KEY).0, 200);
    }
    assert_eq!(ask(&mut kept, "X-Api-Key: secret-3\r\n").0, 401);
}

#[test]
fn nginx_lets_a_key_in_from_its_address_alone() {
    keys_work_from_their_addresses_alone(&Gateway::nginx(ENTRIES));
}

#[test]
fn caddy_lets_a_key_in_from_its_address_alone() {
    keys_work_from_their_addresses_alone(&Gateway::caddy(ENTRIES));
}

#[test]
fn nginx_behind_a_trusted_proxy_tells_the_client_behind_it() {
    let gateway = Gateway::nginx(&format!("{ENTRIES}{BEHIND_PROXIES}"));
    let forwarded = |addresses: &str| format!("{KEY}X-Forwarded-For: {addresses}\r\n");
    assert_eq!(gateway.ask("127.0.0.9", &forwarded("127.0.0.2")).0, 200);
    assert_eq!(gateway.ask("127.0.0.9", &forwarded("127.0.0.3")).0, 403);
    // A stranger's claim stands left of the proxy's own word.
    assert_eq!(
        gateway.ask("127.0.0.9", &forwarded("127.0.0.2, 127.0.0.3")).0,
        403
    );
    assert_eq!(gateway.ask("127.0.0.3", &forwarded("127.0.0.2")).0, 403);
    // No client's address at all: the gateway is set up wrongly, which nginx answers with 500.
    assert_eq!(gateway.ask("127.0.0.9", KEY).0, 500);
}

/// Sends a head as a gateway does, and reads status and head of the answer.
fn send(socket: &Path, request: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).expect("the listener is there");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a time can be set");
    stream.write_all(request.as_bytes()).expect("it reads");
    read_head(&mut stream)
}

#[test]
fn what_haproxy_and_envoy_send_is_answered_as_they_read_it() {
    let listeners = Listeners::start(ENTRIES);
    let from = |address: &str| {
        format!("host: keyfence\r\nkeyfence-client-address: {address}\r\nx-api-key: secret-1\r\n")
    };
    for (address, status) in [("127.0.0.2", 200), ("127.0.0.3", 403)] {
        // HAProxy's auth-request: a HEAD with the headers that it was told to hand on.
        let head = format!("HEAD /v1/authorize/payments HTTP/1.1\r\n{}\r\n", from(address));
        let (found, told) = send(&listeners.socket(), &head);
        assert_eq!(found, status, "{told}");
        // Envoy: the original method and path below the prefix, a length of 0, its own headers.
        let envoy = format!(
            "POST /v1/authorize/payments/v1/charges?expand=all HTTP/1.1\r\n{}content-length: 0\r\n\
             x-envoy-internal: true\r\nx-forwarded-for: 10.0.0.1\r\nx-envoy-expected-rq-timeout-ms: 200\r\n\r\n",
            from(address)
        );
        let (found, told) = send(&listeners.socket(), &envoy);
        assert_eq!(found, status, "{told}");
        assert!(told.contains("keyfence-credential: sha256:f7e7c36e"), "{told}");
    }
}

#[test]
fn what_traefik_sends_is_answered_as_it_reads_it() {
    let listeners = Listeners::start(&format!("{ENTRIES}{BEHIND_PROXIES}"));
    for (address, status) in [("127.0.0.2", 200), ("127.0.0.3", 403)] {
        let request = format!(
            "GET /v1/authorize/payments HTTP/1.1\r\nHost: 127.0.0.1:9470\r\nUser-Agent: Go-http-client/1.1\r\n\
             X-Api-Key: secret-1\r\nX-Forwarded-For: {address}\r\nX-Forwarded-Host: api\r\nX-Forwarded-Method: POST\r\n\
             X-Forwarded-Proto: https\r\nX-Forwarded-Uri: /v1/charges\r\nAccept-Encoding: gzip\r\n\r\n"
        );
        let (found, told) = send(&listeners.socket(), &request);
        assert_eq!(found, status, "{told}");
    }
}
