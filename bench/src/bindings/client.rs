//! HTTP/1.1 over the daemon's socket, as a gateway or an API server keeps it: one connection, requests one after the
//! other.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

pub(super) struct Client {
    reader: BufReader<UnixStream>,
    request: Vec<u8>,
}

/// Bytes of a body that are written at once.
const PIECE: usize = 256 << 10;

impl Client {
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("the daemon's socket")?;
        Ok(Self {
            reader: BufReader::new(stream),
            request: Vec::new(),
        })
    }

    /// One request with a short body; its status, the body read and left in `body`.
    pub(super) fn ask(&mut self, line: &str, headers: &str, sent: &[u8], body: &mut Vec<u8>) -> Result<u16> {
        self.request.clear();
        write!(
            self.request,
            "{line} HTTP/1.1\r\nhost: bench\r\n{headers}content-length: {}\r\n\r\n",
            sent.len()
        )?;
        self.request.extend_from_slice(sent);
        self.reader.get_mut().write_all(&self.request)?;
        self.answer(body)
    }

    /// A stream of lines, all of it; the answer's body is read behind it.
    pub(super) fn stream(&mut self, line: &str, sent: &[u8], body: &mut Vec<u8>) -> Result<u16> {
        write!(
            self.reader.get_mut(),
            "{line} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
            sent.len()
        )?;
        for piece in sent.chunks(PIECE) {
            self.reader.get_mut().write_all(piece)?;
        }
        self.answer(body)
    }

    fn answer(&mut self, body: &mut Vec<u8>) -> Result<u16> {
        body.clear();
        let mut status = 0;
        let mut length = None;
        let mut line = String::new();
        loop {
            line.clear();
            ensure!(
                self.reader.read_line(&mut line)? > 0,
                "the daemon closed the connection"
            );
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            if status == 0 {
                status = text
                    .get(9..12)
                    .and_then(|word| word.parse().ok())
                    .context("no HTTP answer")?;
            } else if let Some((name, value)) = text.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse::<usize>()?);
            }
        }
        match length {
            Some(length) => {
                body.resize(length, 0);
                self.reader.read_exact(body)?;
            }
            None => self.chunks(body)?,
        }
        Ok(status)
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Result<()> {
        let mut line = String::new();
        loop {
            line.clear();
            self.reader.read_line(&mut line)?;
            let length = usize::from_str_radix(line.trim(), 16).context("a chunk's length")?;
            let start = body.len();
            body.resize(start + length, 0);
            self.reader.read_exact(&mut body[start..])?;
            line.clear();
            self.reader.read_line(&mut line)?;
            if length == 0 {
                return Ok(());
            }
        }
    }
}
