//! The PROXY protocol header of a trusted load balancer (HAProxy's
//! `proxy-protocol.txt`, versions 1 and 2).
//!
//! Owns telling such a header from the start of a request, and what it says of
//! the client. Only ever asked about peers in `edge.trusted_proxies`; anybody
//! else's is a malformed request.

use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};

/// How a version 2 header begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// How a version 1 header begins, and how long it is at most.
const WORD: &[u8] = b"PROXY ";
const LINE_BYTES: usize = 107;

/// A version 2 header's fixed part, and the most its addresses and extensions
/// may take.
const FIXED_BYTES: usize = 16;
const REST_BYTES: usize = 4096;

/// What a connection from a trusted peer begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preface {
    /// A request.
    Absent,
    /// Perhaps a header; more bytes are needed.
    Partial,
    /// A header.
    Header {
        /// Its bytes; the request follows.
        bytes: usize,
        /// Client, and the address it connected to; none for the balancer's
        /// own connections (health checks).
        ends: Option<(SocketAddr, SocketAddr)>,
    },
    /// A header that cannot be understood: the connection must be closed.
    Malformed,
}

/// Looks at the first bytes of a connection.
pub fn read(buf: &[u8]) -> Preface {
    if begins(buf, SIGNATURE) {
        binary(buf)
    } else if begins(buf, WORD) {
        text(buf)
    } else {
        Preface::Absent
    }
}

/// Whether `buf` starts as `mark` does, as far as both go.
fn begins(buf: &[u8], mark: &[u8]) -> bool {
    let shared = buf.len().min(mark.len());
    buf[..shared] == mark[..shared]
}

fn text(buf: &[u8]) -> Preface {
    let Some(end) = buf.iter().take(LINE_BYTES).position(|&byte| byte == b'\n') else {
        return if buf.len() < LINE_BYTES {
            Preface::Partial
        } else {
            Preface::Malformed
        };
    };
    let ends = match v1::Header::try_from(&buf[..=end]).map(|header| header.addresses) {
        Ok(v1::Addresses::Tcp4(ip)) => Some((
            address(ip.source_address, ip.source_port),
            address(ip.destination_address, ip.destination_port),
        )),
        Ok(v1::Addresses::Tcp6(ip)) => Some((
            address(ip.source_address, ip.source_port),
            address(ip.destination_address, ip.destination_port),
        )),
        Ok(v1::Addresses::Unknown) => None,
        Err(_) => return Preface::Malformed,
    };
    Preface::Header {
        bytes: end + 1,
        ends,
    }
}

fn binary(buf: &[u8]) -> Preface {
    let Some(fixed) = buf.get(..FIXED_BYTES) else {
        return Preface::Partial;
    };
    let rest = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if rest > REST_BYTES {
        return Preface::Malformed;
    }
    let bytes = FIXED_BYTES + rest;
    let Some(whole) = buf.get(..bytes) else {
        return Preface::Partial;
    };
    let Ok(header) = v2::Header::try_from(whole) else {
        return Preface::Malformed;
    };
    let ends = match (header.command, header.addresses) {
        (v2::Command::Local, _) | (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
        (_, v2::Addresses::IPv4(ip)) => Some((
            address(ip.source_address, ip.source_port),
            address(ip.destination_address, ip.destination_port),
        )),
        (_, v2::Addresses::IPv6(ip)) => Some((
            address(ip.source_address, ip.source_port),
            address(ip.destination_address, ip.destination_port),
        )),
    };
    Preface::Header { bytes, ends }
}

fn address(ip: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into().to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\n";

    fn v2_header() -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([
            0x21, 0x11, 0, 12, 203, 0, 113, 9, 192, 0, 2, 1, 0x15, 0xb3, 1, 0xbb,
        ]);
        header
    }

    fn ends() -> Option<(SocketAddr, SocketAddr)> {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        Some((parse("203.0.113.9:5555"), parse("192.0.2.1:443")))
    }

    #[test]
    fn both_versions_say_who_the_client_is() {
        for header in [LINE.to_vec(), v2_header()] {
            let mut bytes = header.clone();
            bytes.extend(b"GET / HTTP/1.1\r\n");
            let expected = Preface::Header {
                bytes: header.len(),
                ends: ends(),
            };
            assert_eq!(read(&bytes), expected);
            for cut in 0..header.len() {
                assert_eq!(read(&bytes[..cut]), Preface::Partial, "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_balancers_own_connections_keep_their_address() {
        let unknown = b"PROXY UNKNOWN\r\n";
        assert_eq!(
            read(unknown),
            Preface::Header {
                bytes: unknown.len(),
                ends: None
            }
        );
        let mut local = v2_header();
        local[12] = 0x20;
        assert_eq!(
            read(&local),
            Preface::Header {
                bytes: local.len(),
                ends: None
            }
        );
    }

    #[test]
    fn requests_are_no_headers_and_nonsense_is_malformed() {
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), Preface::Absent);
        assert_eq!(read(b"PUT / HTTP/1.1\r\n"), Preface::Absent);
        assert_eq!(read(b"\r\nGET / HTTP/1.1\r\n"), Preface::Absent);
        assert_eq!(read(b"PROXY / HTTP/1.1\r\n"), Preface::Malformed);
        assert_eq!(
            read(b"PROXY TCP4 300.0.0.1 192.0.2.1 1 2\r\n"),
            Preface::Malformed
        );
        assert_eq!(read(&[WORD, &[b'x'; 200]].concat()), Preface::Malformed);
        let mut long = v2_header();
        long[14] = 0xff;
        assert_eq!(read(&long), Preface::Malformed);
    }
}
