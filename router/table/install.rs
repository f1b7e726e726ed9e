//! A whole table being replaced, part by part: mark and sweep.
//!
//! Owns the gathering of a table's apps, by one thread or many, and their
//! publication at the end. What is wrong with a single record, and who may have
//! a contested domain, is decided as for a change.
//!
//! Apps are compiled as they come and gathered by the shard of the indexes they
//! belong to; the shards are made at the end, one after the other, each of just
//! the size it needs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;
use hashbrown::{HashMap, HashSet};

use super::change::{DOMAINS_PER_HOST, HELD_BY_ANOTHER, TOO_MANY_PREFIXES, nack};
use super::compile::Compiler;
use super::domain::Domain;
use super::index::{Draft, Entry, mark_of, shard_of};
use super::{App, Table};
use crate::feed::messages::{AppRecord, AppView, Nack};

/// A whole table being replaced. Apps named in it are put, all others removed,
/// when it is [finished](Self::finish); dropped before that, nothing changed. An
/// app that stays as it was is not copied, so replacing a table by nearly itself
/// needs little memory.
#[must_use = "nothing changes before `finish`"]
#[derive(Debug)]
pub struct Install<'t> {
    table: &'t Table,
    names: Draft,
    hosts: Draft,
    backends: AtomicU64,
    gathered: Mutex<Gathered>,
}

/// What is rare.
#[derive(Debug, Default)]
struct Gathered {
    /// Next versions of apps that the table has, each after the one it follows.
    staged: Vec<(Arc<App>, Arc<App>)>,
    /// Apps with a wildcard or a probe.
    marked: Vec<Arc<App>>,
    nacks: Vec<Nack>,
    /// Those of threads that are done.
    compilers: Vec<Compiler>,
}

/// An app version's address: who it is among those of an install, which holds
/// them all.
type Identity = usize;

fn identity(app: &Arc<App>) -> Identity {
    Arc::as_ptr(app) as Identity
}

impl Table {
    /// Begins to replace the whole table; nothing changes before
    /// [`Install::finish`].
    pub fn install(&self) -> Install<'_> {
        self.install_about(self.len())
    }

    /// The same, for about this many apps.
    pub fn install_about(&self, apps: usize) -> Install<'_> {
        Install {
            table: self,
            names: Draft::for_about(apps),
            hosts: Draft::for_about(apps),
            backends: AtomicU64::new(0),
            gathered: Mutex::default(),
        }
    }
}

/// One of the threads that work on an [`Install`].
#[derive(Debug)]
pub struct InstallThread<'i> {
    install: &'i Install<'i>,
    /// Its own, so that threads share nothing; handed over at the end.
    compiler: Option<Compiler>,
    /// Backends of the apps it took.
    backends: u64,
}

impl InstallThread<'_> {
    /// Takes one app of the table.
    pub fn take(&mut self, record: &AppView<'_>) {
        let compiler = self.compiler.as_mut();
        let compiler = compiler.expect("a thread must have a compiler until it ends");
        self.backends += self.install.take(compiler, record);
    }
}

impl Drop for InstallThread<'_> {
    fn drop(&mut self) {
        self.install
            .backends
            .fetch_add(self.backends, Ordering::Relaxed);
        self.install
            .gathered()
            .compilers
            .extend(self.compiler.take());
    }
}

