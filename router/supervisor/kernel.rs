//! The kernel's loop: waits for signals, lifelines, standard errors and
//! deadlines, asks the posts what to do, and does it.

mod change;

use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, WaitOptions, WaitStatus};

use super::child::{Child, Inheritance, Program, unix_ms};
use super::post::{Action, Departure, Post};
use super::rights::Rights;
use super::signals::{Signal, Signals};
use super::sockets::Sockets;
use super::state_dir::StateDir;
use super::voice::{notify, say};
use super::{Reread, StartError, descriptors, log_file};
use crate::heritage::{
    self, Heard, Obituary, Order, Parcel, ProcessState, ProcessStatus, Report, Role,
};
use crate::settings::Settings;

/// Between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// What an edge may take beyond `edge.drain_timeout` before it is killed: it
/// cuts the requests left by itself first.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// What control may take to finish its answers and close its store.
const CONTROL_DRAIN_LIMIT: Duration = Duration::from_secs(10);

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
    posts: [Post; 2],
    children: Vec<Child>,
    /// The last end of each role, by the order of `posts`.
    obituaries: [Option<Obituary>; 2],
    started_at_ms: u64,
    next_ping: Instant,
    pings: u64,
    /// The process table changed since control was last told.
    table_stale: bool,
    is_init: bool,
}

