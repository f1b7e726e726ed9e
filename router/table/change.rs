//! Changes: records become apps, apps are published, routes change hands.
//!
//! Owns the order of publication and who gets a contested domain. A record
//! that does not compile leaves its app as it was, and is reported.
//!
//! **Invariant**: a domain has one holder. Its holder keeps it until it gives
//! it up or is removed; another claimant is refused the domain (not the rest of
//! its record) and that is reported.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use ahash::RandomState;
use ecow::EcoString;
use hashbrown::{HashMap, HashSet, HashTable};

use super::compile::Compiler;
use super::domain::Domain;
use super::live::HotApps;
use super::shards::{Drafts, Shards};
use super::{App, Route, Slot, Table, depth_bit, is_named};
use crate::feed::messages::{AppRecord, Change, Delta, Nack};

/// Routes of one host, over its path prefixes: what a lookup may have to walk.
const ROUTES_PER_HOST: usize = 128;

/// What only the writer holds.
#[derive(Debug)]
pub(super) struct Writer {
    compiler: Compiler,
    /// How many wildcards have this many labels (index 63: that or more).
    wildcards: [u32; 64],
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

    fn count_wildcard(&mut self, domain: &str, added: bool) {
        let domain = Domain::of(domain);
        if domain.wildcard {
            let count = &mut self.wildcards[domain.labels().min(63)];
            *count = if added {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
        }
    }

    fn wildcard_depths(&self) -> u64 {
        let counts = self.wildcards.iter().enumerate();
        counts
            .filter(|&(_, &count)| count > 0)
            .fold(0, |bits, (labels, _)| bits | depth_bit(labels))
    }
}

/// What becomes of an app in a delta.
enum Fate {
    Put(Arc<Slot>, Arc<App>),
    Delete(Arc<Slot>, Arc<App>),
}

impl Table {
    fn writer(&self) -> MutexGuard<'_, Writer> {
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
        let fates = self.fates(&mut writer, delta, &mut nacks);
        let mut routes = Drafts::of(&self.routes);
        let mut apps = Drafts::of(&self.apps);

        // Everyone gives up first, so that a domain may change hands in one delta.
        for fate in &fates {
            self.release(&mut writer, &mut routes, fate);
        }
        for fate in &fates {
            if let Fate::Put(slot, app) = fate {
                let mut held = |hash: u64, route: Route| claim(&mut routes, hash, route);
                for domain in &app.domains {
                    let hash = self.domain_hash(domain);
                    let route = Route {
                        domain: domain.clone(),
                        slot: Arc::clone(slot),
                    };
                    match held(hash, route) {
                        Claim::Taken => writer.count_wildcard(domain, true),
                        Claim::Held => {}
                        Claim::Refused(reason) => nacks.push(nack(&app.name, reason, domain)),
                    }
                }
            }
        }
        self.wildcard_depths
            .fetch_or(writer.wildcard_depths(), Ordering::SeqCst);
        self.publish(fates, routes, &mut apps);
        apps.publish();
        self.wildcard_depths
            .store(writer.wildcard_depths(), Ordering::SeqCst);
        self.revision.store(delta.to, Ordering::SeqCst);
        nacks
    }

    /// Compiles the last change of each app, in the delta's order.
    fn fates(&self, writer: &mut Writer, delta: &Delta, nacks: &mut Vec<Nack>) -> Vec<Fate> {
        let name = |change: &Change| match change {
            Change::Put(record) => record.name.clone(),
            Change::Delete(name) => name.clone(),
        };
        let changes = || {
            let ops = delta.ops.iter().enumerate();
            ops.filter_map(|(at, op)| Some((at, op.change.as_ref()?)))
        };
        let last: HashMap<String, usize> = changes().map(|(at, op)| (name(op), at)).collect();
        let mut fates = Vec::with_capacity(last.len());
        for (at, change) in changes() {
            if last[&name(change)] != at {
                continue;
            }
            let slot = self.slot(&name(change));
            let before = slot.as_ref().and_then(|slot| slot.current.load_full());
            match (change, slot, before) {
                (Change::Put(record), slot, _) => match writer.compiler.compile(record) {
                    Ok(app) => {
                        let slot = slot.unwrap_or_else(Slot::empty);
                        fates.push(Fate::Put(slot, Arc::new(app)));
                    }
                    Err(error) => nacks.push(Nack {
                        key: record.name.clone(),
                        reason: error.to_string(),
                    }),
                },
                (Change::Delete(_), Some(slot), Some(app)) => fates.push(Fate::Delete(slot, app)),
                (Change::Delete(_), _, _) => {}
            }
        }
        fates
    }

