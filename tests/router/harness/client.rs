//! A raw client: sends exactly the bytes it is told, reads answers strictly.
//!
//! Owns one connection and the framing of what comes back. Deliberately
//! simple-minded, so that it shares no mistake with the router's parser.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{DEADLINE, find};

/// One connection to a server.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The other side ended the connection with a reset.
    was_reset: bool,
}

/// An answer, whole or as far as it came.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// `HTTP/1.1`.
    pub version: String,
    /// 200.
    pub status: u16,
    /// `OK`.
    pub reason: String,
    /// In order, names as sent.
    pub headers: Vec<(String, String)>,
    /// Unframed.
    pub body: Vec<u8>,
    /// After a chunked body.
    pub trailers: Vec<(String, String)>,
    /// Whether the body ended as its framing says.
    pub complete: bool,
    /// The 1xx answers before it.
    pub interim: Vec<Answer>,
}

impl Answer {
    /// The value of a header, if there is exactly one.
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "more than one `{name}` in {self:?}");
        all.first().copied()
    }

    /// Every value of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.status, self.text()))
    }

    /// The code of an answer of the router's own, from `Proxy-Status`.
    pub fn code(&self) -> Option<String> {
        let value = self.header("proxy-status")?;
        let details = value.split("details=").nth(1)?;
        Some(
            details
                .split(';')
                .next()?
                .trim()
                .trim_matches('"')
                .to_owned(),
        )
    }

    /// Fails unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(
            self.status,
            status,
            "answered {} {:?}: {}",
            self.status,
            self.headers,
            self.text().chars().take(2000).collect::<String>()
        );
        self
    }

    /// Fails unless it is the router's own answer with this status and code.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) -> Answer {
        let answer = self.expect(status);
        assert_eq!(answer.code().as_deref(), Some(code), "{answer:?}");
        answer
    }
}

