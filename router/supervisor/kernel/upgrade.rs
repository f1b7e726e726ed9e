//! Upgrades and the succession: the kernel's side of `upgrade`. Starts
//! rehearsals, asks the posts for members of the new binary, looks how far
//! they came, and in the end replaces this very process. Decides nothing.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::process::{Pid, WaitStatus};

use super::Kernel;
use crate::heritage::{UpgradeStage, UpgradeStatus};
use crate::supervisor::child::{Lent, Program, unix_ms};
use crate::supervisor::moment::Moment;
use crate::supervisor::origin::{Identity, Origin};
use crate::supervisor::post::Progress;
use crate::supervisor::rehearsal::{self, Rehearsal};
use crate::supervisor::signals::Signal;
use crate::supervisor::succession;
use crate::supervisor::upgrade::{Act, Event, Upgrade};
use crate::supervisor::vintage::Vintage;
use crate::supervisor::voice::say;

/// What the kernel has of upgrades.
#[derive(Debug)]
pub(super) struct Renewal {
    /// Where the next binary is found, or why this router is not upgraded.
    origin: Result<Origin, String>,
    /// The last attempt.
    last: Option<Upgrade>,
    /// The process that rehearses, or that has not died of it yet.
    rehearsal: Option<Rehearsal>,
    target: Option<Target>,
    /// SIGHUP came in the middle.
    owes_reload: bool,
}

/// What the running attempt upgrades to.
#[derive(Debug)]
struct Target {
    identity: Identity,
    edge: Option<Vintage>,
    control: Option<Vintage>,
}

impl Renewal {
    pub(super) fn new(origin: Result<Origin, String>, last: Option<Upgrade>) -> Renewal {
        Renewal {
            origin,
            last,
            rehearsal: None,
            target: None,
            owes_reload: false,
        }
    }

    /// As the process table shows it.
    pub(super) fn status(&self) -> Option<&UpgradeStatus> {
        self.last.as_ref().map(Upgrade::status)
    }

    pub(super) fn is_running(&self) -> bool {
        self.last.as_ref().is_some_and(Upgrade::is_running)
    }

    pub(super) fn wake_at(&self) -> Option<Moment> {
        self.last.as_ref().and_then(Upgrade::wake_at)
    }

    /// Where a rehearsal may say something.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rehearsal.iter().flat_map(Rehearsal::watched)
    }

    /// The process that rehearses, to be waited for.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.rehearsal.as_ref().map(|rehearsal| rehearsal.pid)
    }

    pub(super) fn listen(&mut self) {
        if let Some(rehearsal) = &mut self.rehearsal {
            rehearsal.listen();
        }
    }

    /// The vintages of the new binary.
    pub(super) fn vintages(&self) -> Vec<Vintage> {
        let target = self.target.as_ref();
        let both = target.map(|target| [target.edge, target.control]);
        both.into_iter().flatten().flatten().collect()
    }
}

impl Kernel {
    /// SIGUSR2, or an operator's wish that control passed on.
    pub(super) fn ask_upgrade(&mut self) {
        if self.renewal.is_running() {
            return say("an upgrade is under way: another is not begun");
        }
        let attempt = self.renewal.status().map_or(0, |last| last.attempt) + 1;
        let (began_at_ms, now) = (unix_ms(), Moment::now());
        self.table_stale = true;
        let obstacle = match &self.renewal.origin {
            Err(why) => why.clone(),
            Ok(_) if self.renewal.rehearsal.is_some() => {
                "the last rehearsal has not ended yet".to_owned()
            }
            Ok(_) => {
                say(&format!("upgrade {attempt} begins"));
                let (upgrade, acts) = Upgrade::begin(attempt, began_at_ms, now);
                let text = format!("upgrading: {}", upgrade.status().text);
                self.service.reloading(&text);
                self.renewal.last = Some(upgrade);
                return self.perform_all(acts, now);
            }
        };
        say(&format!("upgrade {attempt} failed: {obstacle}"));
        self.renewal.last = Some(Upgrade::refused(attempt, began_at_ms, &obstacle, now));
    }

