//! How an edge leaves: when it closes which of its client connections.
//!
//! Owns the timetable of a hand-over and of a shutdown, and each connection's
//! own moments in it. Never touches a socket: the connections' tasks ask and
//! act.
//!
//! ```text
//! told ──▶ idle ones may send one more request ──▶ idle ones are closed,
//!          one after another ─ ─ ─ what is busy stays ─ ─ ─▶ the last tenth:
//!          those left are closed one after another (H24) ──▶ the limit
//! ```
//!
//! A client that just sends a request on a kept connection must not meet its
//! end: so idle connections are left open for a while, in which a client that
//! uses its connection is told `Connection: close` with an answer, and only the
//! unused ones are closed by the router. All closed at one moment would come
//! back at one moment: so each has a moment of its own.

use std::task::{Context, Poll};
use std::time::Duration;

use super::clock::{Clock, Deadline, Micros};

/// Why an edge leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A successor serves: new connections are its.
    HandOver,
    /// The router shuts down: new connections are refused.
    Drain,
}

/// How long idle connections have for one more request, and over how long they
/// are closed then.
struct IdleTimes {
    grace: Duration,
    spread: Duration,
    /// For a connection that never carried a request.
    first_request: Duration,
}

impl Occasion {
    fn idle_times(self) -> IdleTimes {
        match self {
            Occasion::HandOver => IdleTimes {
                grace: Duration::from_secs(10),
                spread: Duration::from_secs(5),
                first_request: Duration::from_secs(10),
            },
            Occasion::Drain => IdleTimes {
                grace: Duration::from_millis(200),
                spread: Duration::from_millis(300),
                // It was just accepted, from a backlog where it may have waited.
                first_request: Duration::from_secs(1),
            },
        }
    }
}

/// When an edge closes its connections, by the process's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timetable {
    /// Why it leaves.
    pub occasion: Occasion,
    /// Idle connections are closed between these two.
    idle: (Micros, Micros),
    /// Connections without a request so far are not closed before this.
    first_request: Micros,
    /// What is left is closed between these two.
    forced: (Micros, Micros),
}

impl Timetable {
    /// Of an edge told at `since` to leave within `limit`. A short limit
    /// shortens everything: idle connections are closed before the last tenth.
    pub fn new(occasion: Occasion, since: Micros, limit: Duration) -> Timetable {
        let limit = micros(limit);
        let times = occasion.idle_times();
        let grace = micros(times.grace).min(limit / 2);
        let forced = since + limit - limit / 10;
        let idle = since + grace;
        Timetable {
            occasion,
            idle: (idle, (idle + micros(times.spread)).min(forced)),
            first_request: (since + micros(times.first_request)).min(forced),
            forced: (forced, since + limit),
        }
    }

    /// This one, unless `later` ends something sooner: a shutdown shortens a
    /// hand-over, and never prolongs one.
    pub fn shortened_by(self, later: Timetable) -> Timetable {
        let sooner = |a: (Micros, Micros), b: (Micros, Micros)| (a.0.min(b.0), a.1.min(b.1));
        let is_handover = [self.occasion, later.occasion] == [Occasion::HandOver; 2];
        Timetable {
            occasion: match is_handover {
                true => Occasion::HandOver,
                false => Occasion::Drain,
            },
            idle: sooner(self.idle, later.idle),
            first_request: self.first_request.min(later.first_request),
            forced: sooner(self.forced, later.forced),
        }
    }

    /// When the closing of what is left begins.
    pub fn forced_from(&self) -> Micros {
        self.forced.0
    }

    /// When every idle connection is closed.
    pub fn idle_until(&self) -> Micros {
        self.idle.1.max(self.first_request)
    }

    /// When an idle connection at this place is closed.
    fn idle_at(&self, place: Place, is_fresh: bool) -> Micros {
        let at = place.within(self.idle);
        if is_fresh {
            at.max(self.first_request)
        } else {
            at
        }
    }
}

fn micros(time: Duration) -> Micros {
    Micros::try_from(time.as_micros()).unwrap_or(Micros::MAX / 4)
}

/// A connection's place among those that are closed one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 0; may come to pass `of`, then it begins anew.
    pub index: u64,
    /// Connections there are, about.
    pub of: u64,
}

impl Place {
    /// Its moment: the last one's is the end.
    fn within(self, (from, until): (Micros, Micros)) -> Micros {
        let of = self.of.max(1);
        let turn = self.index % of + 1;
        let span = u128::from(until.saturating_sub(from));
        let offset = span * u128::from(turn) / u128::from(of);
        from + Micros::try_from(offset).unwrap_or(Micros::MAX / 4)
    }
}

/// Where a thread stands in its timetable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    /// The timetable.
    pub timetable: Timetable,
    /// Rises with every change: places taken before are void.
    pub edition: u32,
    /// What is left is being closed.
    pub is_forced: bool,
}

/// A connection's own moments. Costs nothing before its thread leaves.
#[derive(Default)]
pub struct Departure {
    /// Of the stand that `at` was taken from; 0: none.
    edition: u32,
    at: Micros,
    alarm: Option<Deadline>,
}

