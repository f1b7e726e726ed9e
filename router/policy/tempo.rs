//! Whether a client that is waited for keeps the rate it has to.
//!
//! Owns the measure: bytes over the time in which the other side was waited
//! for. Time in which nobody waited for it is not its fault and does not count.
//! Silence is judged elsewhere, by idle deadlines: a client that pauses and
//! then goes on at a good rate may, one that drips may not.

use std::time::Duration;

/// Waiting time that one judgement is about.
const SPAN_US: u64 = Duration::from_secs(5).as_micros() as u64;

/// What was moved while one side was waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tempo {
    /// Waited for since; 0: it is not.
    since_us: u64,
    /// Waited, and bytes moved, in this span.
    waited_us: u64,
    bytes: u64,
    /// The span before was too slow.
    was_slow: bool,
}

impl Tempo {
    /// Whether it is waited for.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.since_us != 0
    }

    /// How long it has been waited for without a byte.
    #[inline]
    pub fn silent_us(&self, now_us: u64) -> u64 {
        match self.since_us {
            0 => 0,
            since => now_us.saturating_sub(since),
        }
    }

    /// It is waited for from now on, if it was not.
    #[inline]
    pub fn wait(&mut self, now_us: u64) {
        if self.since_us == 0 {
            self.since_us = now_us.max(1);
        }
    }

    /// So many bytes moved, and it is not waited for. Whether it has been too
    /// slow for two spans in a row: one may begin with a pause.
    #[must_use]
    pub fn moved(&mut self, now_us: u64, bytes: u64, per_second: u64) -> bool {
        self.waited_us += self.silent_us(now_us);
        self.since_us = 0;
        self.bytes += bytes;
        if self.waited_us < SPAN_US {
            return false;
        }
        let due = u128::from(per_second) * u128::from(self.waited_us) / 1_000_000;
        let is_slow = u128::from(self.bytes) < due;
        let was_slow = std::mem::replace(&mut self.was_slow, is_slow);
        (self.waited_us, self.bytes) = (0, 0);
        is_slow && was_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// Moves `bytes` after each wait; when it is found too slow, if ever.
    fn run(waits_us: impl IntoIterator<Item = (u64, u64)>, per_second: u64) -> Option<u64> {
        let (mut tempo, mut now) = (Tempo::default(), 7);
        for (wait_us, bytes) in waits_us {
            tempo.wait(now);
            now += wait_us;
            if tempo.moved(now, bytes, per_second) {
                return Some(now - 7);
            }
        }
        None
    }

    #[test]
    fn a_byte_a_second_ends_after_two_spans() {
        let dripped = std::iter::repeat_n((SECOND, 1), 100);
        assert_eq!(run(dripped, 64), Some(10 * SECOND));
    }

    #[test]
    fn a_slow_phone_lives_though_it_pauses() {
        let mut waits = Vec::new();
        for _ in 0..20 {
            waits.extend(std::iter::repeat_n((SECOND / 10, 100), 100));
            // Out of reach, then a lost segment sent again, then as before.
            waits.push((50 * SECOND, 536));
        }
        assert_eq!(run(waits, 64), None);
    }

    #[test]
    fn drips_far_apart_end_too() {
        let dripped = std::iter::repeat_n((50 * SECOND, 300), 100);
        assert_eq!(run(dripped, 64), Some(100 * SECOND));
    }

    #[test]
    fn any_rate_will_do_where_none_is_asked() {
        assert_eq!(run(std::iter::repeat_n((50 * SECOND, 1), 1_000), 0), None);
    }

    #[test]
    fn time_in_which_nobody_waits_does_not_count() {
        let mut tempo = Tempo::default();
        for turn in 1..1_000 {
            let now = turn * 10 * SECOND;
            tempo.wait(now);
            assert!(!tempo.moved(now + 1_000, 1, 64));
            assert_eq!(tempo.silent_us(now + 9 * SECOND), 0);
        }
    }

    #[test]
    fn waiting_longer_begins_once() {
        let mut tempo = Tempo::default();
        tempo.wait(5);
        tempo.wait(SECOND);
        assert!(tempo.is_waiting());
        assert_eq!(tempo.silent_us(SECOND), SECOND - 5);
    }
}