    /// Whether SIGHUP has to wait; it is remembered.
    pub(super) fn defers_reload(&mut self) -> bool {
        if self.renewal.is_running() {
            say("SIGHUP: an upgrade is under way: settings are read after it");
            self.renewal.owes_reload = true;
        }
        self.renewal.is_running()
    }

    /// The router shuts down.
    pub(super) fn stop_upgrade(&mut self) {
        self.renewal.owes_reload = false;
        self.tell_upgrade(Event::Stopped, Moment::now());
    }

    /// Looks how far the new members came, and what is overdue.
    pub(super) fn follow_upgrade(&mut self, now: Moment) {
        if !self.renewal.is_running() {
            if std::mem::take(&mut self.renewal.owes_reload) {
                self.reload();
            }
            return;
        }
        let target = self.renewal.target.as_ref();
        let (edge, control) = target.map_or((None, None), |target| (target.edge, target.control));
        if let Some(edge) = edge {
            match self.edge_progress(edge) {
                Progress::Asked | Progress::Starting => {}
                Progress::Warm => self.tell_upgrade(Event::EdgeWarm, now),
                Progress::Serving => self.tell_upgrade(Event::EdgeReady, now),
                Progress::Failed(why) => self.tell_upgrade(Event::EdgeLost(why), now),
            }
        }
        if let Some(control) = control {
            match self.control_progress(control) {
                Progress::Asked | Progress::Starting | Progress::Warm => {}
                Progress::Serving => self.tell_upgrade(Event::ControlReady, now),
                Progress::Failed(why) => self.tell_upgrade(Event::ControlLost(why), now),
            }
        }
        let late = self.renewal.last.as_mut().map(|last| last.tick(now));
        self.perform_all(late.unwrap_or_default(), now);
    }

    /// The process that rehearsed has ended.
    pub(super) fn on_rehearsal_end(&mut self, status: WaitStatus) {
        if let Some(rehearsal) = self.renewal.rehearsal.take() {
            let outcome = rehearsal.judge(status);
            self.tell_upgrade(Event::Rehearsed(outcome), Moment::now());
        }
    }

    fn tell_upgrade(&mut self, event: Event, now: Moment) {
        let acts = self.renewal.last.as_mut().map(|last| last.on(event, now));
        self.perform_all(acts.unwrap_or_default(), now);
    }

    /// Does what comes next; what fails at once is told, and undone.
    fn perform_all(&mut self, acts: Vec<Act>, now: Moment) {
        if acts.is_empty() {
            return;
        }
        self.table_stale = true;
        if let Some(status) = self.renewal.status().cloned() {
            match status.stage {
                UpgradeStage::Running => {
                    self.service.status(&format!("upgrading: {}", status.text));
                }
                UpgradeStage::Done | UpgradeStage::Failed => {
                    say(&format!(
                        "upgrade {} failed: {}",
                        status.attempt, status.text
                    ));
                }
            }
        }
        for act in acts {
            if let Err(event) = self.perform(act) {
                self.tell_upgrade(event, now);
            }
        }
    }

