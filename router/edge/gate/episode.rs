//! What operators are told of overload: when it began and ended, with numbers,
//! and whose requests were refused.
//!
//! Owns the count of refusals by app, bounded, and the rule of when to speak:
//! once for all threads, when requests are refused or the gate of one stays
//! shut, and not more often than every ten seconds. Decides nothing else.

use std::cmp::Reverse;
use std::sync::{Mutex, PoisonError};

use ecow::EcoString;
use hashbrown::HashMap;

use crate::edge::clock::Micros;
use crate::policy::overload::Measure;

/// A gate that is shut for less, with nobody refused, is not worth a word.
const WORTH_US: Micros = 1_000_000;
/// Two beginnings told are at least so far apart.
const APART_US: Micros = 10_000_000;
/// Apps of which refusals are counted one by one.
const NAMED: usize = 256;
/// Apps named in an event.
const SHOWN: usize = 3;

/// One time of a gate's being shut.
#[derive(Debug, Default)]
pub struct Episode {
    /// When it began, and how late the thread was and how busy, percent.
    began: Option<(Micros, Micros, Micros)>,
    is_told: bool,
    refusals: Refusals,
}

#[derive(Debug, Default)]
struct Refusals {
    total: u64,
    by_app: HashMap<EcoString, u64>,
}

impl Refusals {
    fn add(&mut self, app: Option<&EcoString>, count: u64) {
        self.total += count;
        let Some(app) = app else {
            return;
        };
        if let Some(sum) = self.by_app.get_mut(app) {
            *sum += count;
        } else if self.by_app.len() < NAMED {
            self.by_app.insert(app.clone(), count);
        }
    }

    fn absorb(&mut self, other: &Refusals) {
        for (app, count) in &other.by_app {
            self.add(Some(app), *count);
        }
        let named: u64 = other.by_app.values().sum();
        self.add(None, other.total - named);
    }

    /// Whose they were: the most first.
    fn shown(&self) -> String {
        let mut apps: Vec<_> = self.by_app.iter().collect();
        apps.sort_by_key(|(name, count)| (Reverse(**count), name.as_str()));
        let named = apps.iter().take(SHOWN);
        let named: Vec<String> = named
            .map(|(name, count)| format!("{name} ({count})"))
            .collect();
        named.join(", ")
    }
}

impl Episode {
    /// A request was refused; those without an app are of nobody.
    pub(super) fn refused(&mut self, app: Option<&EcoString>) {
        self.refusals.add(app, 1);
    }

    /// The gate is shut, by this measure.
    pub(super) fn goes_on(&mut self, now: Micros, measure: &Measure) {
        if self.began.is_none() {
            let busy = measure.worked_us * 100 / measure.elapsed_us.max(1);
            self.began = Some((now, measure.lag_us, busy));
        }
    }
}

/// The episodes of all gates of a process.
#[derive(Debug, Default)]
pub struct Episodes(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// Gates that are shut and told of.
    shut: usize,
    /// When the first of them was told of.
    since: Micros,
    /// When a beginning was last told.
    last: Option<Micros>,
    /// Whether this one was.
    is_told: bool,
    refusals: Refusals,
}

impl Episodes {
    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        // Counts: nothing a panic could break half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A gate is shut: what to say of it, if it is time to.
    pub(super) fn tell(&self, episode: &mut Episode, thread: usize, now: Micros) -> Option<String> {
        let (began, lag_us, busy) = episode.began?;
        let is_worth = episode.refusals.total > 0 || now >= began + WORTH_US;
        if episode.is_told || !is_worth {
            return None;
        }
        episode.is_told = true;
        let mut told = self.told();
        told.shut += 1;
        if told.shut > 1 {
            return None;
        }
        told.since = began;
        told.is_told = told.last.is_none_or(|last| now >= last + APART_US);
        if !told.is_told {
            return None;
        }
        told.last = Some(now);
        Some(format!(
            "data thread {thread} has more to do than it can: it was {:.1} ms late with {busy} % \
             of a processor; requests wait for their app's turn, and where they wait too long, \
             are refused (H22)",
            lag_us as f64 / 1e3
        ))
    }

