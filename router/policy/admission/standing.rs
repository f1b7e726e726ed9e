//! Whether a line only takes up a burst, or stands.
//!
//! Owns the two states of a line and what each allows. Never holds a place and
//! never reads a clock.
//!
//! ```text
//!              for a whole interval nobody was served within the target,
//!              and it grew by half
//!   flowing ─────────────────────────────────────────────────────▶ standing
//!      ▲      first come, first served;              newest first; short;   │
//!      │      as long as the app allows              who waited long goes   │
//!      └────────────────────────────────────────────────────────────────────┘
//!                       for a whole interval nobody was shed
//! ```
//!
//! A line that gets shorter does its work: it smooths a burst. One that stays as it
//! is has clients who wait for an answer before they ask again: no more of them will
//! come. One that grows although everybody waits serves nobody better than a short
//! one would, only later (Nichols and Jacobson, *Controlling Queue Delay*, 2012). Then
//! whoever came last is served first: an answer is of use to a client that has
//! not yet given up (Maurer, *Fail at Scale*, 2015). The line is kept as short as
//! what is served in a moment, so most of those who cannot be served are told so
//! at once. Those who were in line before it stood, and are not far from their
//! turn, are still served in order.
//!
//! Times are microseconds.

/// A wait is no matter up to one and a half times what an answer takes, and never
/// below the least: so deep a line only evens out what comes.
const TARGET_HALVES: u64 = 3;
const LEAST_TARGET_US: u64 = 20_000;
/// And never above the most: an app may be slow because everybody waits for it.
const MOST_TARGET_US: u64 = 200_000;
/// The least interval: a burst that is over by then was none of ours.
const LEAST_INTERVAL_US: u64 = 60_000;
/// A line that so many more asked to join than left, or half as many as were in it,
/// has grown.
const GROWN: u64 = 8;
/// A standing line has places for what is served in this part of what an answer
/// takes, and is waited in for as long: who came last and was not served in that
/// time has others before it.
const DEPTH_PART: u64 = 4;
const LEAST_DEPTH_US: u64 = 5_000;
/// Places in a standing line: with fewer, its backends might wait for requests.
const LEAST_PLACES: u32 = 8;

/// What a wait is measured against: an app's own pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// A wait that is no matter, microseconds.
    pub target_us: u64,
    /// How long waits must be longer than that, microseconds.
    pub interval_us: u64,
    /// How long a request waits in a standing line at most, microseconds, and how
    /// long the line is, in the time that it takes to serve.
    pub depth_us: u64,
}

impl Pace {
    /// Of an app whose answers usually take so long, 0 if that is unknown.
    pub fn of(usual_us: u64) -> Pace {
        Pace {
            target_us: usual_us
                .saturating_mul(TARGET_HALVES)
                .div_ceil(2)
                .clamp(LEAST_TARGET_US, MOST_TARGET_US),
            interval_us: usual_us.saturating_mul(2).max(LEAST_INTERVAL_US),
            depth_us: (usual_us / DEPTH_PART).max(LEAST_DEPTH_US),
        }
    }
}

/// A time in which nobody was served within the target.
#[derive(Debug)]
struct Late {
    since_us: u64,
    joined: u32,
    served: u32,
    /// Those in line when it began.
    line: u64,
}

/// The state of a line.
#[derive(Debug, Default)]
pub struct Standing {
    is_standing: bool,
    /// While nobody is served within the target: since when, and how many came
    /// and were served since.
    late: Option<Late>,
    /// When someone was last shed.
    shed_us: u64,
    /// Served since then, and in the interval before it.
    counted_from_us: u64,
    served: u32,
    served_before: u32,
}

impl Standing {
    /// Whether it stands.
    pub fn is_standing(&self) -> bool {
        self.is_standing
    }

    /// Someone was served after so long; whether the line stands from now on.
    /// `waiting` are still in line.
    pub fn served(&mut self, waited_us: u64, waiting: u32, now_us: u64, pace: &Pace) -> bool {
        self.count(now_us, pace);
        if self.is_standing {
            return false;
        }
        if waited_us < pace.target_us {
            self.late = None;
            return false;
        }
        let late = self.late.get_or_insert(Late {
            since_us: now_us,
            joined: 0,
            served: 0,
            line: u64::from(waiting),
        });
        late.served += 1;
        let lasted_us = now_us.saturating_sub(late.since_us);
        let (joined, served) = (u64::from(late.joined), u64::from(late.served));
        // The more come than are served, the sooner it is plain.
        let is_plain =
            lasted_us.saturating_mul(joined.max(served)) >= pace.interval_us.saturating_mul(served);
        // One that does not grow is of clients who wait for each other's turn, or
        // of a burst that will be gone by itself.
        let grows = joined >= served + GROWN.max(late.line / 2);
        if is_plain && grows {
            self.is_standing = true;
            self.shed_us = now_us;
        }
        if self.is_standing {
            self.late = None;
        }
        self.is_standing
    }

    /// How many are served in so long, by what was served of late.
    pub fn served_in(&self, time_us: u64, now_us: u64, pace: &Pace) -> u32 {
        let since_us = now_us.saturating_sub(self.counted_from_us);
        // Of a moment it would be chance.
        let since_us = since_us.clamp(pace.interval_us / 4, pace.interval_us);
        let in_time = |served: u32, of_us: u64| u64::from(served).saturating_mul(time_us) / of_us;
        let now = in_time(self.served, since_us);
        let before = in_time(self.served_before, pace.interval_us);
        u32::try_from(now.max(before)).unwrap_or(u32::MAX)
    }

    /// Someone asks for a place.
    pub fn asked(&mut self) {
        if let Some(late) = &mut self.late {
            late.joined += 1;
        }
    }

    fn count(&mut self, now_us: u64, pace: &Pace) {
        let since_us = now_us.saturating_sub(self.counted_from_us);
        if since_us >= pace.interval_us {
            // Nobody for a whole interval: what was before says nothing.
            let is_next = since_us < 2 * pace.interval_us;
            self.served_before = if is_next { self.served } else { 0 };
            self.served = 0;
            self.counted_from_us = now_us;
        }
        self.served += 1;
    }

    /// Someone was shed.
    pub fn shed(&mut self, now_us: u64) {
        self.shed_us = now_us;
    }

    /// The line is empty: no one is late any more.
    pub fn emptied(&mut self) {
        self.late = None;
    }

    /// Places for requests, of the `most` there may be. Ends the standing if it
    /// is over.
    pub fn places(&mut self, most: u32, now_us: u64, pace: &Pace) -> u32 {
        if self.is_standing && now_us.saturating_sub(self.shed_us) >= pace.interval_us {
            self.is_standing = false;
        }
        if !self.is_standing {
            return most;
        }
        self.served_in(pace.depth_us, now_us, pace)
            .max(LEAST_PLACES)
            .min(most)
    }
}
