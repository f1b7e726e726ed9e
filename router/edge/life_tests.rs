//! A whole edge in this process: real sockets, a table on disk, and the test in
//! the supervisor's place at the other end of its lifeline.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::*;
use crate::feed::messages::{AppRecord, BackendRecord};
use crate::feed::snapshot::{Head, SnapshotWriter};
use crate::heritage::{Footing, Heard, Report, Tether};
use crate::settings::AccessLog;

const PATIENCE: Duration = Duration::from_secs(20);
const THREADS: usize = 2;
const GET: &str = "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";
const PIPE: &str =
    "GET /pipe HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";

/// What a backend does by path: `/` is answered, `/pipe` becomes an echo,
/// `/wait` is never answered, `/endless` is an answer without an end, and a body
/// is read to its end and counted.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

fn answer(mut stream: TcpStream) {
    loop {
        let Some((head, early)) = read_head(&mut stream) else {
            return;
        };
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let ok = |body: &str| {
            let length = body.len();
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")
        };
        if text.starts_with("get /pipe") {
            let yes = "HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";
            stream.write_all(yes.as_bytes()).unwrap();
            let mut byte = [0; 256];
            while let Ok(count @ 1..) = stream.read(&mut byte) {
                if stream.write_all(&byte[..count]).is_err() {
                    return;
                }
            }
            return;
        } else if text.starts_with("get /wait") {
            let _ = stream.read(&mut [0]);
            return;
        } else if text.starts_with("get /endless") {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            while stream.write_all(b"4\r\nmore\r\n").is_ok() {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            return;
        }
        let length = text.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.lines().next()?.trim().parse().ok());
        let mut left = length.unwrap_or(0) - early.len();
        while left > 0 {
            let mut piece = [0; 256];
            match stream.read(&mut piece) {
                Ok(count @ 1..) => left -= count,
                _ => return,
            }
        }
        if stream.write_all(ok("well").as_bytes()).is_err() {
            return;
        }
    }
}

/// A head and what came with it.
fn read_head(stream: &mut TcpStream) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 1024];
        match stream.read(&mut piece) {
            Ok(count @ 1..) => bytes.extend_from_slice(&piece[..count]),
            _ => return None,
        }
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let early = bytes.split_off(at + 4);
            return Some((bytes, early));
        }
    }
}

/// An edge that runs, and the supervisor's end of its lifeline.
struct Played {
    _folder: tempfile::TempDir,
    tether: Tether,
    address: SocketAddr,
    /// As the supervisor keeps them.
    listeners: Vec<TcpListener>,
    edge: JoinHandle<ExitCode>,
}

impl Played {
    /// Warm, and not told to serve.
    fn standing_by(handover: Duration, drain: Duration) -> Played {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            state_dir: folder.path().to_path_buf(),
            ..Settings::default()
        };
        settings.log.access = AccessLog::Off;
        settings.edge.handover_timeout = handover;
        settings.edge.drain_timeout = drain;
        write_table(&settings.table_dir(), backend());
        let first = listener("127.0.0.1:0".parse().unwrap());
        let address = first.local_addr().unwrap();
        let rest = (1..THREADS).map(|_| listener(address));
        let listeners: Vec<_> = std::iter::once(first).chain(rest).collect();
        let (tether, lifeline) = Lifeline::pair().unwrap();
        let heritage = EdgeHeritage {
            feed_path: folder.path().join("nobody"),
            table_dir: settings.table_dir(),
            log: None,
            settings,
            listeners: listeners
                .iter()
                .map(|one| vec![one.try_clone().unwrap()])
                .collect(),
            footing: Footing::Newest,
            is_awaited: true,
            lifeline,
        };
        let edge = std::thread::spawn(move || run(heritage));
        let played = Played {
            _folder: folder,
            tether,
            address,
            listeners,
            edge,
        };
        played.until_reported(Report::Warm);
        played
    }

    fn serving(handover: Duration, drain: Duration) -> Played {
        let played = Played::standing_by(handover, drain);
        assert!(played.tether.order(Order::Serve));
        played.until_reported(Report::Ready);
        played
    }

    fn until_reported(&self, wanted: Report) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.tether.hear() {
                Heard::Report(report) if report == wanted => return,
                Heard::Closed => panic!("the edge must not end before {wanted:?}"),
                _ => std::thread::yield_now(),
            }
            assert!(Instant::now() < deadline, "no {wanted:?}");
        }
    }

    fn client(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A connection that became a pipe.
    fn pipe(&self) -> TcpStream {
        let mut client = self.client();
        assert!(ask(&mut client, PIPE).starts_with("http/1.1 101"));
        client
    }

    /// Waits for its end; how long that took.
    fn ended(self) -> Duration {
        let since = Instant::now();
        while !self.edge.is_finished() {
            assert!(since.elapsed() < PATIENCE, "the edge must end");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        assert_eq!(self.edge.join().unwrap(), ExitCode::SUCCESS);
        since.elapsed()
    }
}

fn listener(address: SocketAddr) -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(128).unwrap();
    socket.into()
}