impl Departure {
    /// Ready once this connection, idle, is to be closed. `take_place` is asked
    /// once for each edition.
    pub fn poll_idle(
        &mut self,
        cx: &mut Context<'_>,
        clock: &Clock,
        stand: &Stand,
        is_fresh: bool,
        take_place: impl FnOnce() -> Place,
    ) -> Poll<()> {
        if stand.is_forced {
            return Poll::Ready(());
        }
        if self.edition != stand.edition {
            self.edition = stand.edition;
            self.at = stand.timetable.idle_at(take_place(), is_fresh);
        }
        self.poll_at(cx, clock)
    }

    /// Ready once this connection, busy, is to be closed.
    pub fn poll_forced(
        &mut self,
        cx: &mut Context<'_>,
        clock: &Clock,
        stand: &Stand,
        take_place: impl FnOnce() -> Place,
    ) -> Poll<()> {
        if !stand.is_forced {
            return Poll::Pending;
        }
        if self.edition != stand.edition {
            self.edition = stand.edition;
            self.at = take_place().within(stand.timetable.forced);
        }
        self.poll_at(cx, clock)
    }

    /// It is idle no more: its next idle time is looked at anew.
    pub fn postpone(&mut self, clock: &Clock, time: Duration) {
        self.at = clock.now().saturating_add(micros(time));
    }

    fn poll_at(&mut self, cx: &mut Context<'_>, clock: &Clock) -> Poll<()> {
        if clock.now() >= self.at {
            return Poll::Ready(());
        }
        let alarm = self.alarm.get_or_insert_with(|| clock.deadline());
        alarm.set(self.at);
        alarm.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = 1_000_000;

    fn table(occasion: Occasion, limit_s: u64) -> Timetable {
        Timetable::new(occasion, 5 * SECOND, Duration::from_secs(limit_s))
    }

    fn moments(of: u64, at: impl Fn(Place) -> Micros) -> Vec<Micros> {
        (0..of).map(|index| at(Place { index, of })).collect()
    }

    #[test]
    fn a_hand_over_lets_idle_ones_send_for_ten_seconds_and_closes_them_evenly() {
        let table = table(Occasion::HandOver, 3_600);
        let closed = moments(100, |place| table.idle_at(place, false));
        assert!(closed[0] > 15 * SECOND && closed[99] == 20 * SECOND);
        assert!(closed.windows(2).all(|two| two[1] - two[0] == SECOND / 20));
        assert_eq!(table.idle_until(), 20 * SECOND);
    }

    #[test]
    fn what_is_left_is_closed_evenly_over_the_last_tenth() {
        let table = table(Occasion::HandOver, 3_600);
        assert_eq!(table.forced_from(), 5 * SECOND + 3_240 * SECOND);
        let closed = moments(36, |place| place.within(table.forced));
        assert!(closed.windows(2).all(|two| two[1] - two[0] == 10 * SECOND));
        assert_eq!(closed[35], 3_605 * SECOND);
    }

    #[test]
    fn a_shutdown_is_quick_and_still_gives_a_fresh_connection_its_chance() {
        let table = table(Occasion::Drain, 30);
        let place = Place { index: 9, of: 10 };
        assert_eq!(table.idle_at(place, false), 5_500_000);
        assert_eq!(table.idle_at(place, true), 6 * SECOND);
    }

    #[test]
    fn a_short_limit_shortens_everything() {
        for occasion in [Occasion::HandOver, Occasion::Drain] {
            for limit_ms in [0, 1, 7, 100, 1_000, 12_000] {
                let limit = Duration::from_millis(limit_ms);
                let table = Timetable::new(occasion, 0, limit);
                let fresh = table.idle_at(Place { index: 0, of: 1 }, true);
                assert!(fresh <= table.forced.0, "{table:?}");
                assert!(table.idle.0 <= table.idle.1 && table.idle.1 <= table.forced.0);
                assert_eq!(table.forced.1, micros(limit));
            }
        }
    }

    #[test]
    fn a_shutdown_shortens_a_hand_over_and_never_prolongs_it() {
        let long = table(Occasion::HandOver, 3_600);
        let short = long.shortened_by(Timetable::new(
            Occasion::Drain,
            60 * SECOND,
            Duration::from_secs(30),
        ));
        assert_eq!(short.forced.1, 90 * SECOND);
        assert_eq!(short.occasion, Occasion::Drain);
        // The idle ones were closed long ago.
        assert_eq!(short.idle_until(), 20 * SECOND);
        let ends_soon = table(Occasion::HandOver, 20);
        let unchanged = ends_soon.shortened_by(Timetable::new(
            Occasion::Drain,
            24 * SECOND,
            Duration::from_secs(30),
        ));
        assert_eq!(unchanged.forced, ends_soon.forced);
    }

    #[test]
    fn more_connections_than_counted_begin_anew() {
        let window = (0, 10 * SECOND);
        let (first, again) = (Place { index: 0, of: 10 }, Place { index: 10, of: 10 });
        assert_eq!(first.within(window), again.within(window));
        assert_eq!(Place { index: 3, of: 0 }.within(window), 10 * SECOND);
    }
}
