//! The kernel's loop: waits for signals, lifelines, standard errors and
//! deadlines, asks the posts what to do, and does it.
//!
//! - this file: the loop, the phases of the router's life, the orders given;
//! - `wait`: what is waited for and heard;
//! - `change`: new settings, and replacements;
//! - `footing`: the edge's standby and footing;
//! - `upgrade`: another binary, this process included; `state`: what passes;
//! - `table`: the dead, and what control is told.

mod change;
mod footing;
mod state;
mod table;
mod upgrade;
mod wait;

use std::process::ExitCode;
use std::time::Duration;

use super::child::{Child, Inheritance, Program, unix_ms};
use super::crash_loop::CrashLoop;
use super::moment::Moment;
use super::origin::Origin;
use super::post::{Action, ControlPost, EdgePost, Ending, Limits, Post, Progress};
use super::rights::Rights;
use super::service::Service;
use super::signals::{Signal, Signals};
use super::sockets::Sockets;
use super::standby::Verdict;
use super::state_dir::StateDir;
use super::vintage::{Cellar, Recipe};
use super::voice::say;
use super::{Reread, StartError, descriptors, log_file};
use crate::heritage::{Footing, Order, Parcel, Role};
use crate::settings::Settings;
pub(super) use state::State;
use table::Graveyard;
use upgrade::Renewal;

/// Between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// What an edge may take beyond `edge.drain_timeout` or
/// `edge.handover_timeout` before it is killed: it cuts the requests left by
/// itself first.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// What control and the last words may take beyond that.
const STOP_GRACE: Duration = Duration::from_secs(15);

/// Where the router is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not every post was manned yet.
    Starting,
    /// Serving.
    Running,
    /// The edge finishes what is in flight; control still answers.
    DrainingEdge,
    /// Only control is left.
    DrainingControl,
    /// A second signal: everybody was killed.
    Forced,
}

/// A running supervisor.
pub struct Kernel {
    settings: Settings,
    /// What is started from now on.
    program: Program,
    reread: Reread,
    state_dir: StateDir,
    /// Whom the children run as.
    rights: Rights,
    /// The access log, if it is a file.
    log: Option<Parcel>,
    sockets: Sockets,
    signals: Signals,
    phase: Phase,
    cellar: Cellar,
    control: ControlPost,
    edge: EdgePost,
    crash_loop: CrashLoop,
    children: Vec<Child>,
    graveyard: Graveyard,
    started_at_ms: u64,
    next_ping: Moment,
    pings: u64,
    /// When memory is looked at again for a standby's sake.
    next_look: Moment,
    /// What came of the last look.
    standby: Option<Verdict>,
    /// The process table changed since control was last told.
    table_stale: bool,
    is_init: bool,
    renewal: Renewal,
    service: Service,
}

impl Kernel {
    /// Takes the signals, locks the state folder, binds every socket.
    ///
    /// # Errors
    /// What makes a start pointless: a locked folder, an address in use.
    pub fn start(
        settings: Settings,
        program: Program,
        reread: Reread,
    ) -> Result<Kernel, StartError> {
        let system = |what| move |source| StartError::System { what, source };
        descriptors::raise_limit();
        let signals = Signals::take().map_err(system("handle signals"))?;
        let rights = Rights::resolve(&settings, &program)?;
        let state_dir = StateDir::open(&settings.state_dir)?;
        let log = log_file::open(&settings.log)?;
        let sockets = Sockets::bind(&settings, state_dir.unclean)?;
        state_dir.entrust(&rights, Role::Control)?;
        // For scripts only: a full disk is no reason not to serve.
        if let Err(error) = state_dir.write_addresses(&sockets.addresses()) {
            say(&error.to_string());
        }
        let mut cellar = Cellar::default();
        let first = cellar.lay(Recipe {
            program: program.clone(),
            settings: settings.clone(),
            footing: Footing::Newest,
        });
        let now = Moment::now();
        Ok(Kernel {
            cellar,
            control: ControlPost::new(first),
            edge: EdgePost::new(first, limits(&settings)),
            crash_loop: CrashLoop::default(),
            settings,
            program,
            reread,
            state_dir,
            rights,
            log,
            sockets,
            signals,
            phase: Phase::Starting,
            children: Vec::new(),
            graveyard: Graveyard::default(),
            started_at_ms: unix_ms(),
            next_ping: now + PING_INTERVAL,
            pings: 0,
            next_look: now,
            standby: None,
            table_stale: true,
            is_init: std::process::id() == 1,
            renewal: Renewal::new(Err("it was not started to be upgraded".to_owned()), None),
            service: Service::from_environment(now),
        })
    }