fn write_table(folder: &std::path::Path, backend: SocketAddr) {
    let head = Head {
        cluster_id: "here".to_owned(),
        epoch: 1,
        revision: 1,
    };
    let mut writer = SnapshotWriter::create(folder, &head).unwrap();
    let app = AppRecord {
        name: "shop".to_owned(),
        domains: vec!["shop.example".to_owned()],
        backends: vec![BackendRecord {
            id: "web.1".to_owned(),
            address: backend.to_string(),
            weight: 1,
            ..BackendRecord::default()
        }],
        ..AppRecord::default()
    };
    writer.push(&app).unwrap();
    writer.finish().unwrap();
}

/// The head of the answer, in lower case; its small body is read too.
fn ask(client: &mut TcpStream, request: &str) -> String {
    client.write_all(request.as_bytes()).unwrap();
    hear(client)
}

fn hear(client: &mut TcpStream) -> String {
    let (head, mut body) = read_head(client).expect("an answer must come");
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1);
    let length = length.map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
    while body.len() < length {
        let mut piece = [0; 1024];
        let count = client.read(&mut piece).unwrap();
        assert!(count > 0, "a whole body must come");
        body.extend_from_slice(&piece[..count]);
    }
    head
}

/// Reads to the end; whether that was a reset.
fn rest(client: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    match client.read_to_end(&mut bytes) {
        Ok(_) => (bytes, false),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, true),
        Err(error) => panic!("the connection must end: {error}"),
    }
}

const HOUR: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_secs(1);

#[test]
fn it_stands_by_until_told_and_then_serves_at_once() {
    let edge = Played::standing_by(HOUR, SOON);
    let mut client = edge.client();
    client.write_all(GET.as_bytes()).unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    assert!(client.read(&mut [0]).is_err(), "nobody may accept yet");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let since = Instant::now();
    assert!(edge.tether.order(Order::Serve));
    assert!(hear(&mut client).starts_with("http/1.1 200"));
    println!("served {:?} after the word", since.elapsed());
    drop(client);
    edge.tether.order(Order::Drain);
    edge.ended();
}

#[test]
fn dismissed_while_it_stands_by_it_leaves_at_once() {
    for order in [Order::Drain, Order::HandOver] {
        let edge = Played::standing_by(HOUR, HOUR);
        edge.tether.order(order);
        assert!(edge.ended() < Duration::from_secs(5));
    }
}

#[test]
fn after_a_hand_over_a_kept_connection_has_one_more_request() {
    let edge = Played::serving(HOUR, SOON);
    let mut kept = edge.client();
    assert!(!ask(&mut kept, GET).contains("connection: close"));
    edge.tether.order(Order::HandOver);
    kept.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    assert!(kept.peek(&mut [0]).is_err(), "it must stay open");
    kept.set_read_timeout(Some(PATIENCE)).unwrap();
    let answer = ask(&mut kept, GET);
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(rest(&mut kept), (Vec::new(), false));
    drop(kept);
    assert!(edge.ended() < Duration::from_secs(5));
}

#[test]
fn after_a_hand_over_new_connections_are_the_successors() {
    let edge = Played::serving(HOUR, SOON);
    let pipe = edge.pipe();
    edge.tether.order(Order::HandOver);
    let deadline = Instant::now() + PATIENCE;
    // What it had not noticed yet it may still take.
    let taken = loop {
        let _client = edge.client();
        let taken = edge.listeners.iter().find_map(|one| one.accept().ok());
        if let Some((taken, _)) = taken {
            break taken;
        }
        assert!(Instant::now() < deadline, "the successor must get some");
    };
    drop((taken, pipe));
    edge.ended();
}

