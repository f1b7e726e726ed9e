//! Changes: records become apps, apps are published, domains change hands.
//!
//! Owns the order of publication and who gets a contested domain. A record
//! that does not compile leaves its app as it was, and is reported.
//!
//! **Invariant**: a domain has one holder. Its holder keeps it until it gives
//! it up or is removed; another claimant is refused the domain (not the rest of
//! its record) and that is reported.
//!
//! An app that gives up nothing is published at once. Of the others first the
//! next versions are entered beside those before, then the turn is counted,
//! then those before are removed: so a domain that one gives to another is
//! always with one of them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use ahash::RandomState;
use hashbrown::{HashMap, HashSet};

use super::compile::Compiler;
use super::domain::Domain;
use super::live::HotApps;
use super::{App, Table, depth_bit};
use crate::feed::messages::{AppView, Change, Delta, Nack};

/// Domains of one host, over its path prefixes: what a lookup may have to walk.
pub(super) const DOMAINS_PER_HOST: usize = 128;

pub(super) const HELD_BY_ANOTHER: &str = "another app holds it";
pub(super) const TOO_MANY_PREFIXES: &str = "the host has 128 path prefixes already";

/// What only the writer holds.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) compiler: Compiler,
    /// How many wildcards have this many labels (index 63: that or more).
    pub(super) wildcards: [u32; 64],
}

impl Writer {
    pub(super) fn new(hot: Arc<HotApps>) -> Self {
        Writer {
            compiler: Compiler::new(hot),
            wildcards: [0; 64],
        }
    }

    pub(super) fn shared_bytes(&self) -> usize {
        self.compiler.shared_bytes()
    }

    pub(super) fn count_wildcards(&mut self, app: &App, added: bool) {
        for domain in app.domains.iter().map(Domain::of) {
            if domain.wildcard {
                let count = &mut self.wildcards[domain.labels().min(63)];
                *count = match added {
                    true => *count + 1,
                    false => count.saturating_sub(1),
                };
            }
        }
    }

    pub(super) fn wildcard_depths(&self) -> u64 {
        let counts = self.wildcards.iter().enumerate();
        counts
            .filter(|&(_, &count)| count > 0)
            .fold(0, |bits, (labels, _)| bits | depth_bit(labels))
    }
}

/// What becomes of an app in a delta: one version in the place of another,
/// `None` where there is none.
struct Step {
    before: Option<Arc<App>>,
    after: Option<Arc<App>>,
}

impl Step {
    /// Domains that the app has and had not.
    fn gained(&self) -> impl Iterator<Item = &str> {
        let before = self.before.as_ref();
        let after = self.after.iter().flat_map(|after| after.domains.iter());
        after.filter(move |domain| !before.is_some_and(|app| app.domains.contains(domain)))
    }

    /// Domains that the app had and has not.
    fn released(&self) -> impl Iterator<Item = &str> {
        let after = self.after.as_ref();
        let before = self.before.iter().flat_map(|before| before.domains.iter());
        before.filter(move |domain| !after.is_some_and(|app| app.domains.contains(domain)))
    }

    /// Whether it gives up a domain, or is removed.
    fn gives_up(&self) -> bool {
        self.after.is_none() || self.released().next().is_some()
    }
}

impl Table {
    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        // What a panicking writer left is a table whose published parts are
        // each whole: better than none.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a delta's changes and takes on its revision, whatever the one
    /// before: whether the delta fits is the caller's to check. The last
    /// change for an app wins.
    ///
    /// Returns what could not be used. Readers see each app's change whole.
    pub fn apply(&self, delta: &Delta) -> Vec<Nack> {
        let mut writer = self.writer();
        let mut nacks = Vec::new();
        let mut steps = self.steps(&mut writer, delta, &mut nacks);
        self.settle_claims(&mut steps, &mut nacks);
        for step in &steps {
            if let Some(app) = &step.after {
                writer.count_wildcards(app, true);
            }
        }
        // Wildcards count for readers before they are entered, and until after
        // they are gone.
        self.wildcard_depths
            .fetch_or(writer.wildcard_depths(), Ordering::SeqCst);
        self.publish(&steps);
        for step in &steps {
            if let Some(app) = &step.before {
                writer.count_wildcards(app, false);
            }
        }
        self.wildcard_depths
            .store(writer.wildcard_depths(), Ordering::SeqCst);
        self.revision.store(delta.to, Ordering::SeqCst);
        nacks
    }

