//! Which backend gets a request: power of two choices over requests in flight,
//! relative to weight.
//!
//! Owns the choice only. Never counts, connects or waits: loads and randomness
//! come in as arguments, nothing is allocated.
//!
//! Two candidates are drawn by weight and the less loaded one is taken
//! (Mitzenmacher, *The Power of Two Choices in Randomized Load Balancing*,
//! 2001): close to least-loaded, without the herd that picks the same least
//! loaded backend from a stale view.

use crate::feed::messages::Standing;

/// What a choice needs to know of a backend before its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Whether new requests may go to it.
    pub standing: Standing,
    /// Its share relative to the others.
    pub weight: u32,
}

/// Backends to choose from, by index.
pub trait Candidates {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them; `index` is below [`len`](Self::len).
    fn candidate(&self, index: usize) -> Candidate;

    /// Its requests in flight now.
    fn in_flight(&self, index: usize) -> u32;
}

/// Backends a request was tried on already, by index: not chosen again.
/// Remembers [`Tried::MOST`]; later ones are forgotten, never an error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    indices: [u32; Tried::MOST],
    len: u8,
}

impl Tried {
    /// As many as it remembers.
    pub const MOST: usize = 12;

    /// Remembers a backend.
    pub fn push(&mut self, index: usize) {
        if let Some(place) = self.indices.get_mut(usize::from(self.len)) {
            *place = index as u32;
            self.len += 1;
        }
    }

    /// Whether it was tried.
    pub fn contains(&self, index: usize) -> bool {
        self.indices[..usize::from(self.len)].contains(&(index as u32))
    }

    /// How many it remembers.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether nothing was tried yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'t> {
    /// Now, by the process's one clock.
    pub now_us: u64,
    /// Uniform over all of `u64`.
    pub random: u64,
    /// Backends it was tried on: not chosen again.
    pub tried: &'t Tried,
    /// Whether it may be sent twice, so that it can find out for others
    /// whether a backend is well again.
    pub repeatable: bool,
    /// Whether it overtakes a try that still waits: only a backend in rotation
    /// will do.
    pub hedge: bool,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This one, by index.
    Backend(usize),
    /// This one, which is out of rotation: the request finds out whether it is
    /// well again. Nobody else does so meanwhile.
    Trial(usize),
    /// Some may be used, but each has as many requests as it may have.
    AllFull,
    /// Nobody is there, as far as is known; this one failed longest ago. The
    /// request may wait for one to come up, or try it.
    AllOut(usize),
    /// None may be used: there is none, all are draining or out by order, or
    /// all were tried.
    NoneLeft,
}

/// Backends are used class by class: one is looked at only if those before
/// have none with room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Active,
    Suspect,
    /// Of weight 0: only while no other backend may be used at all.
    Spare,
}

fn class_of(candidate: Candidate) -> Option<Class> {
    match (candidate.standing, candidate.weight) {
        (Standing::Draining, _) => None,
        (_, 0) => Some(Class::Spare),
        (Standing::Active, _) => Some(Class::Active),
        (Standing::Suspect, _) => Some(Class::Suspect),
    }
}

/// Chooses a backend with fewer than `max_concurrency` requests in flight,
/// none of `tried`. `random` is uniform over all of `u64`.
///
/// A suspect backend is chosen only if no active one has room, one of weight 0
/// only if every other is draining. Reads the weight of each backend, but the
/// load of two, unless those are full.
pub fn choose(pool: &impl Candidates, random: u64, max_concurrency: u32, tried: &Tried) -> Choice {
    let classes = Classes::of(pool, tried);
    let order: &[Class] = if classes.has_weight {
        &[Class::Active, Class::Suspect]
    } else {
        &[Class::Spare]
    };
    let mut answer = Choice::NoneLeft;
    for &class in order {
        let among = Among {
            pool,
            tried,
            class,
            max_concurrency,
        };
        match among.choose(classes.total(class), random) {
            Choice::Backend(index) => return Choice::Backend(index),
            Choice::AllFull => answer = Choice::AllFull,
            _ => {}
        }
    }
    answer
}

