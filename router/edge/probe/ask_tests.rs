//! Probes against backends that behave, and backends that do not, over real
//! sockets.

use rustix::io::Errno;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::{Instant, interval};

use super::*;

const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(10),
    whole: Duration::from_secs(10),
};

/// For backends that are to outlast it.
const SHORT: Patience = Patience {
    connect: Duration::from_millis(300),
    whole: Duration::from_millis(300),
};

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime must build")
        .block_on(test);
}

fn probe() -> Probe {
    Probe {
        path: Some("/healthz?deep=1".into()),
        ..Probe::default()
    }
}

/// A backend that reads a request's head, then does as `answer` says; what it
/// read.
async fn backend<F: Future<Output = ()>>(
    listener: &TcpListener,
    answer: impl FnOnce(TcpStream) -> F,
) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap_or(0) == 0 {
            break;
        }
        read.push(byte[0]);
    }
    answer(stream).await;
    String::from_utf8(read).unwrap()
}

/// What a probe finds at a backend that sends `bytes` and then waits.
async fn found(probe: &Probe, bytes: &'static [u8]) -> (Finding, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (done, wait) = tokio::sync::oneshot::channel::<()>();
    let asked = async {
        let finding = ask(address, Some(probe), PATIENCE).await;
        drop(done);
        finding
    };
    let answering = backend(&listener, |mut stream| async move {
        // The prober may have seen enough before it has read all.
        let _ = stream.write_all(bytes).await;
        let _ = wait.await;
    });
    let (finding, request) = tokio::join!(asked, answering);
    (finding, request.replace(&address.to_string(), "ADDRESS"))
}

#[test]
fn it_asks_as_the_app_says() {
    run(async {
        let version = env!("CARGO_PKG_VERSION");
        let (finding, request) = found(&probe(), b"HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(finding, Finding::Well);
        assert_eq!(
            request,
            format!(
                "GET /healthz?deep=1 HTTP/1.1\r\nHost: ADDRESS\r\n\
                 User-Agent: portico-probe/{version}\r\nConnection: close\r\n\r\n"
            )
        );
        let named = Probe {
            host: Some("shop.example".into()),
            ..probe()
        };
        let (finding, request) = found(&named, b"HTTP/1.0 200\r\n\r\n").await;
        assert_eq!(finding, Finding::Well);
        assert!(request.contains("\r\nHost: shop.example\r\n"), "{request}");
    });
}

#[test]
fn a_head_is_judged_and_no_body_waited_for() {
    run(async {
        let cases: [(&[u8], Finding); 12] = [
            // The body never comes.
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Finding::Well),
            (b"HTTP/1.1 399 Odd\r\n\r\nbody that goes on", Finding::Well),
            (b"HTTP/1.1 500 No\r\n\r\n", Finding::Status(500)),
            (b"HTTP/1.1 404 No\r\n\r\n", Finding::Status(404)),
            (b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n", Finding::Status(101)),
            (
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
                Finding::Well,
            ),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Finding::Malformed("not an HTTP/1 status line")),
            (b"\x15\x03\x01\x00\x02\x02\x50", Finding::Malformed("not an HTTP/1 status line")),
            (b"HTTP/2.0 200 OK\r\n\r\n", Finding::Malformed("not an HTTP/1 status line")),
            (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", Finding::Malformed("space in or after a header name")),
            (b"HTTP/1.1 200 OK\nA: b\n\n", Finding::Malformed("bare LF")),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                Finding::Malformed("differing Content-Length"),
            ),
        ];
        for (bytes, expected) in cases {
            let (finding, _) = found(&probe(), bytes).await;
            assert_eq!(finding, expected, "{}", String::from_utf8_lossy(bytes));
        }
    });
}

