//! hyper as a reader of what the codec writes, over pipes in memory.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::messages::{Lines, sorted};

pub fn hypers(headers: &hyper::HeaderMap) -> Lines {
    sorted(
        headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())),
    )
}

/// What hyper read of a message.
#[derive(Debug)]
pub struct Read {
    /// Method and target, or the status.
    pub first: String,
    pub version: hyper::Version,
    pub headers: Lines,
    pub body: Vec<u8>,
    pub trailers: Lines,
}

pub async fn read_body(body: Incoming) -> (Vec<u8>, Lines) {
    let collected = body.collect().await.expect("hyper must read the body");
    let trailers = collected.trailers().map(hypers).unwrap_or_default();
    (collected.to_bytes().to_vec(), trailers)
}

/// One request read by hyper's server.
pub async fn hyper_server_reads(wire: Vec<u8>) -> Read {
    let (mut near, far) = tokio::io::duplex(1 << 20);
    near.write_all(&wire).await.expect("a duplex must take it");
    let (send, mut receive) = tokio::sync::mpsc::channel(1);
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let send = send.clone();
        async move {
            let (head, body) = request.into_parts();
            let (body, trailers) = read_body(body).await;
            let read = Read {
                first: format!("{} {}", head.method, head.uri),
                version: head.version,
                headers: hypers(&head.headers),
                body,
                trailers,
            };
            send.send(read).await.expect("the test must wait for it");
            Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::new())))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .max_headers(1_000)
        .serve_connection(TokioIo::new(far), service);
    tokio::select! {
        ended = connection => panic!("hyper refused it: {ended:?}\n{}", wire.escape_ascii()),
        read = receive.recv() => read.expect("one request must come"),
    }
}

/// One response read by hyper's client. The other side closes after it.
pub async fn hyper_client_reads(wire: Vec<u8>, method: &str) -> Read {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(2_000)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(near))
        .await
        .expect("a duplex must do");
    let connection = tokio::spawn(connection);
    let request = hyper::Request::builder().method(method).uri("/");
    let request = request
        .body(Empty::new())
        .expect("a plain request must build");
    let answer = tokio::spawn(sender.send_request(request));
    read_head(&mut far).await;
    far.write_all(&wire).await.expect("a duplex must take it");
    drop(far);
    let answer = answer.await.expect("hyper must not panic");
    let answer = answer.unwrap_or_else(|error| panic!("{error}: {}", wire.escape_ascii()));
    let (head, body) = answer.into_parts();
    let (body, trailers) = read_body(body).await;
    let _closed = connection.await;
    Read {
        first: head.status.as_str().to_owned(),
        version: head.version,
        headers: hypers(&head.headers),
        body,
        trailers,
    }
}

pub async fn read_head(stream: &mut DuplexStream) {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await.expect("hyper must send a request"));
    }
}

pub fn block_on<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime must start")
        .block_on(async {
            tokio::time::timeout(Duration::from_secs(20), task)
                .await
                .expect("hyper must not wait for more")
        })
}
