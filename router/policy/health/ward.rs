//! The judgement over all backends of one app: who may go out, and what is the
//! app's fault.
//!
//! Owns the caps and the comparison with peers. One at a time: the caller keeps
//! the app's [`Ward`] behind a lock, so that two ejections at once cannot pass a
//! cap together.
//!
//! **Invariant**: a soft reason never takes out the last backend in rotation,
//! nor more than half of those that count (one of two or three); nor do more rest
//! than these leave.

use super::record::{Seen, Step, Suspicion};
use super::{Health, Outcome, Reason, Return, Rules, Spare, State, Try, Verdict};

/// A slow answer takes at least this.
pub const SLOW_FLOOR_US: u64 = 50_000;
/// And so many times what its peers take.
pub const SLOW_TIMES: u64 = 10;

/// Peers are compared with once so many of their tries are known.
const PEERS_KNOWN: u32 = 10;

/// One that stays only because as many are out as may be is used last for this
/// long: a request a second finds out whether it is well again.
const SPARED_REST_US: u64 = 1_000_000;

/// At most one event of a backend that was spared in this time, for each app.
const SPARED_EACH_US: u64 = 10_000_000;

/// The backends of one app, as the judgement sees them.
pub trait Pool {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is known of one besides its record; `index` is below
    /// [`len`](Self::len).
    fn host(&self, index: usize) -> Host;

    /// Reads or changes one's record. Never nested.
    fn with<R>(&self, index: usize, act: impl FnOnce(&mut Health) -> R) -> R;
}

/// What is known of a backend besides its record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host {
    /// Whether it counts as one: weight above 0, neither draining nor out by an
    /// operator's order.
    pub counts: bool,
    /// Tries finished on it, in whatever way.
    pub tries: u64,
    /// When it last answered anything; 0: never.
    pub answered_us: u64,
    /// Its average time to the first byte as last measured, however long ago; 0:
    /// unknown.
    pub latency_us: u64,
}

/// The judgement's own memory of an app.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ward {
    /// When a spared backend was last told of.
    spared_us: Option<u64>,
}

/// The other backends that count, as one suspicion sees them.
#[derive(Default)]
struct Peers {
    hosts: u32,
    routable: u32,
    soft_out: u32,
    /// Routable ones that fail alike now.
    alike: u32,
    /// Routable ones that do not fail at all now.
    well: u32,
    /// Failures among the routable ones' recent tries, and how many these are.
    failed: u32,
    tried: u32,
}

impl Ward {
    /// Judges what a try on a backend told, when it is a failure or the backend
    /// is not settled, [watched](Health::is_watched) or slow.
    pub fn tell<P: Pool>(
        &mut self,
        pool: &P,
        index: usize,
        rules: &Rules,
        told: &Try,
    ) -> Option<Verdict> {
        let host = pool.host(index);
        // The one that tells is still in flight.
        let tries = host.tries + 1;
        let seen = Seen {
            rules,
            told,
            tries,
            answered_us: host.answered_us,
            is_slow: is_slow(pool, index, told.outcome),
        };
        let step = pool.with(index, |health| health.note(&seen));
        self.take(pool, index, rules, step, tries, (told.now_us, told.random))
    }

    /// Judges what a probe of a backend told, an active one or one that looked
    /// whether it is back.
    pub fn probed<P: Pool>(
        &mut self,
        pool: &P,
        index: usize,
        rules: &Rules,
        passed: bool,
        (now_us, random): (u64, u64),
    ) -> Option<Verdict> {
        let tries = pool.host(index).tries;
        let alone = Peers::of(pool, index, None, rules).routable == 0;
        let moment = (now_us, random);
        let step = pool.with(index, |health| {
            health.probed(rules, passed, alone, tries, moment)
        });
        self.take(pool, index, rules, step, tries, moment)
    }

    /// An operator's order: what is held against a backend is forgotten.
    pub fn readmit<P: Pool>(
        &mut self,
        pool: &P,
        index: usize,
        rules: &Rules,
        now_us: u64,
    ) -> Option<Verdict> {
        let tries = pool.host(index).tries;
        pool.with(index, |health| health.pardon(tries, now_us, rules))
    }

