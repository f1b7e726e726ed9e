//! How far an import is, in a line.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The rate told is that of this long.
const WINDOW: Duration = Duration::from_secs(10);

/// How far it came, and when.
#[derive(Debug)]
pub(super) struct Progress {
    /// Bytes of the input, if known.
    total: Option<u64>,
    /// When, lines and bytes done by then; the oldest first.
    seen: VecDeque<(Instant, u64, u64)>,
}

impl Progress {
    pub fn new(total: Option<u64>, now: Instant) -> Progress {
        Progress {
            total,
            seen: VecDeque::from([(now, 0, 0)]),
        }
    }

    /// Where what is skipped ends: it is part of the whole, not of the rate.
    pub fn begin_at(&mut self, read: u64, now: Instant) {
        self.seen = VecDeque::from([(now, 0, read)]);
    }

    /// So many lines, and bytes of the input, are done.
    pub fn reached(&mut self, lines: u64, read: u64, now: Instant) {
        self.seen.push_back((now, lines, read));
        // One that is older is kept, to begin the window with.
        while self.seen.len() > 2 && now.duration_since(self.seen[1].0) > WINDOW {
            self.seen.pop_front();
        }
    }

    /// `312,000 lines, 58,400/s, 2 failed, 31 %, 12 s left`
    pub fn text(&self, failed: u64, now: Instant) -> String {
        let (Some(first), Some(last)) = (self.seen.front(), self.seen.back()) else {
            return String::new();
        };
        let seconds = now.duration_since(first.0).as_secs_f64().max(1e-3);
        let rate = |done: u64| done as f64 / seconds;
        let lines = rate(last.1 - first.1);
        let mut text = format!("{} lines, {}/s", grouped(last.1), grouped(lines as u64));
        if failed > 0 {
            text.push_str(&format!(", {} failed", grouped(failed)));
        }
        if let Some(total) = self.total.filter(|total| *total > 0) {
            let read = last.2.min(total);
            text.push_str(&format!(", {} %", read * 100 / total));
            let bytes = rate(last.2.saturating_sub(first.2));
            if bytes > 0.0 {
                text.push_str(&format!(", {} left", left((total - read) as f64 / bytes)));
            }
        }
        text
    }
}

fn left(seconds: f64) -> String {
    match seconds.ceil() as u64 {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7_200 => format!("{} min", s.div_ceil(60)),
        s => format!("{} h", s.div_ceil(3_600)),
    }
}

/// `1,234,567`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_share_and_what_is_left() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut progress = Progress::new(Some(1_000_000), start);
        progress.begin_at(100_000, start);
        progress.reached(50_000, 300_000, after(2));
        assert_eq!(
            progress.text(0, after(2)),
            "50,000 lines, 25,000/s, 30 %, 7 s left"
        );
        // What is long ago no longer counts.
        for second in 3..60 {
            progress.reached(50_000 + second * 10, 300_000 + second, after(second));
        }
        let text = progress.text(7, after(59));
        assert!(
            text.starts_with("50,590 lines, 10/s, 7 failed, 30 %, "),
            "{text}"
        );
        assert!(text.ends_with(" h left"), "{text}");
        let mut unknown = Progress::new(None, start);
        unknown.reached(10, 0, after(1));
        assert_eq!(unknown.text(0, after(1)), "10 lines, 10/s");
    }

    #[test]
    fn thousands_are_told_apart() {
        let numbers = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
    }
}
