//! The fleet: the edges that are connected, and what they have made active.
//!
//! Owns the roster and the questions put to it: which revision is active
//! everywhere, and what every edge counts. Holds no table and no queue of
//! changes: each edge's [`link`] follows the registry's log with a
//! cursor of its own.

mod gate;
pub mod link;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot, watch};

use super::events::{Events, now_ms};
use super::propagation::Propagation;
use crate::feed::messages::{Ack, Doubt, EdgeHello, Order, Report};

/// How long an edge may take to report its counters.
const COLLECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long an order may wait for room among an edge's questions.
const ORDER_TIMEOUT: Duration = Duration::from_millis(500);
/// Questions and orders waiting for one edge.
const ASKS: usize = 16;

/// An edge that is connected.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeStatus {
    /// Unique while control lives; a reconnected edge has a new one.
    pub id: u64,
    /// Its process id.
    pub pid: u32,
    /// Its data threads.
    pub threads: u32,
    /// The program's version.
    pub program: String,
    /// Since when, Unix milliseconds.
    pub connected_at_ms: u64,
    /// The revision active on all its threads; `None`: it holds no table yet.
    pub active_revision: Option<u64>,
    /// It holds the table and serves nobody yet.
    pub is_standby: bool,
    /// It stays with the table that ran well before; none is sent to it.
    pub is_pinned: bool,
    /// Apps it holds, as of its last acknowledgement.
    pub apps: u64,
    /// Records it could not use.
    pub nacks: u64,
    /// It came with a table, be it of another epoch: what it serves is not
    /// nothing.
    pub has_table: bool,
    /// The whole table it did not take, since too much would have vanished.
    pub doubt: Option<Doubt>,
}

impl EdgeStatus {
    /// Whether a change is active only once this edge has it: it serves, and
    /// follows control. Until it says otherwise an edge that holds no table
    /// counts, since it is about to.
    pub fn is_waited_for(&self) -> bool {
        !self.is_standby && !self.is_pinned
    }

    /// Whether it holds a table to route by, control's newest or not.
    pub fn holds_table(&self) -> bool {
        self.has_table || self.active_revision.is_some()
    }

    /// What it does, in a word: `serving`, `loading` (no table yet), `standby`,
    /// `pinned` or `doubting` (it did not take control's table).
    pub fn state(&self) -> &'static str {
        if self.doubt.is_some() {
            return "doubting";
        }
        match (self.is_pinned, self.is_standby, self.active_revision) {
            (_, true, _) => "standby",
            (true, ..) => "pinned",
            (_, _, None) if !self.has_table => "loading",
            _ => "serving",
        }
    }
}

/// What is put to one edge, in order.
#[derive(Debug)]
pub(super) enum Ask {
    /// A question: see [`Collect`](crate::feed::messages::Collect).
    Report {
        /// Only this app; empty: the process.
        app: String,
        /// How many of the busiest apps.
        top: u32,
        /// Where the report goes.
        answer: oneshot::Sender<Report>,
    },
    /// An order; it follows every change made before it was given.
    Carry(Order),
}

#[derive(Debug)]
struct Member {
    status: EdgeStatus,
    asks: mpsc::Sender<Ask>,
}

/// The roster.
#[derive(Debug)]
pub struct Fleet {
    members: Mutex<Roster>,
    /// Counts every change of the roster or of an active revision.
    progress: watch::Sender<u64>,
    propagation: Arc<Propagation>,
    events: Arc<Events>,
}

#[derive(Debug, Default)]
struct Roster {
    edges: BTreeMap<u64, Member>,
    admitted: u64,
}

impl Fleet {
    /// Nobody is connected yet. What becomes active is told to `propagation`.
    pub fn new(events: Arc<Events>, propagation: Arc<Propagation>) -> Fleet {
        Fleet {
            members: Mutex::default(),
            progress: watch::Sender::new(0),
            propagation,
            events,
        }
    }

    /// The edges connected now.
    pub fn edges(&self) -> Vec<EdgeStatus> {
        self.roster()
            .edges
            .values()
            .map(|member| member.status.clone())
            .collect()
    }

    /// Whether there is an edge that serves and follows control, and every such
    /// one holds a table.
    pub fn is_serving(&self) -> bool {
        let roster = self.roster();
        let statuses = roster.edges.values().map(|member| &member.status);
        let mut waited_for = statuses.filter(|edge| edge.is_waited_for()).peekable();
        waited_for.peek().is_some() && waited_for.all(EdgeStatus::holds_table)
    }

    /// The whole tables that edges did not take, one for each such edge.
    pub fn doubts(&self) -> Vec<Doubt> {
        let roster = self.roster();
        let statuses = roster.edges.values().map(|member| &member.status);
        statuses.filter_map(|status| status.doubt).collect()
    }

