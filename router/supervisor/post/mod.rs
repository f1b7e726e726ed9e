//! Posts: two roles that must always be manned. A post decides when a member
//! is started, told to serve, to hand over or to drain, and when it is killed.
//!
//! Pure: events and the time come in, and [`Post::tick`] says what is to be
//! done about how things stand; the kernel does it. Members are named by
//! generation, which only grows. Nothing here knows what a process is.
//!
//! ```text
//!            Start          (it says Warm)        Serve          (it says Ready)
//!   nobody ────────▶ loading ────────────▶ warm ────────▶ called ──────────────▶ serving
//!                       │ Drain              │ Drain                     HandOver │
//!                       ▼                    ▼                      (or Drain)    ▼
//!                    draining ◀──────────────┴──────────────────────────── handing over
//! ```
//!
//! - `edge`: one serves, one stands by, others follow or finish;
//! - `control`: never there twice;
//! - `roster`: the members of either, and their signs of life.

mod control;
#[cfg(test)]
mod control_tests;
mod edge;
#[cfg(test)]
mod edge_properties;
#[cfg(test)]
mod edge_tests;
mod roster;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::moment::Moment;
use super::vintage::Vintage;
use crate::heritage::ProcessState;
pub(super) use control::ControlPost;
pub(super) use edge::{EdgePost, Request};

/// What the kernel is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Start a child of this generation, of this vintage.
    Start(u64, Vintage),
    /// Tell it to serve.
    Serve(u64),
    /// Tell it that a successor serves.
    HandOver(u64),
    /// Tell it to drain.
    Drain(u64),
    /// Kill it; the reason goes into its obituary.
    Kill(u64, String),
}

/// How long a member may take to leave before it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limits {
    /// Once told to drain.
    pub drain: Duration,
    /// Once told to hand over.
    pub hand_over: Duration,
}

/// How a process ended, as the system tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// In a few words.
    pub reason: String,
    /// It crashed: nobody outside ended it.
    pub is_own_fault: bool,
}

/// What a dead member was there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// It served, or would have been the next to serve; for so long.
    Serving(Duration),
    /// Another served; it stood by, or was to follow.
    Waiting,
    /// It was told to go.
    Leaving,
}

/// Who does the work of a dead member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relief {
    /// Another serves already.
    Serves,
    /// One is warm, and is told to serve at once.
    TakesOver,
    /// One still loads.
    Loads,
    /// One is started after this time.
    Starts(Duration),
    /// Nobody: the post is given up.
    Nobody,
}

/// How a member left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Departure {
    /// What it was started from.
    pub vintage: Vintage,
    /// What it was there for.
    pub duty: Duty,
    /// Why it ended: the supervisor's reason if it was killed.
    pub reason: String,
    /// It crashed or stalled.
    pub is_own_fault: bool,
    /// How long it lived.
    pub lived: Duration,
    /// Who follows.
    pub relief: Relief,
}

impl Departure {
    /// It was not told to go.
    pub(super) fn is_unwanted(&self) -> bool {
        self.duty != Duty::Leaving
    }
}

/// How far a replacement came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is no room for it yet, or another goes first.
    Asked,
    /// It loads, or was told to serve and does not yet.
    Starting,
    /// It could serve, and waits to be let.
    Warm,
    /// It serves.
    Serving,
    /// It came to nothing, for this reason.
    Failed(String),
}

/// What the kernel's loop asks of either post.
pub(super) trait Post {
    /// What is due, given how things stand. Call after every event and when
    /// [`Post::wake_at`] passes.
    fn tick(&mut self, now: Moment) -> Vec<Action>;

    /// When the next [`Post::tick`] has something to do by time alone.
    fn wake_at(&self) -> Option<Moment>;

    /// The post is given up: everybody goes, nobody follows.
    fn retire(&mut self);

    /// A ping went to every member.
    fn pinged(&mut self);

    /// A member gave a sign of life.
    fn answered(&mut self, generation: u64);

    /// A member holds its table.
    fn warm(&mut self, generation: u64, now: Moment);

    /// A member serves.
    fn ready(&mut self, generation: u64, now: Moment);

    /// A member is dead, or could not be started.
    fn died(&mut self, generation: u64, ending: &Ending, now: Moment) -> Option<Departure>;

    /// Where a member is in its life, as operators are told.
    fn state_of(&self, generation: u64) -> Option<ProcessState>;

    /// Whether somebody serves.
    fn is_manned(&self) -> bool;

    /// Whether nobody is left.
    fn is_empty(&self) -> bool;

    /// Unwanted deaths so far.
    fn restarts(&self) -> u64;

    /// Those that somebody is, or may yet be, started from.
    fn vintages(&self) -> Vec<Vintage>;

    /// How far the replacement of this vintage came.
    fn progress(&self, vintage: Vintage) -> Progress;
}
