//! An authority as `Host` and absolute targets carry it: checked, split, and
//! lower-cased for lookup.
//!
//! Owns which characters a host may have. Never resolves a name.

use std::net::Ipv6Addr;

use super::line;

/// Longest host name looked up, in bytes (RFC 1035, section 3.1).
const HOST_BYTES: usize = 255;

/// A host name in lower case without port and trailing dot, held inline so
/// that a lookup allocates nothing.
#[derive(Clone)]
pub struct HostName {
    len: u8,
    bytes: [u8; HOST_BYTES],
}

impl Default for HostName {
    fn default() -> HostName {
        HostName {
            len: 0,
            bytes: [0; HOST_BYTES],
        }
    }
}

impl std::fmt::Debug for HostName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_bytes().escape_ascii().to_string())
    }
}

impl PartialEq for HostName {
    fn eq(&self, other: &HostName) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for HostName {}

impl HostName {
    /// Its bytes; IPv6 in brackets.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Forgets the name.
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// Takes a checked host.
    pub(super) fn set(&mut self, host: &[u8]) {
        let host = match host {
            [name @ .., b'.'] if !name.is_empty() => name,
            host => host,
        };
        let host = &host[..host.len().min(HOST_BYTES)];
        for (to, from) in self.bytes.iter_mut().zip(host) {
            *to = from.to_ascii_lowercase();
        }
        self.len = host.len() as u8;
    }
}

/// Length of the host in `authority`, what is left being nothing or a port
/// (RFC 3986, section 3.2, without user information, which HTTP forbids).
///
/// # Errors
/// With what is wrong.
pub(super) fn host_len(authority: &[u8]) -> Result<usize, &'static str> {
    let len = if authority.first() == Some(&b'[') {
        bracketed_len(authority)?
    } else {
        name_len(authority)?
    };
    if len == 0 {
        return Err("empty Host");
    }
    if len > HOST_BYTES {
        return Err("Host too long");
    }
    match &authority[len..] {
        [] => Ok(len),
        [b':', port @ ..] if is_port(port) => Ok(len),
        [b':', ..] => Err("invalid port in Host"),
        _ => Err("invalid Host"),
    }
}

fn is_port(port: &[u8]) -> bool {
    (1..=5).contains(&port.len())
        && port.iter().all(u8::is_ascii_digit)
        && port.iter().fold(0_u32, |n, d| n * 10 + u32::from(d - b'0')) <= 65_535
}

fn name_len(authority: &[u8]) -> Result<usize, &'static str> {
    let mut at = line::plain_host_end(authority, 0);
    while let Some(byte) = authority.get(at) {
        match byte {
            b if line::is_host(*b) => at += 1,
            b':' => break,
            b'%' => match authority.get(at + 1..at + 3) {
                Some(hex) if hex.iter().all(u8::is_ascii_hexdigit) => at += 3,
                _ => return Err("invalid Host"),
            },
            _ => return Err("invalid Host"),
        }
    }
    Ok(at)
}

fn bracketed_len(authority: &[u8]) -> Result<usize, &'static str> {
    let close = authority.iter().position(|b| *b == b']');
    let close = close.ok_or("invalid Host")?;
    std::str::from_utf8(&authority[1..close])
        .ok()
        .and_then(|text| text.parse::<Ipv6Addr>().ok())
        .map(|_| close + 1)
        .ok_or("invalid Host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_split_from_ports() {
        let good: &[(&str, usize)] = &[
            ("a", 1),
            ("a.example", 9),
            ("A.Example:80", 9),
            ("a.example.:65535", 10),
            ("xn--bcher-kva.example", 21),
            ("under_score.example", 19),
            ("127.0.0.1:8080", 9),
            ("[::1]", 5),
            ("[2001:db8::1]:443", 13),
            ("a%41b", 5),
        ];
        for (text, len) in good {
            assert_eq!(host_len(text.as_bytes()), Ok(*len), "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = "a".repeat(256);
        for text in [
            "",
            ":80",
            "a:",
            "a:x",
            "a:65536",
            "a:000080",
            "a:80:80",
            "a b",
            "a,b",
            "a/b",
            "a@b",
            "u:p@a",
            "a?b",
            "a#b",
            "a\\b",
            "[::1",
            "::1",
            "[::1]x",
            "[]",
            "[v1.a]",
            "[fe80::1%25eth0]",
            "a%4",
            "a%zz",
            "\u{e9}",
            "a\"b",
            "a<b",
            "a\tb",
            &long,
        ] {
            assert!(host_len(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn lookup_names_are_lower_case_and_without_a_trailing_dot() {
        let mut name = HostName::default();
        name.set(b"A.Example.");
        assert_eq!(name.as_bytes(), b"a.example");
        name.set(b".");
        assert_eq!(name.as_bytes(), b".");
        name.set(&[b'A'; 255]);
        assert_eq!(name.as_bytes(), &[b'a'; 255]);
    }
}
