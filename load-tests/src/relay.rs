//! The floor: a bare L4 relay that parses nothing.
//!
//! The router's habits without its work: tokio's `current_thread` runtime, one
//! task per connection, one upstream connection for each client's, one buffer
//! a direction, no splice. What it costs, the kernel and the runtime cost; what
//! a proxy costs beyond it is the proxy's own.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

/// Bytes of each direction's buffer.
const BUFFER_BYTES: usize = 16 * 1024;

/// Serves until killed.
pub fn serve(listen: SocketAddr, upstream: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("relay: binding {listen}"))?;
        loop {
            let Ok((client, _)) = listener.accept().await else {
                continue;
            };
            // A connection that breaks is its own end: the relay judges nothing.
            tokio::spawn(async move {
                let _ = relay(client, upstream).await;
            });
        }
    })
}

async fn relay(mut client: TcpStream, upstream: SocketAddr) -> std::io::Result<()> {
    let mut backend = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    backend.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut backend, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}
