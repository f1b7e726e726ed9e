//! An app instance that a test breaks and mends while it runs.
//!
//! Owns a port for its whole life, so that nobody else gets it while it is
//! down, and what it does with requests. What it executed is counted over all
//! its lives. Deliberately knows nothing of how a router notices.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::backend::{Backend, answer_ok, bound, stream_socket};
use super::conn::{Conn, Record, Request};
use super::{eventually, pause};

/// What is asked for by the probes of these tests.
pub const PROBE_PATH: &str = "/healthz";

/// What an instance does with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Conduct {
    /// Answers 200 with its name.
    Well,
    /// As `Well`, after this long.
    Slow(Duration),
    /// Answers this status, with a body that says so and these header lines.
    Answers(u16, &'static str),
    /// Reads the request whole, then resets the connection.
    Resets,
    /// Resets the connection as soon as it has read a head.
    ResetsAtHead,
    /// Answers this status as soon as it has read a head, and reads on.
    AnswersAtHead(u16),
    /// Reads the request, and answers when it is mended.
    Silent,
    /// Reads the request, sends exactly these bytes and closes.
    Says(&'static [u8]),
    /// Reads the request, sends the first, then the second again and again.
    Floods(&'static [u8], &'static [u8]),
}

/// What its connections go by.
struct Script {
    name: String,
    conduct: Mutex<Conduct>,
    health: Mutex<Conduct>,
}

/// An instance of an app; gone when dropped.
pub struct Instance {
    address: SocketAddr,
    script: Arc<Script>,
    record: Arc<Record>,
    running: Mutex<Option<Backend>>,
    /// Bound beside the listener, listening never: it keeps the port.
    _reserved: socket2::Socket,
}

impl Instance {
    /// One that listens and is well; its answers say its name.
    pub fn start(name: &str) -> Instance {
        let instance = Instance::down(name);
        instance.restart();
        instance
    }

    /// One that refuses connections until it is restarted.
    pub fn down(name: &str) -> Instance {
        let reserved = stream_socket();
        reserved
            .set_reuse_address(true)
            .expect("it must be settable");
        Instance {
            address: bound(&reserved),
            script: Arc::new(Script {
                name: name.to_owned(),
                conduct: Mutex::new(Conduct::Well),
                health: Mutex::new(Conduct::Well),
            }),
            record: Arc::default(),
            running: Mutex::default(),
            _reserved: reserved,
        }
    }

    /// Where it listens, or would.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection and refuses new ones, as a crash does.
    pub fn crash(&self) {
        self.running.lock().expect("no test shares it").take();
    }

    /// Listens again, at the same address.
    pub fn restart(&self) {
        let listener = TcpListener::bind(self.address).expect("its port must be kept for it");
        let script = self.script.clone();
        let backend = Backend::recording(listener, &self.record, move |conn| serve(conn, &script));
        *self.running.lock().expect("no test shares it") = Some(backend);
    }

    /// From now on it does this, probes aside.
    pub fn does(&self, conduct: Conduct) {
        *self.script.conduct.lock().expect("no script panics") = conduct;
    }

    /// From now on it does this with probes.
    pub fn does_to_probes(&self, conduct: Conduct) {
        *self.script.health.lock().expect("no script panics") = conduct;
    }

    /// Requests executed so far, probes aside.
    pub fn requests(&self) -> Vec<Request> {
        let mut requests = self.record.requests();
        requests.retain(|request| request.target != PROBE_PATH);
        requests
    }

    /// How many requests it executed so far, probes aside.
    pub fn count(&self) -> usize {
        self.requests().len()
    }

    /// How often it executed the request for this path.
    pub fn executed(&self, path: &str) -> usize {
        let requests = self.record.requests();
        requests.iter().filter(|it| it.target == path).count()
    }

    /// Waits until it executes the request for this path; gives it.
    #[track_caller]
    pub fn wait_for(&self, path: &str) -> Request {
        eventually(&format!("an instance reads {path}"), || {
            self.requests().into_iter().find(|it| it.target == path)
        })
    }

    /// Probes answered or not so far.
    pub fn probes(&self) -> Vec<Request> {
        let mut requests = self.record.requests();
        requests.retain(|request| request.target == PROBE_PATH);
        requests
    }

    /// Connections taken so far.
    pub fn connections(&self) -> usize {
        self.record.connections()
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.record.open()
    }
}

fn serve(mut conn: Conn, script: &Script) {
    while let Some(head) = conn.head() {
        let place = if head.target == PROBE_PATH {
            &script.health
        } else {
            &script.conduct
        };
        let conduct = || place.lock().expect("no script panics").clone();
        let now = conduct();
        if now == Conduct::ResetsAtHead {
            conn.note(head);
            return conn.reset();
        }
        if let Conduct::AnswersAtHead(status) = now {
            conn.note(head);
            conn.write(answers(&script.name, status, ""));
            conn.until_closed();
            return;
        }
        let Some(request) = conn.body(head) else {
            return;
        };
        let answer = match now {
            Conduct::Well => answer_ok(&script.name),
            Conduct::Slow(time) => {
                pause(time);
                answer_ok(&script.name)
            }
            Conduct::Answers(status, lines) => answers(&script.name, status, lines),
            Conduct::Silent => {
                while conduct() == Conduct::Silent {
                    if !conn.still_open() {
                        return;
                    }
                    pause(Duration::from_millis(5));
                }
                answer_ok(&script.name)
            }
            Conduct::Resets | Conduct::ResetsAtHead | Conduct::AnswersAtHead(_) => {
                return conn.reset();
            }
            Conduct::Says(bytes) => {
                conn.write(bytes);
                return;
            }
            Conduct::Floods(first, again) => {
                let again = again.repeat(1 + 16_384 / again.len());
                if conn.write(first) {
                    while conn.write(&again) {}
                }
                return;
            }
        };
        if !conn.write(answer) || request.header("connection") == Some("close") {
            return;
        }
    }
}

/// An answer with this status, whose body names the instance and the status.
fn answers(name: &str, status: u16, lines: &str) -> Vec<u8> {
    if status == 204 {
        return format!("HTTP/1.1 204 Own\r\n{lines}\r\n").into_bytes();
    }
    let body = format!("{name} says {status}");
    format!(
        "HTTP/1.1 {status} Own\r\nContent-Length: {}\r\n{lines}\r\n{body}",
        body.len()
    )
    .into_bytes()
}
