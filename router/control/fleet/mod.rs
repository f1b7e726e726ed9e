//! The fleet: the edges that are connected, and what they have made active.
//!
//! Owns the roster and the questions put to it: which revision is active
//! everywhere, and what every edge counts. Holds no table and no queue of
//! changes: each edge's [`link`] follows the registry's log with a
//! cursor of its own.

mod asking;
mod gate;
mod ledger;
mod limited;
pub mod link;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

pub(super) use self::asking::Ask;
pub use self::asking::{Heard, keep};
use self::ledger::Ledger;

use super::events::{Events, now_ms};
use super::propagation::Propagation;
use crate::feed::messages::{Ack, Doubt, EdgeHello, Report};
use crate::heritage::{ProcessState, ProcessStatus, Role};

/// How long the supervisor's first process table is waited for, which it sends
/// as soon as it has started control.
const FIRST_TABLE: Duration = Duration::from_secs(2);
/// Edges of brief links that are remembered: more than there may be.
const BRIEF: usize = 64;
/// How much longer than for those that serve a change is waited for in those that
/// stand by: one of them may serve in the next moment, and what was called active
/// is to be so then too.
const STANDBY_MOMENT: Duration = Duration::from_millis(250);
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
    /// It came with a whole table, be it of another epoch: what it serves is not
    /// nothing.
    pub has_table: bool,
    /// The version of the limits in force on all its threads; 0: none yet.
    pub limits_version: u64,
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

    /// Whether it serves the table that ran well and takes no change. That is
    /// service: a router that saved itself so must not be taken out for it.
    pub fn is_pinned_serving(&self) -> bool {
        self.is_pinned && !self.is_standby
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
    ledger: Mutex<Ledger>,
    events: Arc<Events>,
}

#[derive(Debug, Default)]
struct Roster {
    edges: BTreeMap<u64, Member>,
    admitted: u64,
    /// Edges that the supervisor runs and that carry traffic, by process: those
    /// that are replaced too. One of them that is not connected may route by
    /// anything.
    carrying: BTreeSet<u32>,
    /// Of these, those that said their last word: they carry nothing more.
    finished: BTreeSet<u32>,
    /// Edges whose last link ended as soon as it began, by process.
    brief: BTreeSet<u32>,
}

impl Roster {
    /// Edges that carry traffic and are not connected, by process.
    fn missing(&self) -> impl Iterator<Item = u32> {
        let is_connected = |pid: &u32| self.edges.values().any(|member| member.status.pid == *pid);
        let carrying = self.carrying.difference(&self.finished).copied();
        carrying.filter(move |pid| !is_connected(pid))
    }
}

