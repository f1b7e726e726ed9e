//! A post: one role that must always be manned. Decides when a member is
//! started, told to drain, or killed.
//!
//! Pure: events and the time come in, [`Action`]s go out; the kernel does
//! them. Members are named by generation, which only grows.
//!
//! **Invariant**: while the post is wanted, a member that serves is never
//! told to drain before a younger one is ready, unless the role is exclusive.

use std::time::{Duration, Instant};

use super::backoff::Backoff;
use crate::heritage::{ProcessState, Role};

/// Pings (one a second) left unanswered before a member counts as stalled.
/// Counted in pings, not in time: a stopped and resumed supervisor must not
/// kill children that it never asked.
const MAX_UNANSWERED: u32 = 10;
/// The same before the first answer: a child may load a large table first.
const MAX_UNANSWERED_AT_BIRTH: u32 = 30;
/// How long a replacement may take to get ready before it is given up.
const REPLACEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a member that never served may take to leave: it has nothing in
/// flight.
const UNBORN_DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// How many members may live at once, draining ones included.
const MAX_MEMBERS: usize = 4;

/// What the kernel is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Start a child of this generation.
    Start(u64),
    /// Tell it to drain.
    Drain(u64),
    /// Kill it; the reason goes into its obituary.
    Kill(u64, String),
}

/// One living child.
#[derive(Debug)]
struct Member {
    generation: u64,
    state: ProcessState,
    started: Instant,
    unanswered: u32,
    answered_once: bool,
    /// Killed when this passes: not ready, or not drained.
    deadline: Option<Instant>,
    /// Already killed, for this reason.
    killed: Option<String>,
}

/// One role.
#[derive(Debug)]
pub(super) struct Post {
    role: Role,
    /// At most one member at a time (control owns the store's file).
    exclusive: bool,
    /// How long a member told to drain may take before it is killed.
    drain_limit: Duration,
    wanted: bool,
    replace_asked: bool,
    start_at: Option<Instant>,
    backoff: Backoff,
    restarts: u64,
    members: Vec<Member>,
    next_generation: u64,
}

/// How a member left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Departure {
    /// It was not told to go.
    pub unwanted: bool,
    /// The reason it was killed for, if the supervisor killed it.
    pub killed: Option<String>,
    /// How long it lived.
    pub lived: Duration,
    /// When its replacement starts, counted from now.
    pub restart_in: Option<Duration>,
}

impl Post {
    pub(super) fn new(role: Role, drain_limit: Duration) -> Post {
        Post {
            role,
            exclusive: role == Role::Control,
            drain_limit,
            wanted: true,
            replace_asked: false,
            start_at: None,
            backoff: Backoff::default(),
            restarts: 0,
            members: Vec::new(),
            next_generation: 1,
        }
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// Unwanted deaths so far.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether somebody serves.
    pub(super) fn is_manned(&self) -> bool {
        self.members
            .iter()
            .any(|member| member.state == ProcessState::Ready)
    }

    pub(super) fn state_of(&self, generation: u64) -> Option<ProcessState> {
        let member = self
            .members
            .iter()
            .find(|member| member.generation == generation)?;
        Some(member.state)
    }

    pub(super) fn set_drain_limit(&mut self, drain_limit: Duration) {
        self.drain_limit = drain_limit;
    }

    /// Asks for a younger member in place of all present ones. False: too
    /// many are still on their way in or out.
    pub(super) fn replace(&mut self) -> bool {
        if self.members.len() >= MAX_MEMBERS {
            return false;
        }
        self.replace_asked = true;
        true
    }

    /// The post is given up: everybody drains, nobody follows.
    pub(super) fn retire(&mut self, now: Instant) -> Vec<Action> {
        self.wanted = false;
        self.replace_asked = false;
        self.drain_older_than(u64::MAX, now)
    }

    /// What is due. Call after every event and when [`Post::wake_at`] passes.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = self.kill_late(now);
        if self.replace_asked && self.exclusive {
            actions.extend(self.drain_older_than(u64::MAX, now));
        }
        if self.is_start_due(now) {
            let replaces = self.is_manned();
            self.replace_asked = false;
            self.start_at = None;
            let generation = self.next_generation;
            self.next_generation += 1;
            self.members.push(Member {
                generation,
                state: ProcessState::Starting,
                started: now,
                unanswered: 0,
                answered_once: false,
                deadline: replaces.then(|| now + REPLACEMENT_TIMEOUT),
                killed: None,
            });
            actions.push(Action::Start(generation));
        }
        actions
    }

