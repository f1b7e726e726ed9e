//! Processes of the harness: started (pinned to one core where asked), ended by their pid.
//!
//! Every child is started through this same binary's hidden `exec` subcommand,
//! which pins itself, asks the kernel to signal it when the harness dies, and
//! then becomes the command: so a child is pinned before its first instruction,
//! and none outlives the harness, not even one killed by SIGKILL. Never kills
//! by name.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use crate::{interrupt, machine};

/// This program, also where a build has since replaced its file.
pub const OWN_PROGRAM: &str = "/proc/self/exe";
/// How long a child may take to end after its polite signal.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// What ends a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StopSignal {
    /// For those that clean up children of their own on it.
    Term,
    /// For those that have nothing to clean up or are slow to go.
    Kill,
}

impl StopSignal {
    fn signal(self) -> Signal {
        match self {
            Self::Term => Signal::TERM,
            Self::Kill => Signal::KILL,
        }
    }
}

/// Arguments of the hidden `exec` subcommand.
#[derive(Debug, clap::Args)]
pub struct ExecOptions {
    /// The core to run on; every core if not given.
    #[arg(long)]
    core: Option<usize>,
    /// The signal to get when the harness dies.
    #[arg(long)]
    stop: StopSignal,
    /// The command.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Pins this process if asked, ties its life to its parent's, and becomes the command.
pub fn become_command(options: &ExecOptions) -> Result<()> {
    if let Some(core) = options.core {
        machine::settle_process(core)?;
    }
    set_parent_process_death_signal(Some(options.stop.signal()))?;
    let (program, arguments) = options.command.split_first().context("no command")?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("starting {}", Path::new(program).display()))
}

/// A command, not yet started.
#[derive(Debug)]
pub struct Plan {
    /// For messages.
    pub name: &'static str,
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// The core it and all it starts run on; `None` leaves it to the scheduler.
    pub core: Option<usize>,
    /// What ends it.
    pub stop: StopSignal,
    /// Where its standard output goes.
    pub stdout: PathBuf,
    /// Where its standard error goes.
    pub stderr: PathBuf,
}

/// A running child; ended when dropped.
#[derive(Debug)]
pub struct Running {
    name: &'static str,
    child: Child,
    stop: StopSignal,
    stderr: PathBuf,
}

impl Running {
    /// Starts the planned command.
    pub fn start(plan: &Plan) -> Result<Self> {
        let stop = match plan.stop {
            StopSignal::Term => "term",
            StopSignal::Kill => "kill",
        };
        let mut command = Command::new(OWN_PROGRAM);
        command.arg("exec");
        if let Some(core) = plan.core {
            command.args(["--core", &core.to_string()]);
        }
        let child = command
            .args(["--stop", stop, "--"])
            .args(&plan.command)
            .stdin(Stdio::null())
            .stdout(appended(&plan.stdout)?)
            .stderr(appended(&plan.stderr)?)
            .spawn()
            .with_context(|| format!("starting {}", plan.name))?;
        Ok(Self {
            name: plan.name,
            child,
            stop: plan.stop,
            stderr: plan.stderr.clone(),
        })
    }

    /// The pid its cost is counted from, its children's included.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with its last words if it has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended ({status}): {}", self.name, self.last_words());
        }
        Ok(())
    }

    /// Sends it a signal: one that it survives, such as SIGSTOP.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("signalling {}", self.name))
    }

    /// Ends it by SIGKILL, as a crash would; returns once the kernel has closed its sockets.
    pub fn crash(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its own end; an error if it fails or takes longer than `limit`.
    pub fn finish(&mut self, limit: Duration) -> Result<()> {
        match interrupt::wait_exit(&mut self.child, limit)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("{} failed ({status}): {}", self.name, self.last_words()),
            None => bail!("{} still runs after {} s", self.name, limit.as_secs()),
        }
    }

    /// The end of what it wrote to standard error.
    fn last_words(&self) -> String {
        let said = std::fs::read(&self.stderr).unwrap_or_default();
        let from = said.len().saturating_sub(600);
        String::from_utf8_lossy(&said[from..]).trim().to_owned()
    }
}

/// A file that is written at its end, also after someone has emptied it.
fn appended(path: &Path) -> Result<File> {
    let opened = File::options().create(true).append(true).open(path);
    opened.with_context(|| format!("opening {}", path.display()))
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // Failing means it has just ended by itself.
        let _ = kill_process(Pid::from_child(&self.child), self.stop.signal());
        let ended = interrupt::wait_exit_regardless(&mut self.child, STOP_TIMEOUT);
        if !matches!(ended, Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
