//! Signals as a readable descriptor. Owns which signals the supervisor
//! handles, and how none is lost while it replaces itself; decides nothing
//! about them.
//!
//! **Invariant**: across `execve` the handled signals are blocked. Handlers
//! do not survive it and the default actions would end the process; what is
//! blocked is neither lost nor deadly, also for process 1, and waits until
//! the successor has handlers of its own.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{SigSet, Signal as Number, raise};
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

/// Every signal handled here.
const HANDLED: [i32; 5] = [SIGTERM, SIGINT, SIGHUP, SIGUSR2, SIGCHLD];

/// The pending signals of this process.
pub(super) struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
}

impl Signals {
    /// Takes the signals over from their default actions, and lets those in
    /// that a predecessor held back.
    pub(super) fn take() -> std::io::Result<Signals> {
        let (read, write) = UnixStream::pair()?;
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, HANDLED)?;
        handled().thread_unblock()?;
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

    /// Lets no signal in until the returned value is dropped; across a
    /// successful `execve` it never is. Those that were caught but not read
    /// yet are raised again, so that whoever has handlers next meets them.
    pub(super) fn hold(&mut self) -> std::io::Result<Held> {
        handled().thread_block()?;
        let held = Held;
        for caught in self.delivery.pending() {
            raise(Number::try_from(caught)?)?;
        }
        Ok(held)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

/// While it lives, the handled signals wait in the system.
pub(super) struct Held;

impl Held {
    /// As if the signal had arrived now: it is found when the hold ends.
    pub(super) fn keep(&self, signal: Signal) -> std::io::Result<()> {
        let number = match signal {
            Signal::Stop => Number::SIGTERM,
            Signal::Reload => Number::SIGHUP,
            Signal::Upgrade => Number::SIGUSR2,
            Signal::ChildDied => Number::SIGCHLD,
        };
        Ok(raise(number)?)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It fails only for a set that makes no sense.
        let _ = handled().thread_unblock();
    }
}

fn handled() -> SigSet {
    let numbers = HANDLED.into_iter().map(Number::try_from);
    numbers
        .map(|number| number.expect("the handled signals must have names"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not a test by itself: handlers stay for a process's whole life, so
    /// what needs them has a process of its own.
    #[test]
    #[ignore = "started by the other test"]
    fn around_a_hold() {
        let mut signals = Signals::take().unwrap();
        raise(Number::SIGHUP).unwrap();
        let held = signals.hold().unwrap();
        raise(Number::SIGUSR2).unwrap();
        held.keep(Signal::Stop).unwrap();
        assert_eq!(signals.pending(), [], "nothing gets through a hold");
        drop(held);
        let found = signals.pending();
        for signal in [Signal::Reload, Signal::Upgrade, Signal::Stop] {
            assert!(found.contains(&signal), "{signal:?} of {found:?}");
        }
    }

    #[test]
    fn a_signal_before_or_during_a_hold_is_found_after_it() {
        let test = "supervisor::signals::tests::around_a_hold";
        let ran = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--test-threads=1", test])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    }
}
