//! Under a service systemd, and as process 1 of a container.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::router::PORTICO;
use crate::harness::{Backend, Setup, binary, eventually, need, processes, within};

/// A service systemd's end of `NOTIFY_SOCKET`.
struct Systemd {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Systemd {
    fn at(path: &Path) -> Systemd {
        let socket = UnixDatagram::bind(path).expect("the folder must be writable");
        socket.set_nonblocking(true).expect("it must be settable");
        Systemd {
            socket,
            heard: Vec::new(),
        }
    }

    /// Waits for a message with this line in it; gives the whole message.
    #[track_caller]
    fn hears(&mut self, wanted: &str) -> String {
        let what = format!("the systemd hears {wanted}");
        within(binary::LIMIT, &what, || {
            let mut buffer = [0; 1024];
            let length = self.socket.recv(&mut buffer).ok()?;
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            self.heard.push(message.clone());
            message
                .lines()
                .any(|line| line == wanted)
                .then_some(message)
        })
    }
}

#[test]
fn systemd_is_told_of_every_change_and_that_it_lives() {
    let folder = tempfile::tempdir().expect("the temporary folder must be writable");
    let path = folder.path().join("notify");
    let mut systemd = Systemd::at(&path);
    let environment = format!(
        "export NOTIFY_SOCKET='{}' WATCHDOG_USEC=400000 WATCHDOG_PID=$$",
        path.display()
    );
    let mut router = Setup::new().installed().after(&environment).start();
    let ready = systemd.hears("READY=1");
    assert!(ready.contains("STATUS=serving: http 127.0.0.1:"), "{ready}");
    for _ in 0..3 {
        systemd.hears("WATCHDOG=1");
    }

    router.signal(Signal::HUP);
    let reloading = systemd.hears("RELOADING=1");
    assert!(reloading.contains("\nMONOTONIC_USEC="), "{reloading}");
    systemd.hears("READY=1");

    binary::replace(router.program());
    router.signal(Signal::USR2);
    let reloading = systemd.hears("RELOADING=1");
    assert!(reloading.contains("STATUS=upgrading: "), "{reloading}");
    systemd.hears("READY=1");
    binary::succeeded(&router, 1);
    systemd.hears("WATCHDOG=1");

    // A failed one ends as a reload that is over, too.
    binary::replace_by(router.program(), 0o755, "#!/bin/sh\nexit 1\n");
    router.signal(Signal::USR2);
    systemd.hears("RELOADING=1");
    systemd.hears("READY=1");
    assert_eq!(binary::ended(&router, 2).0, "failed");

    router.signal(Signal::TERM);
    let stopping = systemd.hears("STOPPING=1");
    assert!(stopping.contains("\nEXTEND_TIMEOUT_USEC="), "{stopping}");
    assert_eq!(router.ended().code(), Some(0));
}

#[test]
fn the_unit_file_passes_systemds_own_check() {
    need("systemd-analyze", "systemd");
    let folder = tempfile::tempdir().expect("the temporary folder must be writable");
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/portico.service");
    let text = std::fs::read_to_string(unit).expect("the unit must be there");
    let installed = "/usr/local/bin/portico";
    assert!(text.contains(&format!("ExecStart={installed} run --config ")));
    let copy = folder.path().join("portico.service");
    std::fs::write(&copy, text.replace(installed, PORTICO)).expect("it must be writable");
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&copy)
        .output()
        .expect("it must run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // It also looks at the units of this machine, which are not ours.
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("portico"))
        .collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}

/// The shell text that puts the router into a process namespace of its own, as
/// its process 1; `None`: this machine does not allow that.
fn as_process_1() -> Option<String> {
    need("unshare", "util-linux");
    let mut unshare = vec!["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"];
    if !rustix::process::geteuid().is_root() {
        unshare.extend(["--user", "--map-root-user"]);
    }
    let tried = Command::new(unshare[0])
        .args(&unshare[1..])
        .arg("true")
        .output();
    if !tried.expect("unshare must run").status.success() {
        eprintln!("skipped: this machine allows no process namespace");
        return None;
    }
    Some(format!("set -- {} \"$@\"", unshare.join(" ")))
}

#[test]
fn as_process_1_it_reaps_drains_and_upgrades() {
    let Some(wrapper) = as_process_1() else {
        return;
    };
    let mut router = Setup::new().installed().after(&wrapper).start();
    let shop = Backend::named("shop");
    router.serve("shop", &[&shop]);
    // Seen from here, the supervisor is unshare's only child.
    let supervisor = processes::descendants(router.pid())[0];
    assert_eq!(
        processes::status(supervisor, "NSpid")
            .split_whitespace()
            .last(),
        Some("1")
    );
    let children = || processes::descendants(supervisor);
    let before = children();

    for attempt in 1..=2 {
        binary::replace(router.program());
        processes::signal(supervisor, Signal::USR2);
        binary::succeeded(&router, attempt);
        assert_eq!(
            processes::program(supervisor),
            router.program().display().to_string()
        );
    }
    router.get("shop", "/").expect(200);
    within(binary::LIMIT, "the old ones are reaped", || {
        let is_left = |pid: &u32| processes::alive(*pid) || processes::is_zombie(*pid);
        (!before.iter().any(is_left)).then_some(())
    });

    // An orphan of the container becomes process 1's, and is reaped by it.
    need("nsenter", "util-linux");
    let pid = supervisor.to_string();
    let entered = Command::new("nsenter")
        .args([
            "--target",
            &pid,
            "--pid",
            "--",
            "sh",
            "-c",
            "sleep 0.2 & echo $!",
        ])
        .output()
        .expect("nsenter must run");
    assert!(entered.status.success() || !rustix::process::geteuid().is_root());
    eventually("no zombie is left", || {
        let zombies = children()
            .into_iter()
            .filter(|pid| processes::is_zombie(*pid));
        (zombies.count() == 0).then_some(())
    });

    processes::signal(supervisor, Signal::TERM);
    assert_eq!(router.ended().code(), Some(0), "{}", router.words());
    eventually("nobody is left", || {
        (!processes::alive(supervisor)).then_some(())
    });
}
