//! A domain as registered: `host`, `*.host`, each with an optional `/prefix`.
//!
//! Owns its canonical text, its check, and which requests it matches. Knows
//! nothing of apps or of where routes are kept.
//!
//! A wildcard stands for one label or more. A prefix matches on segment
//! boundaries (`/api` takes `/api`, `/api/x` and `/api?x`, never `/apis`), byte
//! for byte: percent-encoding and dot segments are the app's business.

/// Bytes of a host name (RFC 1035, section 3.1).
const HOST_MAX_BYTES: usize = 253;
/// Bytes of a path prefix.
const PREFIX_MAX_BYTES: usize = 1024;

/// The parts of a canonical domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Domain<'a> {
    /// Whether it began with `*.`.
    pub(super) wildcard: bool,
    /// Without `*.`.
    pub(super) host: &'a str,
    /// Empty, or `/` and more, without a slash at the end.
    pub(super) prefix: &'a str,
}

impl<'a> Domain<'a> {
    /// The parts of a text that [`canonical`] returned.
    pub(super) fn of(text: &'a str) -> Domain<'a> {
        let (wildcard, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (host, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Domain {
            wildcard,
            host,
            prefix,
        }
    }

    /// Labels of its host.
    pub(super) fn labels(&self) -> usize {
        labels(self.host.as_bytes())
    }
}

/// Labels of a host.
pub(super) fn labels(host: &[u8]) -> usize {
    host.iter().filter(|&&byte| byte == b'.').count() + 1
}

/// A domain's text as the table keys it, or what is wrong with it.
pub(super) fn canonical(text: &str) -> Result<&str, &'static str> {
    let text = text.trim_end_matches('/');
    let domain = Domain::of(text);
    let host = domain.host;
    if host.is_empty() || host.len() > HOST_MAX_BYTES {
        return Err("the host must have 1 to 253 bytes");
    }
    if domain.prefix.len() > PREFIX_MAX_BYTES {
        return Err("the path prefix must have at most 1024 bytes");
    }
    if domain.wildcard && host.starts_with('[') {
        return Err("an address takes no wildcard");
    }
    if host.starts_with('.') || host.ends_with('.') || host.contains("..") {
        return Err("the host has an empty label");
    }
    let is_host = |byte: u8| {
        byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || matches!(byte, b'-' | b'.' | b'_' | b'[' | b']' | b':')
    };
    if !host.bytes().all(is_host) {
        return Err(
            "the host has a character that no host has (upper case, a port, a second `*`?)",
        );
    }
    if !domain
        .prefix
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#')
    {
        return Err("the path prefix has a character that no path has");
    }
    Ok(text)
}

/// How specific the match of `key`, a canonical domain, is for a host and a
/// path: its prefix's length plus one, or `None` without a match. `host` is
/// the whole host, or for a wildcard what follows the labels it stands for.
#[inline]
pub(super) fn matched(mut key: &[u8], wildcard: bool, host: &[u8], path: &[u8]) -> Option<usize> {
    if wildcard {
        key = key.strip_prefix(b"*.")?;
    }
    let prefix = key.strip_prefix(host)?;
    if prefix.is_empty() {
        return Some(1);
    }
    if prefix[0] != b'/' {
        return None;
    }
    match path.strip_prefix(prefix)?.first() {
        None | Some(b'/' | b'?') => Some(prefix.len() + 1),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_text_and_refusals() {
        for (given, kept) in [
            ("a.example", "a.example"),
            ("a.example/", "a.example"),
            ("*.a.example/api/", "*.a.example/api"),
            ("[::1]", "[::1]"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(canonical(given), Ok(kept));
        }
        for given in [
            "",
            "/",
            "*.",
            "*",
            "A.example",
            "a..b",
            ".a",
            "a.",
            "*.*.a",
            "a.*.b",
            "a b",
            "a.example/x y",
            "a.example/?q",
            "*.[::1]",
            "é.example",
        ] {
            assert!(canonical(given).is_err(), "{given:?} must be refused");
        }
        assert!(canonical(&"a".repeat(254)).is_err());
        assert!(canonical(&format!("a/{}", "b".repeat(1024))).is_err());
    }

    #[test]
    fn a_prefix_matches_on_segment_boundaries() {
        let with = |path: &str| matched(b"a.example/api", false, b"a.example", path.as_bytes());
        assert_eq!(with("/api"), Some(5));
        assert_eq!(with("/api/x"), Some(5));
        assert_eq!(with("/api?x"), Some(5));
        assert_eq!(with("/apis"), None);
        assert_eq!(with("/"), None);
        assert_eq!(with("*"), None);
    }

    #[test]
    fn a_host_is_matched_whole() {
        assert_eq!(matched(b"a.example", false, b"a.example", b"/"), Some(1));
        assert_eq!(matched(b"a.example.org", false, b"a.example", b"/"), None);
        assert_eq!(matched(b"*.a.example", false, b"a.example", b"/"), None);
        assert_eq!(matched(b"*.a.example", true, b"a.example", b"/"), Some(1));
        assert_eq!(matched(b"a.example", true, b"a.example", b"/"), None);
    }
}
