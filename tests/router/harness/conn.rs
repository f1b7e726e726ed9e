//! A backend's side of one connection, and the record of what arrived on all.
//!
//! Owns reading requests strictly enough for tests, and what was read. Knows
//! nothing of listeners and nothing of the router's.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::client::split_header;
use super::{DEADLINE, find};

/// Bytes kept of what arrives, for looking at later.
const RECORD_LIMIT: usize = 1024 * 1024;

/// What arrived, over all connections.
#[derive(Default)]
pub(super) struct Record {
    connections: AtomicUsize,
    open: AtomicUsize,
    requests: Mutex<Vec<Request>>,
    bytes: Mutex<Vec<u8>>,
    streams: Mutex<Vec<Weak<TcpStream>>>,
}

/// A request as the backend read it.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`.
    pub method: String,
    /// As sent.
    pub target: String,
    /// `HTTP/1.1`.
    pub version: String,
    /// In order, names as sent.
    pub headers: Vec<(String, String)>,
    /// Unframed.
    pub body: Vec<u8>,
    /// After a chunked body.
    pub trailers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header, if there is exactly one.
    pub fn header(&self, name: &str) -> Option<&str> {
        let values: Vec<&str> = self.all(name);
        assert!(values.len() < 2, "more than one `{name}` in {self:?}");
        values.first().copied()
    }

    /// Every value of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }
}

/// The backend's side of one connection.
pub struct Conn {
    stream: Arc<TcpStream>,
    buffer: Vec<u8>,
    record: Arc<Record>,
}

impl Record {
    /// Connections taken so far.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Requests read so far.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests
            .lock()
            .expect("no script may panic holding it")
            .clone()
    }

    /// Every byte that arrived, up to a limit.
    pub(super) fn received(&self) -> Vec<u8> {
        self.bytes
            .lock()
            .expect("no script may panic holding it")
            .clone()
    }

    /// Breaks every connection.
    pub(super) fn cut(&self) {
        let streams = self.streams.lock().expect("no script may panic holding it");
        for stream in streams.iter().filter_map(Weak::upgrade) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Conn {
    pub(super) fn new(stream: TcpStream, record: &Arc<Record>) -> Conn {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(DEADLINE * 2));
        let _ = stream.set_write_timeout(Some(DEADLINE * 2));
        let stream = Arc::new(stream);
        record
            .streams
            .lock()
            .expect("no script may panic holding it")
            .push(Arc::downgrade(&stream));
        record.open.fetch_add(1, Ordering::SeqCst);
        record.connections.fetch_add(1, Ordering::SeqCst);
        Conn {
            stream,
            buffer: Vec::new(),
            record: record.clone(),
        }
    }

    /// Reads one request with its body; `None` at the end of the connection.
    pub fn request(&mut self) -> Option<Request> {
        let head = self.head()?;
        self.body(head)
    }

    /// Reads the body that belongs to a head, and counts the request as read.
    pub fn body(&mut self, mut request: Request) -> Option<Request> {
        if request.header("transfer-encoding") == Some("chunked") {
            loop {
                let line = self.line()?;
                let digits = line.split(';').next().unwrap_or_default();
                let size = usize::from_str_radix(digits.trim(), 16).ok()?;
                if size == 0 {
                    break;
                }
                let chunk = self.take(size + 2)?;
                request.body.extend_from_slice(&chunk[..size]);
            }
            loop {
                let line = self.line()?;
                if line.is_empty() {
                    break;
                }
                request.trailers.push(split_header(&line));
            }
        } else if let Some(length) = request.header("content-length") {
            let length: usize = length.parse().ok()?;
            request.body = self.take(length)?;
        }
        self.note(request.clone());
        Some(request)
    }

    /// Reads one head and leaves the body; not counted as a request read.
    pub fn head(&mut self) -> Option<Request> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at;
            }
            self.fill()?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let mut words = lines.next()?.split(' ');
        Some(Request {
            method: words.next()?.to_owned(),
            target: words.next()?.to_owned(),
            version: words.next()?.to_owned(),
            headers: lines.map(split_header).collect(),
            ..Request::default()
        })
    }

    /// Counts a request as read.
    pub fn note(&self, request: Request) {
        self.record
            .requests
            .lock()
            .expect("no script may panic holding it")
            .push(request);
    }

    /// Reads exactly `count` bytes; `None` at the end of the connection.
    pub fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill()?;
        }
        Some(self.buffer.drain(..count).collect())
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 2);
                return Some(line);
            }
            self.fill()?;
        }
    }

    /// Sends; false once the other side is gone.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        (&*self.stream).write_all(bytes.as_ref()).is_ok()
    }

    /// Says that nothing more will be sent; reading goes on.
    pub fn finish(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let _ = socket2::SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Reads until the other side closes; gives what came before. `None` if it
    /// stays open.
    pub fn until_closed(&mut self) -> Option<Vec<u8>> {
        while self.fill().is_some() {}
        match self.stream.take_error() {
            Ok(_) if self.still_open() => None,
            _ => Some(std::mem::take(&mut self.buffer)),
        }
    }

    /// Whether the other side has neither closed nor sent anything.
    pub(super) fn still_open(&self) -> bool {
        let _ = self.stream.set_nonblocking(true);
        let open = matches!(
            self.stream.peek(&mut [0]),
            Err(error) if error.kind() == ErrorKind::WouldBlock
        );
        let _ = self.stream.set_nonblocking(false);
        open
    }

    fn fill(&mut self) -> Option<()> {
        let mut piece = [0; 64 * 1024];
        loop {
            match (&*self.stream).read(&mut piece) {
                Ok(0) => return None,
                Ok(count) => {
                    self.buffer.extend_from_slice(&piece[..count]);
                    let mut bytes = self
                        .record
                        .bytes
                        .lock()
                        .expect("no script may panic holding it");
                    let room = RECORD_LIMIT.saturating_sub(bytes.len());
                    bytes.extend_from_slice(&piece[..count.min(room)]);
                    return Some(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.record.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A connection is a byte stream too, for libraries that want one.
impl Read for Conn {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.buffer.is_empty() {
            return (&*self.stream).read(into);
        }
        let count = into.len().min(self.buffer.len());
        for (to, from) in into.iter_mut().zip(self.buffer.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }
}

impl Write for Conn {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        (&*self.stream).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
