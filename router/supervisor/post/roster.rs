//! The members of a post: where each is in its life, its signs of life, and
//! when its time is up. Decides who is late or stalled; never who is wanted.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Action, Duty, Ending, Limits};
use crate::heritage::ProcessState;
use crate::supervisor::moment::Moment;
use crate::supervisor::vintage::Vintage;

/// Pings (one a second) left unanswered before the first answer: a child may
/// load a large table first.
const MAX_UNANSWERED_AT_BIRTH: u32 = 30;
/// How long a member that never served may take to leave: it has nothing in
/// flight.
const UNBORN_DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How long one may load while another serves; else it is all there is.
const LOADING_LIMIT: Duration = Duration::from_secs(60);
/// How long one that was told to serve may take to: its table is loaded.
const CALLED_LIMIT: Duration = Duration::from_secs(10);

/// Where a member is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// Started.
    Loading,
    /// It could serve.
    Warm,
    /// Told to serve.
    Called,
    /// It does.
    Serving,
    /// Told that a successor serves.
    HandingOver,
    /// Told to finish.
    Draining,
}

/// One living child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Member {
    pub generation: u64,
    pub vintage: Vintage,
    pub stage: Stage,
    started: Moment,
    /// When it was told to serve.
    called: Option<Moment>,
    limits: Limits,
    unanswered: u32,
    answered_once: bool,
    /// Killed when this passes.
    deadline: Option<Moment>,
    /// Already killed, for this reason.
    killed: Option<String>,
}

impl Member {
    /// Serves, or is about to.
    pub(super) fn is_on_duty(&self) -> bool {
        matches!(self.stage, Stage::Called | Stage::Serving) && self.killed.is_none()
    }

    /// Serves.
    pub(super) fn is_serving(&self) -> bool {
        self.stage == Stage::Serving && self.killed.is_none()
    }

    /// Was not told to serve yet, but may be.
    pub(super) fn is_in_reserve(&self) -> bool {
        matches!(self.stage, Stage::Loading | Stage::Warm) && self.killed.is_none()
    }

    /// Could serve at once.
    pub(super) fn is_warm(&self) -> bool {
        self.stage == Stage::Warm && self.killed.is_none()
    }

    /// Already killed, not gone yet.
    pub(super) fn killed_for(&self) -> Option<&str> {
        self.killed.as_deref()
    }

    /// Was told to go.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.stage, Stage::HandingOver | Stage::Draining)
    }

    pub(super) fn state(&self) -> ProcessState {
        match self.stage {
            _ if self.killed.is_some() => ProcessState::Draining,
            Stage::Loading | Stage::Called => ProcessState::Starting,
            Stage::Warm => ProcessState::Standby,
            Stage::Serving => ProcessState::Ready,
            Stage::HandingOver | Stage::Draining => ProcessState::Draining,
        }
    }

    /// Its table is loaded.
    pub(super) fn warm(&mut self) {
        if self.stage == Stage::Loading {
            self.stage = Stage::Warm;
            self.deadline = None;
        }
    }

    /// It is told to serve.
    pub(super) fn call(&mut self, now: Moment) -> Action {
        self.stage = Stage::Called;
        self.called = Some(now);
        self.deadline = Some(now + CALLED_LIMIT);
        Action::Serve(self.generation)
    }

    /// It serves; true if that is news.
    pub(super) fn serves(&mut self, now: Moment) -> bool {
        if self.is_leaving() || self.stage == Stage::Serving {
            return false;
        }
        self.stage = Stage::Serving;
        self.called.get_or_insert(now);
        self.deadline = None;
        true
    }

    /// A successor serves.
    pub(super) fn hand_over(&mut self, now: Moment) -> Action {
        self.stage = Stage::HandingOver;
        self.deadline = Some(now + self.limits.hand_over);
        Action::HandOver(self.generation)
    }

    /// It is to finish what it has. Never gives it more time than it had.
    pub(super) fn drain(&mut self, now: Moment) -> Action {
        let limit = match self.stage {
            Stage::Loading | Stage::Warm => self.limits.drain.min(UNBORN_DRAIN_LIMIT),
            _ => self.limits.drain,
        };
        let until = now + limit;
        self.deadline = match self.stage {
            Stage::HandingOver => self.deadline.map(|before| before.min(until)),
            _ => Some(until),
        };
        self.stage = Stage::Draining;
        Action::Drain(self.generation)
    }

    fn kill(&mut self, reason: String) -> Action {
        self.killed = Some(reason.clone());
        Action::Kill(self.generation, reason)
    }

    /// When it is killed for being late. One that loads while nobody serves
    /// is never late: it is all there is.
    fn late_at(&self, is_relieved: bool) -> Option<Moment> {
        match self.stage {
            _ if self.killed.is_some() => None,
            Stage::Loading if !is_relieved => None,
            _ => self.deadline,
        }
    }

    fn lateness(&self) -> &'static str {
        match self.stage {
            Stage::Loading | Stage::Warm => "killed: no table in time",
            Stage::Called | Stage::Serving => "killed: not ready in time",
            Stage::HandingOver => "killed: not handed over in time",
            Stage::Draining => "killed: not drained in time",
        }
    }

    /// Why it ended, and whether by its own fault.
    pub(super) fn epitaph(&self, ending: &Ending) -> (String, bool) {
        match &self.killed {
            Some(reason) => (reason.clone(), true),
            None => (ending.reason.clone(), ending.is_own_fault),
        }
    }

    pub(super) fn lived(&self, now: Moment) -> Duration {
        now.since(self.started)
    }

    /// What it was there for; `is_alone`: nobody else served.
    pub(super) fn duty(&self, is_alone: bool, now: Moment) -> Duty {
        match (self.is_leaving(), self.called) {
            (true, _) => Duty::Leaving,
            (false, Some(called)) => Duty::Serving(now.since(called)),
            (false, None) if is_alone => Duty::Serving(self.lived(now)),
            (false, None) => Duty::Waiting,
        }
    }
}

