//! Waiting that Ctrl-C can end.
//!
//! Owns the one self-pipe that SIGINT and SIGTERM write to, and every wait of
//! the harness: for time, and for a child's end. All have a deadline. Never
//! ends the process itself: an interrupted wait is an error, so that the
//! callers' `Drop`s stop their children and remove their folders.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ExitStatus};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use signal_hook::consts::{SIGINT, SIGTERM};

static SIGNALLED: OnceLock<UnixStream> = OnceLock::new();

/// Turns SIGINT and SIGTERM into errors of the waits below. Call once, first.
pub fn install() -> Result<()> {
    let (heard, told) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, told.try_clone()?)?;
    }
    SIGNALLED.get_or_init(|| heard);
    Ok(())
}

/// Waits for `time`; an error if interrupted.
pub fn pause(time: Duration) -> Result<()> {
    wait_readable(None, time).map(|_| ())
}

/// Calls `done` every 20 ms until it says true; an error naming `what` after `limit`.
pub fn poll_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !done() {
        if Instant::now() >= deadline {
            bail!("{what}: not within {} s", limit.as_secs_f32());
        }
        pause(Duration::from_millis(20))?;
    }
    Ok(())
}

/// The child's exit; `None` if it still runs after `limit`.
pub fn wait_exit(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("watching a child")?;
    wait_readable(Some(pidfd.as_fd()), limit)?;
    Ok(child.try_wait()?)
}

/// As [`wait_exit`], but not to be interrupted: for ending a child, above all after an interruption.
pub fn wait_exit_regardless(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let left = Timespec::try_from(limit)?;
    // A signal cuts this wait short at most once more: the caller then kills.
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left))?;
    Ok(child.try_wait()?)
}

/// Whether `file` became readable within `limit`.
fn wait_readable(file: Option<BorrowedFd<'_>>, limit: Duration) -> Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let mut files = Vec::with_capacity(2);
        if let Some(signalled) = SIGNALLED.get() {
            files.push(PollFd::new(signalled, PollFlags::IN));
        }
        if let Some(file) = &file {
            files.push(PollFd::from_borrowed_fd(*file, PollFlags::IN));
        }
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))?;
        match poll(&mut files, Some(&left)) {
            Ok(0) => return Ok(false),
            Ok(_) if SIGNALLED.get().is_some() && !files[0].revents().is_empty() => {
                bail!("interrupted")
            }
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting"),
        }
    }
}
