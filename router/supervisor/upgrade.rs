//! An upgrade to the binary on disk: what comes next, and what is undone when
//! it does not.
//!
//! Pure: events and the time come in, [`Act`]s go out; the kernel does them.
//!
//! | step | what happens | over when | time | undone on failure |
//! |---|---|---|---|---|
//! | rehearse | the new binary is asked whether it can be upgraded to, then run with our arguments and our state, to read it all and exit | it exited with 0 and said so | 10 s | nothing |
//! | warm | an edge of the new binary loads the table beside the one that serves | it is warm | 60 s | the new edge goes |
//! | control | the old control closes its store, one of the new binary opens it | it is ready | 75 s | the old binary's control comes back, the new edge goes |
//! | serve | the new edge serves; then the old one hands over | it is ready | 30 s | the same |
//! | succeed | the supervisor replaces itself by `execve` | it is gone | at once | edge and control are replaced by the old binary's |
//!
//! - **Invariant**: until the new edge is ready, the old one serves and was
//!   told nothing.
//! - **Invariant**: one attempt at a time; each ends as done or failed, and
//!   what it ended as stays to be read until the next begins.

use std::time::Duration;

use super::moment::Moment;
use crate::heritage::{UpgradeStage, UpgradeStatus};

const REHEARSE_LIMIT: Duration = Duration::from_secs(10);
const WARM_LIMIT: Duration = Duration::from_secs(60);
/// The old control may take ten seconds to close; the new one may have a
/// large store to open.
const CONTROL_LIMIT: Duration = Duration::from_secs(75);
const SERVE_LIMIT: Duration = Duration::from_secs(30);
/// The longest reason kept, in bytes: it ends in a line for people.
const MAX_REASON_BYTES: usize = 600;

/// What the kernel is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Ask the new binary whether it knows what a rehearsal is.
    Ask,
    /// Let it rehearse with our arguments and state.
    Rehearse,
    /// Whatever rehearses is no longer waited for.
    EndRehearsal,
    /// Start an edge of the new binary that does not serve yet.
    WarmEdge,
    /// The new edge is not wanted any more, even if it serves.
    DismissEdge,
    /// Replace control by one of the new binary.
    ReplaceControl,
    /// Control has to be of the old binary again.
    RestoreControl,
    /// Tell the new edge to serve, and when it is ready the old to hand over.
    ServeEdge,
    /// Replace this very process.
    Succeed,
}

/// What the kernel has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The process that was asked or rehearsed ended well, or not, and why.
    Rehearsed(Result<(), String>),
    /// The new edge holds its table.
    EdgeWarm,
    /// The new edge serves.
    EdgeReady,
    /// The new edge died.
    EdgeLost(String),
    /// The new control serves.
    ControlReady,
    /// The new control died.
    ControlLost(String),
    /// `execve` came back.
    Stayed(String),
    /// The new binary is not the file that rehearsed any more, or cannot be
    /// run as those it would have to run as.
    Unfit(String),
    /// The router shuts down.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Ask,
    Rehearse,
    Warm,
    Control,
    Serve,
    Succeed,
    /// Done or failed.
    Ended,
}

/// The last attempt, under way or over.
#[derive(Debug)]
pub(super) struct Upgrade {
    status: UpgradeStatus,
    step: Step,
    deadline: Moment,
}

impl Upgrade {
    /// Begins attempt number `attempt` at `began_at_ms`, Unix milliseconds.
    pub(super) fn begin(attempt: u64, began_at_ms: u64, now: Moment) -> (Upgrade, Vec<Act>) {
        let upgrade = Upgrade {
            status: UpgradeStatus {
                attempt,
                began_at_ms,
                stage: UpgradeStage::Running,
                text: Step::Ask.text().to_owned(),
            },
            step: Step::Ask,
            deadline: now + REHEARSE_LIMIT,
        };
        (upgrade, vec![Act::Ask])
    }

    /// An attempt that ended before it began.
    pub(super) fn refused(attempt: u64, began_at_ms: u64, why: &str, now: Moment) -> Upgrade {
        let (mut upgrade, _) = Upgrade::begin(attempt, began_at_ms, now);
        upgrade.end(UpgradeStage::Failed, why);
        upgrade
    }

    /// The attempt of the predecessor, which this process completes by
    /// running: `text` says what it is.
    pub(super) fn succeeded(mut status: UpgradeStatus, text: &str, now: Moment) -> Upgrade {
        if status.stage == UpgradeStage::Running {
            status.stage = UpgradeStage::Done;
            text.clone_into(&mut status.text);
        }
        Upgrade {
            status,
            step: Step::Ended,
            deadline: now,
        }
    }

