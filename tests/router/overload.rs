//! One data thread, and more requests than it can serve: the app that floods it
//! is slowed and refused, the one beside it notices nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use serde_json::json;

use crate::harness::{
    Backend, Load, Router, answer_ok, eventually, find, get, pause, processes, within,
};

/// Threads that flood, and connections of each: together far more than the
/// thread can serve within a tenth of a second.
const THREADS: usize = 4;
const EACH: usize = 500;

/// Clients of one app that ask again as soon as they are answered.
struct Flood {
    told: Arc<Told>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    stop: AtomicBool,
    served: AtomicU64,
    refused: AtomicU64,
    backlog: AtomicU64,
    strange: AtomicU64,
}

impl Flood {
    fn start(router: &Router, app: &str, threads: usize, each: usize) -> Flood {
        Flood::with(router, app, threads, each, true)
    }

    /// On connections that are kept, or a new one for each request.
    fn with(router: &Router, app: &str, threads: usize, each: usize, kept: bool) -> Flood {
        allow_descriptors();
        let told = Arc::<Told>::default();
        let clients = (0..threads).map(|_| {
            let (told, address, request) = (told.clone(), router.http(), get(app, "/flood"));
            std::thread::spawn(move || flood(&told, address, request.as_bytes(), each, kept))
        });
        Flood {
            clients: clients.collect(),
            told,
        }
    }

    fn refused(&self) -> u64 {
        self.told.refused.load(Ordering::SeqCst)
    }

    fn served(&self) -> u64 {
        self.told.served.load(Ordering::SeqCst)
    }

    fn answered(&self) -> u64 {
        self.served() + self.refused() + self.told.backlog.load(Ordering::SeqCst)
    }

    /// Ends it; every answer was one that may be.
    fn stop(self) {
        self.told.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().expect("a client must not panic");
        }
        assert_eq!(self.told.strange.load(Ordering::SeqCst), 0);
    }
}

/// One thread's connections, each with a request under way: written to all, then
/// each is read in turn.
fn flood(told: &Told, address: SocketAddr, request: &[u8], each: usize, kept: bool) {
    let open = || {
        let stream = TcpStream::connect(address).ok()?;
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).ok()?;
        (&stream).write_all(request).ok()?;
        Some(stream)
    };
    let mut streams: Vec<TcpStream> = (0..each).filter_map(|_| open()).collect();
    while !told.stop.load(Ordering::SeqCst) {
        for stream in &mut streams {
            if told.stop.load(Ordering::SeqCst) {
                return;
            }
            let mut answer = [0; 4096];
            let read = stream.read(&mut answer).unwrap_or(0);
            let count = match &answer[..read] {
                head if head.starts_with(b"HTTP/1.1 200 ") => &told.served,
                head if find(head, b"details=\"H22\"").is_some() => &told.refused,
                // Its backends have their own measure of what is enough.
                head if find(head, b"details=\"H11\"").is_some() => &told.backlog,
                _ => &told.strange,
            };
            count.fetch_add(1, Ordering::SeqCst);
            if !kept {
                // Reset, or its port would be taken for a minute.
                let _ = set_socket_linger(&*stream, Some(Duration::ZERO));
                match open() {
                    Some(fresh) => *stream = fresh,
                    None => return,
                }
                continue;
            }
            // Kept open: also after a refusal.
            if stream.write_all(request).is_err() {
                told.strange.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
    }
}

/// Connections take descriptors here and there; most systems begin with 1,024.
fn allow_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the limit must be one that may be set");
}

/// A router of one thread, a noisy app that answers at once and a quiet one that
/// takes its time.
fn router(settings: &[&str]) -> (Router, [Backend; 2]) {
    let router = Router::with(&[&["edge.threads=1"], settings].concat());
    let (noisy, quiet) = (
        Backend::named("at once"),
        Backend::app(|_| {
            pause(Duration::from_millis(20));
            answer_ok("in time")
        }),
    );
    let room = json!({ "max_concurrency": 10_000 });
    router.serve_with("noisy", &room, &[&noisy]);
    router.serve("quiet", &[&quiet]);
    (router, [noisy, quiet])
}