    /// Compiles the last change of each app, in the delta's order.
    fn steps(&self, writer: &mut Writer, delta: &Delta, nacks: &mut Vec<Nack>) -> Vec<Step> {
        fn name(change: &Change) -> &str {
            match change {
                Change::Put(record) => &record.name,
                Change::Delete(name) => name,
            }
        }
        let changes = || {
            let ops = delta.ops.iter().enumerate();
            ops.filter_map(|(at, op)| Some((at, op.change.as_ref()?)))
        };
        let last: HashMap<&str, usize, RandomState> =
            changes().map(|(at, change)| (name(change), at)).collect();
        let mut steps = Vec::with_capacity(last.len());
        for (at, change) in changes() {
            if last[name(change)] != at {
                continue;
            }
            let before = self.app(name(change));
            match change {
                Change::Put(record) => match writer.compiler.compile(&AppView::of(record)) {
                    Ok(app) => steps.push(Step {
                        before,
                        after: Some(Arc::new(app)),
                    }),
                    Err(error) => nacks.push(Nack {
                        key: record.name.clone(),
                        reason: error.to_string(),
                    }),
                },
                Change::Delete(_) if before.is_some() => steps.push(Step {
                    before,
                    after: None,
                }),
                Change::Delete(_) => {}
            }
        }
        steps
    }

    /// Takes from the apps the domains that they claim and another one holds.
    fn settle_claims(&self, steps: &mut [Step], nacks: &mut Vec<Nack>) {
        if steps.iter().all(|step| step.gained().next().is_none()) {
            return;
        }
        let mut refusals: Vec<(usize, Vec<String>)> = Vec::new();
        let mut claims = Claims::of(self, steps);
        for (at, step) in steps.iter().enumerate() {
            let mut refused = Vec::new();
            for domain in step.gained() {
                if let Err(reason) = claims.claim(domain) {
                    let name = step.after.as_ref().map_or("", |app| &app.name);
                    nacks.push(nack(name, reason, domain));
                    refused.push(domain.to_owned());
                }
            }
            if !refused.is_empty() {
                refusals.push((at, refused));
            }
        }
        drop(claims);
        for (at, refused) in refusals {
            let refused: Vec<&str> = refused.iter().map(String::as_str).collect();
            let after = &mut steps[at].after;
            *after = after.take().map(|app| Arc::new(app.without(&refused)));
        }
    }

    fn publish(&self, steps: &[Step]) {
        let (giving, others): (Vec<&Step>, Vec<&Step>) =
            steps.iter().partition(|step| step.gives_up());
        for step in others {
            self.enter(step);
            if let (Some(before), Some(app)) = (&step.before, &step.after) {
                self.supersede(before, app);
            }
        }
        for step in &giving {
            self.enter(step);
        }
        self.turns.fetch_add(1, Ordering::SeqCst);
        for step in giving {
            self.leave(step);
        }
    }

