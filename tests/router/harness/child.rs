//! An app instance in a process of its own, to be frozen, thawed and killed.
//!
//! Owns the process, its port and the file it notes every executed request in.
//! Ends with the test, whatever state the process is in.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use rustix::process::Signal;

use super::backend::{bound, stream_socket};
use super::{eventually, need, processes};

/// Debian's, as the other tests use.
const PYTHON: &str = "/usr/bin/python3";

/// Reads requests, notes each, answers its name. Ends with its parent.
const SERVER: &str = r#"
import os, socket, sys, threading
name, port = sys.argv[1].encode(), int(sys.argv[2])
notes = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

def serve(conn):
    kept = b""
    while True:
        while b"\r\n\r\n" not in kept:
            piece = conn.recv(65536)
            if not piece:
                return
            kept += piece
        head, kept = kept.split(b"\r\n\r\n", 1)
        length = 0
        for line in head.split(b"\r\n")[1:]:
            key, value = line.split(b":", 1)
            if key.lower() == b"content-length":
                length = int(value)
        while len(kept) < length:
            piece = conn.recv(65536)
            if not piece:
                return
            kept += piece
        kept = kept[length:]
        os.write(notes, b" ".join(head.split(b" ", 2)[:2]) + b"\n")
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(name), name))

def accept():
    while True:
        conn, _ = listener.accept()
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(conn,), daemon=True).start()

listener = socket.create_server(("127.0.0.1", port), backlog=128)
threading.Thread(target=accept, daemon=True).start()
sys.stdin.buffer.read()
os._exit(0)
"#;

/// A process that serves; ends when dropped.
pub struct Child {
    name: String,
    address: SocketAddr,
    notes: tempfile::NamedTempFile,
    process: Mutex<std::process::Child>,
    /// Keeps the port while the process is gone.
    _reserved: socket2::Socket,
}

impl Child {
    /// Starts one and waits until it listens; its answers say its name.
    #[track_caller]
    pub fn start(name: &str) -> Child {
        need("python3", "python3");
        let reserved = stream_socket();
        reserved
            .set_reuse_address(true)
            .expect("it must be settable");
        let address = bound(&reserved);
        let notes = tempfile::NamedTempFile::new().expect("a temporary file must be had");
        let process = Mutex::new(spawn(name, address, &notes));
        Child {
            name: name.to_owned(),
            address,
            notes,
            process,
            _reserved: reserved,
        }
    }

    /// Where it listens, or would.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it where it stands: its sockets stay open, nobody reads them.
    pub fn freeze(&self) {
        processes::signal(self.pid(), Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        processes::signal(self.pid(), Signal::CONT);
    }

    /// Kills it; its port refuses from now on.
    pub fn kill(&self) {
        let mut process = self.process.lock().expect("no test panics holding it");
        let _ = process.kill();
        let _ = process.wait();
    }

    /// Starts it again at the same address.
    #[track_caller]
    pub fn restart(&self) {
        let next = spawn(&self.name, self.address, &self.notes);
        *self.process.lock().expect("no test panics holding it") = next;
    }

    /// `METHOD path` of every request it executed, over all its lives.
    pub fn executed(&self) -> Vec<String> {
        let notes = fs::read_to_string(self.notes.path()).expect("its notes must be readable");
        notes.lines().map(str::to_owned).collect()
    }

    fn pid(&self) -> u32 {
        let process = self.process.lock().expect("no test panics holding it");
        process.id()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

#[track_caller]
fn spawn(name: &str, address: SocketAddr, notes: &tempfile::NamedTempFile) -> std::process::Child {
    let child = Command::new(PYTHON)
        .args(["-S", "-c", SERVER, name, &address.port().to_string()])
        .arg(notes.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("python3 must run");
    eventually("the child listens", || TcpStream::connect(address).ok());
    child
}