    /// As the process table shows it.
    pub(super) fn status(&self) -> &UpgradeStatus {
        &self.status
    }

    pub(super) fn is_running(&self) -> bool {
        self.step != Step::Ended
    }

    /// When [`Upgrade::tick`] has something to do.
    pub(super) fn wake_at(&self) -> Option<Moment> {
        self.is_running().then_some(self.deadline)
    }

    /// Gives up what takes too long.
    pub(super) fn tick(&mut self, now: Moment) -> Vec<Act> {
        if !self.is_running() || now < self.deadline {
            return Vec::new();
        }
        let late = match self.step {
            Step::Ask | Step::Rehearse => "the new binary did not end its rehearsal",
            Step::Warm => "the new edge did not load its table",
            Step::Control => "the new control did not get ready",
            Step::Serve => "the new edge did not get ready",
            Step::Succeed | Step::Ended => "the supervisor did not replace itself",
        };
        self.fail(&format!("{late} in time"))
    }

    /// Goes on, or gives up. Events of steps that are over say nothing new.
    pub(super) fn on(&mut self, event: Event, now: Moment) -> Vec<Act> {
        match (self.step, event) {
            (Step::Ended, _) => Vec::new(),
            (_, Event::Stopped) => {
                // Nothing is put back: everybody goes.
                self.end(UpgradeStage::Failed, "the router shuts down");
                vec![Act::EndRehearsal]
            }
            (_, Event::Unfit(why)) => self.fail(&why),
            (Step::Ask | Step::Rehearse, Event::Rehearsed(Err(why))) => self.fail(&why),
            (Step::Ask, Event::Rehearsed(Ok(()))) => {
                // The time is for both.
                let left = self.deadline.since(now);
                self.go(Step::Rehearse, now, left, Act::Rehearse)
            }
            (Step::Rehearse, Event::Rehearsed(Ok(()))) => {
                self.go(Step::Warm, now, WARM_LIMIT, Act::WarmEdge)
            }
            // It serves already if nobody else was there to.
            (Step::Warm, Event::EdgeWarm | Event::EdgeReady) => {
                self.go(Step::Control, now, CONTROL_LIMIT, Act::ReplaceControl)
            }
            (Step::Control, Event::ControlReady) => {
                self.go(Step::Serve, now, SERVE_LIMIT, Act::ServeEdge)
            }
            (Step::Serve, Event::EdgeReady) => {
                self.go(Step::Succeed, now, SERVE_LIMIT, Act::Succeed)
            }
            (Step::Warm | Step::Control | Step::Serve, Event::EdgeLost(why)) => {
                self.fail(&format!("the new edge: {why}"))
            }
            (Step::Control, Event::ControlLost(why)) => {
                self.fail(&format!("the new control: {why}"))
            }
            (Step::Succeed, Event::Stayed(why)) => {
                self.fail(&format!("the supervisor could not replace itself: {why}"))
            }
            _ => Vec::new(),
        }
    }

    fn go(&mut self, step: Step, now: Moment, limit: Duration, act: Act) -> Vec<Act> {
        self.step = step;
        self.deadline = now + limit;
        step.text().clone_into(&mut self.status.text);
        vec![act]
    }

    /// Undoes what was done up to here.
    fn fail(&mut self, why: &str) -> Vec<Act> {
        let undone = match self.step {
            Step::Ask | Step::Rehearse => vec![Act::EndRehearsal],
            Step::Warm => vec![Act::DismissEdge],
            Step::Control | Step::Serve | Step::Succeed => {
                vec![Act::DismissEdge, Act::RestoreControl]
            }
            Step::Ended => Vec::new(),
        };
        self.end(UpgradeStage::Failed, why);
        undone
    }

