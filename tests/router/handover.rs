//! Handing over: settings change, another edge takes the sockets, and no client
//! notices, whatever it is doing at the time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Backend, Client, Load, Router, answer_ok, eventually, get, patterned, pause, processes,
};

const PIPE: &str = "GET /pipe HTTP/1.1\r\nHost: pipes.example\r\n\
                    Connection: Upgrade\r\nUpgrade: raw/1\r\n\r\n";

/// Accepts an upgrade, then sends back what it reads.
fn echo() -> Backend {
    Backend::script(|mut conn| {
        if conn.request().is_none() {
            return;
        }
        conn.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\r\n",
        );
        while let Some(byte) = conn.take(1) {
            if !conn.write(byte) {
                return;
            }
        }
    })
}

/// A connection that became a pipe.
fn pipe(router: &Router) -> Client {
    let mut client = router.client();
    client.send(PIPE);
    assert_eq!(client.head().expect("101 must come").status, 101);
    client
}

fn echoes(pipe: &mut Client, word: &str) {
    pipe.send(word);
    assert_eq!(pipe.take(word.len()), word.as_bytes());
}

/// The edge that serves and control, if both do.
fn manned(router: &Router) -> Option<(u32, u32)> {
    let table = router.shown("/processes")?;
    let rows = table["processes"].as_array()?;
    let serving = |role: &str| {
        let is_it = |row: &&Value| row["role"] == role && row["state"] == "ready";
        let pid = rows.iter().find(is_it)?["pid"].as_u64()?;
        u32::try_from(pid).ok()
    };
    Some((serving("edge")?, serving("control")?))
}

/// Changes a setting of the edge and waits until another one serves, and
/// another control, which is replaced to show the setting; gives the edge that
/// did before.
#[track_caller]
fn reload(router: &Router, number: usize) -> u32 {
    let (before, control) = eventually("both serve", || manned(router));
    let folder = router.state_dir();
    let file = folder
        .parent()
        .expect("the state folder must be in another")
        .join("portico.toml");
    let text = std::fs::read_to_string(&file).expect("the settings must be readable");
    let (start, rest) = text.split_once("threads = 2\n").expect("it must be there");
    let rest = rest.split_once("[api]").expect("it must be there").1;
    let line = format!("trusted_proxies = [\"10.0.{number}.0/24\"]");
    let text = format!("{start}threads = 2\n{line}\n[api]{rest}");
    std::fs::write(&file, text).expect("the settings must be writable");
    router.signal(Signal::HUP);
    eventually("others serve", || {
        manned(router).filter(|&(edge, other)| edge != before && other != control)
    });
    before
}

/// Clients that go on until they are stopped; each counts its requests.
struct Crowd {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn of(
        count: usize,
        run: impl Fn(usize, &AtomicBool, &AtomicUsize) + Send + Sync + 'static,
    ) -> Crowd {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let run = Arc::new(run);
        let clients = (0..count).map(|number| {
            let (stop, sent, run) = (stop.clone(), sent.clone(), run.clone());
            std::thread::spawn(move || run(number, &stop, &sent))
        });
        Crowd {
            clients: clients.collect(),
            stop,
            sent,
        }
    }

    /// Each holds a connection idle for a time of its own, up to two seconds,
    /// and sends whatever the moment.
    fn idlers(address: SocketAddr, count: usize) -> Crowd {
        Crowd::of(count, move |number, stop, sent| {
            let mut client = Client::connect(address);
            let mut state = number as u64 + 1;
            while !stop.load(Ordering::SeqCst) {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                pause(Duration::from_millis(state >> 53));
                client.send(get("shop", "/idler"));
                let answer = client.answer().expect(200);
                sent.fetch_add(1, Ordering::SeqCst);
                if answer.header("connection") == Some("close") {
                    client.closed();
                    client = Client::connect(address);
                }
            }
        })
    }

    /// Each takes a connection for each request.
    fn newcomers(address: SocketAddr, count: usize) -> Crowd {
        Crowd::of(count, move |_, stop, sent| {
            while !stop.load(Ordering::SeqCst) {
                let mut client = Client::connect(address);
                client.send(get("shop", "/newcomer"));
                client.answer().expect(200);
                sent.fetch_add(1, Ordering::SeqCst);
                pause(Duration::from_millis(5));
            }
        })
    }

