//! The post of control: never there twice, since one process at a time may
//! hold the store's file. A replacement starts when the old one is gone.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::roster::{Member, Roster, Stage};
use super::{Action, Departure, Duty, Ending, Limits, Post, Progress, Relief};
use crate::heritage::ProcessState;
use crate::supervisor::backoff::Backoff;
use crate::supervisor::moment::Moment;
use crate::supervisor::vintage::Vintage;

/// Unanswered pings before it counts as stalled: a slow disk may hold it up,
/// and no traffic waits for it.
const MAX_UNANSWERED: u32 = 10;
/// What it may take to finish its answers and close its store.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::supervisor) struct ControlPost {
    roster: Roster,
    is_wanted: bool,
    present: Vintage,
    start_at: Option<Moment>,
    backoff: Backoff,
    restarts: u64,
    /// Why the last member that never got ready died, and what it was.
    failed: Option<(Vintage, String)>,
}

impl ControlPost {
    pub(in crate::supervisor) fn new(vintage: Vintage) -> ControlPost {
        ControlPost {
            roster: Roster::new(MAX_UNANSWERED),
            is_wanted: true,
            present: vintage,
            start_at: None,
            backoff: Backoff::serving(),
            restarts: 0,
            failed: None,
        }
    }

    /// From now on it is of this vintage: another is drained first. One that
    /// cannot live is restarted until another vintage is asked for.
    pub(in crate::supervisor) fn replace(&mut self, vintage: Vintage) {
        self.present = vintage;
        self.start_at = None;
        self.failed = None;
    }

    /// What it is, or will be once the old one is gone.
    pub(in crate::supervisor) fn latest(&self) -> Vintage {
        self.present
    }
}

impl Post for ControlPost {
    fn tick(&mut self, now: Moment) -> Vec<Action> {
        let mut actions = self.roster.kill_late(now);
        for member in self.roster.iter_mut() {
            let outlived = !self.is_wanted || member.vintage != self.present;
            if outlived && !member.is_leaving() {
                actions.push(member.drain(now));
            }
        }
        let due = self.start_at.is_none_or(|at| at <= now);
        if self.is_wanted && self.roster.is_empty() && due {
            self.start_at = None;
            let limits = Limits {
                drain: DRAIN_LIMIT,
                hand_over: DRAIN_LIMIT,
            };
            actions.push(self.roster.start(self.present, limits, now));
        }
        actions
    }

    fn wake_at(&self) -> Option<Moment> {
        self.roster
            .next_late()
            .into_iter()
            .chain(self.start_at)
            .min()
    }

    fn retire(&mut self) {
        self.is_wanted = false;
        self.start_at = None;
    }

    fn pinged(&mut self) {
        self.roster.pinged();
    }

    fn answered(&mut self, generation: u64) {
        self.roster.answered(generation);
    }

    /// Control serves as soon as it can: it is never told to.
    fn warm(&mut self, _generation: u64, _now: Moment) {}

    fn ready(&mut self, generation: u64, now: Moment) {
        self.roster.answered(generation);
        if let Some(member) = self.roster.get_mut(generation) {
            member.serves(now);
        }
    }

    fn died(&mut self, generation: u64, ending: &Ending, now: Moment) -> Option<Departure> {
        let member = self.roster.remove(generation)?;
        let (reason, is_own_fault) = member.epitaph(ending);
        let duty = member.duty(true, now);
        let lived = member.lived(now);
        let mut relief = Relief::Nobody;
        if self.is_wanted {
            let mut delay = Duration::ZERO;
            if duty != Duty::Leaving {
                self.restarts += 1;
                delay = self.backoff.died(lived);
                self.start_at = Some(now + delay);
            }
            relief = Relief::Starts(delay);
        }
        if member.stage != Stage::Serving && duty != Duty::Leaving {
            self.failed = Some((member.vintage, reason.clone()));
        }
        Some(Departure {
            vintage: member.vintage,
            duty,
            reason,
            is_own_fault,
            lived,
            relief,
        })
    }

    fn state_of(&self, generation: u64) -> Option<ProcessState> {
        self.roster.get(generation).map(Member::state)
    }

    fn is_manned(&self) -> bool {
        self.roster.any(Member::is_serving)
    }

    fn is_empty(&self) -> bool {
        self.roster.is_empty()
    }

    fn restarts(&self) -> u64 {
        self.restarts
    }

    fn vintages(&self) -> Vec<Vintage> {
        let members = self.roster.iter().map(|member| member.vintage);
        members.chain([self.present]).collect()
    }

    fn progress(&self, vintage: Vintage) -> Progress {
        if vintage != self.present {
            return Progress::Failed("another replacement took its place".to_owned());
        }
        let serves = |member: &Member| member.vintage == vintage && member.is_serving();
        if self.roster.any(serves) {
            return Progress::Serving;
        }
        match &self.failed {
            Some((failed, reason)) if *failed == vintage => Progress::Failed(reason.clone()),
            _ => Progress::Starting,
        }
    }
}
