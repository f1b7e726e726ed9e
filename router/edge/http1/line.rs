//! Bytes by class: which may stand in a token, a target, a field value; and
//! the fast search for the first one that may not.
//!
//! Owns the character classes of RFC 9110 and the loops over them, eight bytes
//! at a time where the class allows. Knows nothing of messages.

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const HOST: u8 = 4;

/// One byte's classes, by table: built once, at compile time.
static CLASS: [u8; 256] = {
    let mut class = [0_u8; 256];
    let mut byte = 0_usize;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric() || in_list(b, b"!#$%&'*+-.^_`|~") {
            class[byte] |= TOKEN;
        }
        if b > 0x20 && b < 0x7f && b != b'#' {
            class[byte] |= TARGET;
        }
        if b.is_ascii_alphanumeric() || in_list(b, b"-._~!$&'()*+;=") {
            class[byte] |= HOST;
        }
        byte += 1;
    }
    class
};

const fn in_list(byte: u8, list: &[u8]) -> bool {
    let mut at = 0;
    while at < list.len() {
        if list[at] == byte {
            return true;
        }
        at += 1;
    }
    false
}

#[inline]
fn end_of(class: u8, buf: &[u8], from: usize) -> usize {
    match buf[from..]
        .iter()
        .position(|b| CLASS[*b as usize] & class == 0)
    {
        Some(len) => from + len,
        None => buf.len(),
    }
}

/// Offset of the first byte at or after `from` that is no token character.
#[inline]
pub(super) fn token_end(buf: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = word_at(buf, at) {
        let other = not_plain(word, b'-');
        if other != 0 {
            at += first(other);
            break;
        }
        at += 8;
    }
    end_of(TOKEN, buf, at)
}

/// Offset of the first byte at or after `from` that is no letter, digit, dash
/// or dot: a shortcut over most of a host name.
#[inline]
pub(super) fn plain_host_end(buf: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = word_at(buf, at) {
        let other = not_plain(word, b'-') & not_plain(word, b'.');
        if other != 0 {
            return at + first(other);
        }
        at += 8;
    }
    at
}

/// Offset of the first byte at or after `from` that may not stand in a request
/// target: controls, space, `#`, DEL and everything beyond ASCII.
#[inline]
pub(super) fn target_end(buf: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = word_at(buf, at) {
        // A control, a space (`below` with 0x21), DEL, `#`, or beyond ASCII.
        let found = (below(word, 0x21) | equal(word, 0x7f) | equal(word, b'#') | word) & HIGH;
        if found != 0 {
            return at + first(found);
        }
        at += 8;
    }
    end_of(TARGET, buf, at)
}

/// Whether every byte is a token character, and there is one.
#[inline]
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && token_end(text, 0) == text.len()
}

/// Whether a byte may stand in a reg-name outside a percent-encoding; the
/// comma is left out, since list-joining parsers would split there.
#[inline]
pub(super) fn is_host(byte: u8) -> bool {
    CLASS[byte as usize] & HOST != 0
}

// Eight bytes at a time: a byte's high bit says yes, the other bits are noise.
// Borrows may set a wrong bit above the first right one, never below it, and
// the first is all that is asked for.

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

#[inline(always)]
fn word_at(buf: &[u8], at: usize) -> Option<u64> {
    let bytes = buf.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

/// Index of the first byte whose high bit is set; there must be one.
#[inline(always)]
fn first(found: u64) -> usize {
    (found.trailing_zeros() / 8) as usize
}

/// Bytes below `limit`, which is at most 0x80.
#[inline(always)]
fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(LOW * u64::from(limit)) & !word
}

/// Bytes equal to `byte`.
#[inline(always)]
fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (LOW * u64::from(byte)), 1)
}

/// Bytes that are neither letters nor digits nor `extra`; exact for every byte,
/// since sums of seven bits do not carry.
#[inline(always)]
fn not_plain(word: u64, extra: u8) -> u64 {
    let seven = word & !HIGH;
    let at_least = |bits: u64, from: u8| bits + LOW * u64::from(0x80 - from);
    let lower = seven | (LOW * 0x20);
    let letter = at_least(lower, b'a') & !at_least(lower, b'z' + 1);
    let digit = at_least(seven, b'0') & !at_least(seven, b'9' + 1);
    let is_extra = !at_least(seven ^ (LOW * u64::from(extra)), 1);
    (!(letter | digit | is_extra) | word) & HIGH
}

/// Bytes that are controls: below 0x20, or DEL. Tabs count too: the caller
/// skips them.
#[inline(always)]
fn controls(word: u64) -> u64 {
    (below(word, 0x20) | equal(word, 0x7f)) & HIGH
}

/// Offset of the first control but HTAB at or after `from`: the end of a field
/// value that is well-formed, or its first flaw.
#[inline]
pub(super) fn value_end(buf: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = word_at(buf, at) {
        let found = controls(word);
        if found == 0 {
            at += 8;
            continue;
        }
        at += first(found);
        if buf[at] != b'\t' {
            return at;
        }
        at += 1;
    }
    while at < buf.len() && !((buf[at] < 0x20 && buf[at] != b'\t') || buf[at] == 0x7f) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_end_finds_the_first_control_at_any_place() {
        for byte in 0..=255_u8 {
            for len in 0..40 {
                for at in 0..len {
                    let mut buf = vec![b'a'; len];
                    if at > 0 {
                        buf[at - 1] = 0x80;
                    }
                    buf[at] = byte;
                    let control = (byte < 0x20 && byte != b'\t') || byte == 0x7f;
                    let expected = if control { at } else { len };
                    assert_eq!(value_end(&buf, 0), expected, "{byte:#x} at {at} of {len}");
                }
            }
        }
    }

    #[test]
    fn ends_are_found_at_any_place() {
        for byte in 0..=255_u8 {
            for len in 1..20 {
                for at in 0..len {
                    let mut buf = vec![b'Z'; len];
                    buf[at / 2] = b'9';
                    buf[at] = byte;
                    let end = |ends: bool| if ends { at } else { len };
                    let token = CLASS[byte as usize] & TOKEN != 0;
                    assert_eq!(
                        token_end(&buf, 0),
                        end(!token),
                        "{byte:#x} at {at} of {len}"
                    );
                    let target = CLASS[byte as usize] & TARGET != 0;
                    assert_eq!(
                        target_end(&buf, 0),
                        end(!target),
                        "{byte:#x} at {at} of {len}"
                    );
                    let plain = byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
                    let whole = len - len % 8;
                    let expected = if plain { whole } else { at.min(whole) };
                    assert_eq!(
                        plain_host_end(&buf, 0),
                        expected,
                        "{byte:#x} at {at} of {len}"
                    );
                }
            }
        }
    }

    #[test]
    fn classes_are_those_of_the_grammar() {
        for byte in 0..=255_u8 {
            let token = byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte);
            assert_eq!(is_token(&[byte]), token, "{byte:#x}");
            let target = byte.is_ascii_graphic() && byte != b'#';
            assert_eq!(target_end(&[byte], 0) == 1, target, "{byte:#x}");
        }
        assert!(!is_token(b""));
        assert!(!is_host(b','));
    }
}
