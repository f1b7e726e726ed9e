//! Large bodies from socket to socket without passing through our memory.
//!
//! Owns the pipes that splice(2) needs and the moving of a body of known
//! length through one. Only for bytes that need no look: the framing is
//! `Content-Length` and the head is on its way. Copying 1 MiB in and out costs
//! more than everything else about such a request.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::relay::Broke;
use crate::edge::http1::body::Body;
use crate::observe::Code;

/// A body with this much to come is worth a pipe.
pub const WORTH_BYTES: u64 = 64 * 1024;

/// What a pipe is asked to hold; the kernel's default will do if it says no.
const PIPE_BYTES: usize = 256 * 1024;

/// Idle pipes kept by a thread, and pipes of a thread in all: past
/// `pipe-user-pages-soft` the kernel shrinks everybody's.
const KEPT: usize = 8;
const MOST: usize = 64;

/// A thread's pipes.
#[derive(Default)]
pub struct Pipes {
    idle: RefCell<Vec<Pipe>>,
    lent: Cell<usize>,
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipes {
    /// A body's way through a pipe; none when enough are in use, or the system
    /// has none.
    pub fn lend(&self) -> Option<Spliced> {
        if self.lent.get() >= MOST {
            return None;
        }
        let pipe = self.idle.borrow_mut().pop().or_else(Pipe::open)?;
        self.lent.set(self.lent.get() + 1);
        Some(Spliced {
            pipe,
            held: 0,
            sent: 0,
        })
    }

    /// Back from a body's way; closed if bytes are left in it.
    pub fn put(&self, spliced: Spliced) {
        self.lent.set(self.lent.get() - 1);
        let mut idle = self.idle.borrow_mut();
        if spliced.held == 0 && idle.len() < KEPT {
            idle.push(spliced.pipe);
        }
    }
}

impl Pipe {
    fn open() -> Option<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let _ = fcntl_setpipe_size(&write, PIPE_BYTES);
        Some(Pipe { read, write })
    }
}

/// A body on its way through a pipe.
pub struct Spliced {
    pipe: Pipe,
    /// Bytes in the pipe.
    held: usize,
    sent: u64,
}

impl Spliced {
    /// Bytes that the client has taken.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes read from the backend that the client has not taken.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves what can be moved; ready once the body is through.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Body,
        client: &TcpStream,
        backend: &TcpStream,
        progress: &mut bool,
    ) -> Poll<Result<(), Broke>> {
        loop {
            while self.held > 0 {
                if ready!(client.poll_write_ready(cx)).is_err() {
                    return Poll::Ready(Err(Broke::Client(Code::H27)));
                }
                match client.try_io(Interest::WRITABLE, || {
                    shift(&self.pipe.read, client, self.held)
                }) {
                    Ok(moved @ 1..) => {
                        self.held -= moved;
                        self.sent += moved as u64;
                        *progress = true;
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    _ => return Poll::Ready(Err(Broke::Client(Code::H27))),
                }
            }
            let left = match body.remaining() {
                Some(left @ 1..) => usize::try_from(left).unwrap_or(usize::MAX),
                _ => return Poll::Ready(Ok(())),
            };
            if ready!(backend.poll_read_ready(cx)).is_err() {
                return Poll::Ready(Err(Broke::Backend(Code::H18, None)));
            }
            let most = left.min(PIPE_BYTES);
            match backend.try_io(Interest::READABLE, || {
                shift(backend, &self.pipe.write, most)
            }) {
                Ok(moved @ 1..) => {
                    self.held += moved;
                    body.pass_unseen(moved as u64);
                    *progress = true;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                _ => return Poll::Ready(Err(Broke::Backend(Code::H18, None))),
            }
        }
    }
}

fn shift(
    from: impl std::os::fd::AsFd,
    to: impl std::os::fd::AsFd,
    most: usize,
) -> io::Result<usize> {
    Ok(splice(
        from,
        None,
        to,
        None,
        most,
        SpliceFlags::NONBLOCK | SpliceFlags::MOVE,
    )?)
}
