//! The connection's writing end, shared by the feed's threads.
//!
//! Owns the one lock over it, and what control is to know of this edge with
//! every acknowledgement: the revision, and whether it stands by. Never reads.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::feed::codec::{self, FrameError};
use crate::feed::messages::{Ack, Body, Envelope};
use crate::table::Table;

/// How long a control that does not read may hold up the end of a process.
const LAST_WORD_PATIENCE: Duration = Duration::from_millis(500);

/// The writing end, while there is one.
#[derive(Debug)]
pub(super) struct Wire {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// There is one between the hellos and the connection's end.
    stream: Option<UnixStream>,
    epoch: u64,
    /// The table is exactly that of its revision.
    is_exact: bool,
    is_stopped: bool,
    /// The edge serves nobody yet.
    is_standby: bool,
}

impl Default for Wire {
    fn default() -> Self {
        Wire {
            state: Mutex::new(State {
                stream: None,
                epoch: 0,
                is_exact: false,
                is_stopped: false,
                is_standby: true,
            }),
            changed: Condvar::new(),
        }
    }
}

impl State {
    fn send(&mut self, epoch: u64, revision: u64, body: Body) -> Result<(), FrameError> {
        match &mut self.stream {
            Some(stream) => codec::write(stream, &Envelope::new(epoch, revision, body)),
            None => Err(FrameError::Ended),
        }
    }

    /// The revision is read under the lock, so that none follows a later one.
    fn ack(&mut self, table: &Table) -> Result<(), FrameError> {
        let ack = Ack {
            apps: table.len() as u64,
            is_standby: self.is_standby,
        };
        // What is not exactly a revision is none.
        let revision = if self.is_exact { table.revision() } else { 0 };
        self.send(self.epoch, revision, Body::Ack(ack))
    }
}

impl Wire {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the edge serves nobody yet.
    pub(super) fn is_standby(&self) -> bool {
        self.state().is_standby
    }

    /// There is a connection to a control of this epoch, and what the edge's
    /// hello said: that it stands by, that its table is exactly that of a
    /// revision. If it stands by no more, control hears it at once.
    pub(super) fn link(
        &self,
        stream: UnixStream,
        epoch: u64,
        (said_standby, is_exact): (bool, bool),
        table: &Table,
    ) -> Result<(), FrameError> {
        let mut state = self.state();
        state.stream = Some(stream);
        state.epoch = epoch;
        state.is_exact = is_exact;
        let told = match said_standby && !state.is_standby {
            true => state.ack(table),
            false => Ok(()),
        };
        drop(state);
        self.changed.notify_all();
        told
    }

    /// The edge serves from now on; control hears it at once, if it is there.
    pub(super) fn serves(&self, table: &Table) {
        let mut state = self.state();
        state.is_standby = false;
        // A dying link is noticed by its reader; the next one's hello says it.
        let _ = state.ack(table);
    }

    /// Says that the table's revision is active, exactly.
    pub(super) fn ack(&self, table: &Table) -> Result<(), FrameError> {
        let mut state = self.state();
        state.is_exact = true;
        state.ack(table)
    }

    /// Ends the connection, if there is one; its reader notices.
    pub(super) fn unlink(&self) {
        if let Some(stream) = self.state().stream.take() {
            // Already closed by the peer: all the same.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends the reading; what is written until the link is taken away still
    /// goes out, in a moment or not at all.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.is_stopped = true;
        if let Some(stream) = &mut state.stream {
            // Already closed by the peer: all the same.
            let _ = stream.set_write_timeout(Some(LAST_WORD_PATIENCE));
            let _ = stream.shutdown(Shutdown::Read);
        }
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state().is_stopped
    }

    /// Waits for `time`, or for the stop.
    pub(super) fn wait(&self, time: Duration) {
        let waited = self
            .changed
            .wait_timeout_while(self.state(), time, |state| !state.is_stopped);
        drop(waited);
    }

    /// Waits for a connection; false at the stop.
    pub(super) fn wait_linked(&self) -> bool {
        let waiting = |state: &mut State| !state.is_stopped && state.stream.is_none();
        match self.changed.wait_while(self.state(), waiting) {
            Ok(state) => !state.is_stopped,
            Err(poisoned) => !poisoned.into_inner().is_stopped,
        }
    }

    /// Sends a message of this epoch and revision.
    pub(super) fn send(&self, epoch: u64, revision: u64, body: Body) -> Result<(), FrameError> {
        self.state().send(epoch, revision, body)
    }
}
