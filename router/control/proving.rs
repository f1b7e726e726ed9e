//! Whether a table has run well: edges served it, or what came after it, long
//! enough, and none of them died young meanwhile.
//!
//! Owns the decision alone. Time and what was seen come in as arguments; the
//! files are [`snapshots`](super::snapshots)'.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::fleet::EdgeStatus;
use crate::heritage::{Obituary, ProcessStatus, Role};

/// How long one edge must serve a table for it to have proven itself.
pub const PROVING: Duration = Duration::from_secs(600);
/// An edge that lived shorter than this died young.
const YOUNG_MS: u64 = 30_000;
/// An edge may be cut off from control so long without beginning anew.
const CUT_OFF: Duration = Duration::from_secs(10);
/// SIGTERM: somebody's wish, not the table's doing.
const SIGTERM: i32 = 15;

/// What there is to see at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Edges that serve by control, and the revision active in each.
    pub serving: Vec<(u32, u64)>,
    /// The latest deaths of edges that had lived shortly, as (pid, when).
    pub young_deaths: BTreeSet<(u32, u64)>,
}

impl Seen {
    /// Of the edges connected, and the supervisor's table.
    pub fn of(edges: &[EdgeStatus], processes: &[ProcessStatus]) -> Seen {
        let serving = edges.iter().filter(|edge| edge.is_waited_for());
        let serving = serving.filter_map(|edge| Some((edge.pid, edge.active_revision?)));
        let edges = processes.iter().filter(|row| row.role == Role::Edge);
        let deaths = edges.filter_map(|row| row.last_exit.as_ref());
        let young = deaths.filter(|death| is_young(death));
        Seen {
            serving: serving.collect(),
            young_deaths: young.map(|death| (death.pid, death.at_ms)).collect(),
        }
    }
}

fn is_young(death: &Obituary) -> bool {
    let is_wanted = death.exit_code == Some(0) || death.signal == Some(SIGTERM);
    death.lived_ms < YOUNG_MS && !is_wanted
}

/// A table on trial.
#[derive(Debug)]
pub struct Trial {
    revision: u64,
    /// Deaths from before it began.
    known: BTreeSet<(u32, u64)>,
    /// Each edge that serves it: since when, and when it was last seen to.
    lives: BTreeMap<u32, (Instant, Instant)>,
}

/// What came of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Waits,
    /// It ran well.
    Proven,
    /// An edge died young: this table or another reason, nobody knows.
    Failed,
}

impl Trial {
    /// Begins, with what is seen now.
    pub fn begin(revision: u64, seen: &Seen) -> Trial {
        Trial {
            revision,
            known: seen.young_deaths.clone(),
            lives: BTreeMap::new(),
        }
    }

