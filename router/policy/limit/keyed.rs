//! Limits for each of very many keys, in memory of a fixed size.
//!
//! Owns two tables of [`KEYS`] places: one of arrival times for rates
//! ([`Meters`], 2 MiB), one of counts for what is under way ([`Crowds`], 1 MiB).
//! A key is a hash of 64 bits made with a secret of the process, so that nobody
//! can aim at another's place. It stands in one of the [`WAYS`] places of its
//! group.
//!
//! A place whose time is over, or whose count is 0, says as much as an empty
//! one, so it is simply taken by the next key: what counts is how many keys are
//! *busy at one time*, not how many there ever were. Where a group is full of
//! busy keys, the one nearest to being free is forgotten (rates), or the newcomer
//! is let in uncounted (counts). So whatever others do, **a key is never refused
//! for another's requests**, save if their hashes agree: in all 63 bits kept for
//! rates, in 54 for counts. With 100,000 keys at their limit, an honest key meets
//! one of them with a probability of 1e-14 and 6e-12. The price is
//! paid on the other side: with 50,000 keys busy at one time one newcomer in
//! seventy makes the table forget a key, which then may have a burst more than
//! its due; with ten times as many, nearly each does.
//!
//! An estimator that adds up over keys (count-min) would err to the other side:
//! it refuses honest clients once there are many.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::{Pace, Wait};

/// Keys that a table can tell apart at one time.
pub const KEYS: usize = 1 << 17;

/// Places that a key may stand in.
pub const WAYS: usize = 8;

const GROUPS: usize = KEYS / WAYS;

/// How often it is looked again after another thread changed a group.
const LOOKS: usize = 8;

fn group_of(hash: u64) -> usize {
    // The upper bits choose, the lower ones are the tag.
    (hash >> (64 - GROUPS.ilog2())) as usize
}

/// One key's rate.
#[derive(Debug, Default)]
struct MeterPlace {
    /// The key's hash; 0: nobody's.
    tag: AtomicU64,
    arrival_ns: AtomicU64,
}

/// A rate for each key.
#[derive(Debug)]
pub struct Meters {
    places: Box<[MeterPlace]>,
    forgotten: AtomicU64,
}

impl Default for Meters {
    fn default() -> Self {
        Meters {
            places: (0..KEYS).map(|_| MeterPlace::default()).collect(),
            forgotten: AtomicU64::new(0),
        }
    }
}

impl Meters {
    /// Lets one more of this key pass, or says how long it would have to wait.
    ///
    /// # Errors
    /// The wait.
    pub fn take(&self, hash: u64, pace: Pace, now_ns: u64) -> Result<(), Wait> {
        let (group, tag) = (self.group(hash), hash | 1);
        for _ in 0..LOOKS {
            let Some(place) = find(group, tag).or_else(|| self.claim(group, tag, now_ns)) else {
                continue;
            };
            let mut arrival = place.arrival_ns.load(Relaxed);
            loop {
                let next = pace.after(arrival, now_ns)?;
                let swapped = place
                    .arrival_ns
                    .compare_exchange_weak(arrival, next, Relaxed, Relaxed);
                match swapped {
                    Ok(_) => return Ok(()),
                    Err(newer) => arrival = newer,
                }
            }
        }
        // Others were quicker each time: no reason to refuse.
        match pace.step_ns {
            0 => pace.after(0, now_ns).map(drop),
            _ => Ok(()),
        }
    }

    /// What was let pass did not take place: another limit refused it.
    pub fn give_back(&self, hash: u64, pace: Pace) {
        if let Some(place) = find(self.group(hash), hash | 1) {
            let given = |arrival: u64| Some(arrival.saturating_sub(pace.step_ns));
            // The closure always gives a value.
            let _ = place.arrival_ns.fetch_update(Relaxed, Relaxed, given);
        }
    }