    fn perform(&mut self, act: Act) -> Result<(), Event> {
        match act {
            Act::Ask => {
                let origin = self.origin()?;
                let identity = Identity::of(&origin.binary);
                let unstartable = |error: io::Error| {
                    Event::Rehearsed(Err(rehearsal::unstartable(&origin.binary, &error)))
                };
                let identity = identity.map_err(unstartable)?;
                let asked = Rehearsal::ask(&origin.binary).map_err(unstartable)?;
                self.renewal.rehearsal = Some(asked);
                self.renewal.target = Some(Target {
                    identity,
                    edge: None,
                    control: None,
                });
            }
            Act::Rehearse => {
                let origin = self.unchanged()?;
                let memory = succession::write(&self.state(&origin));
                let started = memory
                    .and_then(|memory| Rehearsal::run(&origin.binary, &origin.arguments, &memory));
                let rehearsal = started.map_err(|error| {
                    Event::Rehearsed(Err(rehearsal::unstartable(&origin.binary, &error)))
                })?;
                self.renewal.rehearsal = Some(rehearsal);
            }
            Act::EndRehearsal => {
                if let Some(rehearsal) = &self.renewal.rehearsal {
                    rehearsal.stop();
                }
            }
            Act::WarmEdge => {
                let program = Program::at(&self.unchanged()?.binary);
                let fits = self.rights.rehearse(&program);
                fits.map_err(|error| Event::Unfit(error.to_string()))?;
                let vintage = self.begin_edge(program);
                self.set_target(|target| target.edge = Some(vintage));
            }
            Act::ReplaceControl => {
                let program = Program::at(&self.unchanged()?.binary);
                let vintage = self.begin_control(program);
                self.set_target(|target| target.control = Some(vintage));
            }
            Act::ServeEdge => {
                self.unchanged()?;
                if let Some(edge) = self.renewal.target.as_ref().and_then(|target| target.edge) {
                    self.let_edge_serve(edge);
                }
            }
            Act::DismissEdge => {
                if let Some(edge) = self.renewal.target.as_ref().and_then(|target| target.edge) {
                    self.dismiss_edge(edge);
                }
            }
            Act::RestoreControl => {
                self.begin_control(self.program.clone());
            }
            Act::Succeed => {
                self.unchanged()?;
                let Err(error) = self.succeed();
                return Err(Event::Stayed(error.to_string()));
            }
        }
        Ok(())
    }

    /// One that serves, or is just being told to, is followed by one of the
    /// old binary; any other only goes.
    fn dismiss_edge(&mut self, edge: Vintage) {
        self.abandon_edge(edge);
        // It may have served and died since: then it is what would be started
        // in its place.
        let would_follow = self.edge.present() == edge || self.edge.latest() == edge;
        if would_follow || !matches!(self.edge_progress(edge), Progress::Failed(_)) {
            let old = self.begin_edge(self.program.clone());
            self.let_edge_serve(old);
        }
    }

    fn set_target(&mut self, set: impl FnOnce(&mut Target)) {
        if let Some(target) = &mut self.renewal.target {
            set(target);
        }
    }

    fn origin(&self) -> Result<Origin, Event> {
        self.renewal.origin.clone().map_err(Event::Unfit)
    }

    /// The new binary, as long as it is the file that the attempt began with.
    fn unchanged(&self) -> Result<Origin, Event> {
        let origin = self.origin()?;
        let began = self.renewal.target.as_ref().map(|target| target.identity);
        match Identity::of(&origin.binary) {
            Ok(identity) if Some(identity) == began => Ok(origin),
            Ok(_) => Err(Event::Unfit(format!(
                "{} changed while it was upgraded to",
                origin.binary.display()
            ))),
            Err(error) => Err(Event::Unfit(rehearsal::unstartable(&origin.binary, &error))),
        }
    }

    /// Becomes the new binary. Comes back only if that failed, and then
    /// nothing has happened.
    fn succeed(&mut self) -> io::Result<Infallible> {
        let origin = self.renewal.origin.clone().map_err(io::Error::other)?;
        let held = self.signals.hold()?;
        if self.renewal.owes_reload {
            held.keep(Signal::Reload)?;
        }
        let memory = succession::write(&self.state(&origin))?;
        let passed = self.descriptors().into_iter().chain([memory.as_fd()]);
        let lent = Lent::until_dropped(passed)?;
        let stayed = succession::replace(&origin.binary, &origin.arguments, &memory);
        // The reload that was kept is found as soon as the hold ends.
        drop(lent);
        self.renewal.owes_reload = false;
        stayed
    }
}