/// Sums of weights, of those not tried yet.
struct Classes {
    active: u64,
    suspect: u64,
    spare: u64,
    /// Whether any backend of weight may be used, tried or not.
    has_weight: bool,
}

impl Classes {
    fn of(pool: &impl Candidates, tried: &Tried) -> Classes {
        let mut classes = Classes {
            active: 0,
            suspect: 0,
            spare: 0,
            has_weight: false,
        };
        for index in 0..pool.len() {
            let candidate = pool.candidate(index);
            let Some(class) = class_of(candidate) else {
                continue;
            };
            classes.has_weight |= class != Class::Spare;
            if tried.contains(index) {
                continue;
            }
            match class {
                Class::Active => classes.active += u64::from(candidate.weight),
                Class::Suspect => classes.suspect += u64::from(candidate.weight),
                Class::Spare => classes.spare += 1,
            }
        }
        classes
    }

    fn total(&self, class: Class) -> u64 {
        match class {
            Class::Active => self.active,
            Class::Suspect => self.suspect,
            Class::Spare => self.spare,
        }
    }
}

/// The backends of one class that were not tried.
struct Among<'p, P> {
    pool: &'p P,
    tried: &'p Tried,
    class: Class,
    max_concurrency: u32,
}

impl<P: Candidates> Among<'_, P> {
    /// Its share in this class; 0 if it is not of it.
    fn weight(&self, index: usize) -> u64 {
        let candidate = self.pool.candidate(index);
        if class_of(candidate) != Some(self.class) || self.tried.contains(index) {
            return 0;
        }
        u64::from(candidate.weight).max(u64::from(self.class == Class::Spare))
    }

    fn choose(&self, total: u64, random: u64) -> Choice {
        if total == 0 {
            return Choice::NoneLeft;
        }
        let first = self.draw(total, random >> 32, None);
        let rest = total - self.weight(first);
        let load = self.pool.in_flight(first);
        if load == 0 && self.max_concurrency > 0 {
            // Idle: taking it keeps to the weights exactly.
            return Choice::Backend(first);
        }
        let chosen = if rest == 0 {
            first
        } else {
            let second = self.draw(rest, random & 0xffff_ffff, Some(first));
            self.less_loaded(first, second)
        };
        if self.pool.in_flight(chosen) < self.max_concurrency {
            return Choice::Backend(chosen);
        }
        self.least_loaded()
    }

    /// The backend at a random point of the sum of weights, `skipped` left
    /// out. `random` is uniform over 32 bits.
    fn draw(&self, total: u64, random: u64, skipped: Option<usize>) -> usize {
        let mut point = ((u128::from(random) * u128::from(total)) >> 32) as u64;
        let mut last = 0;
        for index in (0..self.pool.len()).filter(|&index| Some(index) != skipped) {
            let weight = self.weight(index);
            if weight == 0 {
                continue;
            }
            last = index;
            if point < weight {
                break;
            }
            point -= weight;
        }
        last
    }

    /// Whichever would be less loaded with one request more, for its weight.
    fn less_loaded(&self, a: usize, b: usize) -> usize {
        let with_one_more = |index| u128::from(self.pool.in_flight(index)) + 1;
        let load_a = with_one_more(a) * u128::from(self.weight(b));
        let load_b = with_one_more(b) * u128::from(self.weight(a));
        if load_b < load_a { b } else { a }
    }

    /// Both drawn are full: whoever has room, if anyone.
    fn least_loaded(&self) -> Choice {
        let mut best: Option<usize> = None;
        for index in 0..self.pool.len() {
            if self.weight(index) == 0 || self.pool.in_flight(index) >= self.max_concurrency {
                continue;
            }
            best = Some(best.map_or(index, |best| self.less_loaded(best, index)));
        }
        best.map_or(Choice::AllFull, Choice::Backend)
    }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