    /// Where the binary of its upgrades is found, or why it is not upgraded.
    #[must_use]
    pub fn from_origin(mut self, origin: Result<Origin, String>) -> Kernel {
        self.renewal = Renewal::new(origin, None);
        self
    }

    /// Until a signal ends it.
    pub fn run(mut self) -> ExitCode {
        loop {
            self.advance(Moment::now());
            if self.is_over() {
                break;
            }
            self.wait();
            self.hear_children();
            for signal in self.signals.pending() {
                self.on_signal(signal);
            }
            self.reap();
        }
        self.state_dir.close(&self.settings.feed_path());
        if self.phase == Phase::Forced {
            say("forced: exiting without waiting for requests in flight");
            return ExitCode::FAILURE;
        }
        say("drained, exiting");
        ExitCode::SUCCESS
    }

    fn is_over(&self) -> bool {
        let emptied = self.control.is_empty() && self.edge.is_empty();
        emptied && matches!(self.phase, Phase::DrainingControl | Phase::Forced)
    }

    /// Everything that is due by time or by what was heard. The edge goes
    /// first: a takeover waits for nothing else.
    fn advance(&mut self, now: Moment) {
        self.follow_footing(now);
        self.attend(Role::Edge, now);
        self.follow_upgrade(now);
        self.ping_if_due(now);
        self.look_at_memory(now);
        self.attend(Role::Edge, now);
        self.attend(Role::Control, now);
        match self.phase {
            Phase::Starting if self.control.is_manned() && self.edge.is_manned() => {
                self.phase = Phase::Running;
                self.announce();
            }
            Phase::DrainingEdge if self.edge.is_empty() => {
                self.phase = Phase::DrainingControl;
                self.control.retire();
                self.attend(Role::Control, now);
            }
            _ => {}
        }
        self.tell_service(now);
        if self.table_stale {
            if let Some(generation) = self.edge.newest_on_duty() {
                self.sockets.close_but_to(generation);
            }
            self.table_stale = !self.tell_control();
            self.cellar
                .keep(&[self.control.vintages(), self.edge.vintages()].concat());
        }
    }

    fn ping_if_due(&mut self, now: Moment) {
        if now < self.next_ping {
            return;
        }
        // After a long stop one ping is due, not one per second missed.
        self.next_ping = now + PING_INTERVAL;
        self.pings += 1;
        for child in &self.children {
            // A full lifeline shows in the answers that stay out.
            child.tether.ping(self.pings);
        }
        self.control.pinged();
        self.edge.pinged();
    }

    fn post(&mut self, role: Role) -> &mut dyn Post {
        match role {
            Role::Edge => &mut self.edge,
            Role::Control | Role::Supervisor => &mut self.control,
        }
    }

    /// Does what a post finds due.
    fn attend(&mut self, role: Role, now: Moment) {
        for action in self.post(role).tick(now) {
            self.table_stale = true;
            match action {
                Action::Start(generation, vintage) => {
                    let recipe = self.cellar.recipe(vintage).clone();
                    self.start_child((role, generation), &recipe, now);
                }
                Action::Serve(generation) => self.order((role, generation), Order::Serve),
                Action::HandOver(generation) => self.order((role, generation), Order::HandOver),
                Action::Drain(generation) => self.order((role, generation), Order::Drain),
                Action::Kill(generation, reason) => {
                    if let Some(child) = self.child((role, generation)) {
                        say(&format!("{} {} {reason}", role.name(), child.pid_number()));
                        child.kill();
                    }
                }
            }
        }
    }