const CONTROL: usize = 0;
const EDGE: usize = 1;

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
        let now = Instant::now();
        Ok(Kernel {
            posts: [
                Post::new(Role::Control, CONTROL_DRAIN_LIMIT),
                Post::new(Role::Edge, settings.edge.drain_timeout + DRAIN_GRACE),
            ],
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
            obituaries: [None, None],
            started_at_ms: unix_ms(),
            next_ping: now + PING_INTERVAL,
            pings: 0,
            table_stale: true,
            is_init: std::process::id() == 1,
        })
    }

    /// Until a signal ends it.
    pub fn run(mut self) -> ExitCode {
        loop {
            self.advance(Instant::now());
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
        let emptied = self.posts.iter().all(Post::is_empty);
        emptied && matches!(self.phase, Phase::DrainingControl | Phase::Forced)
    }

    /// Everything that is due by time or by what was heard.
    fn advance(&mut self, now: Instant) {
        self.ping_if_due(now);
        for index in [CONTROL, EDGE] {
            let actions = self.posts[index].tick(now);
            self.perform(index, actions);
        }
        match self.phase {
            Phase::Starting if self.posts.iter().all(Post::is_manned) => {
                self.phase = Phase::Running;
                self.announce();
            }
            Phase::DrainingEdge if self.posts[EDGE].is_empty() => {
                self.phase = Phase::DrainingControl;
                let actions = self.posts[CONTROL].retire(now);
                self.perform(CONTROL, actions);
            }
            _ => {}
        }
        if std::mem::take(&mut self.table_stale) {
            self.tell_control();
        }
    }

    fn ping_if_due(&mut self, now: Instant) {
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
        for index in [CONTROL, EDGE] {
            let actions = self.posts[index].pinged();
            self.perform(index, actions);
        }
    }

    fn perform(&mut self, index: usize, actions: Vec<Action>) {
        for action in actions {
            self.table_stale = true;
            match action {
                Action::Start(generation) => self.start_child(index, generation),
                Action::Drain(generation) => {
                    if let Some(child) = self.child(index, generation) {
                        child.tether.order(Order::Drain);
                    }
                }
                Action::Kill(generation, reason) => {
                    if let Some(child) = self.child(index, generation) {
                        say(&format!(
                            "{} {} {reason}",
                            child.role.name(),
                            child.pid_number()
                        ));
                        child.kill();
                    }
                }
            }
        }
    }

    fn start_child(&mut self, index: usize, generation: u64) {
        let role = self.posts[index].role();
        if let Err(error) = self.state_dir.entrust(&self.rights, role) {
            // It was right at the start; the child says what it misses.
            say(&error.to_string());
        }
        let (bequest, descriptors) = match role {
            Role::Edge => {
                let threads = self.settings.edge.threads;
                self.sockets.for_edge(threads, self.log.as_ref())
            }
            Role::Control | Role::Supervisor => self.sockets.for_control(),
        };
        let inheritance = Inheritance {
            bequest,
            descriptors,
            state_dir: self.state_dir.folder(),
            identity: self.rights.identity(role),
        };
        match Child::start(
            &self.program,
            (role, generation),
            &self.settings,
            inheritance,
        ) {
            Ok(child) => self.children.push(child),
            Err(error) => {
                say(&format!("cannot start {}: {error}", role.name()));
                // Out of memory or descriptors, say: that may pass.
                self.posts[index].died(generation, Instant::now());
            }
        }
    }

    fn child(&self, index: usize, generation: u64) -> Option<&Child> {
        let role = self.posts[index].role();
        self.children
            .iter()
            .find(|child| child.role == role && child.generation == generation)
    }

    /// Blocks until something can be heard or is due.
    fn wait(&self) {
        let due = self
            .posts
            .iter()
            .filter_map(Post::wake_at)
            .chain([self.next_ping])
            .min();
        let left = due.map_or(PING_INTERVAL, |at| {
            at.saturating_duration_since(Instant::now())
        });
        // Rounded up by a millisecond, or the loop would spin through the rest.
        let timeout = Timespec::try_from(left + Duration::from_millis(1)).ok();
        let mut watched: Vec<BorrowedFd<'_>> = vec![self.signals.as_fd()];
        for child in &self.children {
            if !child.deaf {
                watched.push(child.tether.as_fd());
            }
            watched.extend(child.stderr.as_ref().map(AsFd::as_fd));
        }
        let mut poll: Vec<PollFd<'_>> = watched
            .iter()
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .collect();
        // Interrupted or not: what there is to hear is heard without waiting.
        let _ = rustix::event::poll(&mut poll, timeout.as_ref());
    }

    fn hear_children(&mut self) {
        let now = Instant::now();
        for at in 0..self.children.len() {
            self.children[at].relay_stderr();
            let (role, generation) = (self.children[at].role, self.children[at].generation);
            let index = if role == Role::Control { CONTROL } else { EDGE };
            loop {
                match self.children[at].tether.hear() {
                    Heard::Report(Report::Pong(_)) => self.posts[index].answered(generation),
                    Heard::Report(Report::Warm) => {
                        self.children[at].tether.order(Order::Serve);
                    }
                    Heard::Report(Report::Upgrade) => self.on_signal(Signal::Upgrade),
                    Heard::Report(Report::Ready) => {
                        let actions = self.posts[index].ready(generation, now);
                        self.table_stale = true;
                        self.perform(index, actions);
                    }
                    Heard::Quiet => break,
                    Heard::Closed => {
                        self.children[at].deaf = true;
                        break;
                    }
                }
            }
        }
    }

    fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Stop if matches!(self.phase, Phase::Starting | Phase::Running) => self.drain(),
            Signal::Stop => {
                self.phase = Phase::Forced;
                let now = Instant::now();
                for post in &mut self.posts {
                    post.retire(now);
                }
                for child in &self.children {
                    child.kill();
                }
            }
            Signal::Reload if matches!(self.phase, Phase::Starting | Phase::Running) => {
                self.reload();
            }
            Signal::Reload => say("draining: settings are not read again"),
            Signal::Upgrade => say("SIGUSR2: upgrades are not available in this version"),
            Signal::ChildDied => {}
        }
    }

    fn drain(&mut self) {
        say("draining: no new connections, requests in flight finish");
        notify("STOPPING=1");
        self.phase = Phase::DrainingEdge;
        self.sockets.close_edge();
        let actions = self.posts[EDGE].retire(Instant::now());
        self.perform(EDGE, actions);
    }

    /// Collects the dead; as process 1 also those nobody else waits for.
    fn reap(&mut self) {
        if self.is_init {
            while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                self.on_death(pid, status);
            }
            return;
        }
        let pids: Vec<Pid> = self.children.iter().map(|child| child.pid).collect();
        for pid in pids {
            let waited = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            if let Ok(Some((pid, status))) = waited {
                self.on_death(pid, status);
            }
        }
    }

    fn on_death(&mut self, pid: Pid, status: WaitStatus) {
        let Some(at) = self.children.iter().position(|child| child.pid == pid) else {
            return;
        };
        let child = self.children.swap_remove(at);
        let index = if child.role == Role::Control {
            CONTROL
        } else {
            EDGE
        };
        let Some(departure) = self.posts[index].died(child.generation, Instant::now()) else {
            return;
        };
        let role = child.role;
        let obituary = child.bury(status, &departure);
        if departure.unwanted || obituary.exit_code != Some(0) {
            say(&epitaph(role, &obituary, &departure));
        }
        self.obituaries[index] = Some(obituary);
        self.table_stale = true;
    }

    fn tell_control(&self) {
        let table = self.process_table();
        for child in self
            .children
            .iter()
            .filter(|child| child.role == Role::Control)
        {
            // A lifeline too full for it: the next change tells it all again.
            child.tether.order(Order::Processes(table.clone()));
        }
    }

    fn process_table(&self) -> Vec<ProcessStatus> {
        let mut table = vec![ProcessStatus {
            role: Role::Supervisor,
            pid: std::process::id(),
            state: ProcessState::Ready,
            started_at_ms: self.started_at_ms,
            restarts: 0,
            last_exit: None,
            open_descriptors: heritage::open_descriptors(),
            upgrade: None,
        }];
        for (post, obituary) in self.posts.iter().zip(&self.obituaries) {
            let members = self
                .children
                .iter()
                .filter(|child| child.role == post.role());
            let rows = members.map(|child| ProcessStatus {
                role: child.role,
                pid: child.pid_number(),
                state: post
                    .state_of(child.generation)
                    .unwrap_or(ProcessState::Draining),
                started_at_ms: child.started_at_ms,
                restarts: post.restarts(),
                last_exit: obituary.clone(),
                open_descriptors: None,
                upgrade: None,
            });
            let before = table.len();
            table.extend(rows);
            if table.len() == before {
                table.push(ProcessStatus {
                    role: post.role(),
                    pid: 0,
                    state: ProcessState::Waiting,
                    started_at_ms: 0,
                    restarts: post.restarts(),
                    last_exit: obituary.clone(),
                    open_descriptors: None,
                    upgrade: None,
                });
            }
        }
        table
    }

    /// The one line a person who started the router waits for.
    fn announce(&self) {
        let addresses = self.sockets.addresses();
        let http = addresses["http"].as_array().map(|list| {
            let texts: Vec<&str> = list.iter().filter_map(|one| one.as_str()).collect();
            texts.join(", ")
        });
        say(&format!(
            "ready: http {}; api {}; admin {}; operator token in {}",
            http.unwrap_or_default(),
            addresses["api"].as_str().unwrap_or_default(),
            addresses["admin"].as_str().unwrap_or_default(),
            self.settings.token_path().display(),
        ));
        notify("READY=1");
    }
}

/// One line for the log when a child died.
fn epitaph(role: Role, obituary: &Obituary, departure: &Departure) -> String {
    let lived = departure.lived.as_secs_f64();
    let mut line = format!(
        "{} {} {} after {lived:.1}s",
        role.name(),
        obituary.pid,
        obituary.reason
    );
    match departure.restart_in {
        Some(Duration::ZERO) => line.push_str("; restarting at once"),
        Some(delay) => line.push_str(&format!("; restarting in {} ms", delay.as_millis())),
        None if departure.unwanted => line.push_str("; the present one stays"),
        None => {}
    }
    line
}
