//! The running prober, with a table and backends over real sockets.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::fixture::{app, apply, put};
use super::super::{Prober, ProberHandle, prober, start};
use super::*;
use crate::edge::sync::{EventQueue, event_queue};
use crate::feed::messages::{Change, ProbeRecord};
use crate::observe::EdgeCells;
use crate::policy::health::{ConnectFailure, Outcome};
use crate::table::Told;

const PATIENCE: Duration = Duration::from_secs(20);

/// A running prober.
struct Stage {
    table: Arc<Table>,
    cells: Arc<EdgeCells>,
    prober: Prober,
    events: EventQueue,
    handle: Option<ProberHandle>,
}

impl Stage {
    fn set() -> Stage {
        let (prober, posts) = prober();
        let (sender, events) = event_queue();
        let table = Arc::new(Table::new(1));
        let cells = Arc::<EdgeCells>::default();
        let handle = start(ProberInputs {
            table: Arc::clone(&table),
            cells: Arc::clone(&cells),
            events: sender,
            origin: std::time::Instant::now(),
            posts,
        });
        Stage {
            table,
            cells,
            prober,
            events,
            handle: Some(handle),
        }
    }

    fn app(&self, name: &str) -> Arc<App> {
        self.table.app(name).expect("it must be there")
    }

    /// Waits until a counter has counted so many.
    fn wait(&self, counter: Counter, times: u64) {
        self.wait_until(&format!("{counter:?}"), || {
            self.cells.counter(counter) >= times
        });
    }

    fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !is_so() {
            assert!(std::time::Instant::now() < deadline, "in vain: {what}");
            std::thread::yield_now();
        }
    }

    /// The next event.
    fn event(&self) -> (String, String, String) {
        let event = self.events.next(PATIENCE).expect("an event must come");
        assert_eq!(event.app, "a");
        (event.kind, event.backend, event.text)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            handle.stop();
        }
    }
}

/// A backend whose status can be changed; counts its connections.
struct Backend {
    address: String,
    status: Arc<AtomicU64>,
    served: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    fn start() -> Backend {
        Backend::on(reserved())
    }

