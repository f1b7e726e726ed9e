//! Finding and escaping what must not stand in a log line as it came.
//!
//! The scan works on eight bytes at a time in one word (SWAR), after Sean
//! Anderson's *Bit Twiddling Hacks*, "determine if a word has a byte less than
//! n" and "equal to n"; it may report a clean byte as suspect (after a borrow),
//! never the reverse, and the slow path looks again byte by byte.

/// At most this much of one value is logged; what is cut is marked by `...`.
const VALUE_BYTES: usize = 8 * 1024;

const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);

/// The high bit of every byte that equals `byte` (and maybe others after it).
#[inline]
const fn equals(word: u64, byte: u8) -> u64 {
    let zero = word ^ (ONES * byte as u64);
    zero.wrapping_sub(ONES) & !zero
}

/// High bits of control bytes, DEL, quotes, backslashes and non-ASCII.
#[inline]
const fn unsafe_quoted(word: u64) -> u64 {
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (control | word | equals(word, b'"') | equals(word, b'\\') | equals(word, 0x7f)) & HIGHS
}

/// Also spaces and equals signs, which end a bare logfmt value.
#[inline]
const fn unsafe_bare(word: u64) -> u64 {
    (unsafe_quoted(word) | equals(word, b' ') | equals(word, b'=')) & HIGHS
}

#[inline]
fn clean(value: &[u8], suspect: impl Fn(u64) -> u64) -> bool {
    let Some(last) = value.last_chunk::<8>() else {
        // Padded with a byte that is never suspect.
        let mut word = [b'a'; 8];
        for (padded, byte) in word.iter_mut().zip(value) {
            *padded = *byte;
        }
        return suspect(u64::from_ne_bytes(word)) == 0;
    };
    // The last eight bytes overlap the word before them, which does no harm.
    let mut found = suspect(u64::from_ne_bytes(*last));
    let (words, _) = value.as_chunks::<8>();
    for word in words {
        found |= suspect(u64::from_ne_bytes(*word));
    }
    found == 0
}

/// Whether `value` may stand between double quotes as it is, in logfmt and JSON.
#[inline]
pub(super) fn clean_quoted(value: &[u8]) -> bool {
    value.len() <= VALUE_BYTES && clean(value, unsafe_quoted)
}

/// Whether `value` may stand in logfmt without quotes.
#[inline]
pub(super) fn clean_bare(value: &[u8]) -> bool {
    value.len() <= VALUE_BYTES && clean(value, unsafe_bare)
}

/// How a format writes what may not stand as it is.
pub(super) trait Dialect {
    /// A control character (below U+00A0, or a line separator).
    fn control(out: &mut Vec<u8>, character: char);
    /// Bytes that are no UTF-8 character together.
    fn not_utf8(out: &mut Vec<u8>, bytes: &[u8]);
}

/// Appends `value` escaped, without quotes around it.
#[cold]
pub(super) fn escaped<D: Dialect>(out: &mut Vec<u8>, value: &[u8]) {
    let kept = &value[..value.len().min(VALUE_BYTES)];
    for chunk in kept.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\u{2028}' | '\u{2029}' => D::control(out, character),
                _ if character.is_control() => D::control(out, character),
                _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            D::not_utf8(out, chunk.invalid());
        }
    }
    if kept.len() < value.len() {
        out.extend_from_slice(b"...");
    }
}

/// Appends `digits` hexadecimal digits of `value`.
pub(super) fn hex(out: &mut Vec<u8>, value: u32, digits: u32) {
    for digit in (0..digits).rev() {
        let nibble = (value >> (digit * 4)) & 0xf;
        out.push(b"0123456789abcdef"[nibble as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plain(byte: u8) -> bool {
        (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'
    }

    proptest! {
        #[test]
        fn the_word_scan_never_misses(value: Vec<u8>) {
            let really = value.iter().all(|&byte| plain(byte));
            prop_assert!(!clean_quoted(&value) || really);
            let bare = really && !value.iter().any(|byte| b" =".contains(byte));
            prop_assert!(!clean_bare(&value) || bare);
        }

        #[test]
        fn ordinary_values_are_clean(value in "[a-zA-Z0-9/?&=._ %~+:;,@-]{0,100}") {
            prop_assert!(clean_quoted(value.as_bytes()));
        }

        #[test]
        fn ordinary_names_are_clean(value in "[a-zA-Z0-9/._%~+:;,@-]{0,100}") {
            prop_assert!(clean_bare(value.as_bytes()));
        }
    }
}