    fn end(&mut self, stage: UpgradeStage, text: &str) {
        self.step = Step::Ended;
        self.status.stage = stage;
        let mut end = text.len().min(MAX_REASON_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text[..end].clone_into(&mut self.status.text);
    }
}

impl Step {
    /// What it does, for people.
    fn text(self) -> &'static str {
        match self {
            Step::Ask | Step::Rehearse => "the new binary rehearses",
            Step::Warm => "an edge of the new binary loads the table",
            Step::Control => "control is replaced by the new binary's",
            Step::Serve => "the new edge takes over",
            Step::Succeed => "the supervisor replaces itself",
            Step::Ended => "over",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(3600);

    /// Events that lead up to a step, each with what it asks for.
    fn way() -> Vec<(Event, Act)> {
        vec![
            (Event::Rehearsed(Ok(())), Act::Rehearse),
            (Event::Rehearsed(Ok(())), Act::WarmEdge),
            (Event::EdgeWarm, Act::ReplaceControl),
            (Event::ControlReady, Act::ServeEdge),
            (Event::EdgeReady, Act::Succeed),
        ]
    }

    fn at(steps: usize, now: Moment) -> Upgrade {
        let (mut upgrade, first) = Upgrade::begin(3, 1_000, now);
        assert_eq!(first, [Act::Ask]);
        for (event, act) in way().into_iter().take(steps) {
            assert_eq!(upgrade.on(event, now), [act]);
        }
        upgrade
    }

    #[test]
    fn goes_step_by_step_and_ends_in_the_successor() {
        let now = Moment::now();
        let before = at(5, now);
        assert_eq!(before.status().stage, UpgradeStage::Running);
        let after = Upgrade::succeeded(before.status().clone(), "portico 2", now);
        assert_eq!(after.status().stage, UpgradeStage::Done);
        assert_eq!(after.status().attempt, 3);
        assert_eq!(after.status().text, "portico 2");
        assert!(!after.is_running() && after.wake_at().is_none());
    }

    #[test]
    fn each_step_undoes_what_came_before_it_when_time_is_up() {
        let now = Moment::now();
        let undone: [&[Act]; 6] = [
            &[Act::EndRehearsal],
            &[Act::EndRehearsal],
            &[Act::DismissEdge],
            &[Act::DismissEdge, Act::RestoreControl],
            &[Act::DismissEdge, Act::RestoreControl],
            &[Act::DismissEdge, Act::RestoreControl],
        ];
        for (steps, undone) in undone.into_iter().enumerate() {
            let mut upgrade = at(steps, now);
            let due = upgrade.wake_at().unwrap();
            assert_eq!(upgrade.tick(now), []);
            assert_eq!(upgrade.tick(due), undone, "after {steps} steps");
            assert_eq!(upgrade.status().stage, UpgradeStage::Failed);
            assert!(upgrade.status().text.ends_with("in time"));
            assert_eq!(upgrade.tick(due + LATER), [], "undone once");
            assert_eq!(upgrade.on(Event::EdgeLost("late".into()), due), []);
        }
    }

    #[test]
    fn asking_and_rehearsing_share_their_time() {
        let now = Moment::now();
        let (mut upgrade, _) = Upgrade::begin(1, 0, now);
        let due = upgrade.wake_at().unwrap();
        upgrade.on(Event::Rehearsed(Ok(())), now + Duration::from_secs(9));
        assert_eq!(upgrade.wake_at().unwrap(), due);
    }

    #[test]
    fn what_dies_on_the_way_ends_it_with_its_reason() {
        let now = Moment::now();
        let cases = [
            (1, Event::Rehearsed(Err("no Portico".into())), "no Portico"),
            (
                2,
                Event::EdgeLost("exited with 7".into()),
                "new edge: exited with 7",
            ),
            (
                3,
                Event::EdgeLost("exited with 7".into()),
                "new edge: exited with 7",
            ),
            (
                3,
                Event::ControlLost("exited with 1".into()),
                "new control: exited with 1",
            ),
            (
                4,
                Event::EdgeLost("ended by signal 11".into()),
                "ended by signal 11",
            ),
            (5, Event::Stayed("not executable".into()), "not executable"),
            (3, Event::Unfit("the file changed".into()), "changed"),
        ];
        for (steps, event, reason) in cases {
            let mut upgrade = at(steps, now);
            assert!(!upgrade.on(event, now).is_empty());
            assert_eq!(upgrade.status().stage, UpgradeStage::Failed);
            assert!(
                upgrade.status().text.contains(reason),
                "{:?}",
                upgrade.status()
            );
        }
    }

    #[test]
    fn a_shutdown_puts_nothing_back() {
        let now = Moment::now();
        for steps in 0..=5 {
            let mut upgrade = at(steps, now);
            assert_eq!(upgrade.on(Event::Stopped, now), [Act::EndRehearsal]);
            assert_eq!(upgrade.status().stage, UpgradeStage::Failed);
        }
    }

    #[test]
    fn news_of_another_step_changes_nothing() {
        let now = Moment::now();
        let mut upgrade = at(2, now);
        for event in [
            Event::Rehearsed(Err("late".into())),
            Event::ControlReady,
            Event::ControlLost("the old one, told to go".into()),
            Event::Stayed("never left".into()),
        ] {
            assert_eq!(upgrade.on(event, now), []);
            assert!(upgrade.is_running());
        }
    }

    #[test]
    fn a_long_reason_is_cut() {
        let upgrade = Upgrade::refused(1, 0, &"é".repeat(1_000), Moment::now());
        assert!(upgrade.status().text.len() <= MAX_REASON_BYTES);
        assert_eq!(upgrade.status().stage, UpgradeStage::Failed);
    }
}