    /// The revision that every edge routes by; `None`: no edge is connected, or
    /// one holds no table yet. Those that stand by or are pinned do not count.
    pub fn active_revision(&self) -> Option<u64> {
        active_revision(&self.roster())
    }

    /// Waits until every edge that counts for
    /// [`active_revision`](Self::active_revision), and at least one, routes by
    /// this revision. False: it took longer than `timeout`.
    pub async fn wait_active(&self, revision: u64, timeout: Duration) -> bool {
        let mut progress = self.progress.subscribe();
        let reached =
            progress.wait_for(|_| self.active_revision().is_some_and(|now| now >= revision));
        tokio::time::timeout(timeout, reached)
            .await
            .is_ok_and(|seen| seen.is_ok())
    }

    /// Asks every edge for its counters; those that do not answer within half
    /// a second are left out. With `app`, only that app's, with its backends;
    /// else the process's and those of the `top` busiest apps.
    pub async fn collect(&self, app: &str, top: u32) -> Vec<Report> {
        let mut answers = Vec::new();
        for member in self.roster().edges.values() {
            let (answer, answered) = oneshot::channel();
            // An edge with a full queue does not answer anyway.
            if member
                .asks
                .try_send(Ask::Report {
                    app: app.to_owned(),
                    top,
                    answer,
                })
                .is_ok()
            {
                answers.push(answered);
            }
        }
        let deadline = tokio::time::Instant::now() + COLLECT_TIMEOUT;
        let mut reports = Vec::with_capacity(answers.len());
        for answered in answers {
            if let Ok(Ok(report)) = tokio::time::timeout_at(deadline, answered).await {
                reports.push(report);
            }
        }
        reports
    }

    /// Gives every edge an order. What is collected from an edge after this
    /// returned was reported after it carried the order out. An edge that takes
    /// nothing for half a second, or is not connected, does not hear of it.
    pub async fn order(&self, order: &Order) {
        let edges: Vec<mpsc::Sender<Ask>> = self
            .roster()
            .edges
            .values()
            .map(|member| member.asks.clone())
            .collect();
        let told = edges.iter().map(async |asks| {
            let given = asks.send(Ask::Carry(order.clone()));
            matches!(tokio::time::timeout(ORDER_TIMEOUT, given).await, Ok(Ok(())))
        });
        let told = join_all(told)
            .await
            .into_iter()
            .filter(|told| *told)
            .count();
        if told < edges.len() {
            tracing::warn!(
                verb = order.verb,
                app = order.app,
                backend = order.backend,
                "only {told} of {} edges took an order",
                edges.len()
            );
        }
    }

    /// Events of edges and of the fleet go here.
    pub(super) fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// Takes an edge in; dropping what is returned takes it out again.
    pub(super) fn admit(
        self: &Arc<Self>,
        hello: &EdgeHello,
        active_revision: Option<u64>,
    ) -> (Membership, mpsc::Receiver<Ask>) {
        let (asks, asked) = mpsc::channel(ASKS);
        let mut roster = self.roster();
        roster.admitted += 1;
        let id = roster.admitted;
        let status = EdgeStatus {
            id,
            pid: hello.pid,
            threads: hello.threads,
            program: hello.program.clone(),
            connected_at_ms: now_ms(),
            active_revision,
            is_standby: hello.is_standby,
            is_pinned: hello.is_pinned,
            apps: 0,
            nacks: 0,
            has_table: hello.has_table,
            doubt: None,
        };
        roster.edges.insert(id, Member { status, asks });
        self.advance(roster);
        (
            Membership {
                fleet: self.clone(),
                id,
            },
            asked,
        )
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The roster has changed: what is active now is told, and those who wait
    /// look again.
    fn advance(&self, roster: MutexGuard<'_, Roster>) {
        let active = active_revision(&roster);
        drop(roster);
        if let Some(revision) = active {
            self.propagation.active(revision, Instant::now());
        }
        self.progress.send_modify(|changes| *changes += 1);
    }
}

fn active_revision(roster: &Roster) -> Option<u64> {
    let statuses = roster.edges.values().map(|member| &member.status);
    // `None` sorts before every revision, so one edge without a table decides.
    statuses
        .filter(|status| status.is_waited_for())
        .map(|status| status.active_revision)
        .min()
        .flatten()
}

/// An edge's place in the roster, as long as it is connected.
#[derive(Debug)]
pub(super) struct Membership {
    fleet: Arc<Fleet>,
    id: u64,
}

impl Membership {
    /// The edge has made a revision active, or begins to serve.
    pub fn acked(&self, revision: u64, ack: &Ack) {
        let mut begins = None;
        self.update(|status| {
            status.active_revision = Some(revision);
            status.apps = ack.apps;
            begins = (status.is_standby && !ack.is_standby).then_some(status.pid);
            status.is_standby = ack.is_standby;
            status.doubt = status.doubt.filter(|doubt| doubt.revision > revision);
        });
        if let Some(pid) = begins {
            let text = format!("edge {pid}, which stood by, serves, at revision {revision}");
            self.fleet.events.say("edge_serves", "", "", text);
        }
    }

