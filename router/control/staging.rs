//! Changes being made: what the next commit will hold.
//!
//! Owns the meaning of every change: its conditions, its effect on the record,
//! whether it is one at all. Works on a view of the state plus what the same
//! batch already holds, so that a batch reads its own writes. Never touches
//! the disk and never changes the state.
//!
//! **Invariant**: a change that is refused has staged nothing.

mod limits;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use self::limits::LimitOutcome;
use super::changes::{Entry, Kind, Touch};
use super::refusal::Refusal;
pub use super::spec::{AppSpec, BackendSpec, Condition, ImportTally, LeaseChange, Outcome};
use super::state::{State, Stored};
use super::tokens::TokenRecord;
use crate::feed::messages::{
    AppRecord, BackendRecord, LimitRecord, PolicyRecord, Removed, Standing,
};

/// Hosts of one app, at most.
pub const DOMAINS_MAX: usize = 1_000;
/// Backends of one app, at most.
pub const BACKENDS_MAX: usize = 1_000;
/// Issued tokens, at most.
pub const TOKENS_MAX: usize = 10_000;

/// What a batch adds up to, ready to be made durable.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Apps put (`Some`) or removed.
    pub apps: BTreeMap<Arc<str>, Option<Stored>>,
    /// Hosts given to an app or to nobody.
    pub hosts: HashMap<Box<str>, Option<Arc<str>>, ahash::RandomState>,
    /// Tokens issued (`Some`) or withdrawn.
    pub tokens: BTreeMap<String, Option<TokenRecord>>,
    /// Named limits put (`Some`) or removed.
    pub limits: BTreeMap<String, Option<LimitRecord>>,
    /// The newest revision of limits, if any changed.
    pub limits_revision: u64,
    /// Revisions made.
    pub entries: Vec<Entry>,
    /// Leases to settle.
    pub leases: Vec<LeaseChange>,
    /// What was ever removed, this batch included.
    pub removed: Removed,
    /// `removed` is to be made durable even if nothing else is.
    pub is_confirming: bool,
}

impl Batch {
    /// Whether there is nothing to make durable.
    pub fn is_empty(&self) -> bool {
        let is_same = self.apps.is_empty() && self.tokens.is_empty() && self.limits.is_empty();
        is_same && !self.is_confirming
    }
}

/// A batch in the making.
pub struct Staging<'a> {
    base: &'a State,
    batch: Batch,
    revision: u64,
    now_ms: u64,
    tokens_issued: usize,
}