    /// Stops them; fails if one failed. How many requests they sent.
    #[track_caller]
    fn stop(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().expect("no client may fail");
        }
        self.sent.load(Ordering::SeqCst)
    }
}

#[test]
fn reloads_in_a_row_under_load_fail_no_request_and_cut_no_socket() {
    let router = Router::start();
    let (shop, pipes) = (Backend::named("well"), echo());
    router.serve("shop", &[&shop]);
    router.serve("pipes", &[&pipes]);
    let mut open: Vec<Client> = (0..10).map(|_| pipe(&router)).collect();
    let load = Load::gets(&router, "shop", 100);
    let idlers = Crowd::idlers(router.http(), 20);
    let newcomers = Crowd::newcomers(router.http(), 2);
    for number in 0..8 {
        reload(&router, number);
        load.wait(50);
        open.push(pipe(&router));
        for pipe in &mut open {
            echoes(pipe, "still here");
        }
    }
    load.stop_all_well();
    assert!(idlers.stop() > 0 && newcomers.stop() > 0);
    for pipe in &mut open {
        echoes(pipe, "to the end");
    }
}

#[test]
fn a_download_and_an_upload_survive_and_are_whole() {
    let router = Router::start();
    let body = Arc::new(patterned(4 << 20));
    let sent = body.clone();
    let slow = Backend::script(move |mut conn| {
        if conn.request().is_some() {
            conn.write(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                sent.len()
            ));
            for piece in sent.chunks(64 << 10) {
                conn.write(piece);
                pause(Duration::from_millis(30));
            }
        }
    });
    let echo = Backend::echo();
    router.serve("slow", &[&slow]);
    router.serve("echo", &[&echo]);
    let mut down = router.client();
    down.send(get("slow", "/"));
    let head = down.head().expect("the answer must begin");
    assert_eq!(head.status, 200);
    let upload = b"0123456789".repeat(30);
    let mut up = router.client();
    up.send(format!(
        "POST / HTTP/1.1\r\nHost: echo.example\r\nContent-Length: {}\r\n\r\n",
        upload.len()
    ));
    for (number, piece) in upload.chunks(60).enumerate() {
        if number % 2 == 0 {
            reload(&router, number);
        }
        up.send(piece);
    }
    assert_eq!(up.answer().expect(200).body, upload);
    assert_eq!(down.take(body.len()), *body);
}

/// How long an idle connection may be used after a hand-over, less some: on a
/// machine that is slower than this, what comes later shows nothing.
const KEPT: Duration = Duration::from_secs(8);

#[test]
fn an_edge_that_handed_over_follows_the_table_and_wait_active_counts_it() {
    let router = Router::start();
    let both = [Backend::named("first"), Backend::named("second")];
    let pipes = echo();
    router.serve("shop", &[&both[0]]);
    router.serve("pipes", &[&pipes]);
    let (mut serves, mut next) = ("first", (1, "second"));
    // A hand-over that took too long is no evidence: another is tried.
    for number in 0..5 {
        let mut open = pipe(&router);
        let mut kept = router.client();
        kept.send(get("shop", "/"));
        assert_eq!(kept.answer().expect(200).text(), serves);
        let since = Instant::now();
        let old = reload(&router, number);
        let moved = json!({ "address": both[next.0].address().to_string() });
        let path = "/v1/apps/shop/backends/web.1?wait=active";
        router.put(path, &moved).expect(200);
        (serves, next) = (next.1, (1 - next.0, serves));
        let is_evidence = since.elapsed() < KEPT;
        if is_evidence {
            kept.send(get("shop", "/"));
            let answer = kept.answer().expect(200);
            assert_eq!(answer.text(), serves);
            assert_eq!(answer.header("connection"), Some("close"));
        }
        echoes(&mut open, "still here");
        assert!(processes::alive(old));
        drop((open, kept));
        eventually("it ends with its last connection", || {
            (!processes::alive(old)).then_some(())
        });
        if is_evidence {
            return;
        }
    }
    panic!("no hand-over took less than {KEPT:?}");
}