#[test]
fn a_flood_of_one_app_is_shed_and_the_other_keeps_its_success() {
    let (router, _backends) = router(&[]);
    let load = Load::gets(&router, "quiet", 50);
    load.wait(25);
    let flood = Flood::start(&router, "noisy", THREADS, EACH);
    within(Duration::from_secs(60), "the flood is refused", || {
        (flood.refused() > 200).then_some(())
    });
    // It is served all the while, too, and the other app whole.
    let served = flood.served();
    load.wait(100);
    assert!(flood.served() > served);
    assert!(router.counted("portico_edge_threads_saturated", "") > 0.0);
    flood.stop();
    let quiet = load.stop_all_well();
    assert!(quiet.len() > 100);
    assert!(router.counted("portico_shed_total", "processor") >= 200.0);
    assert!(router.counted("portico_gate_waits_total", "served") > 0.0);

    // And then it is over: nobody waits, nobody is refused.
    eventually("the thread is not saturated any more", || {
        let saturated = router.counted("portico_edge_threads_saturated", "");
        (saturated == 0.0).then_some(())
    });
    assert_eq!(router.counted("portico_requests_gated", ""), 0.0);
    eventually("it is served as before", || {
        (router.get("noisy", "/after").status == 200).then_some(())
    });
    let began = router.wait_event("overload_began", "", "");
    assert!(began["text"].as_str().unwrap().contains("H22"), "{began}");
    let ended = router.wait_event("overload_ended", "", "");
    let text = ended["text"].as_str().unwrap();
    assert!(
        text.contains("noisy (") && !text.contains("quiet"),
        "{text}"
    );
}

/// The system has one line for all connections that come: they are taken from it
/// faster than they are served, so that nobody waits behind another app's.
#[test]
fn a_flood_of_new_connections_keeps_those_of_others_in_time() {
    let (router, _backends) = router(&[]);
    let flood = Flood::with(&router, "noisy", THREADS, EACH, false);
    within(
        Duration::from_secs(60),
        "the thread has too much to do",
        || (router.counted("portico_gate_waits_total", "served") > 0.0).then_some(()),
    );
    // How long each took, by what the flood was answered meanwhile: that is the
    // same on any machine.
    let mut overtaken_by: Vec<u64> = (0..60)
        .map(|number| {
            let before = flood.answered();
            router.get("quiet", &format!("/fresh/{number}")).expect(200);
            flood.answered() - before
        })
        .collect();
    overtaken_by.sort_unstable();
    assert!(overtaken_by.iter().sum::<u64>() > 0, "it must go on");
    flood.stop();
    // The flood's wait for all that came before them.
    let all = (THREADS * EACH) as u64;
    assert!(overtaken_by[30] < all / 4, "of {all}: {overtaken_by:?}");
}

#[test]
fn a_refusal_says_why_and_when_to_come_again_and_is_logged() {
    let (router, _backends) = router(&[]);
    let flood = Flood::start(&router, "noisy", THREADS, EACH);
    let mut client = router.client();
    let mut asked = 0;
    let refused = within(Duration::from_secs(60), "a request is refused", || {
        asked += 1;
        client.send(get("noisy", &format!("/asked/{asked}")));
        let answer = client.answer();
        (answer.code().as_deref() == Some("H22")).then_some(answer)
    });
    let refused = refused.refused(503, "H22");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert_eq!(refused.header("connection"), None, "it is kept open");
    flood.stop();
    let line = router.logged_code(&format!("/asked/{asked}"), "H22");
    assert_eq!(line["app"], "noisy");
    assert_eq!(line["fault"], "platform");
    assert_eq!(line["tries"], "0");
}

#[test]
fn where_it_is_off_nobody_is_refused() {
    let (router, _backends) = router(&["edge.shed=off"]);
    let flood = Flood::start(&router, "noisy", THREADS, EACH);
    // Its backend refuses some of them by itself.
    within(Duration::from_secs(180), "a good deal is served", || {
        (flood.answered() > 10_000 && flood.served() > 1_000).then_some(())
    });
    assert_eq!(flood.refused(), 0);
    flood.stop();
    assert_eq!(router.counted("portico_edge_threads_saturated", ""), 0.0);
}

#[test]
fn a_machine_that_stands_still_is_no_overload() {
    let (router, _backends) = router(&[]);
    let load = Load::gets(&router, "quiet", 100);
    load.wait(50);
    let edge = router.process("edge");
    for _ in 0..5 {
        processes::signal(edge, Signal::STOP);
        pause(Duration::from_millis(400));
        processes::signal(edge, Signal::CONT);
        load.wait(20);
    }
    load.stop();
    assert_eq!(router.counted("portico_shed_total", "processor"), 0.0);
    assert!(router.events("overload_began").is_empty());
}

#[test]
fn clients_that_leave_while_they_wait_are_let_go() {
    let (router, _backends) = router(&[]);
    let flood = Flood::start(&router, "noisy", 1, 400);
    eventually("requests wait", || {
        (router.counted("portico_requests_gated", "") > 0.0).then_some(())
    });
    for _ in 0..200 {
        let mut client = router.client();
        client.send(get("noisy", "/left"));
        client.reset();
    }
    flood.stop();
    eventually("nobody waits", || {
        let gated = router.counted("portico_requests_gated", "");
        let open = router.counted("portico_client_connections", "");
        (gated == 0.0 && open <= 2.0).then_some(())
    });
    eventually("it is served as before", || {
        (router.get("noisy", "/after").status == 200).then_some(())
    });
}