    fn start_child(&mut self, name: (Role, u64), recipe: &Recipe, now: Moment) {
        let (role, generation) = name;
        if let Err(error) = self.state_dir.entrust(&self.rights, role) {
            // It was right at the start; the child says what it misses.
            say(&error.to_string());
        }
        let log = self.log_for(&recipe.settings);
        let (bequest, descriptors) = match role {
            Role::Edge => {
                let threads = recipe.settings.edge.threads;
                let is_awaited = self.edge.serving().is_none();
                self.sockets.lend(generation);
                self.sockets
                    .for_edge(threads, (recipe.footing, is_awaited), log.as_ref())
            }
            Role::Control | Role::Supervisor => self.sockets.for_control(),
        };
        let inheritance = Inheritance {
            bequest,
            descriptors,
            state_dir: self.state_dir.folder(),
            identity: self.rights.identity(role),
        };
        match Child::start(&recipe.program, name, &recipe.settings, inheritance) {
            Ok(child) => self.children.push(child),
            Err(error) => {
                say(&format!("cannot start {}: {error}", role.name()));
                // Out of memory or descriptors, say: that may pass.
                let ending = Ending {
                    reason: format!("cannot be started: {error}"),
                    is_own_fault: false,
                };
                self.post(role).died(generation, &ending, now);
            }
        }
    }

    /// The access log of these settings. Those of an edge that is started in
    /// place of an older one may name another than the present ones do.
    fn log_for(&self, settings: &Settings) -> Option<Parcel> {
        if settings.log.access == self.settings.log.access {
            return self.log.clone();
        }
        let opened = log_file::open(&settings.log);
        opened.unwrap_or_else(|error| {
            say(&error.to_string());
            None
        })
    }

    fn order(&self, name: (Role, u64), order: Order) {
        if let Some(child) = self.child(name) {
            // One that does not read its lifeline owes answers as well.
            child.tether.order(order);
        }
    }

    fn child(&self, (role, generation): (Role, u64)) -> Option<&Child> {
        self.children
            .iter()
            .find(|child| child.role == role && child.generation == generation)
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Stop if matches!(self.phase, Phase::Starting | Phase::Running) => self.drain(),
            Signal::Stop => {
                self.phase = Phase::Forced;
                self.control.retire();
                self.edge.retire();
                for child in &self.children {
                    child.kill();
                }
            }
            Signal::Reload if matches!(self.phase, Phase::Starting | Phase::Running) => {
                if !self.defers_reload() {
                    self.service.reloading("reading settings");
                    self.reload();
                }
            }
            Signal::Reload => say("draining: settings are not read again"),
            Signal::Upgrade if matches!(self.phase, Phase::Starting | Phase::Running) => {
                self.ask_upgrade();
            }
            Signal::Upgrade => say("draining: no upgrade is begun"),
            Signal::ChildDied => {}
        }
    }

    fn drain(&mut self) {
        say("draining: no new connections, requests in flight finish");
        self.service
            .stopping(limits(&self.settings).drain + STOP_GRACE);
        self.phase = Phase::DrainingEdge;
        self.sockets.close_edge();
        self.stop_upgrade();
        self.edge.retire();
    }

    /// The one line a person who started the router waits for.
    fn announce(&mut self) {
        say(&format!(
            "ready: {}; operator token in {}",
            self.listening(),
            self.settings.token_path().display(),
        ));
        self.service
            .ready(&format!("serving: {}", self.listening()));
    }

    /// Every address, for people.
    fn listening(&self) -> String {
        let addresses = self.sockets.addresses();
        let http = addresses["http"].as_array().map(|list| {
            let texts: Vec<&str> = list.iter().filter_map(|one| one.as_str()).collect();
            texts.join(", ")
        });
        format!(
            "http {}; api {}; admin {}",
            http.unwrap_or_default(),
            addresses["api"].as_str().unwrap_or_default(),
            addresses["admin"].as_str().unwrap_or_default(),
        )
    }

    /// The service manager learns that a reload is over, and that we live.
    fn tell_service(&mut self, now: Moment) {
        self.service.beat(now);
        if self.service.is_reloading() && self.is_settled() {
            self.service
                .ready(&format!("serving: {}", self.listening()));
        }
    }

    /// Nothing is being replaced.
    fn is_settled(&self) -> bool {
        let control = self.control.progress(self.control.latest());
        let is_settled = self.edge.is_manned() && !self.edge.is_replacing();
        is_settled && control == Progress::Serving && !self.renewal.is_running()
    }
}

/// How long an edge with these settings may take to leave.
fn limits(settings: &Settings) -> Limits {
    Limits {
        drain: settings.edge.drain_timeout + DRAIN_GRACE,
        hand_over: settings.edge.handover_timeout + DRAIN_GRACE,
    }
}