/// What a probe finds at a backend that repeats `bytes` for ever, after a
/// start.
async fn endless(start: &'static [u8], bytes: &'static [u8]) -> Finding {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answering = backend(&listener, |mut stream| async move {
        let _ = stream.write_all(start).await;
        let mut sent = 0;
        while stream.write_all(bytes).await.is_ok() {
            sent += bytes.len();
            // What socket buffers hold, and far from it.
            assert!(sent < 64 << 20, "the probe must have hung up");
        }
    });
    let probe = probe();
    let (finding, _) = tokio::join!(ask(address, Some(&probe), PATIENCE), answering);
    finding
}

#[test]
fn a_head_without_end_is_cut_at_its_limit() {
    run(async {
        let ok = b"HTTP/1.1 200 OK\r\n";
        let cases: [(&[u8], &[u8], &str); 5] = [
            (ok, b"X-Filler: and so on and on\r\n", "too many headers"),
            (
                ok,
                b"an endless header line ",
                "space in or after a header name",
            ),
            (ok, b"endless", "line too long"),
            (b"HTTP/1.1 200 ", b"really ", "line too long"),
            (
                b"",
                b"HTTP/1.1 103 Hints\r\n\r\n",
                "interim answers without end",
            ),
        ];
        for (start, bytes, cause) in cases {
            assert_eq!(endless(start, bytes).await, Finding::Malformed(cause));
        }
        let long: &[u8] = &[b'x'; 15 * 1024];
        let line = [b"X-Long: ", long, b"\r\n"].concat().leak();
        let cause = "head too large";
        assert_eq!(endless(ok, line).await, Finding::Malformed(cause));
    });
}

#[test]
fn slow_and_mute_backends_cost_their_time_and_no_more() {
    run(async {
        // A byte now and then: each is progress, the whole is not.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let probe = probe();
        let began = Instant::now();
        let answering = backend(&listener, |mut stream| async move {
            let mut tick = interval(Duration::from_millis(40));
            for byte in b"HTTP/1.1 200 OK\r\n\r\n" {
                tick.tick().await;
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        });
        let (finding, _) = tokio::join!(ask(address, Some(&probe), SHORT), answering);
        assert_eq!(finding, Finding::TimedOut);
        assert!(began.elapsed() >= SHORT.whole);

        // Accepts, in its backlog, and that is all.
        let began = Instant::now();
        let finding = ask(address, Some(&probe), SHORT).await;
        assert_eq!(finding, Finding::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(5));
        // Which is all that a probe without a path asks for.
        assert_eq!(ask(address, None, SHORT).await, Finding::Well);
        let tcp = Probe::default();
        assert_eq!(ask(address, Some(&tcp), SHORT).await, Finding::Well);
    });
}

#[test]
fn nobody_there_and_nobody_answering_are_told_apart() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let probe = probe();
        let answering = backend(&listener, |stream| async move { drop(stream) });
        let (finding, _) = tokio::join!(ask(address, Some(&probe), PATIENCE), answering);
        assert_eq!(finding, Finding::Closed);
        let answering = backend(&listener, |mut stream| async move {
            stream.write_all(b"HTTP/1.1 200 O").await.unwrap();
        });
        let (finding, _) = tokio::join!(ask(address, Some(&probe), PATIENCE), answering);
        assert_eq!(finding, Finding::Closed);
        drop(listener);
        assert_eq!(ask(address, Some(&probe), PATIENCE).await, Finding::Refused);
        assert_eq!(ask(address, None, PATIENCE).await, Finding::Refused);
    });
}

#[test]
fn the_routers_own_want_says_nothing_of_a_backend() {
    for errno in [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL] {
        let error = io::Error::from_raw_os_error(errno.raw_os_error());
        assert_eq!(unconnected(&error).passed(), None, "{error}");
    }
    for errno in [Errno::CONNREFUSED, Errno::HOSTUNREACH, Errno::NETUNREACH] {
        let error = io::Error::from_raw_os_error(errno.raw_os_error());
        assert_eq!(unconnected(&error), Finding::Refused, "{error}");
    }
}
