//! Comma-separated lists and small values inside header fields.
//!
//! Owns the syntax of `Connection`, `Content-Length`, `Transfer-Encoding`,
//! request ids and `traceparent`. Says what a value is, never what follows
//! from it.

/// Most connection options looked at in one head; more are refused, so that
/// naming headers stays linear.
pub(super) const OPTIONS: usize = 32;

/// The elements of a list (RFC 9110, section 5.6.1), empty ones left out.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// The connection options of a head, put together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    /// `close`
    pub close: bool,
    /// `keep-alive`
    pub keep_alive: bool,
    /// `upgrade`
    pub upgrade: bool,
    count: usize,
}

impl Options {
    /// Takes one line's; calls `other` with each option that is none of these.
    ///
    /// # Errors
    /// Those of `other`, and more than [`OPTIONS`].
    pub fn take(
        &mut self,
        value: &[u8],
        mut other: impl FnMut(&[u8]) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        // Most heads have one line with this one word.
        if value.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
            return Ok(());
        }
        for option in elements(value) {
            self.count += 1;
            if self.count > OPTIONS {
                return Err("too many connection options");
            }
            if option.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                other(option)?;
            }
        }
        Ok(())
    }
}

/// A `Content-Length` value: digits, nothing else (RFC 9110, section 8.6).
///
/// # Errors
/// With what is wrong.
pub(super) fn content_length(value: &[u8]) -> Result<u64, &'static str> {
    if value.is_empty() {
        return Err("empty Content-Length");
    }
    let mut length = 0_u64;
    for byte in value {
        if !byte.is_ascii_digit() {
            return Err("invalid Content-Length");
        }
        length = length
            .checked_mul(10)
            .and_then(|n| n.checked_add(u64::from(byte - b'0')))
            .ok_or("Content-Length overflows")?;
    }
    Ok(length)
}

/// Whether a `Content-Length` value is written the one way everyone reads.
pub(super) fn is_plain_length(value: &[u8]) -> bool {
    !value.starts_with(b"0") || value == b"0"
}

/// What a `Transfer-Encoding` value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Exactly `chunked`.
    Chunked,
    /// A registered coding, alone or before a final `chunked`, that this
    /// router does not undo.
    Registered,
    /// Anything else: its end cannot be known.
    Invalid,
}

/// Reads a `Transfer-Encoding` value.
pub(super) fn coding(value: &[u8]) -> Coding {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Coding::Chunked;
    }
    let value = match value.iter().rposition(|b| *b == b',') {
        Some(comma)
            if value[comma + 1..]
                .trim_ascii()
                .eq_ignore_ascii_case(b"chunked") =>
        {
            value[..comma].trim_ascii()
        }
        _ => value,
    };
    let registered: [&[u8]; 7] = [
        b"gzip",
        b"x-gzip",
        b"deflate",
        b"compress",
        b"x-compress",
        b"br",
        b"zstd",
    ];
    if registered
        .iter()
        .any(|name| value.eq_ignore_ascii_case(name))
    {
        Coding::Registered
    } else {
        Coding::Invalid
    }
}

/// Whether a client's request id is kept (CONTRACT: 20–200 of
/// `[A-Za-z0-9+/=-]`).
pub(super) fn is_request_id(value: &[u8]) -> bool {
    (20..=200).contains(&value.len())
        && value
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-'))
}

/// Whether a `traceparent` can be continued (W3C Trace Context, section 3.2).
pub(super) fn is_traceparent(value: &[u8]) -> bool {
    let hex = |span: &[u8]| span.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let zeros = |span: &[u8]| span.iter().all(|b| *b == b'0');
    let Some((known, later)) = value.split_at_checked(55) else {
        return false;
    };
    let (version, trace, parent, flags) =
        (&known[..2], &known[3..35], &known[36..52], &known[53..]);
    let later_is_of_a_later_version =
        later.is_empty() || (version != b"00" && later.first() == Some(&b'-'));
    known[2] == b'-'
        && known[35] == b'-'
        && known[52] == b'-'
        && hex(version)
        && version != b"ff"
        && hex(trace)
        && !zeros(trace)
        && hex(parent)
        && !zeros(parent)
        && hex(flags)
        && later_is_of_a_later_version
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_digits() {
        for (text, length) in [
            ("0", 0),
            ("5", 5),
            ("007", 7),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(content_length(text.as_bytes()), Ok(length));
        }
        for text in [
            "",
            "+5",
            "-5",
            "5,5",
            "5, 5",
            "5 5",
            "0x5",
            "5a",
            "5.0",
            "1e3",
            "18446744073709551616",
            "99999999999999999999999",
            "\u{b2}",
            "5\t",
        ] {
            assert!(content_length(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn only_chunked_alone_is_chunked() {
        for text in ["chunked", "Chunked", "CHUNKED"] {
            assert_eq!(coding(text.as_bytes()), Coding::Chunked);
        }
        for text in ["gzip", "gzip, chunked", "DEFLATE ,chunked", "zstd"] {
            assert_eq!(coding(text.as_bytes()), Coding::Registered, "{text}");
        }
        for text in [
            "",
            "xchunked",
            "chunked,",
            ",chunked",
            "chunked, chunked",
            "chunked, gzip",
            "identity",
            "chunked;q=1",
            "\"chunked\"",
            "chunked\u{b}",
            "chunk",
            "gzip, gzip, chunked",
            "'chunked'",
            "identity, chunked",
            "chunked, identity",
        ] {
            assert_eq!(coding(text.as_bytes()), Coding::Invalid, "{text}");
        }
    }

    #[test]
    fn traceparents_are_those_of_the_standard() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good.as_bytes()));
        assert!(is_traceparent(format!("cc{}-what", &good[2..]).as_bytes()));
        assert!(is_traceparent(format!("01{}", &good[2..]).as_bytes()));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn request_ids_have_their_length_and_alphabet() {
        assert!(is_request_id(b"01234567-89ab+cdef/0="));
        assert!(is_request_id(&[b'a'; 200]));
        assert!(!is_request_id(&[b'a'; 19]));
        assert!(!is_request_id(&[b'a'; 201]));
        assert!(!is_request_id(b"01234567 89abcdef0123"));
        assert!(!is_request_id(b"01234567_89abcdef0123"));
    }

    #[test]
    fn lists_lose_their_empty_elements() {
        let all: Vec<&[u8]> = elements(b" ,a , b,,\tc\t,").collect();
        assert_eq!(all, [b"a", b"b", b"c"]);
    }
}
