//! What the service manager that started the router is told (systemd's
//! `Type=notify`): ready, reloading, stopping, a line of status, and signs of
//! life. Never waits for it, and never fails because of it.

use std::ffi::{OsStr, OsString};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::time::ClockId;

use super::moment::Moment;

/// The manager, if there is one.
#[derive(Debug)]
pub(super) struct Service {
    /// Where it listens.
    socket: Option<OsString>,
    /// How often it wants a sign of life: half of what it allows.
    beat: Option<Duration>,
    next_beat: Moment,
    /// What it was told last: a line said twice is noise in its journal.
    status: String,
    is_reloading: bool,
}

impl Service {
    /// As the environment says.
    pub(super) fn from_environment(now: Moment) -> Service {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        // A child of the service inherits the variable too: it is not meant.
        let is_meant =
            number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let allowed = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && is_meant);
        Service {
            socket: std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()),
            beat: allowed.map(|usec| Duration::from_micros(usec) / 2),
            next_beat: now,
            status: String::new(),
            is_reloading: false,
        }
    }

    /// The router serves; also after a reload.
    pub(super) fn ready(&mut self, status: &str) {
        self.is_reloading = false;
        status.clone_into(&mut self.status);
        self.tell(&format!("READY=1\nSTATUS={}", line(status)));
    }

    /// Settings or binaries are being replaced; [`Service::ready`] ends it.
    pub(super) fn reloading(&mut self, status: &str) {
        self.is_reloading = true;
        status.clone_into(&mut self.status);
        let now = rustix::time::clock_gettime(ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!(
            "RELOADING=1\nMONOTONIC_USEC={usec}\nSTATUS={}",
            line(status)
        ));
    }

    /// Whether it was told of a reload that is not over.
    pub(super) fn is_reloading(&self) -> bool {
        self.is_reloading
    }

    /// A successor takes over in the middle of a reload.
    pub(super) fn resume_reloading(&mut self) {
        self.is_reloading = true;
    }

    /// The router leaves within `limit`.
    pub(super) fn stopping(&mut self, limit: Duration) {
        self.is_reloading = false;
        self.tell(&format!(
            "STOPPING=1\nEXTEND_TIMEOUT_USEC={}\nSTATUS=draining: requests in flight finish",
            limit.as_micros()
        ));
    }

    /// What it does now, if that is news.
    pub(super) fn status(&mut self, status: &str) {
        if self.status != status {
            status.clone_into(&mut self.status);
            self.tell(&format!("STATUS={}", line(status)));
        }
    }

    /// A sign of life, if one is due.
    pub(super) fn beat(&mut self, now: Moment) {
        if let Some(beat) = self.beat
            && now >= self.next_beat
        {
            self.next_beat = now + beat;
            self.tell("WATCHDOG=1");
        }
    }

    /// When the next one is due.
    pub(super) fn wake_at(&self) -> Option<Moment> {
        self.beat.map(|_| self.next_beat)
    }

    fn tell(&self, state: &str) {
        if let Some(path) = &self.socket {
            // Failing to tell is no reason to stop: the service manager times
            // out and says so itself.
            let _ = send(path, state);
        }
    }
}

/// A status is one line.
fn line(text: &str) -> String {
    text.replace('\n', "; ")
}

fn send(path: &OsStr, state: &str) -> std::io::Result<()> {
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

    struct Systemd {
        _temp: tempfile::TempDir,
        socket: UnixDatagram,
        service: Service,
    }

    impl Systemd {
        fn with_beat(beat: Option<Duration>, now: Moment) -> Systemd {
            let temp = tempfile::tempdir().unwrap();
            let path = temp.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            let service = Service {
                socket: Some(path.into_os_string()),
                beat,
                next_beat: now,
                status: String::new(),
                is_reloading: false,
            };
            Systemd {
                _temp: temp,
                socket,
                service,
            }
        }

        /// What it was told next; empty if nothing.
        fn heard(&self) -> String {
            let mut buffer = [0; 512];
            let length = self.socket.recv(&mut buffer).unwrap_or(0);
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        }
    }

    #[test]
    fn hears_of_ready_reload_and_end() {
        let mut systemd = Systemd::with_beat(None, Moment::now());
        systemd.service.ready("serving");
        assert_eq!(systemd.heard(), "READY=1\nSTATUS=serving");
        systemd.service.reloading("reading\nsettings");
        let said = systemd.heard();
        assert!(said.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{said}");
        assert!(said.ends_with("\nSTATUS=reading; settings"), "{said}");
        assert!(systemd.service.is_reloading());
        systemd.service.ready("serving");
        assert!(!systemd.service.is_reloading());
        systemd.heard();
        systemd.service.status("serving");
        assert_eq!(systemd.heard(), "", "no news");
        systemd.service.stopping(Duration::from_secs(2));
        assert!(
            systemd
                .heard()
                .starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000\n")
        );
    }

    #[test]
    fn signs_of_life_come_as_often_as_they_are_wanted() {
        let now = Moment::now();
        let beat = Duration::from_secs(5);
        let mut systemd = Systemd::with_beat(Some(beat), now);
        systemd.service.beat(now);
        assert_eq!(systemd.heard(), "WATCHDOG=1");
        systemd.service.beat(now + beat / 2);
        assert_eq!(systemd.heard(), "");
        assert_eq!(systemd.service.wake_at(), Some(now + beat));
        systemd.service.beat(now + beat);
        assert_eq!(systemd.heard(), "WATCHDOG=1");
        let mut unwatched = Systemd::with_beat(None, now);
        unwatched.service.beat(now);
        assert_eq!(
            (unwatched.heard().as_str(), unwatched.service.wake_at()),
            ("", None)
        );
    }

    #[test]
    fn whoever_is_gone_is_nobody_to_fail_for() {
        let temp = tempfile::tempdir().unwrap();
        assert!(send(temp.path().join("nobody").as_os_str(), "READY=1").is_err());
        let mut service = Service::from_environment(Moment::now());
        service.socket = Some(temp.path().join("nobody").into_os_string());
        service.ready("serving");
    }
}
