//! What the supervisor says to its standard error. Never waits for it: a
//! reader that stopped reading must not stop the kernel.

use rustix::event::{PollFd, PollFlags, Timespec};

/// Copies bytes (at most a page) to standard error if it takes them now.
pub(super) fn copy(bytes: &[u8]) {
    let stderr = rustix::stdio::stderr();
    let mut poll = [PollFd::new(&stderr, PollFlags::OUT)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if rustix::event::poll(&mut poll, Some(&at_once)) == Ok(1)
        && poll[0].revents().contains(PollFlags::OUT)
    {
        // Nobody is left to be told of a failure.
        let _ = rustix::io::write(stderr, bytes);
    }
}

/// One line on standard error.
pub(super) fn say(line: &str) {
    copy(format!("portico: {line}\n").as_bytes());
}
