//! Whose request is next, when there is not enough processor for all.
//!
//! Owns the lines: one for each app (by a key; one more for requests that belong
//! to none), each in order of arrival. Never waits, never knows what a request
//! is.
//!
//! Lines take turns by *start-time fair queueing* (Goyal, Vin and Cheng,
//! SIGCOMM 1996): what a line was served moves its tag on by what it cost, and
//! the line with the least tag is next. So lines that always have somebody
//! waiting are served alike, whatever their length; and a line that asks for
//! less than that is behind all others when somebody joins it, and is next. Such
//! a one is not even made to wait: it passes at once. What was only known
//! afterwards, how large an answer was, is charged then.
//!
//! A line that stands is not kept for ever (CoDel's insight: a queue that does
//! not drain is of no use to anyone): who waited longer than [`PATIENCE_US`] is
//! passed over for those behind and refused. Refusing costs processor too, so
//! there is a bound on refusals for each round; who is to be refused waits for
//! his, which also keeps his client from asking again. If a round has room left for
//! him meanwhile, he is served after all.
//!
//! Time is what the processor has *worked* since, not what passed: on a machine
//! that stood still nobody waited, and while the processor has idle time nobody
//! is refused.
//!
//! **Invariant**: a line that is next is served, however late all in it are; so
//! every app with requests gets its share.
//!
//! **Invariant**: memory is bounded by those who wait and by the lines that were
//! served more than their share of late.

use std::collections::{BTreeSet, VecDeque};

use ahash::RandomState;
use hashbrown::HashMap;

/// What a plain request costs.
pub const REQUEST: u64 = 64;

/// Who waited for as much work as this is refused, where others of his line are
/// not as late.
pub const PATIENCE_US: u64 = 100_000;

/// Of those who are refused, there are at most so many to each one served.
const SERVED_EACH: u32 = 4;

/// Requests that pass without waiting between two rounds, at least, where their
/// line is behind all others.
const PASSES: u32 = 16;

/// Lines without anybody in them are looked through once there are so many, and
/// twice as many as were left the last time.
const SWEPT_FROM: usize = 1_024;

const NONE: u32 = u32::MAX;

/// Whose line it is.
pub type Key = usize;

/// A place in a line, until [`FairQueue::leave`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place(u32);

impl Place {
    /// Places are numbered from 0, and numbers are used again.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What becomes of one who waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// He is next.
    Served,
    /// He is turned away.
    Refused,
}

/// What a round came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Served.
    pub served: u32,
    /// Refused.
    pub refused: u32,
    /// Somebody still waits.
    pub stands: bool,
}

/// All lines of one thread.
#[derive(Debug, Default)]
pub struct FairQueue {
    lines: HashMap<Key, Line, RandomState>,
    /// Lines that have somebody in time, by tag.
    order: BTreeSet<(u64, Key)>,
    /// Lines that have somebody to refuse.
    late: VecDeque<Key>,
    places: Vec<Waiting>,
    free: Vec<u32>,
    /// Virtual time: the tag of the line served last.
    now: u64,
    /// The highest tag there is.
    latest: u64,
    /// Requests that may still pass without waiting.
    passes: u32,
    /// Lines left by the last sweep.
    swept: usize,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Line {
    /// Virtual time at which it is next.
    tag: u64,
    in_time: List,
    late: List,
    /// Whether [`FairQueue::late`] has it.
    is_late: bool,
}

impl Line {
    fn is_empty(&self) -> bool {
        self.in_time.first == NONE && self.late.first == NONE
    }
}

/// The ends of a list of places.
#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
}

