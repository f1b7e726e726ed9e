//! Taking over inherited descriptors by number: the one place of the router
//! with `unsafe`. Never closes or opens anything of its own.

use std::collections::HashSet;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::FdFlags;

use super::HeritageError;

/// Set once the heritage was claimed: descriptors have one owner.
static CLAIMED: AtomicBool = AtomicBool::new(false);

/// Hands out each descriptor of a will, or of a predecessor's state, at most
/// once per process.
pub(crate) struct Adopter {
    left: HashSet<RawFd>,
}

impl Adopter {
    /// The only one there will be.
    pub(crate) fn once(descriptors: Vec<RawFd>) -> Result<Adopter, HeritageError> {
        if CLAIMED.swap(true, Ordering::AcqRel) {
            return Err(HeritageError::NotMine("it was claimed before"));
        }
        let count = descriptors.len();
        let left: HashSet<RawFd> = descriptors.into_iter().collect();
        if left.len() != count || left.iter().any(|fd| *fd <= 2) {
            return Err(HeritageError::Malformed(
                "it names a descriptor twice, or below 3".into(),
            ));
        }
        Ok(Adopter { left })
    }

    /// Owns `fd` from here on, closed on exec again.
    pub(crate) fn take(&mut self, fd: RawFd, what: &'static str) -> Result<OwnedFd, HeritageError> {
        let wrong = |source: std::io::Error| HeritageError::Descriptor { fd, what, source };
        if !self.left.remove(&fd) {
            return Err(HeritageError::NotMine("a descriptor is not in the will"));
        }
        // SAFETY: the call below only asks the kernel about a number (it
        // fails with EBADF if nothing is open there) and the borrow ends
        // with it.
        #[allow(unsafe_code, reason = "a descriptor that arrived as a number")]
        let open = unsafe { BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_setfd(open, FdFlags::CLOEXEC).map_err(|errno| wrong(errno.into()))?;
        // SAFETY: `fd` is open (the call above succeeded). It has no other
        // owner in this process: its number comes from the supervisor that
        // is our parent (checked by `claim`), or that this process was before
        // it replaced itself (checked by `succession::open`), which named it
        // before we were started, `Adopter` exists once per process and gives
        // out each number once, and `main` claims before it opens anything
        // that stays open, so the number cannot be one of our own.
        #[allow(unsafe_code, reason = "a descriptor that arrived as a number")]
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(owned)
    }

    /// Owns `fd` as a bound TCP socket, non-blocking.
    pub(crate) fn tcp(
        &mut self,
        fd: RawFd,
        what: &'static str,
    ) -> Result<TcpListener, HeritageError> {
        let wrong = |source: std::io::Error| HeritageError::Descriptor { fd, what, source };
        let listener = TcpListener::from(self.take(fd, what)?);
        listener.local_addr().map_err(wrong)?;
        listener.set_nonblocking(true).map_err(wrong)?;
        Ok(listener)
    }

    /// Owns `fd` as a listening unix socket, non-blocking.
    pub(crate) fn unix(
        &mut self,
        fd: RawFd,
        what: &'static str,
    ) -> Result<UnixListener, HeritageError> {
        let wrong = |source: std::io::Error| HeritageError::Descriptor { fd, what, source };
        let listener = UnixListener::from(self.take(fd, what)?);
        listener.local_addr().map_err(wrong)?;
        listener.set_nonblocking(true).map_err(wrong)?;
        Ok(listener)
    }
}
