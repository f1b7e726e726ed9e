//! What the kernel waits for and hears: lifelines, standard errors, signals,
//! the dead. Passes everything on to the posts; decides nothing.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, WaitOptions};

use super::Kernel;
use crate::heritage::{Heard, Report, Role};
use crate::supervisor::moment::Moment;
use crate::supervisor::post::Post;
use crate::supervisor::signals::Signal;

/// Reports taken from one child before the others are looked at.
const REPORTS_A_TURN: usize = 32;

impl Kernel {
    /// Blocks until something can be heard or is due.
    pub(super) fn wait(&self) {
        let due = [
            self.control.wake_at(),
            self.edge.wake_at(),
            self.crash_loop.wake_at(),
            self.renewal.wake_at(),
            self.service.wake_at(),
        ];
        let due = due.into_iter().flatten().min();
        let due = due.map_or(self.next_ping, |at| at.min(self.next_ping));
        // Rounded up by a millisecond, or the loop would spin through the rest.
        let left = due.since(Moment::now()) + Duration::from_millis(1);
        let timeout = Timespec::try_from(left).ok();
        let mut watched: Vec<BorrowedFd<'_>> = vec![self.signals.as_fd()];
        for child in &self.children {
            if !child.deaf {
                watched.push(child.tether.as_fd());
            }
            watched.extend(child.stderr.as_ref().map(AsFd::as_fd));
        }
        watched.extend(self.renewal.watched());
        let mut poll: Vec<PollFd<'_>> = watched
            .iter()
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .collect();
        // Interrupted or not: what there is to hear is heard without waiting.
        let _ = rustix::event::poll(&mut poll, timeout.as_ref());
    }

    pub(super) fn hear_children(&mut self) {
        let now = Moment::now();
        self.renewal.listen();
        for at in 0..self.children.len() {
            self.children[at].relay_stderr();
            let (role, generation) = (self.children[at].role, self.children[at].generation);
            // One that never falls silent must not keep the others waiting: what is
            // left is heard in the next turn.
            for _ in 0..REPORTS_A_TURN {
                match self.children[at].tether.hear() {
                    Heard::Report(Report::Pong(_)) => self.post(role).answered(generation),
                    Heard::Report(Report::Warm) => {
                        self.post(role).warm(generation, now);
                        self.table_stale = true;
                    }
                    Heard::Report(Report::Ready) => {
                        self.post(role).ready(generation, now);
                        self.table_stale = true;
                        // Whether another fits beside it is to be seen now.
                        self.next_look = now;
                    }
                    Heard::Report(Report::Upgrade) if role == Role::Control => {
                        self.on_signal(Signal::Upgrade);
                    }
                    // Only control passes an operator's wish on.
                    Heard::Report(Report::Upgrade) => {}
                    // It counts as said: nonsense without end must not keep us.
                    Heard::Unknown => {}
                    Heard::Quiet => break,
                    Heard::Closed => {
                        self.children[at].deaf = true;
                        break;
                    }
                }
            }
        }
    }

    /// Collects the dead; as process 1 also those nobody else waits for.
    pub(super) fn reap(&mut self) {
        if self.is_init {
            while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                self.on_death(pid, status);
            }
            return;
        }
        let children = self.children.iter().map(|child| child.pid);
        let pids: Vec<Pid> = children.chain(self.renewal.pid()).collect();
        for pid in pids {
            let waited = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            if let Ok(Some((pid, status))) = waited {
                self.on_death(pid, status);
            }
        }
    }
}