    /// A gate is open: what to say of it, if it is the last one.
    pub(super) fn end(&self, episode: &Episode, now: Micros) -> Option<String> {
        if !episode.is_told {
            return None;
        }
        let mut told = self.told();
        told.refusals.absorb(&episode.refusals);
        told.shut -= 1;
        if told.shut > 0 || !told.is_told {
            // Of an end that is not told, the next one tells.
            return None;
        }
        let refusals = std::mem::take(&mut told.refusals);
        let seconds = now.saturating_sub(told.since) as f64 / 1e6;
        let whose = match refusals.by_app.is_empty() {
            true => String::new(),
            false => format!(", most of them of {}", refusals.shown()),
        };
        Some(format!(
            "no data thread has more to do than it can any more, after {seconds:.1} s; {} requests \
             were refused{whose}",
            refusals.total
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Measure = Measure {
        elapsed_us: 10_000,
        busy_us: 10_000,
        worked_us: 9_900,
        lag_us: 7_000,
        stood: false,
    };

    fn shut(at: Micros, refused: &[(&str, u64)]) -> Episode {
        let mut episode = Episode::default();
        episode.goes_on(at, &LATE);
        for (app, count) in refused {
            for _ in 0..*count {
                episode.refused(Some(&EcoString::from(*app)));
            }
        }
        episode
    }

    #[test]
    fn a_short_time_with_nobody_refused_is_not_worth_a_word() {
        let all = Episodes::default();
        let mut episode = shut(0, &[]);
        assert_eq!(all.tell(&mut episode, 0, 900_000), None);
        assert_eq!(all.end(&episode, 950_000), None);
        let mut episode = shut(0, &[]);
        assert!(all.tell(&mut episode, 0, 1_000_000).is_some());
    }

    #[test]
    fn of_two_threads_one_beginning_and_one_end_is_told_with_the_sum() {
        let all = Episodes::default();
        let mut one = shut(0, &[("shop", 3), ("blog", 1)]);
        let mut two = shut(10, &[("shop", 2)]);
        two.refused(None);
        let began = all.tell(&mut one, 0, 100).unwrap();
        assert!(began.contains("7.0 ms late with 99 %"), "{began}");
        assert_eq!(all.tell(&mut one, 0, 200), None, "told once");
        assert_eq!(all.tell(&mut two, 1, 200), None);
        assert_eq!(all.end(&one, 2_000_000), None);
        let ended = all.end(&two, 3_000_000).unwrap();
        assert!(ended.contains("after 3.0 s; 7 requests"), "{ended}");
        assert!(ended.ends_with("shop (5), blog (1)"), "{ended}");
    }

    #[test]
    fn what_flaps_is_told_every_ten_seconds_and_nothing_is_lost() {
        let all = Episodes::default();
        let (mut told, mut refused) = (Vec::new(), 0);
        for second in 0..25 {
            let at = second * 1_000_000;
            let mut episode = shut(at, &[("shop", 2)]);
            let began = all.tell(&mut episode, 0, at);
            let ended = all.end(&episode, at + 500_000);
            assert_eq!(began.is_some(), ended.is_some());
            refused += 2;
            if let Some(ended) = ended {
                told.push(second);
                assert!(ended.contains(&format!("; {refused} requests")), "{ended}");
                refused = 0;
            }
        }
        assert_eq!(told, [0, 10, 20]);
    }

    #[test]
    fn names_are_bounded_and_the_rest_is_counted() {
        let mut episode = shut(0, &[]);
        for n in 0..2 * NAMED {
            episode.refused(Some(&EcoString::from(format!("app-{n}"))));
        }
        assert_eq!(episode.refusals.by_app.len(), NAMED);
        assert_eq!(episode.refusals.total, 2 * NAMED as u64);
        let mut sum = Refusals::default();
        sum.absorb(&episode.refusals);
        assert_eq!(sum.total, 2 * NAMED as u64);
    }
}
