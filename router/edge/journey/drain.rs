//! How a client takes its answer.
//!
//! Owns the account of what it took while bytes waited for it. Time in which
//! there is nothing for it does not count: a stream of events may be slow.

use super::relay::Broke;
use crate::edge::thread::Thread;
use crate::observe::Code;
use crate::policy::tempo::Tempo;
use crate::table::App;

/// An answer on its way into a client's socket.
#[derive(Default)]
pub(super) struct Drain {
    tempo: Tempo,
    /// Bytes written from our memory, framing and all.
    pub(super) sent: u64,
    /// Bytes taken, by any way, when that was looked at last.
    taken: u64,
}

impl Drain {
    /// Whether the client was waited for when it was looked at last.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        self.tempo.is_waiting()
    }

    /// Why it is given up, if it is. `writing`: bytes wait for it; `spliced`:
    /// those that went past our memory.
    pub(super) fn judge(
        &mut self,
        thread: &Thread,
        writing: bool,
        spliced: u64,
        app: &App,
    ) -> Option<Broke> {
        let now = thread.clock.now();
        let taken = self.sent + spliced;
        let moved = taken.saturating_sub(std::mem::replace(&mut self.taken, taken));
        if self.is_waiting() && (moved > 0 || !writing) {
            let rate = thread.shared.settings.edge.clients.min_drain_rate;
            if self.tempo.moved(now, moved, rate) {
                return Some(Broke::TooSlow("answer taken too slowly"));
            }
        }
        if !writing {
            return None;
        }
        self.tempo.wait(now);
        // A client that still sends moves the idle deadline; taking nothing ends
        // it nevertheless.
        let idle_us = app.policy.idle_timeout.as_micros();
        let silent_us = u128::from(self.tempo.silent_us(now));
        (silent_us >= idle_us).then_some(Broke::Client(Code::H28))
    }
}
