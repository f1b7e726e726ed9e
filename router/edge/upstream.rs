//! Connections to backends: opened, kept for reuse, and let go.
//!
//! Owns a thread's idle backend connections, keyed by the backend's key (unique
//! to one incarnation, so a connection never outlives what it was opened to).
//! Never chooses a backend and never retries: that is the journey's, with
//! [`crate::policy::balance`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::net::SocketAddr;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::net::{TcpSocket, TcpStream};

use super::clock::Micros;

/// An idle connection is kept this long (CONTRACT: 90 s).
const KEPT_US: Micros = 90_000_000;

/// Idle connections kept to one backend by one thread.
const KEPT_PER_BACKEND: usize = 256;

/// What the runtime keeps of a socket that it watches, about.
pub const REGISTRATION_BYTES: usize = 256;

/// A thread's idle connections.
#[derive(Default)]
pub struct Pool {
    idle: RefCell<HashMap<u64, Vec<Idle>, BuildHasherDefault<KeyHasher>>>,
    held: Cell<usize>,
}

struct Idle {
    stream: TcpStream,
    since: Micros,
}

impl Pool {
    /// The connection to `key` that was used last, if one is still open as far
    /// as the event loop knows. No system call unless something arrived on it.
    pub fn take(&self, key: u64) -> Option<TcpStream> {
        let mut idle = self.idle.borrow_mut();
        let stack = idle.get_mut(&key)?;
        while let Some(Idle { stream, .. }) = stack.pop() {
            self.held.set(self.held.get() - 1);
            if is_quiet(&stream) {
                return Some(stream);
            }
        }
        None
    }

    /// As [`take`](Self::take), but the system is asked: a backend that died a
    /// moment ago is noticed although the event loop was not told yet.
    pub fn take_checked(&self, key: u64) -> Option<TcpStream> {
        loop {
            let stream = self.take(key)?;
            let mut byte = [0u8; 1];
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            if rustix::net::recv(&stream, &mut byte, flags) == Err(Errno::AGAIN) {
                return Some(stream);
            }
        }
    }

    /// Whether it has a connection to `key`.
    pub fn has(&self, key: u64) -> bool {
        let idle = self.idle.borrow();
        idle.get(&key).is_some_and(|stack| !stack.is_empty())
    }

    /// Keeps a connection whose last answer ended cleanly.
    pub fn put(&self, key: u64, stream: TcpStream, now: Micros) {
        let mut idle = self.idle.borrow_mut();
        let stack = idle.entry(key).or_default();
        if stack.len() < KEPT_PER_BACKEND {
            stack.push(Idle { stream, since: now });
            self.held.set(self.held.get() + 1);
        }
    }

    /// Closes every connection to `key`: one of them was found dead, so the
    /// process behind them is gone or going.
    pub fn forget(&self, key: u64) {
        if let Some(stack) = self.idle.borrow_mut().remove(&key) {
            self.held.set(self.held.get() - stack.len());
        }
    }

    /// Closes what is too old or was closed by its backend.
    pub fn sweep(&self, now: Micros) {
        let mut held = 0;
        self.idle.borrow_mut().retain(|_, stack| {
            stack.retain(|one| now.saturating_sub(one.since) < KEPT_US && is_quiet(&one.stream));
            held += stack.len();
            !stack.is_empty()
        });
        self.held.set(held);
    }

    /// Bytes they take in this process, about.
    pub fn bytes(&self) -> usize {
        self.held() * (size_of::<Idle>() + REGISTRATION_BYTES)
    }

    /// Connections held.
    pub fn held(&self) -> usize {
        self.held.get()
    }
}

/// Open, and without a byte that nobody asked for.
fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = [0u8; 1];
    matches!(stream.try_read(&mut byte), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

/// Opens a connection; the caller bounds the time.
pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_nodelay(true)?;
    let stream = socket.connect(address).await?;
    if is_own_end(&stream)? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// Whether a connection leads to itself: to a local port where nobody listens
/// the system may connect from that very port (RFC 9293, section 3.5: both
/// sides open at once), and one of many attempts does.
fn is_own_end(stream: &TcpStream) -> io::Result<bool> {
    Ok(stream.local_addr()? == stream.peer_addr()?)
}

/// Whether a connection failed for want of descriptors, ports or memory of our own.
pub fn is_own_want(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::ADDRNOTAVAIL | Errno::NOBUFS | Errno::NOMEM)
    )
}

/// Whether it failed for want of descriptors.
pub fn is_short(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::MFILE)
}

/// Keys are already unique and well spread: they need no hashing.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, _: &[u8]) {
        unreachable!("pool keys must be u64");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_to_itself_is_none() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(!is_own_end(&stream).unwrap());
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        let stream = socket.connect(address).await.unwrap();
        assert!(is_own_end(&stream).unwrap());
    }
}