    /// The edge did not take a whole table.
    pub fn doubted(&self, doubt: Doubt) {
        self.update(|status| status.doubt = Some(doubt));
    }

    /// The edge could not use a record.
    pub fn nacked(&self) {
        self.update(|status| status.nacks += 1);
    }

    fn update(&self, change: impl FnOnce(&mut EdgeStatus)) {
        let mut roster = self.fleet.roster();
        if let Some(member) = roster.edges.get_mut(&self.id) {
            change(&mut member.status);
        }
        self.fleet.advance(roster);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut roster = self.fleet.roster();
        roster.edges.remove(&self.id);
        self.fleet.advance(roster);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> Arc<Fleet> {
        Arc::new(Fleet::new(Arc::default(), Arc::default()))
    }

    fn ack(is_standby: bool) -> Ack {
        Ack {
            apps: 1,
            is_standby,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_an_edge_that_stands_by_or_is_pinned() {
        let fleet = fleet();
        let standby = EdgeHello {
            is_standby: true,
            ..EdgeHello::default()
        };
        let pinned = EdgeHello {
            is_pinned: true,
            ..EdgeHello::default()
        };
        let (standby, _asks) = fleet.admit(&standby, Some(1));
        let (_pinned, _asks) = fleet.admit(&pinned, Some(1));
        assert!(!fleet.is_serving(), "neither of them serves by control");
        let (serving, _asks) = fleet.admit(&EdgeHello::default(), Some(5));
        assert_eq!(fleet.active_revision(), Some(5));
        standby.acked(2, &ack(true));
        assert_eq!(fleet.active_revision(), Some(5));
        serving.acked(6, &ack(false));
        assert!(fleet.wait_active(6, Duration::from_secs(1)).await);
        let states: Vec<_> = fleet.edges().iter().map(EdgeStatus::state).collect();
        assert_eq!(states, ["standby", "pinned", "serving"]);
        // From now on it serves, and counts.
        standby.acked(2, &ack(false));
        assert_eq!(fleet.active_revision(), Some(2));
        assert_eq!(fleet.events.latest(1)[0].kind, "edge_serves");
    }

    #[test]
    fn a_revision_is_timed_until_the_last_serving_edge_has_it() {
        let fleet = fleet();
        let timed = || fleet.propagation.activations().buckets.iter().sum::<u64>();
        let (first, _asks) = fleet.admit(&EdgeHello::default(), Some(0));
        let (second, _asks) = fleet.admit(&EdgeHello::default(), Some(0));
        fleet
            .propagation
            .durable(1, 4, Instant::now(), std::iter::empty());
        first.acked(4, &ack(false));
        assert_eq!(timed(), 0);
        second.acked(3, &ack(false));
        assert_eq!(timed(), 3);
        // An edge that goes is waited for no longer.
        drop(second);
        assert_eq!(timed(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_revision_is_active_when_the_slowest_edge_has_it() {
        let fleet = fleet();
        assert_eq!(fleet.active_revision(), None);
        assert!(
            !fleet.wait_active(0, Duration::from_secs(1)).await,
            "no edge, nothing active"
        );
        let (first, _asks) = fleet.admit(&EdgeHello::default(), Some(4));
        let (second, _asks) = fleet.admit(&EdgeHello::default(), None);
        assert!(!fleet.is_serving());
        second.acked(7, &ack(false));
        assert_eq!(fleet.active_revision(), Some(4));
        let waiting = tokio::spawn({
            let fleet = fleet.clone();
            async move { fleet.wait_active(7, Duration::from_secs(5)).await }
        });
        tokio::task::yield_now().await;
        first.acked(8, &ack(false));
        assert!(waiting.await.unwrap());
        drop(first);
        assert_eq!(fleet.edges().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_edge_that_does_not_answer_is_left_out_of_the_count() {
        let fleet = fleet();
        let (_quick, mut quick_asks) = fleet.admit(&EdgeHello::default(), Some(1));
        let (_mute, _mute_asks) = fleet.admit(&EdgeHello::default(), Some(1));
        let answering = tokio::spawn(async move {
            let Some(Ask::Report { app, top, answer }) = quick_asks.recv().await else {
                panic!("it must be asked");
            };
            assert_eq!((app.as_str(), top), ("shop", 3));
            let report = Report {
                id: 9,
                ..Report::default()
            };
            answer.send(report).unwrap();
        });
        let reports = fleet.collect("shop", 3).await;
        answering.await.unwrap();
        assert_eq!(
            reports.iter().map(|report| report.id).collect::<Vec<_>>(),
            [9]
        );
    }
}
