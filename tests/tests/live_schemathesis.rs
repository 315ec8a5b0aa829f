//! Whatever the API's document allows, and much that it does not, asked of the daemon by schemathesis: no answer is a
//! fault of the daemon's own, each is of the shape that the document gives, and the daemon stays.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

use keyfence_tests::harness::{Attach, Daemon, Policy, Site, output, schemathesis};
use keyfence_tests::subject;

const ENTRIES: &str = r#"
[[service]]
name = "payments"
protocol = "tcp"
ports = [443]
[[publisher]]
name = "gateway"
user = "root"
services = ["*"]
environments = ["production"]
widest-prefix = { ipv4 = 0, ipv6 = 0 }
requests = { rate = "1M", burst = "1M" }
"#;
/// Of the whole run; it goes on for as long.
const SECONDS: &str = "45";

/// Hands connections to a TCP port of the loopback device on to a Unix socket, for programs that know no other.
fn forward(socket: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback device is up");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let socket = socket.clone();
            thread::spawn(move || join(client, &socket));
        }
    });
    port
}

fn join(client: TcpStream, socket: &Path) -> io::Result<()> {
    let server = UnixStream::connect(socket)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        to_server.shutdown(Shutdown::Write)
    });
    let (mut from_server, mut to_client) = (server, client);
    let _ = io::copy(&mut from_server, &mut to_client);
    to_client.shutdown(Shutdown::Both)
}

#[test]
fn whatever_is_asked_the_answer_is_of_the_documents_shape() {
    let site = Site::new();
    let daemon = Daemon::start(&site, &Policy::new(Attach::Native, ENTRIES));
    let document = site.folder().join("openapi.json");
    let served = daemon.get("/openapi.json").expect("the daemon answers").body;
    std::fs::write(&document, served).expect("a temporary folder can be written");
    let port = forward(site.socket());
    let mut command = schemathesis();
    command.env("PYTHONPATH", subject::folder().join("schemathesis"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("SCHEMATHESIS_HOOKS", "keyfence_hooks");
    command.current_dir(site.folder()).arg("run").arg(&document);
    command.args(["--url", &format!("http://127.0.0.1:{port}")]);
    command.args(["--max-time", SECONDS, "--request-timeout", "10", "--workers", "2"]);
    command.args([
        "--phases",
        "examples,coverage,fuzzing",
        "--generation-deterministic",
    ]);
    command.args(["--continue-on-failure", "--warnings", "off", "--no-color"]);
    command.args([
        "--checks",
        "not_a_server_error,content_type_conformance,response_schema_conformance,members_are_documented",
    ]);
    // A watch and a capture have no end; the copies of a store are files wherever the operator says.
    command.args([
        "--exclude-path-regex",
        "^/v1/(watch|capture|backup|restore|detach)$",
    ]);
    let told = output(&mut command);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(
        told.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&told.stderr)
    );
    println!("{text}");
    assert_eq!(daemon.get("/readyz").expect("it is still there").status, 200);
    let page = daemon.scrape();
    let asked: f64 = page
        .lines()
        .filter(|line| line.starts_with("keyfence_http_requests_total"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert!(asked > 500.0, "only {asked} requests came");
}