impl Fleet {
    /// Nobody is connected yet. What becomes active is told to `propagation`.
    pub fn new(events: Arc<Events>, propagation: Arc<Propagation>) -> Fleet {
        Fleet {
            members: Mutex::default(),
            progress: watch::Sender::new(0),
            propagation,
            ledger: Mutex::default(),
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

    /// Takes the supervisor's word for which edges there are: control may have
    /// been started a moment ago, and they are yet to connect.
    pub fn told_of(&self, processes: &[ProcessStatus]) {
        let carries = |row: &&ProcessStatus| {
            let is_edge = row.role == Role::Edge && row.pid != 0;
            is_edge && matches!(row.state, ProcessState::Ready | ProcessState::Draining)
        };
        let mut roster = self.roster();
        let carrying = processes.iter().filter(carries).map(|row| row.pid);
        roster.carrying = carrying.collect();
        let Roster {
            carrying, finished, ..
        } = &mut *roster;
        finished.retain(|pid| carrying.contains(pid));
        self.advance(roster);
    }

    /// Waits for the supervisor's first word; gives back where the next comes from.
    pub async fn meet(
        &self,
        mut processes: watch::Receiver<Vec<ProcessStatus>>,
    ) -> watch::Receiver<Vec<ProcessStatus>> {
        let first = processes.wait_for(|table| !table.is_empty());
        // None: whoever connects is all there is, until the word comes.
        let _ = tokio::time::timeout(FIRST_TABLE, first).await;
        self.told_of(&processes.borrow_and_update());
        processes
    }

    /// Waits until every edge that carries traffic is connected, `time` at most.
    pub async fn gather(&self, time: Duration) {
        let mut progress = self.progress.subscribe();
        let gathered = progress.wait_for(|_| self.roster().missing().next().is_none());
        // Some are still missing: whoever asks says so.
        let _ = tokio::time::timeout(time, gathered).await;
    }

    /// Whether links of this edge end as soon as they began, which was said.
    pub(super) fn is_brief(&self, pid: u32) -> bool {
        self.roster().brief.contains(&pid)
    }

    /// Whether they do, from now on.
    pub(super) fn set_brief(&self, pid: u32, is_brief: bool) {
        let mut roster = self.roster();
        roster.brief.remove(&pid);
        while is_brief && roster.brief.len() >= BRIEF {
            roster.brief.pop_first();
        }
        if is_brief {
            roster.brief.insert(pid);
        }
    }

    /// The processes of edges that carry traffic and are not connected.
    pub fn missing(&self) -> Vec<u32> {
        self.roster().missing().collect()
    }

    /// The revision that every edge routes by; `None`: no edge is connected, one
    /// that carries traffic is not, or one holds no table yet. Those that stand by
    /// or are pinned do not count.
    pub fn active_revision(&self) -> Option<u64> {
        active_revision(&self.roster())
    }

    /// Waits until every edge that counts for
    /// [`active_revision`](Self::active_revision), and at least one, routes by
    /// this revision; then a moment for those that stand by, which may serve next.
    /// False: it took longer than `timeout`.
    pub async fn wait_active(&self, revision: u64, timeout: Duration) -> bool {
        let until = tokio::time::Instant::now() + timeout;
        let mut progress = self.progress.subscribe();
        let reached =
            progress.wait_for(|_| self.active_revision().is_some_and(|now| now >= revision));
        let is_active = tokio::time::timeout_at(until, reached).await;
        if !is_active.is_ok_and(|seen| seen.is_ok()) {
            return false;
        }
        let followed = progress.wait_for(|_| self.is_followed(revision));
        let moment = until.min(tokio::time::Instant::now() + STANDBY_MOMENT);
        // One that takes longer is not healthy: it holds nobody up.
        let _ = tokio::time::timeout_at(moment, followed).await;
        true
    }

    /// Whether every edge that stands by with a table has this revision.
    fn is_followed(&self, revision: u64) -> bool {
        let roster = self.roster();
        let mut statuses = roster.edges.values().map(|member| &member.status);
        statuses.all(|edge| {
            let follows = edge.is_standby && !edge.is_pinned && edge.doubt.is_none();
            !follows || edge.active_revision.is_none_or(|now| now >= revision)
        })
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
            limits_version: 0,
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

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Keeps the fleet told of the edges that there are. Runs until it is dropped.
pub async fn follow(fleet: Arc<Fleet>, mut processes: watch::Receiver<Vec<ProcessStatus>>) {
    while processes.changed().await.is_ok() {
        fleet.told_of(&processes.borrow_and_update());
    }
}

fn active_revision(roster: &Roster) -> Option<u64> {
    if roster.missing().next().is_some() {
        return None;
    }
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

    /// The edge reports without having been asked: its last word, once nothing
    /// is open on it any more.
    pub fn reported(&self, report: &Report) {
        let mut roster = self.fleet.roster();
        let Some(member) = roster.edges.get(&self.id) else {
            return;
        };
        let pid = member.status.pid;
        if roster.carrying.contains(&pid) {
            roster.finished.insert(pid);
        }
        drop(roster);
        self.fleet.ledger().hear(pid, report);
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
mod tests;
