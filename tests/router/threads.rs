//! More data threads, or fewer, while new connections come all the time: none
//! waits in a socket that nobody accepts from, and none is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Backend, Client, Router, eventually, get, pause, processes};

/// The longest that a request on a new connection may take. The machine may be
/// busy with other tests.
const AIR: Duration = Duration::from_secs(5);
/// For longer than that, the edge to be is held.
const HELD: Duration = Duration::from_secs(8);

/// Clients that take a connection for each request, until they are stopped.
struct Newcomers {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Duration>>,
}

impl Newcomers {
    fn of(address: SocketAddr, count: usize) -> Newcomers {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let clients = (0..count).map(|_| {
            let (stop, served) = (stop.clone(), served.clone());
            std::thread::spawn(move || {
                let mut slowest = Duration::ZERO;
                while !stop.load(Ordering::SeqCst) {
                    let since = Instant::now();
                    let mut client = Client::connect(address);
                    client.send(get("shop", "/newcomer"));
                    client.answer().expect(200);
                    slowest = slowest.max(since.elapsed());
                    served.fetch_add(1, Ordering::SeqCst);
                    pause(Duration::from_millis(2));
                }
                slowest
            })
        });
        Newcomers {
            clients: clients.collect(),
            stop,
            served,
        }
    }

    /// Waits until so many more were served.
    #[track_caller]
    fn wait(&self, more: u64) {
        let until = self.served.load(Ordering::SeqCst) + more;
        eventually("newcomers are served", || {
            (self.served.load(Ordering::SeqCst) >= until).then_some(())
        });
    }

    /// Fails if one failed, or took too long.
    #[track_caller]
    fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            let slowest = client.join().expect("no newcomer may fail");
            assert!(slowest < AIR, "one took {slowest:?}");
        }
    }
}

/// Every edge that runs, by process.
fn edges(router: &Router) -> Vec<u32> {
    let below = processes::descendants(router.pid());
    let is_edge = |pid: &u32| processes::is_role(*pid, "edge") && processes::alive(*pid);
    below.into_iter().filter(is_edge).collect()
}

/// Where an edge is in its life, once control tells.
#[track_caller]
fn state(router: &Router, edge: u32) -> String {
    eventually("control tells of the edge", || {
        let table = router.shown("/processes")?;
        let row = table["processes"]
            .as_array()?
            .iter()
            .find(|row| row["pid"] == edge)?;
        Some(row["state"].as_str()?.to_owned())
    })
}

/// Changes `edge.threads`; gives the first edge that is started for it.
#[track_caller]
fn change(router: &Router, from: usize, to: usize) -> u32 {
    let before = edges(router);
    let text = std::fs::read_to_string(router.settings_file()).expect("there must be settings");
    let (was, is) = (format!("threads = {from}\n"), format!("threads = {to}\n"));
    assert!(text.contains(&was), "{text}");
    std::fs::write(router.settings_file(), text.replace(&was, &is)).expect("writable");
    router.signal(Signal::HUP);
    let is_new = |pid: &u32| !before.contains(pid);
    eventually("another edge is started", || {
        edges(router).into_iter().find(is_new)
    })
}

#[track_caller]
fn wait_serving(router: &Router, edge: u32) {
    eventually("it serves", || {
        (state(router, edge) == "ready").then_some(())
    });
}

#[test]
fn new_threads_hold_nobody_up_however_long_their_edge_takes() {
    let router = Router::with(&["edge.standby=\"off\""]);
    let backend = Backend::named("well");
    router.serve("shop", &[&backend]);
    let newcomers = Newcomers::of(router.http(), 4);
    let mut threads = 2;
    for more in [8, 16, 24, 32] {
        newcomers.wait(50);
        let edge = change(&router, threads, more);
        processes::signal(edge, Signal::STOP);
        threads = more;
        if state(&router, edge) == "starting" {
            let since = Instant::now();
            while since.elapsed() < HELD {
                newcomers.wait(5);
            }
            processes::signal(edge, Signal::CONT);
            wait_serving(&router, edge);
            newcomers.wait(100);
            return newcomers.stop();
        }
        // It was quicker than we: it serves, and held nobody up for long.
        processes::signal(edge, Signal::CONT);
        wait_serving(&router, edge);
    }
    panic!("no edge was stopped before it served");
}

#[test]
fn threads_come_and_go_and_no_connection_is_lost_or_late() {
    let router = Router::start();
    let backend = Backend::named("well");
    router.serve("shop", &[&backend]);
    let newcomers = Newcomers::of(router.http(), 4);
    let mut threads = 2;
    for next in [5, 1, 3, 2, 6, 1] {
        newcomers.wait(50);
        let edge = change(&router, threads, next);
        wait_serving(&router, edge);
        threads = next;
    }
    newcomers.wait(50);
    newcomers.stop();
}
