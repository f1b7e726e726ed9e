//! Scripted backends: an app instance whose every byte a test chooses.
//!
//! Owns a listener, a thread for each connection, and a record of what
//! arrived. Plain blocking sockets; nothing of the router's.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use super::client::split_header;
use super::{DEADLINE, eventually, find};

/// Bytes kept of what arrives, for looking at later.
const RECORD_LIMIT: usize = 1024 * 1024;

/// A running backend; stops when dropped.
pub struct Backend {
    address: SocketAddr,
    record: Arc<Record>,
    /// Held by backends that listen but never accept, or are bound only.
    _held: Vec<Held>,
}

#[expect(dead_code, reason = "held for their sockets, not read")]
enum Held {
    Socket(socket2::Socket),
    Stream(TcpStream),
}

/// What arrived, over all connections.
#[derive(Default)]
struct Record {
    stop: AtomicBool,
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

/// `200 OK` with this body.
pub fn answer_ok(body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

impl Backend {
    /// Runs `script` for each connection, each on its own thread.
    pub fn script(script: impl Fn(Conn) + Send + Sync + 'static) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback must have a free port");
        Backend::on(listener, script)
    }

    fn on(listener: TcpListener, script: impl Fn(Conn) + Send + Sync + 'static) -> Backend {
        let address = listener
            .local_addr()
            .expect("a listener must have an address");
        let record = Arc::new(Record::default());
        let shared = record.clone();
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let conn = Conn::new(stream, &shared);
                let script = script.clone();
                std::thread::spawn(move || script(conn));
            }
        });
        Backend {
            address,
            record,
            _held: Vec::new(),
        }
    }

    /// Answers every request, keeping connections, as an app would.
    pub fn app(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Backend {
        Backend::script(move |mut conn| {
            while let Some(request) = conn.request() {
                if !conn.write(answer(&request)) {
                    return;
                }
                if request.header("connection") == Some("close") {
                    return;
                }
            }
        })
    }

    /// Answers every request with this body.
    pub fn named(body: &'static str) -> Backend {
        Backend::app(move |_| answer_ok(body))
    }

    /// Answers every request with the body that came.
    pub fn echo() -> Backend {
        Backend::app(|request| {
            let mut answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                request.body.len()
            )
            .into_bytes();
            answer.extend_from_slice(&request.body);
            answer
        })
    }

    /// Reads each request, then sends exactly these bytes and closes.
    pub fn says(bytes: impl Into<Vec<u8>>) -> Backend {
        let bytes = bytes.into();
        Backend::script(move |mut conn| {
            if conn.request().is_some() {
                conn.write(&bytes);
            }
        })
    }

    /// A port that is taken but refuses every connection.
    pub fn refuses() -> Backend {
        let socket = stream_socket();
        let address = bound(&socket);
        Backend {
            address,
            record: Arc::default(),
            _held: vec![Held::Socket(socket)],
        }
    }

    /// A port whose queue is full: connecting to it never ends.
    pub fn never_accepts() -> Backend {
        let socket = stream_socket();
        let address = bound(&socket);
        socket.listen(0).expect("a bound socket must listen");
        let mut held = vec![Held::Socket(socket)];
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            held.push(Held::Stream(stream));
            assert!(held.len() < 100, "the queue of {address} never fills");
        }
        Backend {
            address,
            record: Arc::default(),
            _held: held,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections taken so far.
    pub fn connections(&self) -> usize {
        self.record.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.record.open.load(Ordering::SeqCst)
    }

    /// Requests read so far.
    pub fn requests(&self) -> Vec<Request> {
        self.record
            .requests
            .lock()
            .expect("no script may panic holding it")
            .clone()
    }

    /// The last request read; waits for the first.
    #[track_caller]
    pub fn request(&self) -> Request {
        eventually("the backend reads a request", || self.requests().pop())
    }

    /// Every byte that arrived, over all connections, up to a limit.
    pub fn received(&self) -> Vec<u8> {
        self.record
            .bytes
            .lock()
            .expect("no script may panic holding it")
            .clone()
    }

    /// Breaks every connection and stops listening.
    pub fn stop(self) {}

    /// Breaks every connection, and goes on listening.
    pub fn cut(&self) {
        let streams = self
            .record
            .streams
            .lock()
            .expect("no script may panic holding it");
        for stream in streams.iter().filter_map(Weak::upgrade) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.record.stop.store(true, Ordering::SeqCst);
        if self._held.is_empty() {
            // Wakes the accepting thread, which then closes the listener.
            let _ = TcpStream::connect_timeout(&self.address, Duration::from_millis(500));
        }
        self.cut();
    }
}

fn stream_socket() -> socket2::Socket {
    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("a socket must be available")
}

fn bound(socket: &socket2::Socket) -> SocketAddr {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket
        .bind(&any.into())
        .expect("loopback must have a free port");
    socket
        .local_addr()
        .expect("a bound socket must have an address")
        .as_socket()
        .expect("it must be an IP address")
}

impl Conn {
    fn new(stream: TcpStream, record: &Arc<Record>) -> Conn {
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
        let mut request = self.head()?;
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

    fn still_open(&self) -> bool {
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
