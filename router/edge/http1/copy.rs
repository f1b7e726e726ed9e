//! Header lines carried over from one head to the next.
//!
//! Owns the copying: runs of consecutive lines that pass are copied at once,
//! byte for byte, so order, case and spacing stay as they came. Which kinds
//! pass is the writers' decision.

use super::head::{Header, Seen};

/// Appends the lines that neither stop at this hop nor are among `dropped`.
#[inline]
pub(super) fn copy_passing(headers: &[Header], buf: &[u8], dropped: Seen, out: &mut Vec<u8>) {
    let Some((first, last)) = headers.first().zip(headers.last()) else {
        return;
    };
    let mut run = first.name.start as usize;
    for header in headers {
        if !header.stops && !dropped.holds(header.known) {
            continue;
        }
        out.extend_from_slice(&buf[run..header.name.start as usize]);
        run = header.line_end as usize;
    }
    out.extend_from_slice(&buf[run..last.line_end as usize]);
}

/// Appends a number in decimal.
#[inline]
pub(super) fn decimal(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a number in lower-case hex, `DIGITS` long, its lowest digits.
#[inline]
pub(super) fn hex<const DIGITS: usize>(number: u128, out: &mut Vec<u8>) {
    let mut text = [0_u8; DIGITS];
    for (at, byte) in text.iter_mut().rev().enumerate() {
        *byte = b"0123456789abcdef"[(number >> (4 * at)) as usize & 0xf];
    }
    out.extend_from_slice(&text);
}
