//! Which backend gets a request: power of two choices over requests in flight,
//! relative to weight and to how slow a backend is.
//!
//! Owns the choice only. Never counts, connects or waits: loads, states and
//! randomness come in as arguments, nothing is allocated.
//!
//! Two candidates are drawn by weight and the cheaper one is taken
//! (Mitzenmacher, *The Power of Two Choices in Randomized Load Balancing*,
//! 2001): close to least-loaded, without the herd that picks the same least
//! loaded backend from a stale view. A backend costs
//!
//! ```text
//! (in flight + 1) × max(1, its latency / (2 × its peers' median))
//! ──────────────────────────────────────────────────────────────
//!                 weight × share while ramping up
//! ```
//!
//! so that backends of about the same speed keep to their weights exactly, and
//! one far slower than the others gets little.
//!
//! Backends are used class by class, the next only if none before has room:
//!
//! | class | who |
//! |---|---|
//! | trial | out, its trial due, and the request may be it |
//! | active | in rotation |
//! | suspect | in rotation, its lease expired |
//! | resting | asked for rest |
//! | out, soft | only if there is none of the above, or a retry tried them all |
//! | out, hard | the same, and none of the class above |
//!
//! Those out are tried the least recently failed first. A retry does not draw:
//! it goes to whoever answered last, so that it does not meet the next corpse.

mod among;
mod tried;

pub use tried::Tried;

use among::Among;

use super::health::{FULL_PERMILLE, State};
use crate::feed::messages::Standing;

/// What a choice needs to know of a backend before its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Whether new requests may go to it.
    pub standing: Standing,
    /// Its share relative to the others.
    pub weight: u32,
    /// Out by an operator's order: never chosen.
    pub ejected: bool,
}

/// Backends to choose from, by index. Every `index` is below
/// [`len`](Self::len).
pub trait Candidates {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of them.
    fn candidate(&self, index: usize) -> Candidate;

    /// Its requests in flight now.
    fn in_flight(&self, index: usize) -> u32;

    /// Whether it has as many as it may have.
    fn is_full(&self, index: usize) -> bool;

    /// Whether all are known to be settled: then no state is read.
    fn is_settled(&self) -> bool;

    /// Where it stands.
    fn state(&self, index: usize) -> State;

    /// Its time to the first byte as it counts at `now_us`, microseconds; 0:
    /// unknown.
    fn latency_us(&self, index: usize, now_us: u64) -> u64;

    /// When it last answered anything; 0: never.
    fn answered_us(&self, index: usize) -> u64;

    /// When a try or probe on it last failed; 0: never.
    fn failed_us(&self, index: usize) -> u64;
}

/// What an app asks of every choice.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// From readmission to the full share.
    pub slow_start_us: u64,
    /// The median of the backends' average times to the first byte; 0: unknown,
    /// and latency plays no part. Not the median of the answers: where most are
    /// short and some long, that is far below what any backend takes on average.
    pub median_us: u64,
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
    /// Some may be used, but each has as many requests as it may have (or has
    /// changed during the choice): a request that waits asks again first.
    AllFull,
    /// Nobody is there, as far as is known; this one failed longest ago. The
    /// request may wait for one to come up, or try it.
    AllOut(usize),
    /// None may be used: there is none, all are draining or out by order, or
    /// all were tried.
    NoneLeft,
}

/// Classes among which candidates are drawn, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Active,
    Suspect,
    Resting,
}

const CLASSES: [Class; 3] = [Class::Active, Class::Suspect, Class::Resting];

/// Chooses a backend that is not full, none of those tried.
///
/// A trial is only pointed out: the caller claims it, and asks again if another
/// was faster. Backends of weight 0 take part, as if of weight 1, only if every
/// other is draining or out by order. Reads the weight of each backend, its
/// state unless all are settled, but the load of two, unless those are full.
pub fn choose(pool: &impl Candidates, rules: &Rules, ask: &Ask<'_>) -> Choice {
    let view = View::of(pool, rules, ask);
    if let Some(index) = view.trial {
        return Choice::Trial(index);
    }
    let mut is_full = false;
    for (class, &total) in CLASSES.iter().zip(&view.totals) {
        if total == 0 {
            continue;
        }
        let among = Among::new(&view, *class);
        let chosen = if ask.tried.is_empty() {
            among.draw_two(total, ask.random)
        } else {
            among.latest()
        };
        match chosen {
            Some(index) => return Choice::Backend(index),
            None => is_full = true,
        }
    }
    if is_full {
        return Choice::AllFull;
    }
    if ask.hedge || (view.is_any_in && ask.tried.is_empty()) {
        return Choice::NoneLeft;
    }
    view.longest_out()
}