    /// Takes away the routes that an app no longer has.
    fn release(&self, writer: &mut Writer, routes: &mut Drafts<'_, Route>, fate: &Fate) {
        let (slot, before, after) = match fate {
            Fate::Put(slot, app) => (slot, slot.current.load_full(), Some(app)),
            Fate::Delete(slot, app) => (slot, Some(Arc::clone(app)), None),
        };
        let Some(before) = before else {
            return;
        };
        for domain in &before.domains {
            if after.is_some_and(|after| after.domains.binary_search(domain).is_ok()) {
                continue;
            }
            let hash = self.domain_hash(domain);
            let is_ours = |route: &Route| route.domain == *domain && Arc::ptr_eq(&route.slot, slot);
            if routes.read(hash, |shard| shard.find(hash, is_ours).is_some())
                && let Ok(entry) = routes.write(hash).find_entry(hash, is_ours)
            {
                entry.remove();
                writer.count_wildcard(domain, false);
            }
        }
    }

    /// Apps before the routes that lead to them; removed ones after.
    fn publish(
        &self,
        fates: Vec<Fate>,
        routes: Drafts<'_, Route>,
        apps: &mut Drafts<'_, Arc<Slot>>,
    ) {
        let mut removed = Vec::new();
        for fate in fates {
            match fate {
                Fate::Put(slot, app) => {
                    let (name, has) = (app.name.clone(), app.is_probed());
                    let (had, before) = slot.current.load().as_ref().map_or((false, 0), |app| {
                        (app.is_probed(), app.backends.len() as u64)
                    });
                    self.count_backends(before, app.backends.len() as u64);
                    if slot.current.load().is_none() {
                        let hash = self.apps.hash(app.name.as_bytes(), false);
                        slot.replace(app);
                        let rehash = |slot: &Arc<Slot>| self.slot_hash(slot);
                        apps.write(hash)
                            .insert_unique(hash, Arc::clone(&slot), rehash);
                        self.len.fetch_add(1, Ordering::SeqCst);
                    } else {
                        slot.replace(app);
                    }
                    self.probed.put(&name, had, has);
                }
                Fate::Delete(slot, app) => {
                    let hash = self.apps.hash(app.name.as_bytes(), false);
                    let is_it = |held: &Arc<Slot>| Arc::ptr_eq(held, &slot);
                    if let Ok(entry) = apps.write(hash).find_entry(hash, is_it) {
                        entry.remove();
                        self.len.fetch_sub(1, Ordering::SeqCst);
                        self.count_backends(app.backends.len() as u64, 0);
                    }
                    removed.push((slot, app));
                }
            }
        }
        routes.publish();
        for (slot, app) in removed {
            slot.current.store(None);
            self.hot.remove(&app.name);
            self.probed.put(&app.name, app.is_probed(), false);
        }
    }

    /// Some backends more or fewer; the writer alone counts.
    fn count_backends(&self, before: u64, after: u64) {
        let held = self.backends.load(Ordering::SeqCst);
        self.backends.store(held + after - before, Ordering::SeqCst);
    }

    fn domain_hash(&self, domain: &str) -> u64 {
        let domain = Domain::of(domain);
        self.routes.hash(domain.host.as_bytes(), domain.wildcard)
    }

    fn slot_hash(&self, slot: &Slot) -> u64 {
        let current = slot.current.load();
        let name = current.as_ref().map_or("", |app| app.name.as_str());
        self.apps.hash(name.as_bytes(), false)
    }

    /// Begins to replace the whole table; nothing changes before
    /// [`Install::finish`].
    pub fn install(&self) -> Install<'_> {
        Install {
            table: self,
            routes: Shards::<Route>::empty_drafts(),
            apps: Shards::<Arc<Slot>>::empty_drafts(),
            staged: Vec::new(),
            probed: HashSet::default(),
            len: 0,
            backends: 0,
            nacks: Vec::new(),
        }
    }
}