    /// The revision on trial.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes in what is seen. Must be told at least every few seconds.
    pub fn observe(&mut self, now: Instant, seen: &Seen, proving: Duration) -> Verdict {
        if !seen.young_deaths.is_subset(&self.known) {
            return Verdict::Failed;
        }
        for &(pid, revision) in &seen.serving {
            if revision >= self.revision {
                self.lives.entry(pid).or_insert((now, now)).1 = now;
            }
        }
        self.lives
            .retain(|_, (_, last)| now.saturating_duration_since(*last) <= CUT_OFF);
        let mut ages = self.lives.values().map(|(since, last)| *last - *since);
        match ages.any(|age| age >= proving) {
            true => Verdict::Proven,
            false => Verdict::Waits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heritage::ProcessState;

    const SECOND: Duration = Duration::from_secs(1);

    fn serving(edges: &[(u32, u64)]) -> Seen {
        Seen {
            serving: edges.to_vec(),
            ..Seen::default()
        }
    }

    /// Observes the same for so many seconds; the last verdict.
    fn pass(trial: &mut Trial, now: &mut Instant, seconds: u64, seen: &Seen) -> Verdict {
        let mut verdict = Verdict::Waits;
        for _ in 0..seconds {
            *now += SECOND;
            verdict = trial.observe(*now, seen, PROVING);
            if verdict != Verdict::Waits {
                break;
            }
        }
        verdict
    }

    #[test]
    fn ten_minutes_of_one_edge_prove_a_table() {
        let (mut trial, mut now) = (Trial::begin(7, &Seen::default()), Instant::now());
        let seen = serving(&[(1, 7)]);
        assert_eq!(pass(&mut trial, &mut now, 600, &seen), Verdict::Waits);
        assert_eq!(pass(&mut trial, &mut now, 1, &seen), Verdict::Proven);
    }

    #[test]
    fn later_revisions_count_and_earlier_ones_do_not() {
        let (mut trial, mut now) = (Trial::begin(7, &Seen::default()), Instant::now());
        let early = serving(&[(1, 6)]);
        assert_eq!(pass(&mut trial, &mut now, 700, &early), Verdict::Waits);
        let late = serving(&[(1, 9)]);
        assert_eq!(pass(&mut trial, &mut now, 601, &late), Verdict::Proven);
    }

    #[test]
    fn edges_one_after_another_do_not_add_up() {
        let (mut trial, mut now) = (Trial::begin(7, &Seen::default()), Instant::now());
        for pid in 1..5 {
            let seen = serving(&[(pid, 7)]);
            assert_eq!(pass(&mut trial, &mut now, 500, &seen), Verdict::Waits);
        }
    }

    #[test]
    fn a_short_cut_off_is_forgiven_and_a_long_one_is_not() {
        let (mut trial, mut now) = (Trial::begin(7, &Seen::default()), Instant::now());
        let (seen, nobody) = (serving(&[(1, 7)]), Seen::default());
        pass(&mut trial, &mut now, 400, &seen);
        pass(&mut trial, &mut now, 9, &nobody);
        assert_eq!(pass(&mut trial, &mut now, 200, &seen), Verdict::Proven);
        let mut trial = Trial::begin(7, &nobody);
        pass(&mut trial, &mut now, 400, &seen);
        pass(&mut trial, &mut now, 11, &nobody);
        assert_eq!(pass(&mut trial, &mut now, 600, &seen), Verdict::Waits);
    }

    #[test]
    fn a_young_death_fails_it_and_one_from_before_does_not() {
        let dead = |at_ms| Seen {
            young_deaths: BTreeSet::from([(3, at_ms)]),
            ..serving(&[(1, 7)])
        };
        let (mut trial, mut now) = (Trial::begin(7, &dead(5)), Instant::now());
        assert_eq!(pass(&mut trial, &mut now, 300, &dead(5)), Verdict::Waits);
        assert_eq!(pass(&mut trial, &mut now, 1, &dead(6)), Verdict::Failed);
    }

    fn process(lived_ms: u64, exit_code: Option<i32>, signal: Option<i32>) -> ProcessStatus {
        let death = Obituary {
            pid: 3,
            at_ms: 9,
            lived_ms,
            exit_code,
            signal,
            reason: String::new(),
            last_words: Vec::new(),
        };
        ProcessStatus {
            role: Role::Edge,
            pid: 4,
            state: ProcessState::Ready,
            started_at_ms: 0,
            restarts: 1,
            last_exit: Some(death),
            open_descriptors: None,
            upgrade: None,
            obituaries: Vec::new(),
        }
    }

    #[test]
    fn only_unwanted_deaths_of_young_edges_count() {
        let deaths = |process| Seen::of(&[], &[process]).young_deaths.len();
        assert_eq!(deaths(process(29_999, Some(1), None)), 1);
        assert_eq!(deaths(process(500, None, Some(11))), 1);
        assert_eq!(deaths(process(30_000, Some(1), None)), 0);
        assert_eq!(deaths(process(500, Some(0), None)), 0, "it was told to go");
        assert_eq!(deaths(process(500, None, Some(SIGTERM))), 0);
        let control = ProcessStatus {
            role: Role::Control,
            ..process(500, Some(1), None)
        };
        assert_eq!(deaths(control), 0);
    }
}