#[test]
fn what_is_left_at_the_end_is_closed_one_after_another() {
    let limit = Duration::from_secs(4);
    let edge = Played::serving(limit, SOON);
    let pipes: Vec<_> = (0..20).map(|_| edge.pipe()).collect();
    let since = Instant::now();
    edge.tether.order(Order::HandOver);
    let ends = pipes.into_iter().map(|mut pipe| {
        std::thread::spawn(move || {
            let (bytes, _) = rest(&mut pipe);
            assert!(bytes.is_empty());
            since.elapsed()
        })
    });
    let ends: Vec<_> = ends.collect();
    let mut ends: Vec<_> = ends.into_iter().map(|end| end.join().unwrap()).collect();
    ends.sort_unstable();
    println!("closed at {ends:?}");
    assert!(ends[0] >= limit * 9 / 10, "{ends:?}");
    assert!(ends[19] < limit + Duration::from_secs(1), "{ends:?}");
    // 20 ms apart; a busy machine may delay some, not hold all to one moment.
    assert!(ends[19] - ends[0] > Duration::from_millis(250), "{ends:?}");
    let steps = ends
        .windows(2)
        .filter(|two| two[1] - two[0] > Duration::from_millis(5));
    assert!(steps.count() >= 8, "{ends:?}");
    assert!(edge.ended() < Duration::from_secs(3));
}

#[test]
fn at_the_end_each_kind_of_exchange_shows_it() {
    let edge = Played::serving(Duration::from_secs(1), SOON);
    let (mut waiting, mut endless) = (edge.client(), edge.client());
    waiting
        .write_all(GET.replace("GET /", "GET /wait").as_bytes())
        .unwrap();
    let head = ask(&mut endless, &GET.replace("GET /", "GET /endless"));
    assert!(head.contains("chunked"), "{head}");
    edge.tether.order(Order::HandOver);
    let answer = hear(&mut waiting);
    assert!(answer.starts_with("http/1.1 503"), "{answer}");
    assert!(answer.contains("h24"), "{answer}");
    let (bytes, _) = rest(&mut endless);
    assert!(!bytes.ends_with(b"0\r\n\r\n"), "it must not look whole");
    edge.ended();
}

#[test]
fn a_drain_shortens_a_hand_over() {
    let edge = Played::serving(HOUR, SOON);
    let mut pipe = edge.pipe();
    edge.tether.order(Order::HandOver);
    pipe.write_all(b"still here").unwrap();
    let mut back = [0; 10];
    pipe.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still here");
    let since = Instant::now();
    edge.tether.order(Order::Drain);
    rest(&mut pipe);
    assert!(since.elapsed() >= SOON * 9 / 10, "{:?}", since.elapsed());
    edge.ended();
    assert!(since.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_thread_that_has_nobody_left_is_not_taken_for_stuck() {
    let edge = Played::serving(HOUR, SOON);
    let pipe = edge.pipe();
    edge.tether.order(Order::HandOver);
    let since = Instant::now();
    let mut number = 0;
    while since.elapsed() < STALLED + Duration::from_secs(2) {
        number += 1;
        assert!(edge.tether.ping(number));
        edge.until_reported(Report::Pong(number));
        std::thread::park_timeout(Duration::from_millis(200));
    }
    drop(pipe);
    edge.ended();
}

#[test]
fn it_ends_with_its_last_connection() {
    let edge = Played::serving(HOUR, HOUR);
    let pipe = edge.pipe();
    edge.tether.order(Order::HandOver);
    // Long enough for anyone who would end early.
    std::thread::park_timeout(Duration::from_millis(300));
    assert!(!edge.edge.is_finished());
    drop(pipe);
    assert!(edge.ended() < Duration::from_secs(5));
}

#[test]
fn an_upload_goes_on_over_a_hand_over() {
    let edge = Played::serving(HOUR, SOON);
    let mut client = edge.client();
    let head = "POST /up HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1000\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(&[b'x'; 400]).unwrap();
    edge.tether.order(Order::HandOver);
    for _ in 0..60 {
        std::thread::park_timeout(Duration::from_millis(10));
        client.write_all(&[b'x'; 10]).unwrap();
    }
    let answer = hear(&mut client);
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    drop(client);
    edge.ended();
}

#[test]
fn a_shutdown_is_quick_and_answers_a_request_that_comes_with_it() {
    let edge = Played::serving(HOUR, Duration::from_secs(30));
    let mut kept: Vec<_> = (0..50).map(|_| edge.client()).collect();
    for client in &mut kept {
        ask(client, GET);
    }
    let since = Instant::now();
    edge.tether.order(Order::Drain);
    for client in &mut kept {
        let answer = ask(client, GET);
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
    }
    drop(kept);
    edge.ended();
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
}