impl Client {
    /// Connects, or fails.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Client {
        match Client::try_connect(address) {
            Ok(client) => client,
            Err(error) => panic!("cannot connect to {address}: {error}"),
        }
    }

    /// Connects.
    pub fn try_connect(address: SocketAddr) -> std::io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Client {
            stream,
            buffer: Vec::new(),
            was_reset: false,
        })
    }

    /// The connection itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends all of it, or fails.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        let sent = self.stream.write_all(bytes.as_ref());
        assert!(sent.is_ok(), "cannot send: {sent:?}");
        self
    }

    /// Sends what the other side still takes.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) -> &mut Client {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("connection must be open");
        self
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .expect("linger must be settable");
    }

    /// Reads one answer to a request that is not HEAD.
    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// Reads one answer; fails if none comes.
    #[track_caller]
    pub fn answer_to(&mut self, method: &str) -> Answer {
        match self.try_answer_to(method) {
            Ok(answer) => answer,
            Err(error) => panic!(
                "no answer: {error}; read so far: {:?}",
                String::from_utf8_lossy(&self.buffer)
            ),
        }
    }

    /// Reads one answer with the 1xx before it.
    pub fn try_answer_to(&mut self, method: &str) -> std::io::Result<Answer> {
        let mut interim = Vec::new();
        loop {
            let mut answer = self.head()?;
            if (100..200).contains(&answer.status) && answer.status != 101 {
                interim.push(answer);
                continue;
            }
            answer.interim = interim;
            self.body(method, &mut answer)?;
            return Ok(answer);
        }
    }

    /// Reads one head, interim or final, and no body.
    pub fn head(&mut self) -> std::io::Result<Answer> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            if self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let status_line = lines.next().expect("split must give one piece");
        let mut words = status_line.splitn(3, ' ');
        let version = words.next().unwrap_or_default().to_owned();
        assert!(
            version.starts_with("HTTP/1."),
            "not an answer: {status_line:?}"
        );
        let status = words
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("no status: {status_line:?}"));
        Ok(Answer {
            version,
            status,
            reason: words.next().unwrap_or_default().to_owned(),
            headers: lines.map(split_header).collect(),
            ..Answer::default()
        })
    }

    fn body(&mut self, method: &str, answer: &mut Answer) -> std::io::Result<()> {
        let bodiless = method == "HEAD" || matches!(answer.status, 101 | 204 | 304);
        if bodiless {
            answer.complete = true;
        } else if answer.header("transfer-encoding") == Some("chunked") {
            answer.complete = self.chunked(answer)?;
        } else if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse().expect("Content-Length must be a number");
            while self.buffer.len() < length {
                if self.fill_body()? == 0 {
                    break;
                }
            }
            answer.complete = self.buffer.len() >= length;
            let taken = length.min(self.buffer.len());
            answer.body = self.buffer.drain(..taken).collect();
        } else {
            while self.fill_body()? > 0 {}
            answer.complete = !self.was_reset;
            answer.body = std::mem::take(&mut self.buffer);
        }
        Ok(())
    }

    fn chunked(&mut self, answer: &mut Answer) -> std::io::Result<bool> {
        loop {
            let Some(line) = self.line()? else {
                return Ok(false);
            };
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16)
                .unwrap_or_else(|_| panic!("not a chunk size: {line:?}"));
            if size == 0 {
                break;
            }
            while self.buffer.len() < size + 2 {
                if self.fill_body()? == 0 {
                    let rest = size.min(self.buffer.len());
                    answer.body.extend(self.buffer.drain(..rest));
                    return Ok(false);
                }
            }
            answer.body.extend(self.buffer.drain(..size));
            let end: Vec<u8> = self.buffer.drain(..2).collect();
            assert_eq!(end, b"\r\n", "a chunk must end with CRLF");
        }
        loop {
            match self.line()? {
                None => return Ok(false),
                Some(line) if line.is_empty() => return Ok(true),
                Some(line) => answer.trailers.push(split_header(&line)),
            }
        }
    }

    fn line(&mut self) -> std::io::Result<Option<String>> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 2);
                return Ok(Some(line));
            }
            if self.fill_body()? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads at least `count` bytes and gives exactly as many.
    #[track_caller]
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            let got = self.fill();
            assert!(
                matches!(got, Ok(1..)),
                "wanted {count} bytes, got {got:?} after {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
        self.buffer.drain(..count).collect()
    }

    /// Reads to the end of the connection, which must come in time, with or
    /// without a reset; gives what came before it.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        loop {
            match self.fill() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    panic!(
                        "connection still open after {DEADLINE:?}; read {:?}",
                        String::from_utf8_lossy(&self.buffer)
                    )
                }
                Err(_) => break,
            }
        }
        std::mem::take(&mut self.buffer)
    }

    /// Fails unless the other side closes, having sent nothing more.
    #[track_caller]
    pub fn closed(&mut self) {
        let rest = self.rest();
        assert!(
            rest.is_empty(),
            "closed after unexpected bytes {:?}",
            String::from_utf8_lossy(&rest)
        );
    }

    /// Whether nothing at all arrives, not even the end, for this long.
    pub fn silent(&mut self, time: Duration) -> bool {
        if !self.buffer.is_empty() {
            return false;
        }
        self.stream
            .set_read_timeout(Some(time))
            .expect("timeout must be settable");
        let started = Instant::now();
        let got = self.fill();
        self.stream
            .set_read_timeout(Some(DEADLINE))
            .expect("timeout must be settable");
        got.is_err() && started.elapsed() >= time / 2
    }

    /// As `fill`; a reset is an end too, and noted.
    fn fill_body(&mut self) -> std::io::Result<usize> {
        match self.fill() {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                self.was_reset = true;
                Ok(0)
            }
            other => other,
        }
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut piece = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut piece) {
                Ok(count) => {
                    self.buffer.extend_from_slice(&piece[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A `GET` for an app of [`Router::serve`](super::Router::serve), as text.
pub fn get(app: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {app}.example\r\n\r\n")
}

/// A request with a body of known length and these other header lines.
pub fn with_body(method: &str, app: &str, path: &str, lines: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {app}.example\r\nContent-Length: {}\r\n{lines}\r\n{body}",
        body.len()
    )
}

/// A small `POST`.
pub fn post(app: &str, path: &str) -> String {
    with_body("POST", app, path, "", "body")
}

/// `Name: value` into its parts.
pub fn split_header(line: &str) -> (String, String) {
    let (name, value) = line
        .split_once(':')
        .unwrap_or_else(|| panic!("not a header: {line:?}"));
    (name.to_owned(), value.trim().to_owned())
}
