//! The kernel with real children: this test binary, started again as
//! [`a_child`], behaves as a file in the state folder tells it.
//!
//! Each kernel runs in a process of its own ([`a_supervisor`]), since signals
//! belong to processes.

mod standby;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Kernel, Program};
use crate::heritage::{
    self, Footing, Heritage, Lifeline, Order, ProcessState, ProcessStatus, Role,
};
use crate::settings::Settings;

const STATE_DIR: &str = "PORTICO_TEST_STATE_DIR";
const PATIENCE: Duration = Duration::from_secs(20);

/// Not a test by itself: what a kernel under test starts.
#[test]
#[ignore = "started by the other tests"]
fn a_child() {
    let Ok(Some(heritage)) = heritage::claim() else {
        return;
    };
    let code = match heritage {
        Heritage::Edge(edge) => {
            assert!(edge.listeners.iter().all(|thread| !thread.is_empty()));
            behave(Role::Edge, edge.footing, &edge.settings, &edge.lifeline)
        }
        Heritage::Control(control) => {
            assert!(control.feed.local_addr().unwrap().as_pathname().is_some());
            let footing = Footing::Newest;
            behave(Role::Control, footing, &control.settings, &control.lifeline)
        }
    };
    std::process::exit(code);
}

/// Does what `<role>.behaviour` says when it is started; an edge waits until
/// it is told to serve. Whoever serves leaves `<role>.pid`, adds a line to
/// `<role>.log`, and control leaves `table.json`.
fn behave(role: Role, footing: Footing, settings: &Settings, lifeline: &Lifeline) -> i32 {
    let file = |what: &str| settings.state_dir.join(format!("{}.{what}", role.name()));
    let behaviour = std::fs::read_to_string(file("behaviour")).unwrap_or_default();
    let crash = || {
        eprintln!("{} says goodbye", role.name());
        7
    };
    if behaviour == "crash" {
        return crash();
    }
    let (tell, told) = std::sync::mpsc::sync_channel(8);
    let keeper = lifeline.clone();
    let table = settings.state_dir.join("table.json");
    std::thread::spawn(move || {
        keeper.serve(
            || true,
            |order| match order {
                Order::Processes(rows) => {
                    replace_file(&table, &serde_json::to_string(&rows).unwrap());
                }
                Order::Reopen(_) => {}
                order => {
                    let _ = tell.try_send(order);
                }
            },
        );
    });
    if role == Role::Edge {
        lifeline.warm();
        match told.recv_timeout(PATIENCE) {
            Ok(Order::Serve) => {}
            Ok(Order::Drain | Order::Orphaned) => return 0,
            other => panic!("not what a warm edge is told: {other:?}"),
        }
    }
    replace_file(&file("pid"), &std::process::id().to_string());
    note(&file("log"), &format!("{} {footing:?}", std::process::id()));
    if behaviour == "crashes on the newest" && footing == Footing::Newest {
        return crash();
    }
    lifeline.ready();
    loop {
        match told.recv_timeout(PATIENCE) {
            Ok(Order::HandOver) if behaviour == "sticks" => {}
            Ok(Order::Drain) if behaviour == "ignores drain" => {}
            Ok(Order::Drain | Order::HandOver | Order::Orphaned) => return 0,
            // Its supervisor is gone, and so is whoever told of it.
            Err(RecvTimeoutError::Disconnected) => return 0,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn note(path: &Path, line: &str) {
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Readers must never see half a file.
fn replace_file(path: &Path, text: &str) {
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&fresh, text).unwrap();
    std::fs::rename(&fresh, path).unwrap();
}

/// Not a test by itself: one kernel whose children are [`a_child`].
#[test]
#[ignore = "started by the other tests"]
fn a_supervisor() {
    let Some(state_dir) = std::env::var_os(STATE_DIR).map(PathBuf::from) else {
        return;
    };
    let load = move || Settings::load(Some(&state_dir.join("portico.toml")), &[]);
    let program = Program {
        path: std::env::current_exe().unwrap(),
        args: rerun("a_child"),
    };
    let reread = Box::new(move || load().map_err(|error| error.to_string()));
    let mut reread: super::Reread = reread;
    let settings = reread().unwrap();
    let code = match Kernel::start(settings, program, reread) {
        Ok(kernel) => i32::from(kernel.run() != std::process::ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("{error}");
            1
        }
    };
    std::process::exit(code);
}

/// Arguments that make this binary run one ignored test. The role's name
/// comes after them: a filter that names no test.
fn rerun(test: &str) -> Vec<OsString> {
    let full = format!("supervisor::tests::{test}");
    [
        "--ignored",
        "--exact",
        "--nocapture",
        "--test-threads=1",
        &full,
    ]
    .map(OsString::from)
    .to_vec()
}

struct Running {
    temp: tempfile::TempDir,
    process: Child,
    said: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Running {
    fn start(behaviours: &[(&str, &str)]) -> Running {
        Running::start_with(behaviours, "drain_timeout = \"30s\"\nstandby = \"off\"")
    }

    fn start_with(behaviours: &[(&str, &str)], edge: &str) -> Running {
        let temp = tempfile::tempdir().unwrap();
        for (role, behaviour) in behaviours {
            std::fs::write(temp.path().join(format!("{role}.behaviour")), behaviour).unwrap();
        }
        std::fs::create_dir(temp.path().join("table")).unwrap();
        std::fs::write(temp.path().join("table/proven"), "ran well").unwrap();
        write_settings(temp.path(), edge);
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(rerun("a_supervisor"))
            .env(STATE_DIR, temp.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let (hear, stderr) = (said.clone(), process.stderr.take().unwrap());
        std::thread::spawn(move || {
            use std::io::BufRead;
            for line in std::io::BufReader::new(stderr)
                .lines()
                .map_while(Result::ok)
            {
                hear.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Running {
            temp,
            process,
            said,
        }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(found) = look() {
                return found;
            }
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(5));
        }
        panic!("never: {what}; said:\n{}", self.said());
    }

    fn until_said(&self, text: &str) {
        self.until(text, || self.said().contains(text).then_some(()));
    }

    fn pid_of(&self, role: &str) -> Option<Pid> {
        let text = std::fs::read_to_string(self.temp.path().join(format!("{role}.pid"))).ok()?;
        Pid::from_raw(text.parse().ok()?)
    }

    fn table(&self) -> Option<Vec<ProcessStatus>> {
        let text = std::fs::read_to_string(self.temp.path().join("table.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Pids of the edges in this state.
    fn edges(&self, state: ProcessState) -> Vec<u32> {
        let rows = self.table().unwrap_or_default().into_iter();
        rows.filter(|row| row.role == Role::Edge && row.state == state)
            .map(|row| row.pid)
            .collect()
    }

    /// Waits for the only edge in this state.
    fn edge(&self, state: ProcessState) -> Pid {
        self.until(&format!("one edge is {state:?}"), || {
            match self.edges(state)[..] {
                [pid] => Pid::from_raw(i32::try_from(pid).unwrap()),
                _ => None,
            }
        })
    }

    /// Who served so far, with the footing of each.
    fn served(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.temp.path().join("edge.log"));
        let lines = log.unwrap_or_default();
        lines.lines().map(str::to_owned).collect()
    }

    /// What edges do that are started from now on.
    fn edges_do(&self, behaviour: &str) {
        replace_file(&self.temp.path().join("edge.behaviour"), behaviour);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        panic!("still running; said:\n{}", self.said());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its children see the lifeline close and leave by themselves.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The rest of the edge's settings as given.
fn write_settings(state_dir: &Path, edge: &str) {
    let text = format!(
        "state_dir = {:?}\nuser = \"root\"\n[edge]\nhttp = [\"127.0.0.1:0\"]\nthreads = 2\n\
         user = \"root\"\n{edge}\n[api]\nlisten = \"127.0.0.1:0\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n",
        state_dir.display().to_string()
    );
    replace_file(&state_dir.join("portico.toml"), &text);
}

fn is_alive(pid: Pid) -> bool {
    rustix::process::test_kill_process(pid).is_ok()
}

#[test]
fn starts_says_so_drains_and_leaves_nothing_behind() {
    let mut router = Running::start(&[]);
    router.until_said("ready: http 127.0.0.1:");
    let edge = router.pid_of("edge").unwrap();
    let addresses = std::fs::read_to_string(router.temp.path().join("addresses.json")).unwrap();
    let addresses: serde_json::Value = serde_json::from_str(&addresses).unwrap();
    assert!(
        addresses["http"][0]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    router.signal(Signal::TERM);
    assert_eq!(router.exit_code(), Some(0));
    router.until("the edge exits", || (!is_alive(edge)).then_some(()));
    assert!(!router.temp.path().join("addresses.json").exists());
    assert!(!router.temp.path().join("feed.sock").exists());
}

#[test]
fn a_killed_edge_is_replaced_and_control_reads_its_obituary() {
    let router = Running::start(&[]);
    router.until_said("ready: ");
    let first = router.pid_of("edge").unwrap();
    kill_process(first, Signal::KILL).unwrap();
    let second = router.until("another edge", || {
        router.pid_of("edge").filter(|pid| *pid != first)
    });
    let row = router.until("the table tells of it", || {
        let row = router
            .table()?
            .into_iter()
            .find(|row| row.role == Role::Edge)?;
        (row.pid == second.as_raw_nonzero().get().unsigned_abs()).then_some(row)
    });
    assert_eq!(row.restarts, 1);
    let obituary = row.last_exit.unwrap();
    assert_eq!(obituary.pid, first.as_raw_nonzero().get().unsigned_abs());
    assert_eq!((obituary.signal, obituary.exit_code), (Some(9), None));
}

#[test]
fn a_crash_loop_is_reported_with_last_words_while_the_other_serves() {
    let router = Running::start(&[("edge", "crash")]);
    let row = router.until("three restarts", || {
        let row = router
            .table()?
            .into_iter()
            .find(|row| row.role == Role::Edge)?;
        (row.restarts >= 3).then_some(row)
    });
    let obituary = row.last_exit.unwrap();
    assert_eq!(obituary.exit_code, Some(7));
    assert!(
        obituary
            .last_words
            .contains(&"edge says goodbye".to_owned()),
        "{:?}",
        obituary.last_words
    );
    assert!(
        router.said().contains("edge says goodbye"),
        "its words are passed on as well"
    );
    assert!(!router.said().contains("ready: "));
    std::fs::write(router.temp.path().join("edge.behaviour"), "").unwrap();
    router.until_said("ready: ");
}

#[test]
fn children_do_not_outlive_a_killed_supervisor() {
    let mut router = Running::start(&[]);
    router.until_said("ready: ");
    let pids = ["edge", "control"].map(|role| router.pid_of(role).unwrap());
    router.process.kill().unwrap();
    router.process.wait().unwrap();
    for pid in pids {
        router.until("an orphan leaves", || (!is_alive(pid)).then_some(()));
    }
}

#[test]
fn a_second_signal_forces() {
    let mut router = Running::start(&[("edge", "ignores drain")]);
    router.until_said("ready: ");
    router.signal(Signal::TERM);
    router.until_said("draining");
    router.signal(Signal::INT);
    assert_eq!(router.exit_code(), Some(1));
}

#[test]
fn new_settings_replace_the_edge_and_bad_ones_are_refused() {
    let router = Running::start(&[]);
    router.until_said("ready: ");
    let (edge, control) = (
        router.pid_of("edge").unwrap(),
        router.pid_of("control").unwrap(),
    );
    write_settings(router.temp.path(), "drain_timeout = \"nonsense\"");
    router.signal(Signal::HUP);
    router.until_said("settings refused, the old stay");
    assert!(router.said().contains("edge.drain_timeout"));
    assert_eq!(router.pid_of("edge"), Some(edge));
    write_settings(
        router.temp.path(),
        "drain_timeout = \"7s\"\nstandby = \"off\"",
    );
    router.signal(Signal::HUP);
    router.until_said("edge.drain_timeout changed");
    for (role, old) in [("edge", edge), ("control", control)] {
        router.until("another one", || {
            router.pid_of(role).filter(|pid| *pid != old)
        });
        router.until("the old one leaves", || (!is_alive(old)).then_some(()));
    }
}

#[test]
fn one_supervisor_per_state_folder() {
    let router = Running::start(&[]);
    router.until_said("ready: ");
    let second = Command::new(std::env::current_exe().unwrap())
        .args(rerun("a_supervisor"))
        .env(STATE_DIR, router.temp.path())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("in use by another supervisor"), "{said}");
    assert!(said.contains(&router.process.id().to_string()), "{said}");
}