    /// Enters an app's next version: under the hosts it had not, and where it
    /// gives up any domain under all of them, beside the version before.
    fn enter(&self, step: &Step) {
        let Some(app) = &step.after else {
            return;
        };
        self.count_backends(step.before.as_deref(), Some(app));
        let mut kept = Vec::new();
        if let Some(before) = &step.before {
            app.inherit(before);
            if !step.gives_up() {
                kept = self.host_hashes(before);
            }
        } else {
            self.names.insert(self.name_hash(&app.name), app);
            self.len.fetch_add(1, Ordering::SeqCst);
        }
        for hash in self.host_hashes(app) {
            if kept.binary_search(&hash).is_err() {
                self.hosts.insert(hash, app);
            }
        }
        let had = step.before.as_ref().is_some_and(|app| app.is_probed());
        self.probed.put(&app.name, had, app.is_probed());
    }

    /// Removes the version before of an app that gives up domains or is gone.
    fn leave(&self, step: &Step) {
        let Some(before) = &step.before else {
            return;
        };
        let name = self.name_hash(&before.name);
        match &step.after {
            Some(app) => {
                self.names.replace(name, before, app);
                app.wake_waiting();
            }
            None => self.names.remove(name, before),
        }
        for hash in self.host_hashes(before) {
            self.hosts.remove(hash, before);
        }
        if step.after.is_none() {
            self.len.fetch_sub(1, Ordering::SeqCst);
            self.count_backends(Some(before), None);
            self.hot.remove(&before.name);
            self.probed.put(&before.name, before.is_probed(), false);
        }
    }

    /// Publishes `app` in the place of a version all of whose domains it has.
    pub(super) fn supersede(&self, before: &Arc<App>, app: &Arc<App>) {
        for hash in self.host_hashes(before) {
            self.hosts.replace(hash, before, app);
        }
        self.names.replace(self.name_hash(&app.name), before, app);
        app.wake_waiting();
    }

    /// Some backends more or fewer; the writer alone counts.
    fn count_backends(&self, before: Option<&App>, after: Option<&App>) {
        let of = |app: Option<&App>| app.map_or(0, |app| app.backends.len() as u64);
        let held = self.backends.load(Ordering::SeqCst);
        // Never wraps: a count that is off a little is judged a little wrong, one
        // near 2^64 would have every table doubted.
        let count = held.saturating_add(of(after)).saturating_sub(of(before));
        self.backends.store(count, Ordering::SeqCst);
    }
}

/// Who claims what in a delta.
struct Claims<'a> {
    table: &'a Table,
    /// Domains given up in the delta.
    released: HashSet<&'a str, RandomState>,
    claimed: HashSet<String, RandomState>,
    /// Domains of a host, by its hash, with those claimed and without those
    /// given up.
    of_host: HashMap<u64, usize, RandomState>,
}

impl<'a> Claims<'a> {
    /// Everyone gives up first, so that a domain may change hands in one delta.
    fn of(table: &'a Table, steps: &'a [Step]) -> Self {
        Claims {
            table,
            released: steps.iter().flat_map(Step::released).collect(),
            claimed: HashSet::default(),
            of_host: HashMap::default(),
        }
    }

    /// An app claims a domain that it does not hold.
    fn claim(&mut self, text: &str) -> Result<(), &'static str> {
        let domain = Domain::of(text);
        let hash = self.table.host_hash(&domain);
        let (mut held, mut is_taken) = (0, false);
        self.table.hosts.visit(hash, |found| {
            let of_app = found.iter().flat_map(|app| app.domains.of_host_of(&domain));
            for other in of_app.filter(|&other| !self.released.contains(other)) {
                held += 1;
                is_taken |= other == text;
            }
            false
        });
        let of_host = self.of_host.entry(hash).or_insert(held);
        if is_taken || self.claimed.contains(text) {
            return Err(HELD_BY_ANOTHER);
        }
        if *of_host >= DOMAINS_PER_HOST {
            return Err(TOO_MANY_PREFIXES);
        }
        *of_host += 1;
        self.claimed.insert(text.to_owned());
        Ok(())
    }
}

pub(super) fn nack(app: &str, reason: &str, domain: &str) -> Nack {
    Nack {
        key: app.to_owned(),
        reason: format!("domain `{domain}`: {reason}"),
    }
}
