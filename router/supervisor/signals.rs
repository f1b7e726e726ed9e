//! Signals as a readable descriptor. Owns which signals the supervisor
//! handles; decides nothing about them.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

/// A signal, as the supervisor understands it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGTERM or SIGINT: drain and exit; again: at once.
    Stop,
    /// SIGHUP: re-read settings, reopen logs.
    Reload,
    /// SIGUSR2: upgrade to the binary on disk.
    Upgrade,
    /// SIGCHLD: somebody died.
    ChildDied,
}

/// The pending signals of this process.
pub(super) struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
}

impl Signals {
    /// Takes the signals over from their default actions.
    pub(super) fn take() -> std::io::Result<Signals> {
        let (read, write) = UnixStream::pair()?;
        let handled = [SIGTERM, SIGINT, SIGHUP, SIGUSR2, SIGCHLD];
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, handled)?;
        Ok(Signals { delivery })
    }

    /// Those that arrived since the last call, without waiting.
    pub(super) fn pending(&mut self) -> Vec<Signal> {
        self.delivery
            .pending()
            .filter_map(|signal| match signal {
                SIGTERM | SIGINT => Some(Signal::Stop),
                SIGHUP => Some(Signal::Reload),
                SIGUSR2 => Some(Signal::Upgrade),
                SIGCHLD => Some(Signal::ChildDied),
                _ => None,
            })
            .collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}