impl<'a> Staging<'a> {
    pub(super) fn new(base: &'a State, tokens_issued: usize, now_ms: u64) -> Staging<'a> {
        Staging {
            base,
            batch: Batch {
                removed: base.removed,
                ..Batch::default()
            },
            revision: base.revision,
            now_ms,
            tokens_issued,
        }
    }

    pub(super) fn into_batch(self) -> Batch {
        self.batch
    }

    /// An app as it is after what is staged.
    pub fn app(&self, name: &str) -> Option<AppRecord> {
        self.stored(name).map(Stored::record)
    }

    /// The newest revision, staged ones included.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Creates an app or replaces its domains and policy (and its backends,
    /// where given). Changing nothing makes no revision.
    ///
    /// # Errors
    /// The condition is not met, a host is another app's, or a limit.
    pub fn put_app(&mut self, spec: &AppSpec, condition: &Condition) -> Result<Outcome, Refusal> {
        let outcome = self.stage_app(spec, condition, self.revision + 1)?;
        if outcome.changed {
            self.record_revision(vec![touch(&self.key(&spec.name), Kind::AppPut, "")]);
        }
        Ok(outcome)
    }

    /// Puts many apps under one revision; each stands or falls alone.
    ///
    /// # Errors
    /// They would, with those imported before them, leave far fewer backends
    /// than there were; see [`ImportTally`]. None of them stands then.
    pub fn import(
        &mut self,
        specs: &[AppSpec],
        tally: &mut ImportTally,
    ) -> Result<Vec<Result<Outcome, Refusal>>, Refusal> {
        let before = |name| self.stored(name).map_or(0, |stored| stored.backends);
        let replaced = specs.iter().filter_map(|spec| {
            let after = spec.backends.as_ref()?.len() as u64;
            Some((u64::from(before(&spec.name)), after))
        });
        tally.take(self.base.totals().backends, replaced)?;
        let revision = self.revision + 1;
        let mut touches = Vec::new();
        let outcomes = specs
            .iter()
            .map(|spec| {
                let outcome = self.stage_app(spec, &Condition::Always, revision)?;
                if outcome.changed {
                    touches.push(touch(&self.key(&spec.name), Kind::AppPut, ""));
                }
                Ok(outcome)
            })
            .collect();
        if !touches.is_empty() {
            self.record_revision(touches);
        }
        Ok(outcomes)
    }

    /// Removes an app, its claims and its backends.
    ///
    /// # Errors
    /// There is none, or the condition is not met.
    pub fn delete_app(&mut self, name: &str, condition: &Condition) -> Result<Outcome, Refusal> {
        let before = self.existing(name, condition)?;
        let key = self.key(name);
        for host in &before.domains {
            self.batch.hosts.insert(host.as_str().into(), None);
        }
        self.batch.apps.insert(key.clone(), None);
        self.batch.leases.push(LeaseChange::Settle(name.into()));
        self.count_removed(1, before.backends.len());
        self.record_revision(vec![touch(&key, Kind::AppDeleted, "")]);
        Ok(Outcome {
            revision: self.revision,
            created: false,
            changed: true,
            record: None,
        })
    }

    /// Claims a host for an app.
    ///
    /// # Errors
    /// No such app, the condition, another holder, or a limit.
    pub fn claim(
        &mut self,
        name: &str,
        host: &str,
        condition: &Condition,
    ) -> Result<Outcome, Refusal> {
        let mut record = self.existing(name, condition)?;
        match self.holder(host) {
            Some(holder) if *holder == *name => return Ok(unchanged(record)),
            Some(holder) => return Err(taken(host, &holder)),
            None => {}
        }
        limit("domains", record.domains.len() + 1, DOMAINS_MAX)?;
        record.domains.push(host.to_owned());
        let key = self.key(name);
        self.batch.hosts.insert(host.into(), Some(key));
        Ok(self.replace(record, Kind::DomainClaimed, host, true))
    }

    /// Gives a host up.
    ///
    /// # Errors
    /// No such app, the condition, or the app does not hold it.
    pub fn release(
        &mut self,
        name: &str,
        host: &str,
        condition: &Condition,
    ) -> Result<Outcome, Refusal> {
        let mut record = self.existing(name, condition)?;
        let Some(at) = record.domains.iter().position(|held| held == host) else {
            return Err(Refusal::NoDomain {
                app: name.to_owned(),
                host: host.to_owned(),
            });
        };
        record.domains.remove(at);
        self.batch.hosts.insert(host.into(), None);
        Ok(self.replace(record, Kind::DomainReleased, host, false))
    }

    /// Registers a backend, or renews it: in rotation again, unless an operator
    /// ejected what is at this address.
    ///
    /// # Errors
    /// No such app, the condition, or a limit.
    pub fn put_backend(
        &mut self,
        name: &str,
        spec: &BackendSpec,
        condition: &Condition,
    ) -> Result<Outcome, Refusal> {
        let mut record = self.existing(name, condition)?;
        let renewal = LeaseChange::Renew(name.into(), spec.id.as_str().into());
        let created = match find(&record, &spec.id) {
            Ok(at) => {
                let wanted = backend(spec, Some(&record.backends[at]), self.revision + 1);
                if record.backends[at] == wanted {
                    self.batch.leases.push(renewal);
                    return Ok(unchanged(record));
                }
                record.backends[at] = wanted;
                false
            }
            Err(at) => {
                limit("backends", record.backends.len() + 1, BACKENDS_MAX)?;
                record
                    .backends
                    .insert(at, backend(spec, None, self.revision + 1));
                true
            }
        };
        let outcome = self.replace(record, Kind::BackendPut, &spec.id, created);
        self.batch.leases.push(renewal);
        Ok(outcome)
    }

    /// Removes a backend.
    ///
    /// # Errors
    /// No such app or backend, or the condition.
    pub fn delete_backend(
        &mut self,
        name: &str,
        id: &str,
        condition: &Condition,
    ) -> Result<Outcome, Refusal> {
        let (mut record, at) = self.existing_backend(name, id, condition)?;
        record.backends.remove(at);
        self.count_removed(0, 1);
        Ok(self.replace(record, Kind::BackendDeleted, id, false))
    }

    /// Takes a backend out of rotation, to be removed within `drain_ms`.
    ///
    /// # Errors
    /// No such app or backend, or the condition.
    pub fn drain_backend(
        &mut self,
        name: &str,
        id: &str,
        drain_ms: u64,
        condition: &Condition,
    ) -> Result<Outcome, Refusal> {
        let (mut record, at) = self.existing_backend(name, id, condition)?;
        let backend = &mut record.backends[at];
        if backend.standing() == Standing::Draining && backend.drain_ms == drain_ms {
            return Ok(unchanged(record));
        }
        backend.set_standing(Standing::Draining);
        backend.drain_ms = drain_ms;
        Ok(self.replace(record, Kind::BackendDraining, id, false))
    }

    /// Marks a backend whose lease ran out, or one heard of again. One that
    /// drains goes on draining.
    ///
    /// # Errors
    /// No such app or backend.
    pub fn set_suspect(&mut self, name: &str, id: &str, suspect: bool) -> Result<Outcome, Refusal> {
        let (mut record, at) = self.existing_backend(name, id, &Condition::Always)?;
        let (from, to, kind) = if suspect {
            (Standing::Active, Standing::Suspect, Kind::LeaseExpired)
        } else {
            (Standing::Suspect, Standing::Active, Kind::LeaseRenewed)
        };
        if record.backends[at].standing() != from {
            return Ok(unchanged(record));
        }
        record.backends[at].set_standing(to);
        Ok(self.replace(record, kind, id, false))
    }

    /// Takes a backend out of rotation by an operator's word, or lets it back
    /// in. Holds until said otherwise, or until the backend is registered at
    /// another address: then it is another instance.
    ///
    /// # Errors
    /// No such app or backend.
    pub fn set_ejected(&mut self, name: &str, id: &str, ejected: bool) -> Result<Outcome, Refusal> {
        let (mut record, at) = self.existing_backend(name, id, &Condition::Always)?;
        let backend = &mut record.backends[at];
        if backend.ejected == ejected {
            return Ok(unchanged(record));
        }
        backend.ejected = ejected;
        let (kind, at_ms) = match ejected {
            true => (Kind::BackendEjected, self.now_ms),
            false => (Kind::BackendReadmitted, 0),
        };
        backend.ejected_at_ms = at_ms;
        Ok(self.replace(record, kind, id, false))
    }

    /// Stores an issued token.
    ///
    /// # Errors
    /// There are too many.
    pub fn put_token(&mut self, token: TokenRecord) -> Result<(), Refusal> {
        let staged = self.batch.tokens.values().flatten().count();
        limit("tokens", self.tokens_issued + staged + 1, TOKENS_MAX)?;
        self.batch.tokens.insert(token.id.clone(), Some(token));
        Ok(())
    }

    /// Withdraws a token; whoever calls has seen that it is there.
    pub fn delete_token(&mut self, id: &str) {
        self.batch.tokens.insert(id.to_owned(), None);
    }

    /// Counts as removed what vanished without having been, since an operator
    /// says that it is meant to be gone.
    pub fn confirm_removed(&mut self, vanished: Removed) {
        let removed = &mut self.batch.removed;
        removed.apps = removed.apps.saturating_add(vanished.apps);
        removed.backends = removed.backends.saturating_add(vanished.backends);
        self.batch.is_confirming = true;
    }

    fn stage_app(
        &mut self,
        spec: &AppSpec,
        condition: &Condition,
        revision: u64,
    ) -> Result<Outcome, Refusal> {
        let before = self.app(&spec.name);
        condition.check(before.as_ref().map(|record| record.revision))?;
        let mut domains: Vec<String> = Vec::with_capacity(spec.domains.len());
        for host in &spec.domains {
            match self.holder(host) {
                Some(holder) if *holder != *spec.name => return Err(taken(host, &holder)),
                _ if domains.contains(host) => {}
                _ => domains.push(host.clone()),
            }
        }
        limit("domains", domains.len(), DOMAINS_MAX)?;
        let kept = before.as_ref().map_or(&[][..], |record| &record.backends);
        let backends = match &spec.backends {
            None => kept.to_vec(),
            Some(specs) => {
                limit("backends", specs.len(), BACKENDS_MAX)?;
                backends_of(specs, kept, revision)
            }
        };
        let created = before.is_none();
        let policy = spec
            .policy
            .clone()
            .filter(|policy| *policy != PolicyRecord::default());
        let record = AppRecord {
            name: spec.name.clone(),
            domains,
            policy,
            backends,
            revision,
        };
        if let Some(before) = before {
            if before
                == (AppRecord {
                    revision: before.revision,
                    ..record.clone()
                })
            {
                return Ok(unchanged(before));
            }
            let stays = |id: &str| find(&record, id).is_ok();
            let gone = before.backends.iter().filter(|it| !stays(&it.id)).count();
            self.count_removed(0, gone);
            for host in before.domains {
                self.batch.hosts.insert(host.into(), None);
            }
        }
        let key = self.key(&spec.name);
        for host in &record.domains {
            self.batch
                .hosts
                .insert(host.as_str().into(), Some(key.clone()));
        }
        self.batch.apps.insert(key, Some(Stored::new(&record)));
        self.batch
            .leases
            .push(LeaseChange::Settle(spec.name.as_str().into()));
        Ok(Outcome {
            revision,
            created,
            changed: true,
            record: Some(record),
        })
    }

    fn replace(
        &mut self,
        mut record: AppRecord,
        kind: Kind,
        subject: &str,
        created: bool,
    ) -> Outcome {
        let key = self.key(&record.name);
        self.record_revision(vec![touch(&key, kind, subject)]);
        record.revision = self.revision;
        self.batch
            .leases
            .push(LeaseChange::Settle(record.name.as_str().into()));
        self.batch.apps.insert(key, Some(Stored::new(&record)));
        Outcome {
            revision: self.revision,
            created,
            changed: true,
            record: Some(record),
        }
    }

    fn record_revision(&mut self, touches: Vec<Touch>) {
        self.revision += 1;
        self.batch.entries.push(Entry {
            revision: self.revision,
            committed_at_ms: self.now_ms,
            touches: touches.into(),
            removed: self.batch.removed,
        });
    }

    fn count_removed(&mut self, apps: u64, backends: usize) {
        self.batch.removed.apps += apps;
        self.batch.removed.backends += backends as u64;
    }

    fn stored(&self, name: &str) -> Option<&Stored> {
        match self.batch.apps.get(name) {
            Some(staged) => staged.as_ref(),
            None => self.base.stored(name),
        }
    }

    fn holder(&self, host: &str) -> Option<Arc<str>> {
        match self.batch.hosts.get(host) {
            Some(staged) => staged.clone(),
            None => self.base.holder(host),
        }
    }

    fn key(&self, name: &str) -> Arc<str> {
        let staged = self
            .batch
            .apps
            .get_key_value(name)
            .map(|(key, _)| key.clone());
        staged
            .or_else(|| self.base.key(name))
            .unwrap_or_else(|| name.into())
    }

    fn existing(&self, name: &str, condition: &Condition) -> Result<AppRecord, Refusal> {
        let record = self
            .app(name)
            .ok_or_else(|| Refusal::NoApp(name.to_owned()))?;
        condition.check(Some(record.revision))?;
        Ok(record)
    }

    fn existing_backend(
        &self,
        name: &str,
        id: &str,
        condition: &Condition,
    ) -> Result<(AppRecord, usize), Refusal> {
        let record = self.existing(name, condition)?;
        match find(&record, id) {
            Ok(at) => Ok((record, at)),
            Err(_) => Err(Refusal::NoBackend {
                app: name.to_owned(),
                id: id.to_owned(),
            }),
        }
    }
}

fn find(record: &AppRecord, id: &str) -> Result<usize, usize> {
    record
        .backends
        .binary_search_by(|backend| backend.id.as_str().cmp(id))
}

fn backend(spec: &BackendSpec, before: Option<&BackendRecord>, revision: u64) -> BackendRecord {
    let same = before.filter(|before| before.address == spec.address);
    BackendRecord {
        id: spec.id.clone(),
        address: spec.address.clone(),
        weight: spec.weight,
        release: spec.release.clone(),
        standing: Standing::Active.into(),
        incarnation: same.map_or(revision, |before| before.incarnation),
        lease_seconds: spec.lease_seconds,
        drain_ms: 0,
        ejected: same.is_some_and(|before| before.ejected),
        ejected_at_ms: same.map_or(0, |before| before.ejected_at_ms),
    }
}

/// Sorted by id; the last of those that share an id counts.
fn backends_of(specs: &[BackendSpec], kept: &[BackendRecord], revision: u64) -> Vec<BackendRecord> {
    let by_id: BTreeMap<&str, &BackendSpec> =
        specs.iter().map(|spec| (spec.id.as_str(), spec)).collect();
    by_id
        .into_values()
        .map(|spec| {
            backend(
                spec,
                kept.iter().find(|before| before.id == spec.id),
                revision,
            )
        })
        .collect()
}

fn touch(app: &Arc<str>, kind: Kind, subject: &str) -> Touch {
    Touch {
        app: app.clone(),
        kind,
        subject: subject.into(),
    }
}

fn unchanged(record: AppRecord) -> Outcome {
    Outcome {
        revision: record.revision,
        created: false,
        changed: false,
        record: Some(record),
    }
}

fn taken(host: &str, holder: &str) -> Refusal {
    Refusal::HostTaken {
        host: host.to_owned(),
        holder: holder.to_owned(),
    }
}

fn limit(what: &'static str, count: usize, limit: usize) -> Result<(), Refusal> {
    if count > limit {
        Err(Refusal::TooMany { what, limit })
    } else {
        Ok(())
    }
}
