//! What time brings about: expired leases, ended drains.
//!
//! Owns the rhythm and the events. What is due is decided by
//! [`leases`](super::leases); what it changes goes through the registry like
//! any other change. Idempotent: what fails is due again a moment later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::events::Events;
use super::fleet::Fleet;
use super::leases::{Due, Verdict};
use super::registry::Registry;
use super::staging::{Condition, Staging};
use crate::feed::messages::Standing;

/// How often leases are looked at.
const TICK: Duration = Duration::from_millis(250);
/// Of so many ticks one looks for drains that ended early.
const DRAIN_TICKS: u64 = 2;
/// Things done in one tick, each.
const DUE_MAX: usize = 5_000;
/// Draining backends asked about in one look.
const DRAINS_MAX: usize = 32;

/// When the runtime last turned, for whoever asks whether it lives. By a clock
/// that nobody sets: a wall clock that jumps is no stall.
#[derive(Debug)]
pub struct Pulse {
    origin: Instant,
    /// Milliseconds since `origin`; 0: not yet.
    last_ms: AtomicU64,
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse {
            origin: Instant::now(),
            last_ms: AtomicU64::new(0),
        }
    }
}

impl Pulse {
    /// The runtime turned just now.
    pub fn beat(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Whether it turned within `period`, or has not begun to.
    pub fn is_within(&self, period: Duration) -> bool {
        let last = self.last_ms.load(Ordering::Relaxed);
        last == 0 || u128::from(self.now_ms().saturating_sub(last)) <= period.as_millis()
    }

    fn now_ms(&self) -> u64 {
        let elapsed = self.origin.elapsed().as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX).max(1)
    }
}

/// Runs until it is dropped.
pub async fn run(
    registry: Arc<Registry>,
    fleet: Arc<Fleet>,
    events: Arc<Events>,
    pulse: Arc<Pulse>,
) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count: u64 = 0;
    loop {
        ticks.tick().await;
        pulse.beat();
        expire(&registry, &events).await;
        count += 1;
        if count.is_multiple_of(DRAIN_TICKS) {
            end_drains(&registry, &fleet, &events).await;
        }
    }
}

/// Does what is due, and decides whether removal is frozen.
pub async fn expire(registry: &Registry, events: &Events) {
    let now_ms = registry.clock().now_ms();
    let due = registry.lock_leases().due(now_ms, DUE_MAX);
    if !due.is_empty() {
        let done = registry
            .change(move |staging| Ok(carry_out(staging, due)))
            .await;
        match done {
            Ok(done) => done.into_iter().for_each(|due| announce(events, &due)),
            Err(refusal) => tracing::error!("leases are due and could not be settled: {refusal}"),
        }
    }
    let (changed, expired, leased) = {
        let mut leases = registry.lock_leases();
        (leases.review(now_ms), leases.expired(), leases.leased())
    };
    match changed {
        Some(true) => events.say(
            "lease_removal_frozen",
            "",
            "",
            format!(
                "{expired} of {leased} leases have expired: nothing is removed until most are back"
            ),
        ),
        Some(false) => events.say(
            "lease_removal_thawed",
            "",
            "",
            format!(
                "{expired} of {leased} leases are expired: removal goes on, after a full grace"
            ),
        ),
        None => {}
    }
}

/// Those of `due` that are still so are done, and returned.
fn carry_out(staging: &mut Staging<'_>, due: Vec<Due>) -> Vec<Due> {
    let still = |staging: &Staging<'_>, due: &Due, standing: Standing| {
        let record = staging.app(&due.app);
        record.is_some_and(|record| {
            record
                .backends
                .iter()
                .any(|it| *it.id == *due.id && it.standing() == standing)
        })
    };
    due.into_iter()
        .filter(|due| {
            let always = &Condition::Always;
            let outcome = match due.what {
                Verdict::Expire => staging.set_suspect(&due.app, &due.id, true),
                Verdict::Remove if still(staging, due, Standing::Suspect) => {
                    staging.delete_backend(&due.app, &due.id, always)
                }
                Verdict::Drained if still(staging, due, Standing::Draining) => {
                    staging.delete_backend(&due.app, &due.id, always)
                }
                Verdict::Remove | Verdict::Drained => return false,
            };
            outcome.is_ok_and(|outcome| outcome.changed)
        })
        .collect()
}

fn announce(events: &Events, due: &Due) {
    let (kind, text) = match due.what {
        Verdict::Expire => (
            "lease_expired",
            "its lease expired: suspect until it is heard of",
        ),
        Verdict::Remove => (
            "lease_removed",
            "it was not heard of for the whole grace: removed",
        ),
        Verdict::Drained => ("backend_drained", "its drain ended: removed"),
    };
    events.say(kind, &due.app, &due.id, text.to_owned());
}