#[test]
fn a_new_control_waits_for_the_edges_that_are_yet_to_connect() {
    let router = Router::start();
    let pipes = echo();
    router.serve("pipes", &[&pipes]);
    let mut open = pipe(&router);
    let old = reload(&router, 1);
    // It leaves, and cannot say a word to the control that comes.
    processes::signal(old, Signal::STOP);
    let (_, control) = manned(&router).expect("both serve");
    processes::signal(control, Signal::KILL);
    eventually("another control serves", || {
        manned(&router).filter(|&(_, other)| other != control)
    });
    let put = |timeout: &str| {
        let path = format!("/v1/apps/shop?wait=active&timeout={timeout}");
        router.put(&path, &json!({ "domains": ["shop.example"] }))
    };
    let late = put("1s").expect(504).json();
    assert_eq!(late["code"], "not_active_in_time");
    let detail = late["detail"].as_str().expect("it says why");
    assert!(detail.contains(&old.to_string()), "{detail}");
    processes::signal(old, Signal::CONT);
    put("20s").expect(200);
    echoes(&mut open, "still here");
    drop(open);
    eventually("it ends with its last connection", || {
        (!processes::alive(old)).then_some(())
    });
    put("20s").expect(200);
}

#[test]
fn an_idle_connection_that_is_not_used_is_closed_without_a_reset() {
    let router = Router::start();
    let shop = Backend::named("well");
    router.serve("shop", &[&shop]);
    let mut kept = router.client();
    kept.send(get("shop", "/"));
    kept.answer().expect(200);
    let since = Instant::now();
    let old = reload(&router, 1);
    let end = std::io::Read::read(&mut kept.stream(), &mut [0]);
    assert!(matches!(end, Ok(0)), "an end, not a reset: {end:?}");
    assert!(
        since.elapsed() >= Duration::from_secs(9),
        "{:?}",
        since.elapsed()
    );
    drop(kept);
    eventually("nobody is left on it", || {
        (!processes::alive(old)).then_some(())
    });
}

#[test]
fn what_is_left_at_the_limit_is_closed_one_after_another() {
    let router = Router::with(&["edge.handover_timeout=\"5s\""]);
    let pipes = echo();
    router.serve("pipes", &[&pipes]);
    let open: Vec<Client> = (0..20).map(|_| pipe(&router)).collect();
    let since = Instant::now();
    reload(&router, 1);
    let ends = open.into_iter().map(|mut pipe| {
        std::thread::spawn(move || {
            pipe.closed();
            since.elapsed()
        })
    });
    let ends: Vec<_> = ends.collect();
    let mut ends: Vec<_> = ends
        .into_iter()
        .map(|end| end.join().expect("it must be closed"))
        .collect();
    ends.sort_unstable();
    let spread = ends[19] - ends[0];
    assert!(ends[0] >= Duration::from_millis(4_400), "{ends:?}");
    assert!(spread >= Duration::from_millis(250), "{ends:?}");
    router.logged_code("/pipe", "H24");
}

#[test]
fn a_shutdown_shortens_a_hand_over() {
    let mut router = Router::with(&["edge.drain_timeout=\"1s\""]);
    let pipes = echo();
    router.serve("pipes", &[&pipes]);
    let mut open = pipe(&router);
    reload(&router, 1);
    echoes(&mut open, "still here");
    let since = Instant::now();
    router.signal(Signal::TERM);
    open.closed();
    assert!(
        since.elapsed() >= Duration::from_millis(800),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(router.ended().code(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_long_poll_is_answered_over_a_hand_over() {
    let router = Router::start();
    let (release, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let wait = std::sync::Mutex::new(wait);
    let backend = Backend::script(move |mut conn| {
        if conn.request().is_some() {
            let _ = wait.lock().expect("no script panics").recv();
            conn.write(answer_ok("at last"));
        }
    });
    router.serve("shop", &[&backend]);
    let mut client = router.client();
    client.send(get("shop", "/poll"));
    backend.request();
    reload(&router, 1);
    assert!(client.silent(Duration::from_millis(500)));
    release.send(()).expect("the backend must be there");
    let answer = client.answer().expect(200);
    assert_eq!(answer.text(), "at last");
    assert_eq!(answer.header("connection"), Some("close"));
}
