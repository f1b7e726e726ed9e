//! Leases: which backends must be heard of, and which are on their way out.
//!
//! Owns the deadlines, in memory: a heartbeat is a write to memory and nothing
//! else. Takes the time as an argument (milliseconds of the lease clock) and
//! says what is due; `ticker` makes it happen. Never touches
//! the registry.
//!
//! A restart settles every lease anew, for a full period: control's absence
//! expires nothing.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use crate::feed::messages::{AppRecord, Standing};

/// From a lease's expiry to the backend's removal: 10 minutes.
pub const LEASE_GRACE_MS: u64 = 600_000;
/// How soon something due is due again, should it not have come to pass.
const RETRY_MS: u64 = 1_000;

/// Whether so many leases have expired that the fault must be sought here, or
/// in the network, and not with the backends: at least 15 % and at least three,
/// or all where there are several. Thawing takes less than 10 %, so that the
/// answer does not flutter.
pub fn freezes(expired: usize, leased: usize, frozen: bool) -> bool {
    let share = if frozen { 10 } else { 15 };
    let several = expired >= 3 || (expired >= 2 && expired == leased);
    several && expired * 100 >= leased * share
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// In rotation until its deadline.
    Live,
    /// Suspect; removed at its deadline.
    Expired,
    /// Draining; removed at its deadline.
    Draining,
}

#[derive(Debug)]
struct Slot {
    app: Arc<str>,
    id: Box<str>,
    seconds: u32,
    deadline_ms: u64,
    phase: Phase,
    /// Tells this occupant from the slot's earlier ones, and this phase from
    /// its earlier ones.
    generation: u32,
}

/// What must be done about a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its app.
    pub app: Arc<str>,
    /// Its id.
    pub id: Box<str>,
    /// What to do.
    pub what: Verdict,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its lease ran out: suspect.
    Expire,
    /// It stayed away for the whole grace: remove it.
    Remove,
    /// Its drain's time is up: remove it.
    Drained,
}

/// What a heartbeat met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// A lease in force, now for another period.
    Renewed,
    /// A backend that is suspect: it must be put back into rotation.
    WasSuspect,
    /// No lease of this name.
    Unknown,
}

/// All leases and drains.
#[derive(Debug, Default)]
pub struct Leases {
    slots: Vec<Option<Slot>>,
    vacant: Vec<u32>,
    by_app: HashMap<Arc<str>, Vec<u32>, ahash::RandomState>,
    due: BinaryHeap<Reverse<(u64, u32, u32)>>,
    generation: u32,
    leased: usize,
    expired: usize,
    frozen: bool,
}

impl Leases {
    /// Backends with a lease, in force or expired.
    pub fn leased(&self) -> usize {
        self.leased
    }

    /// Those of them that are suspect.
    pub fn expired(&self) -> usize {
        self.expired
    }

    /// What all of it takes, bytes, estimated.
    pub fn bytes(&self) -> usize {
        let slots = self.slots.capacity() * size_of::<Option<Slot>>();
        // An id of up to 16 bytes each, and a list of slots for each app.
        let leased = self.leased * 16 + self.by_app.len() * 32;
        let apps = self.by_app.capacity() * (size_of::<(Arc<str>, Vec<u32>)>() + 1);
        let due = self.due.capacity() * size_of::<Reverse<(u64, u32, u32)>>();
        slots + leased + apps + due + self.vacant.capacity() * size_of::<u32>()
    }

    /// Whether removal is frozen.
    pub fn frozen(&self) -> bool {
        self.frozen
    }

    /// Brings an app's leases in line with its record (`None`: gone).
    pub fn settle(&mut self, app: &str, record: Option<&AppRecord>, now_ms: u64) {
        let tracked = record.map_or(&[][..], |record| &record.backends);
        let mut held = self.by_app.remove(app).unwrap_or_default();
        let mut kept = Vec::new();
        let key: Arc<str> = held
            .first()
            .and_then(|at| self.slots[*at as usize].as_ref())
            .map_or_else(|| app.into(), |slot| slot.app.clone());
        for backend in tracked {
            let phase = match backend.standing() {
                Standing::Draining => Phase::Draining,
                _ if backend.lease_seconds == 0 => continue,
                Standing::Suspect => Phase::Expired,
                Standing::Active => Phase::Live,
            };
            let known = held.iter().position(|at| {
                self.slots[*at as usize]
                    .as_ref()
                    .is_some_and(|slot| *slot.id == *backend.id)
            });
            let before = known.map(|position| held.swap_remove(position));
            if let Some(at) = before {
                let unchanged = self.slots[at as usize].as_ref().is_some_and(|slot| {
                    slot.phase == phase && slot.seconds == backend.lease_seconds
                });
                if unchanged {
                    kept.push(at);
                    continue;
                }
                self.vacate(at);
            }
            let period_ms = match phase {
                Phase::Live => u64::from(backend.lease_seconds) * 1_000,
                Phase::Expired => LEASE_GRACE_MS,
                Phase::Draining => backend.drain_ms,
            };
            kept.push(self.occupy(&key, backend, phase, now_ms + period_ms));
        }
        for at in held {
            self.vacate(at);
        }
        if !kept.is_empty() {
            self.by_app.insert(key, kept);
        }
    }