impl Default for List {
    fn default() -> Self {
        List {
            first: NONE,
            last: NONE,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    InTime,
    Late,
    /// Told of its turn, or never used.
    Out,
}

#[derive(Debug)]
struct Waiting {
    key: Key,
    cost: u64,
    since_us: u64,
    stage: Stage,
    before: u32,
    after: u32,
}

impl FairQueue {
    /// A request that costs so much joins its line, when the processor has
    /// worked for `worked_us`. `None`: it is next already.
    pub fn join(&mut self, key: Key, cost: u64, worked_us: u64) -> Option<Place> {
        self.sweep();
        let now = self.now;
        let line = self.lines.entry(key).or_default();
        if line.in_time.first == NONE {
            let is_behind = line.tag <= now;
            line.tag = line.tag.max(now);
            if is_behind && self.passes > 0 {
                self.passes -= 1;
                line.tag += cost;
                self.latest = self.latest.max(line.tag);
                return None;
            }
            self.order.insert((line.tag, key));
        }
        let at = self.place(Waiting {
            key,
            cost,
            since_us: worked_us,
            stage: Stage::InTime,
            before: NONE,
            after: NONE,
        });
        self.push(at, Stage::InTime);
        self.waiting += 1;
        Some(Place(at))
    }

    /// Gives the place back: its turn was told, or nobody waits for it any more.
    pub fn leave(&mut self, place: Place) {
        let at = place.0;
        if self.places[at as usize].stage != Stage::Out {
            self.unlink(at);
        }
        self.free.push(at);
    }

    /// Serves up to `most`, and refuses of the late as many as that allows; says
    /// of each place what becomes of it.
    pub fn round(&mut self, most: u32, worked_us: u64, mut tell: impl FnMut(Place, Turn)) -> Round {
        let mut round = Round::default();
        while round.served < most {
            let Some((tag, key)) = self.order.first().copied() else {
                break;
            };
            self.now = self.now.max(tag);
            let at = self.oldest_in_time(key, worked_us);
            self.unlink(at);
            self.charge(key, self.places[at as usize].cost);
            tell(Place(at), Turn::Served);
            round.served += 1;
        }
        // While nobody in time is left, there is room for the late.
        let refusals = match self.order.is_empty() {
            true => 0,
            false => (most / SERVED_EACH).max(1),
        };
        while round.served < most || round.refused < refusals {
            let Some(at) = self.next_late() else {
                break;
            };
            self.unlink(at);
            if round.served < most {
                let Waiting { key, cost, .. } = self.places[at as usize];
                self.charge(key, cost);
                tell(Place(at), Turn::Served);
                round.served += 1;
            } else {
                tell(Place(at), Turn::Refused);
                round.refused += 1;
            }
        }
        round.stands = self.waiting > 0;
        self.passes = PASSES.max(most - round.served);
        if !round.stands {
            // All had what they asked for: nobody owes anything.
            self.now = self.latest;
            self.lines.clear();
            self.late.clear();
        }
        round
    }

    /// What the app's requests cost besides.
    pub fn charge(&mut self, key: Key, cost: u64) {
        let line = self.lines.entry(key).or_default();
        let before = line.tag;
        line.tag = before.max(self.now) + cost;
        self.latest = self.latest.max(line.tag);
        if self.order.remove(&(before, key)) {
            self.order.insert((line.tag, key));
        }
    }

    /// Whether somebody waits in this line.
    pub fn stands(&self, key: Key) -> bool {
        self.lines.get(&key).is_some_and(|line| !line.is_empty())
    }

    /// How many wait, over all lines.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Who is next in a line that has somebody in time; those who are late leave
    /// the way, but for the last.
    fn oldest_in_time(&mut self, key: Key, worked_us: u64) -> u32 {
        loop {
            let at = self.lines[&key].in_time.first;
            let place = &self.places[at as usize];
            let waited_us = worked_us.saturating_sub(place.since_us);
            if waited_us <= PATIENCE_US || place.after == NONE {
                return at;
            }
            self.unlink(at);
            self.push(at, Stage::Late);
            self.waiting += 1;
        }
    }

    /// The next to be refused: lines take turns here too.
    fn next_late(&mut self) -> Option<u32> {
        while let Some(key) = self.late.pop_front() {
            let Some(line) = self.lines.get_mut(&key) else {
                continue;
            };
            line.is_late = false;
            let at = line.late.first;
            if at == NONE {
                continue;
            }
            if self.places[at as usize].after != NONE {
                line.is_late = true;
                self.late.push_back(key);
            }
            return Some(at);
        }
        None
    }

    fn place(&mut self, waiting: Waiting) -> u32 {
        if let Some(at) = self.free.pop() {
            self.places[at as usize] = waiting;
            return at;
        }
        self.places.push(waiting);
        u32::try_from(self.places.len() - 1).expect("those who wait must number under 2^32")
    }

    /// To the end of its line's list.
    fn push(&mut self, at: u32, stage: Stage) {
        let key = self.places[at as usize].key;
        let line = self.lines.entry(key).or_default();
        let list = match stage {
            Stage::Late => {
                if !std::mem::replace(&mut line.is_late, true) {
                    self.late.push_back(key);
                }
                &mut line.late
            }
            _ => &mut line.in_time,
        };
        let last = std::mem::replace(&mut list.last, at);
        if last == NONE {
            list.first = at;
        } else {
            self.places[last as usize].after = at;
        }
        let place = &mut self.places[at as usize];
        (place.before, place.after, place.stage) = (last, NONE, stage);
    }

    /// Out of its line.
    fn unlink(&mut self, at: u32) {
        let place = &mut self.places[at as usize];
        let (key, before, after) = (place.key, place.before, place.after);
        let stage = std::mem::replace(&mut place.stage, Stage::Out);
        (place.before, place.after) = (NONE, NONE);
        let line = self.lines.get_mut(&key);
        let line = line.expect("a line somebody waits in must be there");
        let list = match stage {
            Stage::Late => &mut line.late,
            _ => &mut line.in_time,
        };
        match before {
            NONE => list.first = after,
            _ => self.places[before as usize].after = after,
        }
        match after {
            NONE => list.last = before,
            _ => self.places[after as usize].before = before,
        }
        if stage == Stage::InTime && line.in_time.first == NONE {
            self.order.remove(&(line.tag, key));
        }
        self.waiting -= 1;
    }

    /// Forgets lines that nobody waits in and that owe nothing.
    fn sweep(&mut self) {
        if self.lines.len() < SWEPT_FROM.max(2 * self.swept) {
            return;
        }
        let now = self.now;
        self.lines
            .retain(|_, line| !line.is_empty() || line.tag > now);
        self.swept = self.lines.len();
    }
}

#[cfg(test)]
#[path = "fair_queue_tests.rs"]
mod tests;