impl Slot {
    fn empty() -> Arc<Slot> {
        Arc::new(Slot {
            current: arc_swap::ArcSwapOption::empty(),
        })
    }

    /// Publishes the app's next version.
    fn replace(&self, app: Arc<App>) {
        let before = self.current.load_full();
        if let Some(before) = &before {
            app.inherit(before);
        }
        let live = app.existing_live().cloned();
        self.current.store(Some(app));
        if let Some(live) = live {
            // There may be room now where there was none.
            live.queue.wake_all();
        }
    }
}

/// What came of a claim.
enum Claim {
    Taken,
    Held,
    Refused(&'static str),
}

fn nack(app: &str, reason: &str, domain: &str) -> Nack {
    Nack {
        key: app.to_owned(),
        reason: format!("domain `{domain}`: {reason}"),
    }
}

/// Who holds a domain in a shard, and whether its host takes another route.
fn inspect(shard: &HashTable<Route>, hash: u64, domain: &str) -> (Option<Arc<Slot>>, bool) {
    let wanted = Domain::of(domain);
    let mut of_host = 0;
    for route in shard.iter_hash(hash) {
        if route.domain == domain {
            return (Some(Arc::clone(&route.slot)), false);
        }
        let held = Domain::of(&route.domain);
        of_host += usize::from(held.host == wanted.host && held.wildcard == wanted.wildcard);
    }
    (None, of_host < ROUTES_PER_HOST)
}

const HELD_BY_ANOTHER: &str = "another app holds it";
const TOO_MANY_PREFIXES: &str = "the host has 128 path prefixes already";

fn claim(routes: &mut Drafts<'_, Route>, hash: u64, route: Route) -> Claim {
    let shards = routes.shards();
    let (holder, has_room) = routes.read(hash, |shard| inspect(shard, hash, &route.domain));
    match holder {
        Some(holder) if Arc::ptr_eq(&holder, &route.slot) => Claim::Held,
        Some(_) => Claim::Refused(HELD_BY_ANOTHER),
        None if !has_room => Claim::Refused(TOO_MANY_PREFIXES),
        None => {
            let rehash = |route: &Route| route_hash(shards, route);
            routes.write(hash).insert_unique(hash, route, rehash);
            Claim::Taken
        }
    }
}

fn route_hash(shards: &Shards<Route>, route: &Route) -> u64 {
    let domain = Domain::of(&route.domain);
    shards.hash(domain.host.as_bytes(), domain.wildcard)
}

/// A whole table being replaced, part by part: mark and sweep. Apps named in
/// it are put, all others removed, when it is finished; dropped before that,
/// nothing changed. An app that stays as it was is not copied, so replacing a
/// table by nearly itself needs little memory.
#[must_use = "nothing changes before `finish`"]
pub struct Install<'t> {
    table: &'t Table,
    routes: Vec<HashTable<Route>>,
    apps: Vec<HashTable<Arc<Slot>>>,
    /// New versions, to be published at the end.
    staged: Vec<(Arc<Slot>, App)>,
    /// Names of the apps that have a probe.
    probed: HashSet<EcoString, RandomState>,
    len: u64,
    backends: u64,
    nacks: Vec<Nack>,
}