    fn take<P: Pool>(
        &mut self,
        pool: &P,
        index: usize,
        rules: &Rules,
        step: Step,
        tries: u64,
        moment: (u64, u64),
    ) -> Option<Verdict> {
        let verdict = match step {
            Step::Nothing => return None,
            Step::Decided(verdict) => verdict,
            Step::Suspected(suspicion) => {
                self.judge(pool, index, rules, &suspicion, tries, moment)?
            }
            Step::Tired { rest_us } => lay_down(pool, index, rules, rest_us, moment.0)?,
        };
        Some(match verdict {
            Verdict::Ejected {
                reason,
                failed,
                tried,
                hold_us,
                repeats,
                ..
            } => Verdict::Ejected {
                reason,
                failed,
                tried,
                hold_us,
                repeats,
                left: Peers::of(pool, index, None, rules).routable,
            },
            other => other,
        })
    }

    /// Asks the peers whether a suspicion is enough.
    fn judge<P: Pool>(
        &mut self,
        pool: &P,
        index: usize,
        rules: &Rules,
        suspicion: &Suspicion,
        tries: u64,
        moment: (u64, u64),
    ) -> Option<Verdict> {
        let is_probe = suspicion.reason == Reason::Probe;
        if !pool.host(index).counts || !(rules.ejection || is_probe) {
            return None;
        }
        let peers = Peers::of(pool, index, Some(suspicion), rules);
        let why = match peers.verdict(suspicion.reason) {
            Ok(()) => {
                return Some(pool.with(index, |health| {
                    health.eject(suspicion, rules, tries, moment)
                }));
            }
            Err(why) => why?,
        };
        if why == Spare::Cap {
            // It stays, but not for a share of what others would do better.
            pool.with(index, |health| health.lay_down(SPARED_REST_US, moment.0));
        }
        let readmitted = if why == Spare::PeersFailAlike && !is_probe {
            readmit_soft(pool, index, suspicion.reason, rules, moment.0)
        } else {
            0
        };
        let is_told = self
            .spared_us
            .is_none_or(|at| moment.0 >= at + SPARED_EACH_US);
        if !is_told && readmitted == 0 {
            return None;
        }
        self.spared_us = Some(moment.0);
        Some(Verdict::Spared {
            reason: suspicion.reason,
            why,
            hosts: peers.hosts + 1,
            routable: peers.routable + readmitted + 1,
            readmitted,
        })
    }
}

impl Peers {
    fn of<P: Pool>(pool: &P, index: usize, of: Option<&Suspicion>, rules: &Rules) -> Peers {
        let mut peers = Peers::default();
        let others = (0..pool.len()).filter(|&other| other != index);
        for other in others {
            let host = pool.host(other);
            if host.counts {
                pool.with(other, |health| peers.add(health, &host, of, rules));
            }
        }
        peers
    }

    fn add(&mut self, health: &Health, host: &Host, of: Option<&Suspicion>, rules: &Rules) {
        self.hosts += 1;
        self.soft_out += u32::from(health.state().is_soft_out());
        if !health.state().is_in_rotation() {
            return;
        }
        self.routable += 1;
        let Some(suspicion) = of else {
            return;
        };
        let is_alike = match suspicion.kind {
            Some(kind) => health.is_alike(kind, rules),
            None => suspicion.reason == Reason::Rate && health.is_failing_often(host.tries),
        };
        self.alike += u32::from(is_alike);
        let (failed, tried) = health.recent(host.tries);
        self.well += u32::from(match suspicion.kind {
            Some(_) => !health.is_watched(),
            None => failed * 10 <= tried,
        });
        self.failed += failed;
        self.tried += tried;
    }

