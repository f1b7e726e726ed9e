//! An HTTP/1.1 server for control's own ports.
//!
//! Owns accepting, the bound on connections, and their graceful end. Knows
//! nothing of what is served.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

/// Connections at once; more wait in the kernel's backlog.
const CONNECTIONS: usize = 4_096;
/// For a head to arrive, and for an idle connection to be used again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// For answers under way when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves `router` until `stopping` says so, then finishes what is under way.
///
/// # Errors
/// The listener cannot be used.
pub async fn serve(
    listener: std::net::TcpListener,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let seat = room
                .clone()
                .acquire_owned()
                .await
                .expect("the semaphore must stay open");
            (listener.accept().await, seat)
        };
        tokio::select! {
            (accepted, seat) = accepted => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let connection = graceful.watch(connection(stream, router.clone()));
                    connections.spawn(async move {
                        // A client that breaks off is no news.
                        let _ = connection.await;
                        drop(seat);
                    });
                }
                Err(error) => {
                    // Out of descriptors, mostly: those in use will come free.
                    tracing::warn!("accepting a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = stopping.wait_for(|stop| *stop) => break,
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            "connections were still busy after {} s",
            DRAIN_TIMEOUT.as_secs()
        );
    }
    Ok(())
}

fn connection(
    stream: tokio::net::TcpStream,
    router: Router,
) -> impl GracefulConnection<Error = hyper::Error> {
    let router = router.map_request(|request: Request<Incoming>| request.map(Body::new));
    let service = TowerToHyperService::new(router);
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
}