impl Install<'_> {
    /// Takes a part of the table. A name that came before is refused.
    pub fn part(&mut self, records: &[AppRecord]) {
        let table = self.table;
        let mut writer = table.writer();
        for record in records {
            let known = table.slot(&record.name);
            let before = known.as_ref().and_then(|slot| slot.current.load_full());
            match (writer.compiler.compile(record), known, before) {
                (Ok(app), Some(slot), Some(before)) => {
                    if !self.mark(&app, &slot) {
                        continue;
                    }
                    if !app.is_same_as(&before) {
                        self.staged.push((slot, app));
                    }
                }
                (Ok(app), _, _) => {
                    let slot = Slot::new(app);
                    if let Some(app) = slot.current.load_full() {
                        self.mark(&app, &slot);
                    }
                }
                (Err(error), known, before) => {
                    self.nacks.push(Nack {
                        key: record.name.clone(),
                        reason: error.to_string(),
                    });
                    if let (Some(slot), Some(before)) = (known, before) {
                        self.mark(&before, &slot);
                    }
                }
            }
        }
    }

    /// Marks an app and claims its domains; false if its name was there
    /// already.
    fn mark(&mut self, app: &App, slot: &Arc<Slot>) -> bool {
        let is_new = self.add(&app.name, slot);
        if is_new {
            self.backends += app.backends.len() as u64;
            for domain in &app.domains {
                self.claim(&app.name, domain.clone(), slot);
            }
            if app.is_probed() {
                self.probed.insert(app.name.clone());
            }
        }
        is_new
    }

    fn add(&mut self, name: &str, slot: &Arc<Slot>) -> bool {
        let table = self.table;
        let hash = table.apps.hash(name.as_bytes(), false);
        let shard = &mut self.apps[Shards::<Arc<Slot>>::at(hash)];
        if shard.find(hash, |slot| is_named(slot, name)).is_some() {
            self.nacks.push(Nack {
                key: name.to_owned(),
                reason: "the name appears twice in the snapshot".to_owned(),
            });
            return false;
        }
        shard.insert_unique(hash, Arc::clone(slot), |slot| table.slot_hash(slot));
        self.len += 1;
        true
    }

    /// The app that holds the domain now keeps it, if it is still among its
    /// claimants; else the first one gets it.
    fn claim(&mut self, app: &str, domain: EcoString, slot: &Arc<Slot>) {
        let table = self.table;
        let hash = table.domain_hash(&domain);
        let shard = &mut self.routes[Shards::<Route>::at(hash)];
        let (rival, has_room) = inspect(shard, hash, &domain);
        if rival.is_none() && !has_room {
            self.nacks.push(nack(app, TOO_MANY_PREFIXES, &domain));
            return;
        }
        let Some(rival) = rival else {
            let route = Route {
                domain,
                slot: Arc::clone(slot),
            };
            shard.insert_unique(hash, route, |route| route_hash(&table.routes, route));
            return;
        };
        let (holder, _) = inspect(&table.routes.load(hash), hash, &domain);
        let mut loser = app.to_owned();
        if holder.is_some_and(|holder| Arc::ptr_eq(&holder, slot))
            && let Some(route) = shard.find_mut(hash, |route| route.domain == domain)
        {
            route.slot = Arc::clone(slot);
            let current = rival.current.load();
            loser = current
                .as_ref()
                .map_or(String::new(), |app| app.name.to_string());
        }
        self.nacks.push(nack(&loser, HELD_BY_ANOTHER, &domain));
    }

    /// Apps there will be.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there will be none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Backends there will be.
    pub fn backends(&self) -> u64 {
        self.backends
    }

    /// Publishes the table as of `revision`; returns what could not be used.
    pub fn finish(self, revision: u64) -> Vec<Nack> {
        let table = self.table;
        let mut writer = table.writer();
        writer.wildcards = [0; 64];
        for route in self.routes.iter().flatten() {
            writer.count_wildcard(&route.domain, true);
        }
        for (slot, app) in self.staged {
            slot.replace(Arc::new(app));
        }
        let before: Vec<_> = table.apps.iter().collect();
        let depths = writer.wildcard_depths();
        table.wildcard_depths.fetch_or(depths, Ordering::SeqCst);
        table.routes.publish_all(self.routes);
        table.apps.publish_all(self.apps);
        table.wildcard_depths.store(depths, Ordering::SeqCst);
        table.len.store(self.len, Ordering::SeqCst);
        table.backends.store(self.backends, Ordering::SeqCst);
        table.revision.store(revision, Ordering::SeqCst);
        for slot in before.iter().flat_map(|shard| shard.iter()) {
            let Some(app) = slot.current.load_full() else {
                continue;
            };
            let kept = table.slot(&app.name);
            if !kept.is_some_and(|kept| Arc::ptr_eq(&kept, slot)) {
                slot.current.store(None);
                table.hot.remove(&app.name);
            }
        }
        table.probed.replace(self.probed);
        self.nacks
    }
}
