//! A real HTTP server behind the filter.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use super::http;
use super::program::system;
use super::site::{SERVER, Site};
use super::wait::until;

/// It answers every request with 200.
#[derive(Debug)]
pub struct Nginx {
    child: Child,
}

impl Nginx {
    pub const PORT: u16 = 8080;

    /// Listens on the server's addresses, and is up when this returns.
    pub fn start(site: &Site) -> Self {
        let folder = site.folder();
        let configuration = folder.join("nginx.conf");
        let port = Self::PORT;
        let text = format!(
            "daemon off;\nmaster_process off;\npid {0}/nginx.pid;\nerror_log {0}/nginx.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; server {{ listen {1}:{port}; listen [{2}]:{port}; \
             location / {{ return 200 \"answered\\n\"; }} }} }}\n",
            folder.display(),
            SERVER.v4,
            SERVER.v6
        );
        fs::write(&configuration, text).expect("a temporary folder can be written");
        let program = system("nginx");
        let child = site
            .server
            .command(program.get_program())
            .arg("-c")
            .arg(&configuration)
            .arg("-e")
            .arg(folder.join("nginx.log"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx can be started");
        // From the host itself, which is not filtered.
        for address in SERVER.addresses() {
            let to = SocketAddr::new(address, port);
            until("nginx answers", || {
                http::fetch(&site.server, address, to)
                    .ok()
                    .filter(|answer| answer.status == 200)
            });
        }
        Self { child }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
