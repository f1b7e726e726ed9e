//! One socket of the data plane, and whether clients may come in by it.
//!
//! Owns which edge had it first: edges are numbered in the order of their start,
//! and each inherits every socket there is, so those from that one on have it and
//! the earlier ones do not.

use std::io;
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::SockRef;

use crate::heritage::BACKLOG;

/// See the module.
#[derive(Debug)]
pub(super) struct Door {
    socket: TcpListener,
    /// The first edge that was lent it.
    first: Option<u64>,
}

impl Door {
    /// Lent to nobody yet.
    pub(super) fn new(socket: TcpListener) -> Door {
        Door {
            socket,
            first: None,
        }
    }

    /// As a successor of the supervisor takes it over.
    pub(super) fn lent(socket: TcpListener, first: Option<u64>) -> Door {
        Door { socket, first }
    }

    /// The first edge that was lent it.
    pub(super) fn first(&self) -> Option<u64> {
        self.first
    }

    /// Clients may connect from now on; whoever accepts finds them waiting.
    pub(super) fn open(&self) -> io::Result<()> {
        Ok(rustix::net::listen(&self.socket, BACKLOG)?)
    }

    pub(super) fn lend(&mut self, generation: u64) {
        self.first.get_or_insert(generation);
    }

    /// If the newest edge on duty lacks it, nobody may connect to it any more, for
    /// nobody would accept. What waits in it is reset, and new connections go to
    /// its siblings.
    pub(super) fn close_but_to(&self, generation: u64) {
        if self.first.is_some_and(|first| first <= generation) {
            return;
        }
        let socket = SockRef::from(&self.socket);
        if socket.is_listener().unwrap_or(false) {
            // Linux: stops to listen, and stays bound. Refused, clients wait.
            let _ = socket.shutdown(Shutdown::Read);
        }
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
