//! What an app, a host, a backend and an address may be called.
//!
//! Owns the checks and the normal form of each; every error is one sentence
//! for the caller. Never looks at what is registered.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Bytes of a host pattern with its path, at most.
const HOST_PATTERN_MAX: usize = 253 + 1 + 256;

/// An app's name: `[a-z][a-z0-9-]{0,62}`.
///
/// # Errors
/// Says what is expected.
pub fn check_app(name: &str) -> Result<(), String> {
    let bytes = name.as_bytes();
    let fits = (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    if fits {
        Ok(())
    } else {
        Err(format!(
            "app name {}: expected [a-z][a-z0-9-]{{0,62}}",
            quoted(name)
        ))
    }
}

/// A backend's id: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`.
///
/// # Errors
/// Says what is expected.
pub fn check_backend(id: &str) -> Result<(), String> {
    let bytes = id.as_bytes();
    let fits = (1..=128).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if fits {
        Ok(())
    } else {
        Err(format!(
            "backend id {}: expected [A-Za-z0-9][A-Za-z0-9._-]{{0,127}}",
            quoted(id)
        ))
    }
}

/// A release's name: at most 128 printable characters, no spaces at the ends.
///
/// # Errors
/// Says what is expected.
pub fn check_release(release: &str) -> Result<(), String> {
    let fits = release.chars().count() <= 128
        && !release.chars().any(char::is_control)
        && release.trim() == release;
    if fits {
        Ok(())
    } else {
        Err("release: expected at most 128 printable characters".into())
    }
}

/// A backend's address in normal form.
///
/// # Errors
/// Says what is wrong with it.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| {
        format!(
            "address {}: expected ip:port, such as 10.0.0.7:8000 or [::1]:8000",
            quoted(text)
        )
    })?;
    let ip = address.ip().to_canonical();
    let refused = if address.port() == 0 {
        "port 0"
    } else if ip.is_unspecified() {
        "the unspecified address"
    } else if ip.is_multicast() {
        "a multicast address"
    } else if ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        "the broadcast address"
    } else if matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0) {
        "an address with a scope"
    } else {
        return Ok(address);
    };
    Err(format!(
        "address {}: {refused} is nowhere to connect to",
        quoted(text)
    ))
}

/// A host pattern in normal form: a host or `*.` wildcard, lower-case ASCII
/// (IDNA 2008 by UTS 46), without a trailing dot, and the path prefix if one
/// was given. An IPv4 address is a host too, so that a bare address can be
/// curled; an IPv6 address is not.
///
/// # Errors
/// Says what is wrong with it.
pub fn host(text: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("host {}: {why}", quoted(text));
    if text.len() > 4 * HOST_PATTERN_MAX {
        return Err(wrong("too long"));
    }
    let (name, path) = match text.find('/') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    if name.contains(':') {
        return Err(wrong(
            "a port or scheme does not belong here; expected a host name",
        ));
    }
    let (star, name) = match name.strip_prefix("*.") {
        Some(rest) => ("*.", rest),
        None => ("", name),
    };
    if name.contains('*') {
        return Err(wrong(
            "a wildcard may only be the whole leftmost label, as in *.a.example",
        ));
    }
    let name = host_name(name, star.is_empty()).map_err(wrong)?;
    let path = path_prefix(path).map_err(wrong)?;
    Ok(format!("{star}{name}{path}"))
}

fn host_name(name: &str, may_be_ip: bool) -> Result<String, &'static str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err("empty");
    }
    // Underscores are no letters of a registrar's, but internal names have them.
    let lower = name.to_ascii_lowercase();
    let ascii = if lower.is_ascii() && !lower.contains("xn--") {
        lower
    } else {
        idna::domain_to_ascii_strict(&lower)
            .map_err(|_| "not a valid internationalized name (UTS 46)")?
    };
    if ascii.len() > 253 {
        return Err("longer than 253 characters");
    }
    let label_fits = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if !ascii.split('.').all(label_fits) {
        return Err("each label must be 1-63 letters, digits or inner hyphens");
    }
    // A name whose last label is a number is an address to every URL parser
    // (WHATWG URL, host parsing), so it must be one.
    let last = ascii.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) && !(may_be_ip && ascii.parse::<Ipv4Addr>().is_ok())
    {
        return Err("ends in a number but is no IPv4 address");
    }
    Ok(ascii)
}

/// A path prefix, `""` for none: `/` and a trailing slash mean the same as none.
fn path_prefix(path: &str) -> Result<&str, &'static str> {
    let path = path.trim_end_matches('/');
    if path.len() > 256 {
        return Err("the path is longer than 256 bytes");
    }
    let fits = path
        .bytes()
        .all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'\\' | b'*' | b'"'));
    if !fits {
        return Err("the path has characters that must be percent-encoded, or a query");
    }
    if path
        .split('/')
        .skip(1)
        .any(|segment| matches!(segment, "" | "." | ".."))
    {
        return Err("the path has an empty or dot segment");
    }
    Ok(path)
}

/// For messages: bounded, and control characters escaped.
fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_brought_to_normal_form() {
        for (given, normal) in [
            ("A.Example", "a.example"),
            ("a.example.", "a.example"),
            ("*.A.example", "*.a.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("*.bücher.example", "*.xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("localhost", "localhost"),
            ("a.example/", "a.example"),
            ("a.example/api/v1/", "a.example/api/v1"),
            ("my_app.internal", "my_app.internal"),
        ] {
            assert_eq!(host(given).as_deref(), Ok(normal), "{given}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let label = "a".repeat(64);
        for bad in [
            "",
            ".",
            "*",
            "*.",
            "a..example",
            ".a.example",
            "a.*.example",
            "*a.example",
            "*.*.example",
            "a.example:80",
            "http://a.example",
            "[::1]",
            "::1",
            "-a.example",
            "a-.example",
            "a b.example",
            "1.2.3",
            "256.1.1.1",
            "*.127.0.0.1",
            "a.example/a//b",
            "a.example/../b",
            "a.example/?q",
            "a.example/a b",
            "xn--a.example",
            "XN--a.example",
            "a.example\n",
            "a@b.example",
            label.as_str(),
        ] {
            assert!(host(bad).is_err(), "{bad:?} was taken as {:?}", host(bad));
        }
        assert!(host(&"a.".repeat(150)).is_err());
    }

    #[test]
    fn app_and_backend_names_keep_to_their_alphabets() {
        for good in ["a", "shop", "a-1", &"a".repeat(63)] {
            assert_eq!(check_app(good), Ok(()));
        }
        for bad in ["", "1a", "-a", "Shop", "a_b", "a.b", "ä", &"a".repeat(64)] {
            assert!(check_app(bad).is_err(), "{bad}");
        }
        for good in ["web.1", "A", "0", "a_b-c.d"] {
            assert_eq!(check_backend(good), Ok(()));
        }
        for bad in ["", ".a", "-a", "a/b", "a b", "ä", &"a".repeat(129)] {
            assert!(check_backend(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_must_be_somewhere_to_connect_to() {
        for good in [
            "127.0.0.1:1",
            "10.0.0.7:65535",
            "[::1]:8000",
            "[2001:db8::7]:80",
        ] {
            assert_eq!(address(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:0",
            "127.0.0.1:65536",
            "localhost:80",
            "0.0.0.0:80",
            "[::]:80",
            "224.0.0.1:80",
            "[ff02::1]:80",
            "255.255.255.255:80",
            "::1:80",
            "[::ffff:0.0.0.0]:80",
            "[fe80::1%1]:80",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
