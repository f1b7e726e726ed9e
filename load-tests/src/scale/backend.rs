//! The backends behind every proxy of these scenarios: answers after a stated
//! time, and WebSockets that echo.
//!
//! One thread, many addresses. An answer's body is its request's number, as the
//! client expects it, and its head names the address that answered. The
//! handshake accepts one key only, the sample of RFC 6455, section 1.3: so its
//! answer is known and nothing needs hashing. Never anything else than a test's
//! backend.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::faults::backend::body;

/// The sample key of RFC 6455, section 1.3.
pub const SOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// What a server makes of it.
pub const SOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Longest payload echoed: one length byte suffices.
pub const PAYLOAD_MAX_BYTES: usize = 125;
/// A longer head ends the connection.
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// Arguments of the hidden `scale-backend` subcommand.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// What a request takes, ms.
    #[arg(long)]
    service_ms: u64,
    /// Where it listens.
    #[arg(required = true)]
    listen: Vec<SocketAddr>,
}

/// Serves until killed.
pub fn serve(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let service = Duration::from_millis(options.service_ms);
    runtime.block_on(async {
        let mut accepting = Vec::new();
        for address in &options.listen {
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("backend: binding {address}"))?;
            rustix::net::listen(&listener, 4096)?;
            accepting.push(tokio::spawn(accept(listener, *address, service)));
        }
        for one in accepting {
            one.await?;
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener, address: SocketAddr, service: Duration) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            // A connection that breaks is its own end.
            tokio::spawn(async move {
                let _ = converse(stream, address, service).await;
            });
        }
    }
}

async fn converse(mut stream: TcpStream, address: SocketAddr, service: Duration) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut pending = Vec::with_capacity(1024);
    loop {
        let Some(end) = memmem::find(&pending, b"\r\n\r\n") else {
            ensure!(pending.len() < HEAD_MAX_BYTES, "a head without an end");
            if stream.read_buf(&mut pending).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let head = String::from_utf8_lossy(&pending[..end]).to_ascii_lowercase();
        pending.drain(..end + 4);
        if head.contains("\r\nupgrade: websocket") {
            return echo(stream, pending).await;
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        let number = path.trim_start_matches('/').parse().unwrap_or(0);
        if !service.is_zero() {
            tokio::time::sleep(service).await;
        }
        let body = body(number);
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Backend: {address}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).await?;
        if head.contains("\r\nconnection: close") {
            return Ok(());
        }
    }
}

/// Answers the handshake, then every frame with its payload.
async fn echo(mut stream: TcpStream, mut pending: Vec<u8>) -> Result<()> {
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {SOCKET_ACCEPT}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    loop {
        while let Some((payload, bytes)) = unmask(&pending)? {
            pending.drain(..bytes);
            let mut frame = vec![0x81, u8::try_from(payload.len())?];
            frame.extend_from_slice(&payload);
            stream.write_all(&frame).await?;
        }
        if stream.read_buf(&mut pending).await? == 0 {
            return Ok(());
        }
    }
}

/// A client's text frame: its length, a mask, the payload under it (RFC 6455, section 5.2).
pub fn mask(payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a payload must be short");
    let mut frame = vec![0x81, 0x80 | length];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
    frame
}

/// The payload of the frame that `bytes` begin with, and the frame's length;
/// `None` while it is not whole.
fn unmask(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>> {
    let [kind, length, rest @ ..] = bytes else {
        return Ok(None);
    };
    ensure!(*kind == 0x81, "not a whole text frame: {kind:#x}");
    let length = usize::from(length & 0x7f);
    ensure!(length <= PAYLOAD_MAX_BYTES, "a long frame");
    if rest.len() < 4 + length {
        return Ok(None);
    }
    let (mask, payload) = rest.split_at(4);
    let payload = payload[..length].iter().zip(mask.iter().cycle());
    Ok(Some((payload.map(|(a, b)| a ^ b).collect(), 6 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_masked_and_unmasked() {
        let frame = mask(b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        // RFC 6455, section 5.7.
        assert_eq!(
            frame,
            [
                0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58
            ]
        );
        assert_eq!(unmask(&frame).unwrap(), Some((b"Hello".to_vec(), 11)));
        assert_eq!(unmask(&frame[..10]).unwrap(), None);
        assert!(unmask(&[0x88, 0x80, 0, 0, 0, 0]).is_err());
    }
}
