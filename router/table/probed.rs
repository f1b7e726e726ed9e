//! Which apps want their backends probed: what the prober works from.
//!
//! Owns the names of these apps and which of them changed since the prober
//! last asked. An app without a probe, before and after a change, never gets
//! here, so a million of these cost nothing. Its lock is the writer's and the
//! prober's; no request takes it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use ecow::EcoString;
use hashbrown::HashSet;

/// Names of apps without a probe (any more) that may wait to be told: beyond
/// that the prober finds out when it next looks one up.
const GONE: usize = 65_536;

/// The apps that have a probe configured.
#[derive(Debug, Default)]
pub struct ProbedApps {
    names: Mutex<Names>,
    /// Whether any changed; the prober's question, asked often.
    is_changed: AtomicBool,
}

type Set = HashSet<EcoString, RandomState>;

#[derive(Debug, Default)]
struct Names {
    all: Set,
    changed: Set,
}

impl ProbedApps {
    fn names(&self) -> MutexGuard<'_, Names> {
        // Two sets of names have no invariant a panic could break half-way.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Apps that have a probe.
    pub fn len(&self) -> usize {
        self.names().all.len()
    }

    /// Whether no app has a probe.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves at most `most` names into `into`: apps with a probe that were
    /// added or changed since they were last taken, and apps that have none any
    /// more or are gone. What the table holds of such an app is at least as new
    /// as the change that brought it here.
    pub fn take_changed(&self, most: usize, into: &mut Vec<EcoString>) {
        if !self.is_changed.load(Ordering::Acquire) {
            return;
        }
        let mut names = self.names();
        let taken: Vec<EcoString> = names.changed.iter().take(most).cloned().collect();
        for name in &taken {
            names.changed.remove(name);
        }
        if names.changed.is_empty() {
            // A snapshot of many apps leaves a large set behind.
            names.changed.shrink_to_fit();
            self.is_changed.store(false, Ordering::Release);
        }
        into.extend(taken);
    }

    /// Every app with a probe is to be taken anew: for a prober that starts.
    pub fn change_all(&self) {
        let mut names = self.names();
        names.changed = names.all.clone();
        self.is_changed
            .store(!names.changed.is_empty(), Ordering::Release);
    }

    /// An app was published, with or without a probe, after a version with or
    /// without one.
    pub(super) fn put(&self, name: &EcoString, had: bool, has: bool) {
        if !had && !has {
            return;
        }
        let mut names = self.names();
        if has {
            names.all.insert(name.clone());
            names.changed.insert(name.clone());
        } else {
            names.all.remove(name);
            names.note_gone(name);
        }
        self.is_changed.store(true, Ordering::Release);
    }

    /// The whole table was replaced, and these are its apps with a probe.
    pub(super) fn replace(&self, all: Set) {
        let mut names = self.names();
        let gone: Vec<EcoString> = names.all.difference(&all).cloned().collect();
        names.all = all;
        names.changed = names.all.clone();
        for name in &gone {
            names.note_gone(name);
        }
        self.is_changed
            .store(!names.changed.is_empty(), Ordering::Release);
    }
}

impl Names {
    fn note_gone(&mut self, name: &EcoString) {
        if self.changed.len() < self.all.len() + GONE {
            self.changed.insert(name.clone());
        } else {
            self.changed.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(probed: &ProbedApps) -> Vec<EcoString> {
        let mut names = Vec::new();
        probed.take_changed(usize::MAX, &mut names);
        names.sort_unstable();
        names
    }

    #[test]
    fn a_change_is_told_once_and_an_app_without_a_probe_never() {
        let probed = ProbedApps::default();
        let (shop, blog) = (EcoString::from("shop"), EcoString::from("blog"));
        probed.put(&blog, false, false);
        assert!(taken(&probed).is_empty());
        for _ in 0..3 {
            probed.put(&shop, true, true);
        }
        assert_eq!(taken(&probed), ["shop"]);
        assert!(taken(&probed).is_empty());
        probed.put(&shop, true, false);
        assert_eq!((taken(&probed), probed.len()), (vec![shop.clone()], 0));
        probed.put(&shop, false, true);
        let _ = taken(&probed);
        probed.change_all();
        assert_eq!((taken(&probed), probed.len()), (vec![shop], 1));
    }

    #[test]
    fn names_are_taken_in_parts_and_nothing_is_lost() {
        let probed = ProbedApps::default();
        let all: Set = (0..1_000).map(|n| EcoString::from(n.to_string())).collect();
        probed.replace(all.clone());
        let mut names = Vec::new();
        for round in 1..=10 {
            probed.take_changed(100, &mut names);
            assert_eq!(names.len(), 100 * round);
        }
        assert_eq!(names.into_iter().collect::<Set>(), all);
        // Those that a snapshot leaves out are told too.
        probed.replace(Set::default());
        assert_eq!((taken(&probed).len(), probed.len()), (1_000, 0));
    }

    #[test]
    fn apps_that_come_and_go_while_nobody_asks_are_bounded() {
        let probed = ProbedApps::default();
        for n in 0..2 * GONE {
            let name = EcoString::from(n.to_string());
            probed.put(&name, false, true);
            probed.put(&name, true, false);
        }
        assert_eq!(probed.len(), 0);
        assert!(taken(&probed).len() <= GONE);
    }
}