/// Removes draining backends that no edge has a request in flight to.
async fn end_drains(registry: &Registry, fleet: &Fleet, events: &Events) {
    let draining = registry.lock_leases().draining(DRAINS_MAX);
    for (app, id) in draining {
        let Some(revision) = registry.read().app_revision(&app) else {
            continue;
        };
        let edges = fleet.edges().len();
        if fleet.active_revision() < Some(revision) {
            continue;
        }
        let reports = fleet.collect(&app, 0).await;
        let busy = reports
            .iter()
            .flat_map(|report| &report.apps)
            .filter(|report| *report.app == *app)
            .flat_map(|report| &report.backends)
            .any(|backend| *backend.id == *id && backend.in_flight > 0);
        if busy || reports.len() < edges {
            continue;
        }
        let due = Due {
            app,
            id,
            what: Verdict::Drained,
        };
        match registry
            .change(move |staging| Ok(carry_out(staging, vec![due])))
            .await
        {
            Ok(done) => done.into_iter().for_each(|due| announce(events, &due)),
            Err(refusal) => tracing::error!("a drained backend could not be removed: {refusal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::boot;
    use crate::control::fleet::Ask;
    use crate::control::staging::{AppSpec, BackendSpec};
    use crate::feed::messages::{AppReport, BackendReport, EdgeHello, Report};

    /// A registry with one app and these backends, as (id, lease in seconds).
    async fn registry(
        dir: &tempfile::TempDir,
        events: &Events,
        backends: &[(&str, u32)],
    ) -> Arc<Registry> {
        let (store, contents) = boot::open(dir.path(), events, |_| None).unwrap();
        let (registry, _writer) = Registry::start(store, contents, Arc::default()).unwrap();
        let backend = |(id, lease_seconds): &(&str, u32)| BackendSpec {
            id: (*id).into(),
            address: "127.0.0.1:1".into(),
            weight: 100,
            lease_seconds: *lease_seconds,
            ..BackendSpec::default()
        };
        let backends = Some(backends.iter().map(backend).collect());
        let spec = AppSpec {
            name: "shop".into(),
            backends,
            ..AppSpec::default()
        };
        registry
            .change(move |staging| staging.put_app(&spec, &Condition::Always))
            .await
            .unwrap();
        registry
    }

    fn standings(registry: &Registry) -> Vec<(String, Standing)> {
        let record = registry.app("shop").unwrap();
        record
            .backends
            .iter()
            .map(|it| (it.id.clone(), it.standing()))
            .collect()
    }

    fn kinds(events: &Events) -> Vec<String> {
        events
            .latest(100)
            .into_iter()
            .map(|event| event.kind)
            .collect()
    }

    /// Ticks until `met`, for at most ten seconds.
    async fn tick_until(registry: &Registry, events: &Events, met: impl Fn() -> bool) {
        let mut ticks = interval(Duration::from_millis(20));
        let ticking = async {
            while !met() {
                ticks.tick().await;
                expire(registry, events).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ticking)
            .await
            .expect("it comes to pass in time");
    }

    #[tokio::test]
    async fn silence_makes_suspect_and_a_heartbeat_makes_it_good() {
        let (dir, events) = (tempfile::tempdir().unwrap(), Events::default());
        let registry = registry(&dir, &events, &[("quiet", 1), ("kept", 0)]).await;
        tick_until(&registry, &events, || {
            standings(&registry)[1].1 == Standing::Suspect
        })
        .await;
        assert_eq!(
            standings(&registry)[0].1,
            Standing::Active,
            "without a lease it stays"
        );
        assert_eq!(kinds(&events), ["lease_expired"]);
        let revision = registry.revision();
        registry.heartbeat("shop", "quiet").await.unwrap();
        assert_eq!(standings(&registry)[1].1, Standing::Active);
        assert_eq!(registry.revision(), revision + 1);
        registry.heartbeat("shop", "quiet").await.unwrap();
        assert_eq!(
            registry.revision(),
            revision + 1,
            "a renewal is no revision"
        );
    }

    #[tokio::test]
    async fn when_all_fall_silent_at_once_removal_is_frozen() {
        let (dir, events) = (tempfile::tempdir().unwrap(), Events::default());
        let registry = registry(&dir, &events, &[("a", 1), ("b", 1), ("c", 1)]).await;
        tick_until(&registry, &events, || registry.leases().2).await;
        assert_eq!(registry.leases(), (3, 3, true));
        assert!(kinds(&events).contains(&"lease_removal_frozen".to_owned()));
        for id in ["a", "b", "c"] {
            registry.heartbeat("shop", id).await.unwrap();
        }
        tick_until(&registry, &events, || !registry.leases().2).await;
        assert!(kinds(&events).contains(&"lease_removal_thawed".to_owned()));
    }

    #[tokio::test]
    async fn a_drain_ends_when_the_last_request_does_or_its_time_is_up() {
        let (dir, events) = (tempfile::tempdir().unwrap(), Arc::<Events>::default());
        let registry = registry(&dir, &events, &[("a", 0), ("b", 0)]).await;
        let fleet = Arc::new(Fleet::new(events.clone(), Arc::default()));
        let drain = |id: &'static str, ms| {
            registry
                .change(move |staging| staging.drain_backend("shop", id, ms, &Condition::Always))
        };
        let revision = drain("a", 3_600_000).await.unwrap().revision;
        // No edge has taken it out of rotation yet.
        end_drains(&registry, &fleet, &events).await;
        let (edge, mut asks) = fleet.admit(&EdgeHello::default(), Some(revision - 1));
        end_drains(&registry, &fleet, &events).await;
        assert_eq!(standings(&registry).len(), 2);
        edge.acked(revision, &crate::feed::messages::Ack::default());
        let report = |in_flight| {
            let backends = vec![BackendReport {
                id: "a".into(),
                in_flight,
                ..BackendReport::default()
            }];
            let apps = vec![AppReport {
                app: "shop".into(),
                backends,
                ..AppReport::default()
            }];
            Report {
                apps,
                ..Report::default()
            }
        };
        for (in_flight, left) in [(1, 2), (0, 1)] {
            let answering = async {
                let Some(Ask::Report { answer, .. }) = asks.recv().await else {
                    panic!("it must be asked");
                };
                answer.send(report(in_flight)).unwrap();
            };
            tokio::join!(end_drains(&registry, &fleet, &events), answering);
            assert_eq!(standings(&registry).len(), left, "{in_flight} in flight");
        }
        drain("b", 50).await.unwrap();
        tick_until(&registry, &events, || standings(&registry).is_empty()).await;
        assert_eq!(kinds(&events), ["backend_drained", "backend_drained"]);
    }
}
