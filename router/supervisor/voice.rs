//! What the supervisor says: to its standard error, and to the service
//! manager that started it. Never waits for either: a reader that stopped
//! reading must not stop the kernel.

use std::os::unix::net::UnixDatagram;

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

/// Tells systemd (`Type=notify`) about a change, if it asked to be told.
pub(super) fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    // Failing to tell is no reason to stop: the service manager times out
    // and says so itself.
    let _ = send(&path, state);
}

fn send(path: &std::ffi::OsStr, state: &str) -> std::io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::SocketAddr;
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_started_the_service_hears_it() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
        assert!(send(temp.path().join("nobody").as_os_str(), "READY=1").is_err());
    }
}