    /// Renews a lease for a full period.
    pub fn renew(&mut self, app: &str, id: &str, now_ms: u64) -> Renewal {
        let Some(held) = self.by_app.get(app) else {
            return Renewal::Unknown;
        };
        for at in held {
            let Some(slot) = &mut self.slots[*at as usize] else {
                continue;
            };
            if *slot.id != *id {
                continue;
            }
            return match slot.phase {
                Phase::Live => {
                    slot.deadline_ms = now_ms + u64::from(slot.seconds) * 1_000;
                    Renewal::Renewed
                }
                Phase::Expired => Renewal::WasSuspect,
                Phase::Draining => Renewal::Renewed,
            };
        }
        Renewal::Unknown
    }

    /// Up to `limit` things due. Each is due again a little later unless the
    /// registry's answer to it settles the lease first.
    pub fn due(&mut self, now_ms: u64, limit: usize) -> Vec<Due> {
        let mut found = Vec::new();
        let mut again = Vec::new();
        while found.len() < limit
            && let Some(&Reverse((at_ms, at, generation))) = self.due.peek()
            && at_ms <= now_ms
        {
            self.due.pop();
            let Some(slot) = &self.slots[at as usize] else {
                continue;
            };
            if slot.generation != generation {
                continue;
            }
            if slot.deadline_ms > now_ms {
                again.push(Reverse((slot.deadline_ms, at, generation)));
                continue;
            }
            again.push(Reverse((now_ms + RETRY_MS, at, generation)));
            let what = match slot.phase {
                Phase::Live => Verdict::Expire,
                Phase::Expired if self.frozen => continue,
                Phase::Expired => Verdict::Remove,
                Phase::Draining => Verdict::Drained,
            };
            found.push(Due {
                app: slot.app.clone(),
                id: slot.id.clone(),
                what,
            });
        }
        self.due.extend(again);
        found
    }

    /// Decides whether removal is frozen; `Some` when that changed. A thaw
    /// gives every suspect its whole grace again.
    pub fn review(&mut self, now_ms: u64) -> Option<bool> {
        let frozen = freezes(self.expired, self.leased, self.frozen);
        if frozen == self.frozen {
            return None;
        }
        self.frozen = frozen;
        if !frozen {
            for slot in self
                .slots
                .iter_mut()
                .flatten()
                .filter(|slot| slot.phase == Phase::Expired)
            {
                slot.deadline_ms = now_ms + LEASE_GRACE_MS;
            }
        }
        Some(frozen)
    }

    /// Up to `limit` backends that drain.
    pub fn draining(&self, limit: usize) -> Vec<(Arc<str>, Box<str>)> {
        self.slots
            .iter()
            .flatten()
            .filter(|slot| slot.phase == Phase::Draining)
            .take(limit)
            .map(|slot| (slot.app.clone(), slot.id.clone()))
            .collect()
    }