impl Install<'_> {
    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        // Four lists have no invariant a panic could break half-way.
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a part of the table. A name that came before is refused.
    pub fn part(&mut self, records: &[AppRecord]) {
        let mut writer = self.table.writer();
        for record in records {
            let backends = self.take(&mut writer.compiler, &AppView::of(record));
            *self.backends.get_mut() += backends;
        }
    }

    /// Apps that came, one that came twice counted twice.
    pub fn len(&self) -> u64 {
        let shards = self.names.shards();
        shards
            .map(|shard| self.names.lock(shard).len() as u64)
            .sum()
    }

    /// Whether none came.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Backends of these.
    pub fn backends(&self) -> u64 {
        self.backends.load(Ordering::Relaxed)
    }

    /// For a thread that takes a share of the table's apps.
    pub fn thread(&self) -> InstallThread<'_> {
        InstallThread {
            install: self,
            compiler: Some(Compiler::new(Arc::clone(&self.table.hot))),
            backends: 0,
        }
    }

    /// Takes one app; returns how many backends it will have.
    fn take(&self, compiler: &mut Compiler, record: &AppView<'_>) -> u64 {
        let before = self.table.app(record.name);
        let app = match (compiler.compile(record), before) {
            (Ok(app), Some(before)) if app.is_same_as(&before) => before,
            (Ok(app), before) => {
                let app = Arc::new(app);
                if let Some(before) = before {
                    self.gathered().staged.push((before, Arc::clone(&app)));
                }
                app
            }
            (Err(error), before) => {
                self.gathered().nacks.push(Nack {
                    key: record.name.to_owned(),
                    reason: error.to_string(),
                });
                let Some(before) = before else {
                    return 0;
                };
                before
            }
        };
        self.mark(&app);
        app.backends.len() as u64
    }

    /// The app, in this version, is to be in the table.
    fn mark(&self, app: &Arc<App>) {
        let table = self.table;
        self.names.push(table.name_hash(&app.name), app);
        for hash in table.host_hashes(app) {
            self.hosts.push(hash, app);
        }
        let mut domains = app.domains.iter().map(Domain::of);
        if app.is_probed() || domains.any(|domain| domain.wildcard) {
            self.gathered().marked.push(Arc::clone(app));
        }
    }

    /// Publishes the table as of `revision`; returns what could not be used,
    /// by name.
    pub fn finish(self, revision: u64) -> Vec<Nack> {
        let mut gathered = std::mem::take(&mut *self.gathered());
        let table = self.table;
        let mut writer = table.writer();
        for compiler in gathered.compilers.drain(..) {
            writer.compiler.absorb(compiler);
        }
        self.refuse_twins(&mut gathered);
        self.settle_claims(&mut gathered);

        writer.wildcards = [0; 64];
        for app in &gathered.marked {
            writer.count_wildcards(app, true);
        }
        let depths = writer.wildcard_depths();
        table.wildcard_depths.fetch_or(depths, Ordering::SeqCst);
        for (before, app) in &gathered.staged {
            app.inherit(before);
            // Of one that gives up a domain the version before stays until its
            // shards go, so that the domain is never away.
            if before.domains.iter().all(|held| app.domains.contains(held)) {
                table.supersede(before, app);
            }
        }
        let (counts, removed) = self.publish();
        table.wildcard_depths.store(depths, Ordering::SeqCst);
        table.turns.fetch_add(1, Ordering::SeqCst);
        table.len.store(counts.0, Ordering::SeqCst);
        table.backends.store(counts.1, Ordering::SeqCst);
        table.revision.store(revision, Ordering::SeqCst);
        for app in removed {
            table.hot.remove(&app.name);
        }
        for (_, app) in &gathered.staged {
            app.wake_waiting();
        }
        let probed = gathered.marked.iter().filter(|app| app.is_probed());
        table
            .probed
            .replace(probed.map(|app| app.name.clone()).collect());
        let mut nacks = gathered.nacks;
        nacks.sort_by(|a, b| a.key.cmp(&b.key));
        nacks
    }

    /// Publishes every shard; returns how many apps and backends there are now
    /// and the apps that are gone.
    fn publish(&self) -> ((u64, u64), Vec<Arc<App>>) {
        let table = self.table;
        let (mut len, mut removed) = (0, Vec::new());
        for shard in self.hosts.shards() {
            table
                .hosts
                .publish(shard, std::mem::take(&mut *self.hosts.lock(shard)));
        }
        for shard in self.names.shards() {
            let entries = std::mem::take(&mut *self.names.lock(shard));
            len += entries.len() as u64;
            let before = table.names.publish(shard, entries);
            let apps = before.into_iter().map(|(_, app)| app);
            removed.extend(apps.filter(|app| table.app(&app.name).is_none()));
        }
        ((len, self.backends()), removed)
    }

    /// Of apps of one name the first one counts.
    fn refuse_twins(&self, gathered: &mut Gathered) {
        let mut dropped = HashSet::<Identity, RandomState>::default();
        for shard in self.names.shards() {
            let mut entries = self.names.lock(shard);
            // Stable: what came first stays first.
            entries.sort_by_key(|&(mark, _)| mark);
            if entries.windows(2).all(|two| two[0].0 != two[1].0) {
                continue;
            }
            let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
            for (mark, app) in entries.drain(..) {
                let same_mark = kept.iter().rev().take_while(|entry| entry.0 == mark);
                let twin = same_mark
                    .map(|(_, twin)| twin)
                    .find(|twin| twin.name == app.name);
                let Some(twin) = twin else {
                    kept.push((mark, app));
                    continue;
                };
                gathered.nacks.push(Nack {
                    key: app.name.to_string(),
                    reason: "the name appears twice in the snapshot".to_owned(),
                });
                // Its threads are done: nobody else counts.
                let count = self.backends().saturating_sub(app.backends.len() as u64);
                self.backends.store(count, Ordering::Relaxed);
                if !Arc::ptr_eq(twin, &app) {
                    dropped.insert(identity(&app));
                }
            }
            *entries = kept;
        }
        for shard in self.hosts.shards() {
            let mut entries = self.hosts.lock(shard);
            if !dropped.is_empty() {
                entries.retain(|(_, app)| !dropped.contains(&identity(app)));
            }
            entries.sort_by_key(|&(mark, _)| mark);
            // An app that came twice as it was before.
            entries.dedup_by(|a, b| a.0 == b.0 && Arc::ptr_eq(&a.1, &b.1));
        }
        let is_kept = |app: &Arc<App>| !dropped.contains(&identity(app));
        gathered.staged.retain(|(_, app)| is_kept(app));
        gathered.marked.retain(is_kept);
        gathered.marked.sort_unstable_by_key(identity);
        gathered.marked.dedup_by(|a, b| Arc::ptr_eq(a, b));
    }

    /// The app that holds a domain now keeps it, if it is among those that
    /// claim it; else the first by name gets it.
    fn settle_claims(&self, gathered: &mut Gathered) {
        let mut losses: HashMap<Identity, (Arc<App>, Vec<String>), RandomState> =
            HashMap::default();
        for shard in self.hosts.shards() {
            let entries = self.hosts.lock(shard);
            for claimants in entries.chunk_by(|a, b| a.0 == b.0) {
                if claimants.len() == 1 && claimants[0].1.domains.len() <= DOMAINS_PER_HOST {
                    continue;
                }
                for (app, domain, reason) in self.contest(claimants) {
                    gathered.nacks.push(nack(&app.name, reason, &domain));
                    let lost = losses.entry(identity(&app)).or_insert((app, Vec::new()));
                    lost.1.push(domain);
                }
            }
        }
        if losses.is_empty() {
            return;
        }
        let losers = losses.into_iter().map(|(identity, (app, refused))| {
            let refused: Vec<&str> = refused.iter().map(String::as_str).collect();
            (identity, Arc::new(app.without(&refused)))
        });
        self.exchange(&losers.collect(), gathered);
    }

    /// The claims that fail among those of apps with the same mark: whose, of
    /// what, and why.
    fn contest(&self, claimants: &[Entry]) -> Vec<(Arc<App>, String, &'static str)> {
        let table = self.table;
        let mark = claimants[0].0;
        let is_here = |domain: &str| mark_of(table.host_hash(&Domain::of(domain))) == mark;
        let is_holder = |app: &App, domain: &str| {
            let held = table.app(&app.name);
            held.is_some_and(|held| held.domains.contains(domain))
        };
        let mut claims: Vec<(&str, bool, &Arc<App>)> = Vec::new();
        for (_, app) in claimants {
            for domain in app.domains.iter().filter(|domain| is_here(domain)) {
                claims.push((domain, !is_holder(app, domain), app));
            }
        }
        claims.sort_by(|a, b| (a.0, a.1, &a.2.name).cmp(&(b.0, b.1, &b.2.name)));
        let (mut held, mut of_host) = ("", HashMap::<(bool, &str), usize>::new());
        let mut lost = Vec::new();
        for (domain, _, app) in claims {
            let parts = Domain::of(domain);
            let count = of_host.entry((parts.wildcard, parts.host)).or_default();
            if domain == held {
                lost.push((Arc::clone(app), domain.to_owned(), HELD_BY_ANOTHER));
            } else if *count == DOMAINS_PER_HOST {
                lost.push((Arc::clone(app), domain.to_owned(), TOO_MANY_PREFIXES));
            } else {
                *count += 1;
                held = domain;
            }
        }
        lost
    }

    /// Puts versions without what they were refused in the place of others.
    fn exchange(
        &self,
        versions: &HashMap<Identity, Arc<App>, RandomState>,
        gathered: &mut Gathered,
    ) {
        let table = self.table;
        let exchanged = |app: &Arc<App>| versions.get(&identity(app)).map(Arc::clone);
        for shard in self.names.shards() {
            for (_, app) in self.names.lock(shard).iter_mut() {
                let Some(version) = exchanged(app) else {
                    continue;
                };
                let is_published = table.app(&app.name);
                if let Some(before) = is_published.filter(|before| Arc::ptr_eq(before, app)) {
                    gathered.staged.push((before, Arc::clone(&version)));
                }
                *app = version;
            }
        }
        for shard in self.hosts.shards() {
            self.hosts.lock(shard).retain_mut(|(mark, app)| {
                let Some(version) = exchanged(app) else {
                    return true;
                };
                let hashes = table.host_hashes(&version);
                *app = version;
                let mut here = hashes.iter().filter(|&&hash| shard_of(hash) == shard);
                here.any(|&hash| mark_of(hash) == *mark)
            });
        }
        let staged = gathered.staged.iter_mut().map(|(_, app)| app);
        for app in staged.chain(&mut gathered.marked) {
            if let Some(version) = exchanged(app) {
                *app = version;
            }
        }
    }
}
