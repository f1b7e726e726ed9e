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
    end_of(TOKEN, buf, from)
}

/// Offset of the first byte at or after `from` that may not stand in a request
/// target: controls, space, `#`, DEL and everything beyond ASCII.
#[inline]
pub(super) fn target_end(buf: &[u8], from: usize) -> usize {
    end_of(TARGET, buf, from)
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

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// A word with the high bit set in (at least the first of) the bytes that are
/// controls: below 0x20, or DEL. Tabs count too: the caller skips them.
#[inline(always)]
fn controls(word: u64) -> u64 {
    let below = word.wrapping_sub(LOW * 0x20) & !word;
    let del = word ^ (LOW * 0x7f);
    (below | (del.wrapping_sub(LOW) & !del)) & HIGH
}

/// Offset of the first control but HTAB at or after `from`: the end of a field
/// value that is well-formed, or its first flaw.
#[inline]
pub(super) fn value_end(buf: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(chunk) = buf.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("a slice of eight must be eight"));
        let found = controls(word);
        if found == 0 {
            at += 8;
            continue;
        }
        at += (found.trailing_zeros() / 8) as usize;
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