    /// Whether the peers allow an ejection; if not, why. No reason: they fail
    /// too, though not enough of them to call it the app's fault.
    fn verdict(&self, reason: Reason) -> Result<(), Option<Spare>> {
        if self.routable == 0 {
            return Err(Some(Spare::Last));
        }
        // Most of them; or half, and not one of the others is well.
        if self.alike * 2 > self.routable || (self.alike * 2 == self.routable && self.well == 0) {
            return Err(Some(Spare::PeersFailAlike));
        }
        if reason == Reason::Rate && (self.failed * 10 > self.tried || self.tried < PEERS_KNOWN) {
            return Err(None);
        }
        if self.soft_out + 1 > most_away(self.hosts + 1) {
            return Err(Some(Spare::Cap));
        }
        Ok(())
    }
}

/// A backend asks for rest. It gets it if, at rest or out for a soft reason, at
/// most half of those that count are (one of two or three), and another is well:
/// where as many of the others ask for it too, it would only make their load
/// heavier.
fn lay_down<P: Pool>(
    pool: &P,
    index: usize,
    rules: &Rules,
    rest_us: u64,
    now_us: u64,
) -> Option<Verdict> {
    if !pool.host(index).counts {
        return None;
    }
    let (mut hosts, mut away, mut awake, mut tired) = (1, 1, 0, 0);
    for other in (0..pool.len()).filter(|&other| other != index) {
        if !pool.host(other).counts {
            continue;
        }
        hosts += 1;
        pool.with(other, |health| {
            match health.state().at(now_us, rules.slow_start_us) {
                state if state.is_soft_out() => away += 1,
                State::Resting { .. } => away += 1,
                State::Out { .. } => {}
                _ => {
                    awake += 1;
                    tired += u32::from(health.is_tired());
                }
            }
        });
    }
    let is_allowed = away <= most_away(hosts) && awake > 0 && tired * 2 < awake;
    is_allowed.then(|| pool.with(index, |health| health.lay_down(rest_us, now_us)))
}

/// How many of so many may be out for a soft reason: half, but one of two or
/// three.
fn most_away(hosts: u32) -> u32 {
    (hosts / 2).max(1)
}

/// Whether two reasons can have one cause. What all answer says nothing of who
/// is frozen or slow.
fn is_kin(a: Reason, b: Reason) -> bool {
    use Reason::{BadAnswer, Rate, Reset, Silent, Status, TimedOut};
    match a {
        Status(_) | Rate => matches!(b, Status(_) | Rate),
        Reset | BadAnswer => matches!(b, Reset | BadAnswer),
        Silent | TimedOut => matches!(b, Silent | TimedOut),
        _ => false,
    }
}

/// The fault is the app's: those out for it come back. How many did.
fn readmit_soft<P: Pool>(
    pool: &P,
    index: usize,
    reason: Reason,
    rules: &Rules,
    now_us: u64,
) -> u32 {
    let mut readmitted = 0;
    for other in (0..pool.len()).filter(|&other| other != index) {
        let host = pool.host(other);
        if !host.counts {
            continue;
        }
        pool.with(other, |health| {
            let is_alike = health.reason().is_some_and(|out| is_kin(out, reason));
            if health.state().is_soft_out() && is_alike {
                health.readmit(Return::Trial, host.tries, now_us, rules);
                readmitted += 1;
            }
        });
    }
    readmitted
}

/// Whether an answer took far longer than the peers' do.
fn is_slow<P: Pool>(pool: &P, index: usize, outcome: Outcome) -> bool {
    let Outcome::Answered { first_byte_us, .. } = outcome else {
        return false;
    };
    if first_byte_us < SLOW_FLOOR_US {
        return false;
    }
    let mut latencies: Vec<u64> = (0..pool.len())
        .filter(|&other| other != index)
        .filter(|&other| pool.with(other, |health| health.state().is_in_rotation()))
        .map(|other| pool.host(other))
        .filter(|host| host.counts && host.latency_us > 0)
        .map(|host| host.latency_us)
        .collect();
    if latencies.is_empty() {
        return false;
    }
    let middle = (latencies.len() - 1) / 2;
    let (_, &mut median_us, _) = latencies.select_nth_unstable(middle);
    first_byte_us >= SLOW_TIMES * median_us
}
