//! Scripted backends: an app instance whose every byte a test chooses.
//!
//! Owns a listener and a thread for each connection. Plain blocking sockets;
//! nothing of the router's.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::conn::{Conn, Record, Request};
use super::eventually;

/// A running backend; stops when dropped.
pub struct Backend {
    address: SocketAddr,
    record: Arc<Record>,
    stop: Arc<AtomicBool>,
    /// Absent in backends that accept nothing.
    listener: Option<TcpListener>,
    /// Held by backends that listen but never accept, or are bound only.
    _held: Vec<Held>,
}

#[expect(dead_code, reason = "held for their sockets, not read")]
enum Held {
    Socket(socket2::Socket),
    Stream(TcpStream),
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
        Backend::recording(listener, &Arc::default(), script)
    }

    /// As [`Backend::script`] on this listener, adding to a record that may
    /// outlive it.
    pub(super) fn recording(
        listener: TcpListener,
        record: &Arc<Record>,
        script: impl Fn(Conn) + Send + Sync + 'static,
    ) -> Backend {
        let address = listener
            .local_addr()
            .expect("a listener must have an address");
        let kept = listener.try_clone().expect("a listener must be cloneable");
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopping) = (record.clone(), stop.clone());
        let script = Arc::new(script);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopping.load(Ordering::SeqCst) {
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
            record: record.clone(),
            stop,
            listener: Some(kept),
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
        Backend::holding(address, vec![Held::Socket(socket)])
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
        Backend::holding(address, held)
    }

    fn holding(address: SocketAddr, held: Vec<Held>) -> Backend {
        Backend {
            address,
            record: Arc::default(),
            stop: Arc::default(),
            listener: None,
            _held: held,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections taken so far.
    pub fn connections(&self) -> usize {
        self.record.connections()
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.record.open()
    }

    /// Requests read so far.
    pub fn requests(&self) -> Vec<Request> {
        self.record.requests()
    }

    /// The last request read; waits for the first.
    #[track_caller]
    pub fn request(&self) -> Request {
        eventually("the backend reads a request", || self.requests().pop())
    }

    /// Every byte that arrived, over all connections, up to a limit.
    pub fn received(&self) -> Vec<u8> {
        self.record.received()
    }

    /// Breaks every connection and stops listening.
    pub fn stop(self) {}

    /// Breaks every connection, and goes on listening.
    pub fn cut(&self) {
        self.record.cut();
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(listener) = &self.listener {
            // From here on it refuses; the accepting thread wakes and ends.
            let _ = socket2::SockRef::from(listener).shutdown(Shutdown::Both);
        }
        self.cut();
    }
}

pub(super) fn stream_socket() -> socket2::Socket {
    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("a socket must be available")
}

pub(super) fn bound(socket: &socket2::Socket) -> SocketAddr {
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