    /// Goes by another pace from here on.
    pub fn settle(&self, pace: Pace, now_ns: u64) {
        let busy = |place: &&MeterPlace| place.arrival_ns.load(Relaxed) > now_ns;
        for place in self.places.iter().filter(busy) {
            let settled = |arrival| Some(pace.settled(arrival, now_ns));
            // The closure always gives a value.
            let _ = place.arrival_ns.fetch_update(Relaxed, Relaxed, settled);
        }
    }

    /// Keys whose time was not over when their place was taken.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }

    fn group(&self, hash: u64) -> &[MeterPlace] {
        &self.places[group_of(hash) * WAYS..][..WAYS]
    }

    /// Takes the place nearest to being free; `None`: somebody was quicker.
    fn claim<'g>(&self, group: &'g [MeterPlace], tag: u64, now_ns: u64) -> Option<&'g MeterPlace> {
        let places = group.iter();
        let place = places.min_by_key(|place| place.arrival_ns.load(Relaxed))?;
        let before = place.tag.load(Acquire);
        let arrival = place.arrival_ns.load(Relaxed);
        // First it is emptied, so that no key ever meets another's time.
        let emptied = place
            .arrival_ns
            .compare_exchange(arrival, 0, Relaxed, Relaxed);
        emptied.ok()?;
        let claimed = place.tag.compare_exchange(before, tag, AcqRel, Relaxed);
        claimed.ok()?;
        if arrival > now_ns {
            self.forgotten.fetch_add(1, Relaxed);
        }
        Some(place)
    }
}

fn find(group: &[MeterPlace], tag: u64) -> Option<&MeterPlace> {
    group.iter().find(|place| place.tag.load(Acquire) == tag)
}

/// Bits of a place of [`Crowds`] that count; the others are the tag.
const COUNT_BITS: u32 = 24;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// How many are under way, for each key.
#[derive(Debug)]
pub struct Crowds {
    places: Box<[AtomicU64]>,
    uncounted: AtomicU64,
}

/// A key's place in [`Crowds`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat(usize);

/// As many are under way as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Default for Crowds {
    fn default() -> Self {
        Crowds {
            places: (0..KEYS).map(|_| AtomicU64::new(0)).collect(),
            uncounted: AtomicU64::new(0),
        }
    }
}

impl Crowds {
    /// The most that may be under way for one key.
    pub const MOST: u32 = COUNT as u32;

    /// Lets one more of this key in, if there are fewer than `most`. With a
    /// seat it must [`leave`](Self::leave); without one it was not counted.
    ///
    /// # Errors
    /// There are as many as may be.
    pub fn enter(&self, hash: u64, most: u32) -> Result<Option<Seat>, Full> {
        let first = group_of(hash) * WAYS;
        let group = &self.places[first..][..WAYS];
        let tag = hash << COUNT_BITS;
        if most == 0 {
            return Err(Full);
        }
        for _ in 0..LOOKS {
            let held = |place: &AtomicU64| place.load(Acquire);
            let own = |place: &AtomicU64| held(place) & !COUNT == tag;
            let free = |place: &AtomicU64| held(place) & COUNT == 0;
            let found = group.iter().position(own);
            let Some(at) = found.or_else(|| group.iter().position(free)) else {
                break;
            };
            let before = held(&group[at]);
            let inside = match before & !COUNT == tag {
                true => before & COUNT,
                // Taken by another key since.
                false if before & COUNT > 0 => continue,
                false => 0,
            };
            if inside >= u64::from(most) {
                return Err(Full);
            }
            let after = tag | (inside + 1);
            let swapped = group[at].compare_exchange(before, after, AcqRel, Relaxed);
            if swapped.is_ok() {
                return Ok(Some(Seat(first + at)));
            }
        }
        self.uncounted.fetch_add(1, Relaxed);
        Ok(None)
    }

    /// One that was let in is gone.
    pub fn leave(&self, seat: Seat) {
        self.places[seat.0].fetch_sub(1, Release);
    }

    /// How many were let in uncounted.
    pub fn uncounted(&self) -> u64 {
        self.uncounted.load(Relaxed)
    }
}