/// What a look at a backend tells.
enum Look {
    /// Not to be used, whatever its state.
    Unusable,
    /// Out of rotation.
    Out(State),
    /// In rotation: its class, and its weight as it counts now, in thousandths,
    /// above 0.
    In(Class, u64),
}

/// The pool as one request sees it.
struct View<'p, P> {
    pool: &'p P,
    rules: &'p Rules,
    ask: &'p Ask<'p>,
    settled: bool,
    /// Every weight is 0: all count as 1.
    spare: bool,
    /// Sums of shares, of those not tried yet, by class.
    totals: [u64; 3],
    /// Whether any is in rotation, tried or not.
    is_any_in: bool,
    /// One whose trial this request may be.
    trial: Option<usize>,
}

impl<'p, P: Candidates> View<'p, P> {
    fn of(pool: &'p P, rules: &'p Rules, ask: &'p Ask<'p>) -> Self {
        let mut view = View {
            pool,
            rules,
            ask,
            settled: pool.is_settled(),
            spare: false,
            totals: [0; 3],
            is_any_in: false,
            trial: None,
        };
        if !view.sum() {
            view.spare = true;
            view.sum();
        }
        view
    }

    /// Sums up the classes; whether any backend of weight may be used at all.
    fn sum(&mut self) -> bool {
        let is_fresh = self.ask.tried.is_empty() && !self.ask.hedge;
        let mut has_weight = self.spare;
        for index in 0..self.pool.len() {
            match self.look(index) {
                Look::Unusable => {}
                Look::Out(state) => {
                    has_weight = true;
                    if is_fresh && self.trial.is_none() && self.takes_trial(index, state) {
                        self.trial = Some(index);
                    }
                }
                Look::In(class, share) => {
                    has_weight = true;
                    self.is_any_in = true;
                    if !self.ask.tried.contains(index) {
                        self.totals[class as usize] += share;
                    }
                }
            }
        }
        has_weight
    }

    /// One backend, as it may be used now. Another thread may change its state
    /// between two looks.
    #[inline]
    fn look(&self, index: usize) -> Look {
        let candidate = self.pool.candidate(index);
        let weight = if self.spare { 1 } else { candidate.weight };
        if candidate.ejected || candidate.standing == Standing::Draining || weight == 0 {
            return Look::Unusable;
        }
        let mut class = match candidate.standing {
            Standing::Suspect => Class::Suspect,
            _ => Class::Active,
        };
        let mut permille = FULL_PERMILLE;
        if !self.settled {
            let state = self.state(index);
            match state {
                State::Settled => {}
                State::Resting { .. } => class = Class::Resting,
                State::Ramping { .. } => {
                    permille = state.share_permille(self.ask.now_us, self.rules.slow_start_us);
                }
                State::Out { .. } | State::Trial { .. } => return Look::Out(state),
            }
        }
        Look::In(class, u64::from(weight) * u64::from(permille))
    }

    fn takes_trial(&self, index: usize, state: State) -> bool {
        state.takes_trial(self.ask.now_us, self.ask.repeatable) && self.has_room(index)
    }

    fn has_room(&self, index: usize) -> bool {
        !self.pool.is_full(index)
    }

    fn state(&self, index: usize) -> State {
        let state = self.pool.state(index);
        state.at(self.ask.now_us, self.rules.slow_start_us)
    }

    /// The untried one that failed longest ago: of those out for a soft reason,
    /// then of those that nobody answers at.
    fn longest_out(&self) -> Choice {
        let mut best: Option<(bool, u64, usize)> = None;
        let mut is_full = false;
        for index in 0..self.pool.len() {
            if self.ask.tried.contains(index) {
                continue;
            }
            let state = match self.look(index) {
                Look::Out(state) if self.has_room(index) => state,
                Look::Unusable => continue,
                // Or back since the classes were summed up: who waits asks
                // again.
                Look::Out(_) | Look::In(..) => {
                    is_full = true;
                    continue;
                }
            };
            let rank = (!state.is_soft_out(), self.pool.failed_us(index), index);
            best = Some(best.map_or(rank, |best| best.min(rank)));
        }
        match best {
            Some((true, _, index)) => Choice::AllOut(index),
            Some((false, _, index)) => Choice::Backend(index),
            None if is_full => Choice::AllFull,
            None => Choice::NoneLeft,
        }
    }
}

#[cfg(test)]
mod tests;