    /// Begins to listen on a reserved port.
    fn on(socket: Socket) -> Backend {
        socket.listen(128).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = std::net::TcpListener::from(socket);
        let address = listener.local_addr().unwrap().to_string();
        let status = Arc::new(AtomicU64::new(200));
        let served = Arc::<AtomicU64>::default();
        let stopped = Arc::<AtomicBool>::default();
        let serving = serve(
            listener,
            Arc::clone(&status),
            Arc::clone(&served),
            Arc::clone(&stopped),
        );
        let thread = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime must build")
                .block_on(serving);
        });
        Backend {
            address,
            status,
            served,
            stopped,
            thread: Some(thread),
        }
    }

    fn served(&self) -> u64 {
        self.served.load(SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stopped.store(true, SeqCst);
        // Woken by a connection of our own.
        drop(std::net::TcpStream::connect(&self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    status: Arc<AtomicU64>,
    served: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut connections = JoinSet::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        if stopped.load(SeqCst) {
            return;
        }
        served.fetch_add(1, SeqCst);
        let status = Arc::clone(&status);
        connections.spawn(async move {
            let mut request = [0; 4096];
            if stream.read(&mut request).await.unwrap_or(0) > 0 {
                let status = status.load(SeqCst);
                let answer = format!("HTTP/1.1 {status} So\r\nContent-Length: 0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
                // Until the prober hangs up.
                let _ = stream.read(&mut request).await;
            }
        });
    }
}

fn probe(path: &str) -> Option<ProbeRecord> {
    Some(ProbeRecord {
        path: path.to_owned(),
        interval_ms: Some(100),
        rise: Some(2),
        fall: Some(3),
        ..ProbeRecord::default()
    })
}

/// A port that refuses connections until it is listened on; nobody else gets
/// it meanwhile.
fn reserved() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket
}

/// What a request that was refused tells.
fn refused(app: &App, index: usize) {
    let verdict = app.tell(&Told {
        thread: 0,
        index,
        now_us: 1,
        wall_us: 1,
        sent_us: 1,
        waited_us: 0,
        outcome: Outcome::ConnectFailed(ConnectFailure::Refused),
        random: 0,
    });
    assert!(verdict.is_some_and(|verdict| verdict.wants_probe()));
}

#[test]
fn a_backend_that_was_refused_comes_back_posted_or_not() {
    for is_posted in [true, false] {
        let stage = Stage::set();
        let well = Backend::start();
        let port = reserved();
        let address = port.local_addr().unwrap().as_socket().unwrap().to_string();
        put(&stage.table, app("a", &[&address, &well.address], None));
        let found = stage.app("a");
        refused(&found, 0);
        if is_posted {
            stage.prober.watch(&found.name, found.backends[0].key());
        }
        stage.wait(Counter::ProbeRefused, 2);
        let back = Backend::on(port);
        stage.wait(Counter::ReadmittedByProbe, 1);
        let (kind, backend, text) = stage.event();
        assert_eq!((&*kind, &*backend), ("backend_readmitted", "web.0000"));
        assert!(text.contains("a probe passed"), "{text}");
        assert_eq!(found.next_return_probe_us(0), None);
        stage.wait_until("nothing left to watch", || {
            stage.cells.gauge(Gauge::BackendsProbed) == 0
        });
        assert_eq!((back.served(), well.served()), (1, 0));
    }
}

#[test]
fn an_apps_own_probe_takes_a_backend_out_and_brings_it_back() {
    let stage = Stage::set();
    let (sick, well) = (Backend::start(), Backend::start());
    let addresses = [&*sick.address, &*well.address];
    put(&stage.table, app("a", &addresses, probe("/healthz")));
    stage.wait(Counter::ProbePassed, 4);
    // Cold: nobody asked for it, and all is well.
    assert_eq!(stage.table.hot_apps().count(), 0);
    sick.status.store(503, SeqCst);
    let (kind, backend, text) = stage.event();
    assert_eq!((&*kind, &*backend), ("backend_ejected", "web.0000"));
    assert!(text.ends_with("; the last probe: answered 503"), "{text}");
    assert_eq!(stage.cells.counter(Counter::EjectedProbe), 1);
    assert!(stage.cells.counter(Counter::ProbeStatus) >= 3);
    sick.status.store(204, SeqCst);
    let (kind, backend, _) = stage.event();
    assert_eq!((&*kind, &*backend), ("backend_readmitted", "web.0000"));
    assert_eq!(stage.cells.counter(Counter::ReadmittedByProbe), 1);
}

#[test]
fn probes_follow_the_table() {
    let stage = Stage::set();
    let (first, second) = (Backend::start(), Backend::start());
    let watched = |count: u64| {
        stage.wait_until("watched", || {
            stage.cells.gauge(Gauge::BackendsProbed) == count
        });
    };
    let go_on = |backend: &Backend, others: &Backend| {
        let (before, others_before) = (backend.served(), others.served());
        stage.wait_until("probes", || backend.served() >= before + 5);
        // One may have been on its way.
        assert!(others.served() <= others_before + 1);
    };
    // No probe, then one, added to a table that is in use.
    put(&stage.table, app("a", &[&first.address], None));
    put(&stage.table, app("b", &[&second.address], probe("")));
    go_on(&second, &first);
    put(&stage.table, app("a", &[&first.address], probe("/")));
    watched(2);
    // Another address under the same id; then no probe; then no app.
    put(&stage.table, app("b", &[&first.address], probe("")));
    watched(2);
    go_on(&first, &second);
    put(&stage.table, app("b", &[&first.address], None));
    watched(1);
    put(&stage.table, app("b", &[&second.address], probe("")));
    watched(2);
    apply(&stage.table, Change::Delete("a".to_owned()));
    watched(1);
    go_on(&second, &first);
    // A whole table that knows neither.
    let mut install = stage.table.install();
    install.part(&[app("c", &[&first.address], probe("/"))]);
    assert_eq!(install.finish(1_000), []);
    watched(1);
    go_on(&first, &second);
    assert_eq!(stage.cells.counter(Counter::ProberPanics), 0);
}

#[test]
fn however_many_threads_post_there_is_one_probe_at_a_time() {
    let began = std::time::Instant::now();
    let stage = Stage::set();
    let (back, well) = (Backend::start(), Backend::start());
    put(
        &stage.table,
        app("a", &[&back.address, &well.address], probe("/")),
    );
    let found = stage.app("a");
    let key = found.backends[0].key();
    refused(&found, 0);
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                for _ in 0..1_000 {
                    stage.prober.watch(&found.name, key);
                }
            });
        }
    });
    stage.wait(Counter::ReadmittedByProbe, 1);
    assert_eq!(stage.cells.gauge(Gauge::BackendsProbed), 2);
    // Each 90 ms at the most often, whatever was posted.
    let most = began.elapsed().as_millis() as u64 / 90 + 2;
    assert!(back.served() <= most, "{} of {most}", back.served());
    stage.wait_until("posts read or counted as dropped", || {
        stage.cells.counter(Counter::ProbePostsDropped) <= 8_000
            && stage.prober.posts.capacity() == stage.prober.posts.max_capacity()
    });
}