    fn kill_late(&mut self, now: Instant) -> Vec<Action> {
        let manned = self.is_manned();
        let mut actions = Vec::new();
        for member in &mut self.members {
            if member.killed.is_some() || member.deadline.is_none_or(|deadline| now < deadline) {
                continue;
            }
            member.deadline = None;
            let reason = match member.state {
                ProcessState::Draining => "killed: not drained in time",
                _ if manned => "killed: not ready in time",
                // The one it was to replace died meanwhile: it is all we have.
                _ => continue,
            };
            member.killed = Some(reason.to_owned());
            actions.push(Action::Kill(member.generation, reason.to_owned()));
        }
        actions
    }

    fn is_start_due(&self, now: Instant) -> bool {
        let manned = self
            .members
            .iter()
            .any(|member| member.state != ProcessState::Draining);
        let blocked = self.exclusive && !self.members.is_empty();
        let due = self.start_at.is_none_or(|at| now >= at);
        self.wanted && !blocked && due && (!manned || self.replace_asked)
    }

    /// When the next [`Post::tick`] has something to do by time alone.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let deadlines = self.members.iter().filter(|member| member.killed.is_none());
        deadlines
            .filter_map(|member| member.deadline)
            .chain(self.start_at)
            .min()
    }

    /// A member says it serves: its elders may go.
    pub(super) fn ready(&mut self, generation: u64, now: Instant) -> Vec<Action> {
        self.answered(generation);
        let Some(member) = self.member(generation) else {
            return Vec::new();
        };
        if member.state != ProcessState::Starting {
            return Vec::new();
        }
        member.state = ProcessState::Ready;
        member.deadline = None;
        self.drain_older_than(generation, now)
    }

    fn drain_older_than(&mut self, generation: u64, now: Instant) -> Vec<Action> {
        let limit = self.drain_limit;
        let elders = self.members.iter_mut().filter(|member| {
            member.generation < generation && member.state != ProcessState::Draining
        });
        elders
            .map(|member| {
                let limit = match member.state {
                    ProcessState::Starting => limit.min(UNBORN_DRAIN_LIMIT),
                    _ => limit,
                };
                member.state = ProcessState::Draining;
                member.deadline = Some(now + limit);
                Action::Drain(member.generation)
            })
            .collect()
    }

    /// A ping goes to every member; those that owe too many answers are
    /// killed. A draining one is left to its deadline.
    pub(super) fn pinged(&mut self) -> Vec<Action> {
        let mut stalled = Vec::new();
        for member in &mut self.members {
            member.unanswered += 1;
            let limit = if member.answered_once {
                MAX_UNANSWERED
            } else {
                MAX_UNANSWERED_AT_BIRTH
            };
            let draining = member.state == ProcessState::Draining;
            if member.unanswered > limit && !draining && member.killed.is_none() {
                let reason = format!("killed: no answer for {limit}s");
                member.killed = Some(reason.clone());
                stalled.push(Action::Kill(member.generation, reason));
            }
        }
        stalled
    }

    /// A sign of life.
    pub(super) fn answered(&mut self, generation: u64) {
        if let Some(member) = self.member(generation) {
            member.unanswered = 0;
            member.answered_once = true;
        }
    }

    /// A member is dead (or could not be started).
    pub(super) fn died(&mut self, generation: u64, now: Instant) -> Option<Departure> {
        let index = self
            .members
            .iter()
            .position(|member| member.generation == generation)?;
        let member = self.members.remove(index);
        let lived = now.saturating_duration_since(member.started);
        let unwanted = member.state != ProcessState::Draining;
        let mut restart_in = None;
        if unwanted && self.wanted {
            self.restarts += 1;
            let delay = self.backoff.died(lived);
            let replaced = self
                .members
                .iter()
                .any(|left| left.state != ProcessState::Draining);
            if !replaced {
                self.start_at = Some(now + delay);
                restart_in = Some(delay);
            }
        }
        Some(Departure {
            unwanted,
            killed: member.killed,
            lived,
            restart_in,
        })
    }

    fn member(&mut self, generation: u64) -> Option<&mut Member> {
        self.members
            .iter_mut()
            .find(|member| member.generation == generation)
    }
}