/// All of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Roster {
    members: Vec<Member>,
    next_generation: u64,
    /// Pings left unanswered before a member counts as stalled. Counted in
    /// pings, not in time: a stopped and resumed supervisor must not kill
    /// children that it never asked.
    max_unanswered: u32,
}

impl Roster {
    pub(super) fn new(max_unanswered: u32) -> Roster {
        Roster {
            members: Vec::new(),
            next_generation: 1,
            max_unanswered,
        }
    }

    pub(super) fn start(&mut self, vintage: Vintage, limits: Limits, now: Moment) -> Action {
        let generation = self.next_generation;
        self.next_generation += 1;
        self.members.push(Member {
            generation,
            vintage,
            stage: Stage::Loading,
            started: now,
            called: None,
            limits,
            unanswered: 0,
            answered_once: false,
            deadline: Some(now + LOADING_LIMIT),
            killed: None,
        });
        Action::Start(generation, vintage)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Member> {
        self.members.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.iter_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn any(&self, what: impl FnMut(&Member) -> bool) -> bool {
        self.members.iter().any(what)
    }

    pub(super) fn get(&self, generation: u64) -> Option<&Member> {
        let mut members = self.members.iter();
        members.find(|member| member.generation == generation)
    }

    pub(super) fn get_mut(&mut self, generation: u64) -> Option<&mut Member> {
        let mut members = self.members.iter_mut();
        members.find(|member| member.generation == generation)
    }

    pub(super) fn remove(&mut self, generation: u64) -> Option<Member> {
        let mut members = self.members.iter();
        let at = members.position(|member| member.generation == generation)?;
        Some(self.members.remove(at))
    }

    /// A ping goes to every member.
    pub(super) fn pinged(&mut self) {
        for member in &mut self.members {
            member.unanswered += 1;
        }
    }

    /// A sign of life.
    pub(super) fn answered(&mut self, generation: u64) {
        if let Some(member) = self.get_mut(generation) {
            member.unanswered = 0;
            member.answered_once = true;
        }
    }

    /// Kills those that owe too many answers, and those whose time is up. One
    /// that drains is left to its deadline, which is near.
    pub(super) fn kill_late(&mut self, now: Moment) -> Vec<Action> {
        let max_unanswered = self.max_unanswered;
        let mut actions = Vec::new();
        for member in &mut self.members {
            let limit = match member.answered_once {
                true => max_unanswered,
                false => MAX_UNANSWERED_AT_BIRTH,
            };
            let stalled = member.unanswered > limit && member.stage != Stage::Draining;
            if stalled && member.killed.is_none() {
                actions.push(member.kill(format!("killed: no answer for {limit}s")));
            }
        }
        // After the stalled ones: they relieve nobody.
        let is_relieved = self.any(Member::is_serving);
        for member in &mut self.members {
            if member.late_at(is_relieved).is_some_and(|at| at <= now) {
                let reason = member.lateness().to_owned();
                actions.push(member.kill(reason));
            }
        }
        actions
    }

    /// When the next one is late.
    pub(super) fn next_late(&self) -> Option<Moment> {
        let is_relieved = self.any(Member::is_serving);
        self.members
            .iter()
            .filter_map(|member| member.late_at(is_relieved))
            .min()
    }
}
