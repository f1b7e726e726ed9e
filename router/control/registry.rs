//! The registry: what is registered, and the only place that changes it.
//!
//! Owns the writer thread and with it the store. A change is staged against
//! the state, made durable together with all others that wait (one commit),
//! merged into the state, announced, answered: in this order. Readers see
//! durable revisions only and never wait for the disk.
//!
//! **Invariant**: a change that was answered is on disk; one that was refused
//! changed nothing.

mod writer;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};

use self::writer::Writer;
use super::changes::{Compacted, Entry, Follower};
use super::lease_clock::LeaseClock;
use super::leases::{Leases, Renewal};
use super::limits::Limits;
use super::propagation::Propagation;
use super::publication::{Following, Outgoing};
use super::refusal::Refusal;
use super::shrink::ShrinkGuard;
use super::staging::{Batch, Condition, LeaseChange, Staging};
use super::state::{Counts, State};
use super::store::{Contents, Store, StoreFailure};
use super::tokens::Tokens;
use crate::feed::messages::{AppRecord, Delta, LimitRecord, Removed, Totals};

/// Changes waiting for the writer; more wait with their callers.
const QUEUE: usize = 1_024;

/// A change, and what to do with the caller once its fate is known.
type Answer = Box<dyn FnOnce(Result<(), StoreFailure>) + Send>;
type Run = Box<dyn FnOnce(&mut Staging<'_>) -> Answer + Send>;

/// A change waiting for the writer.
struct Work {
    run: Run,
    since: Instant,
}

/// A change on its way to the disk.
#[derive(Debug)]
pub struct Pending<T>(oneshot::Receiver<Result<T, Refusal>>);

impl<T> Pending<T> {
    /// What came of it.
    ///
    /// # Errors
    /// The change's refusal, a failed commit, or control is stopping.
    pub async fn settled(self) -> Result<T, Refusal> {
        self.0.await.map_err(|_| Refusal::Stopping)?
    }
}

/// What is registered.
#[derive(Debug)]
pub struct Registry {
    state: RwLock<State>,
    leases: Mutex<Leases>,
    clock: LeaseClock,
    tokens: Arc<Tokens>,
    limits: Arc<Limits>,
    works: mpsc::Sender<Work>,
    guard: ShrinkGuard,
    propagation: Arc<Propagation>,
    /// What the store keeps of its file in memory, as of the last commit.
    store_cache_bytes: AtomicUsize,
    head: watch::Sender<u64>,
    outgoing: watch::Sender<Outgoing>,
    /// False once the writer is gone; then control must end.
    writing: watch::Sender<bool>,
    /// The writer ends after its next batch.
    closing: AtomicBool,
}

impl Registry {
    /// Takes over a store and what was read from it; starts the writer.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        store: Store,
        contents: Contents,
        tokens: Arc<Tokens>,
    ) -> io::Result<(Arc<Registry>, JoinHandle<()>)> {
        let (works, queue) = mpsc::channel(QUEUE);
        let guard = ShrinkGuard::new(contents.doubt);
        let (state, leases) = load(contents);
        let registry = Arc::new(Registry {
            head: watch::Sender::new(state.revision),
            outgoing: watch::Sender::new(Outgoing {
                head: state.revision,
                until: u64::MAX,
            }),
            leases: Mutex::new(leases),
            clock: LeaseClock::default(),
            tokens,
            limits: Arc::new(Limits::new(state.limits.clone())),
            state: RwLock::new(state),
            works,
            guard,
            propagation: Arc::default(),
            store_cache_bytes: AtomicUsize::new(store.cache_bytes()),
            writing: watch::Sender::new(true),
            closing: AtomicBool::new(false),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let writer = Writer::new(registry.clone(), store, queue);
        let thread = thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(&runtime))?;
        Ok((registry, thread))
    }

    /// Makes a change and waits until it is durable; see [`Registry::submit`].
    ///
    /// # Errors
    /// `work`'s refusal, a failed commit, or control is stopping.
    pub async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Staging<'_>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.submit(work).await?.settled().await
    }

    /// Hands a change to the writer: `work` runs on its thread and must be
    /// quick. It is on its way even if nobody waits for what comes of it.
    ///
    /// # Errors
    /// Control is stopping.
    pub async fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Staging<'_>) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<Pending<T>, Refusal> {
        let since = Instant::now();
        let (answer, answered) = oneshot::channel();
        let run: Run = Box::new(move |staging| {
            let result = work(staging);
            Box::new(move |durable| {
                let result = match durable {
                    Ok(()) => result,
                    Err(failure) => Err(Refusal::Store(failure)),
                };
                // The caller may have gone; the change stands all the same.
                let _ = answer.send(result);
            })
        });
        let work = Work { run, since };
        self.works.send(work).await.map_err(|_| Refusal::Stopping)?;
        Ok(Pending(answered))
    }

    /// The last durable revision.
    pub fn revision(&self) -> u64 {
        *self.head.borrow()
    }

    /// Announces each new revision.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// What the store keeps of its file in memory, as of the last commit.
    pub fn store_cache_bytes(&self) -> usize {
        self.store_cache_bytes.load(Ordering::Relaxed)
    }

    /// How long changes take.
    pub fn propagation(&self) -> &Arc<Propagation> {
        &self.propagation
    }

    /// Which installation this is.
    pub fn cluster_id(&self) -> String {
        self.read().cluster_id.clone()
    }

    /// The store's epoch.
    pub fn epoch(&self) -> u64 {
        self.read().epoch
    }

    /// Totals.
    pub fn counts(&self) -> Counts {
        self.read().counts()
    }

    /// How much there is.
    pub fn totals(&self) -> Totals {
        self.read().totals()
    }

    /// The last durable revision, and what was ever removed as of it.
    pub fn removed(&self) -> (u64, Removed) {
        let state = self.read();
        (state.revision, state.removed)
    }

    /// Whether its tables may go out.
    pub fn guard(&self) -> &ShrinkGuard {
        &self.guard
    }

    /// An app.
    pub fn app(&self, name: &str) -> Option<AppRecord> {
        self.read().app(name)
    }

    /// Apps in order of name, after `after` (exclusive; empty: from the first).
    pub fn page(&self, after: &str, limit: usize) -> Vec<AppRecord> {
        self.read().page(after, limit)
    }

    /// Which app holds a host pattern.
    pub fn holder(&self, host: &str) -> Option<Arc<str>> {
        self.read().holder(host)
    }

    /// How far the table may go out, and each change of that or of the head.
    pub fn outgoing(&self) -> Following {
        self.outgoing.subscribe()
    }

    /// The table may go out up to this revision.
    pub(super) fn let_out(&self, until: u64) {
        self.outgoing.send_if_modified(|outgoing| {
            let moved = outgoing.until != until;
            outgoing.until = until;
            moved
        });
    }

    /// See [`State::delta`]; nothing beyond what may go out.
    ///
    /// # Errors
    /// The changes were compacted away.
    pub fn delta(&self, from: u64, max_touches: usize) -> Result<Option<Delta>, Compacted> {
        let until = self.outgoing.borrow().until;
        self.read().delta(from, max_touches, until)
    }

    /// Begins to keep what comes after `revision` for whoever follows.
    pub fn follow(&self, revision: u64) -> Follower {
        self.read().log.follow(revision)
    }

    /// Log entries after a revision, at most `limit`, oldest first.
    ///
    /// # Errors
    /// They were compacted away.
    pub fn changes(&self, since: u64, limit: usize) -> Result<Vec<Entry>, Compacted> {
        Ok(self.read().log.since(since)?.take(limit).cloned().collect())
    }

    /// Backends with a lease, those of them suspect, and whether removal is
    /// frozen.
    pub fn leases(&self) -> (usize, usize, bool) {
        let leases = self.lock_leases();
        (leases.leased(), leases.expired(), leases.frozen())
    }

    /// Hears from a backend; see [`Registry::heartbeats`].
    ///
    /// # Errors
    /// No such backend, or a suspect's return could not be stored.
    pub async fn heartbeat(&self, app: &str, id: &str) -> Result<(), Refusal> {
        let unknown = self
            .heartbeats(vec![(app.to_owned(), id.to_owned())])
            .await?;
        match unknown.into_iter().next() {
            None => Ok(()),
            Some((app, _)) if self.read().stored(&app).is_none() => Err(Refusal::NoApp(app)),
            Some((app, id)) => Err(Refusal::NoBackend { app, id }),
        }
    }

    /// Hears from backends, as `(app, id)`, and returns those not registered.
    /// Leases in force are renewed in memory alone; suspects are put back into
    /// rotation, durably.
    ///
    /// # Errors
    /// A suspect's return could not be stored.
    pub async fn heartbeats(
        &self,
        backends: Vec<(String, String)>,
    ) -> Result<Vec<(String, String)>, Refusal> {
        let now_ms = self.clock.now_ms();
        let mut suspects = Vec::new();
        let mut strangers = Vec::new();
        {
            let mut leases = self.lock_leases();
            for (app, id) in backends {
                match leases.renew(&app, &id, now_ms) {
                    Renewal::Renewed => {}
                    Renewal::WasSuspect => suspects.push((app, id)),
                    Renewal::Unknown => strangers.push((app, id)),
                }
            }
        }
        // Without a lease there is nothing to renew, but it is no stranger.
        strangers.retain(|(app, id)| {
            let record = self.app(app);
            !record.is_some_and(|record| record.backends.iter().any(|backend| backend.id == *id))
        });
        if suspects.is_empty() {
            return Ok(strangers);
        }
        let gone = self.change(move |staging| {
            suspects.retain(|(app, id)| staging.set_suspect(app, id, false).is_err());
            Ok(suspects)
        });
        strangers.extend(gone.await?);
        Ok(strangers)
    }

    /// Tokens, those just issued included.
    pub fn tokens(&self) -> &Arc<Tokens> {
        &self.tokens
    }

    /// The named limits.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Takes in the limits of a store that was lost, if this one never had any.
    pub fn adopt_limits(&self, lost: &[LimitRecord]) {
        if lost.is_empty() || self.read().limits_revision > 0 {
            return;
        }
        let lost = lost.to_vec();
        // They hold at once: the writer may come to them after the first edge.
        let holding = lost
            .iter()
            .map(|record| (record.name.clone(), record.clone()));
        self.limits.store(holding.collect());
        let run: Run = Box::new(move |staging| {
            for record in &lost {
                // Taken in before, they are within every bound.
                let _ = staging.put_limit(record, &Condition::Always);
            }
            Box::new(|_| {})
        });
        let since = Instant::now();
        if self.works.try_send(Work { run, since }).is_err() {
            tracing::error!("the limits of the lost store were not taken in");
        }
    }

    /// Whether the writer lives; if it does not, control must end.
    pub fn is_writing(&self) -> bool {
        *self.writing.borrow()
    }

    /// Ends the writer once what waits is durable; the store is closed when
    /// this returns, and every later change is refused.
    pub async fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        // Wakes the writer; if it is gone already, so much the better.
        let _ = self.submit(|_| Ok(())).await;
        self.writer_ended().await;
    }

    /// Waits until the writer is gone.
    pub async fn writer_ended(&self) {
        // The sender is ours: waiting cannot fail.
        let _ = self.writing.subscribe().wait_for(|writing| !writing).await;
    }

    pub(super) fn clock(&self) -> &LeaseClock {
        &self.clock
    }

    pub(super) fn lock_leases(&self) -> std::sync::MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Merges what is durable into what readers see, and announces it.
    fn publish(&self, batch: Batch) {
        let Batch {
            apps,
            hosts,
            tokens,
            limits,
            limits_revision,
            entries,
            leases,
            removed,
            is_confirming: _,
        } = batch;
        for (id, token) in tokens {
            match token {
                Some(token) => self.tokens.admit(token),
                None => self.tokens.forget(&id),
            }
        }
        let revision = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            for (host, app) in hosts {
                state.assign(host, app);
            }
            for (name, stored) in apps {
                state.place(name, stored);
            }
            state.advance(entries);
            state.removed = removed;
            if !limits.is_empty() {
                state.limit(limits, limits_revision);
                self.limits.store(state.limits.clone());
            }
            state.revision
        };
        self.settle(leases);
        self.outgoing
            .send_modify(|outgoing| outgoing.head = revision);
        self.head.send_if_modified(|head| {
            let moved = *head != revision;
            *head = revision;
            moved
        });
    }

    fn settle(&self, changes: Vec<LeaseChange>) {
        let now_ms = self.clock.now_ms();
        let mut leases = self.lock_leases();
        for change in changes {
            match change {
                LeaseChange::Settle(app) => leases.settle(&app, self.app(&app).as_ref(), now_ms),
                LeaseChange::Renew(app, id) => {
                    leases.renew(&app, &id, now_ms);
                }
            }
        }
    }
}

/// The state and the leases that a store's contents stand for.
fn load(contents: Contents) -> (State, Leases) {
    let Contents {
        cluster_id,
        epoch,
        revision,
        changes_floor,
        removed,
        apps,
        changes,
        limits,
        limits_revision,
        tokens: _,
        doubt: _,
    } = contents;
    let mut state = State::new(cluster_id, epoch, changes_floor);
    let mut leases = Leases::default();
    for app in &apps {
        if let Some(record) = &app.timed {
            leases.settle(&app.name, Some(record), 0);
        }
    }
    state.fill(apps);
    state.advance(changes);
    state.revision = revision;
    state.removed = removed;
    state.limits = limits;
    state.limits_revision = limits_revision;
    (state, leases)
}