    fn occupy(
        &mut self,
        app: &Arc<str>,
        backend: &crate::feed::messages::BackendRecord,
        phase: Phase,
        deadline_ms: u64,
    ) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        let slot = Slot {
            app: app.clone(),
            id: backend.id.as_str().into(),
            seconds: backend.lease_seconds,
            deadline_ms,
            phase,
            generation: self.generation,
        };
        self.leased += usize::from(phase != Phase::Draining);
        self.expired += usize::from(phase == Phase::Expired);
        let at = match self.vacant.pop() {
            Some(at) => {
                self.slots[at as usize] = Some(slot);
                at
            }
            None => {
                self.slots.push(Some(slot));
                u32::try_from(self.slots.len() - 1).expect("leases must number under 2^32")
            }
        };
        self.due.push(Reverse((deadline_ms, at, self.generation)));
        at
    }

    fn vacate(&mut self, at: u32) {
        if let Some(slot) = self.slots[at as usize].take() {
            self.leased -= usize::from(slot.phase != Phase::Draining);
            self.expired -= usize::from(slot.phase == Phase::Expired);
            self.vacant.push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::messages::BackendRecord;

    fn app(backends: &[(&str, u32, Standing, u64)]) -> AppRecord {
        let backends = backends
            .iter()
            .map(|(id, lease_seconds, standing, drain_ms)| BackendRecord {
                id: (*id).into(),
                lease_seconds: *lease_seconds,
                standing: (*standing).into(),
                drain_ms: *drain_ms,
                ..BackendRecord::default()
            })
            .collect();
        AppRecord {
            name: "shop".into(),
            backends,
            ..AppRecord::default()
        }
    }

    fn verdicts(leases: &mut Leases, now_ms: u64) -> Vec<(String, Verdict)> {
        leases
            .due(now_ms, 100)
            .into_iter()
            .map(|due| (due.id.to_string(), due.what))
            .collect()
    }

    #[test]
    fn a_lease_expires_and_the_backend_is_removed_after_the_grace() {
        let mut leases = Leases::default();
        leases.settle(
            "shop",
            Some(&app(&[
                ("a", 30, Standing::Active, 0),
                ("b", 0, Standing::Active, 0),
            ])),
            0,
        );
        assert_eq!(leases.leased(), 1);
        assert_eq!(verdicts(&mut leases, 29_999), []);
        assert_eq!(
            verdicts(&mut leases, 30_000),
            [("a".into(), Verdict::Expire)]
        );
        leases.settle(
            "shop",
            Some(&app(&[("a", 30, Standing::Suspect, 0)])),
            30_000,
        );
        assert_eq!((leases.leased(), leases.expired()), (1, 1));
        assert_eq!(verdicts(&mut leases, 30_000 + LEASE_GRACE_MS - 1), []);
        assert_eq!(
            verdicts(&mut leases, 30_000 + LEASE_GRACE_MS),
            [("a".into(), Verdict::Remove)]
        );
        leases.settle("shop", Some(&app(&[])), 700_000);
        assert_eq!((leases.leased(), leases.expired()), (0, 0));
        assert_eq!(verdicts(&mut leases, u64::MAX / 2), []);
    }

    #[test]
    fn heartbeats_put_expiry_off_and_what_failed_is_due_again() {
        let mut leases = Leases::default();
        leases.settle("shop", Some(&app(&[("a", 1, Standing::Active, 0)])), 0);
        for beat in 1..100 {
            assert_eq!(leases.renew("shop", "a", beat * 900), Renewal::Renewed);
            assert_eq!(verdicts(&mut leases, beat * 900 + 899), []);
        }
        assert_eq!(leases.due.len(), 1, "a heartbeat must not grow the queue");
        let late = 200_000;
        assert_eq!(verdicts(&mut leases, late).len(), 1);
        assert_eq!(verdicts(&mut leases, late), []);
        assert_eq!(verdicts(&mut leases, late + RETRY_MS).len(), 1);
        assert_eq!(leases.renew("shop", "none", 0), Renewal::Unknown);
        assert_eq!(leases.renew("none", "a", 0), Renewal::Unknown);
    }

    #[test]
    fn a_suspect_is_told_apart_and_a_drain_ends_in_time() {
        let mut leases = Leases::default();
        let record = app(&[
            ("a", 30, Standing::Suspect, 0),
            ("b", 0, Standing::Draining, 5_000),
        ]);
        leases.settle("shop", Some(&record), 0);
        assert_eq!(leases.renew("shop", "a", 1), Renewal::WasSuspect);
        assert_eq!(leases.draining(10), [("shop".into(), "b".into())]);
        leases.settle("shop", Some(&record), 3_000);
        assert_eq!(
            verdicts(&mut leases, 5_000),
            [("b".into(), Verdict::Drained)]
        );
    }

    #[test]
    fn a_large_share_at_once_freezes_removal_until_most_are_back() {
        let named: Vec<String> = (0..20).map(|n| format!("web.{n}")).collect();
        let fleet = |suspects: usize| {
            let rows: Vec<_> = named
                .iter()
                .enumerate()
                .map(|(n, id)| {
                    let standing = if n < suspects {
                        Standing::Suspect
                    } else {
                        Standing::Active
                    };
                    (id.as_str(), 3_600, standing, 0)
                })
                .collect();
            app(&rows)
        };
        let mut leases = Leases::default();
        leases.settle("shop", Some(&fleet(3)), 0);
        assert_eq!(leases.review(0), Some(true));
        assert_eq!(verdicts(&mut leases, LEASE_GRACE_MS), []);
        leases.settle("shop", Some(&fleet(2)), LEASE_GRACE_MS);
        assert_eq!(leases.review(LEASE_GRACE_MS), Some(false));
        assert_eq!(verdicts(&mut leases, LEASE_GRACE_MS + RETRY_MS), []);
        assert_eq!(
            verdicts(&mut leases, 2 * LEASE_GRACE_MS + RETRY_MS).len(),
            2
        );
    }

    #[test]
    fn small_fleets_freeze_when_all_their_leases_expire() {
        assert!(freezes(2, 2, false));
        assert!(!freezes(1, 1, false));
        assert!(!freezes(1, 2, false));
        assert!(freezes(3, 20, false));
        assert!(!freezes(3, 21, false));
        assert!(freezes(3, 21, true));
        assert!(!freezes(0, 0, true));
    }
}
