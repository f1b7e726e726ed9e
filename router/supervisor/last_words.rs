//! The last lines a child wrote to standard error, kept for its obituary.
//! Bounded in lines and in bytes per line. Never writes anything.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Lines kept.
const MAX_LINES: usize = 20;
/// Bytes kept of a line; longer ones are cut.
const MAX_LINE_BYTES: usize = 200;

/// A ring of lines.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct LastWords {
    lines: VecDeque<String>,
    /// The line being written.
    open: Vec<u8>,
}

impl LastWords {
    /// Takes what the child wrote, cut anywhere.
    pub(super) fn hear(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else if self.open.len() < MAX_LINE_BYTES {
                self.open.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.open);
        // Control characters (colours, say) would cost six bytes each as JSON.
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        self.open.clear();
        if line.is_empty() {
            return;
        }
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Oldest first, an unfinished last line included.
    pub(super) fn into_lines(mut self) -> Vec<String> {
        self.end_line();
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_whole_across_reads() {
        let mut words = LastWords::default();
        for number in 0..30 {
            words.hear(format!("line {number}").as_bytes());
            words.hear(b"\n");
        }
        words.hear(b"unfin");
        words.hear(b"ished");
        let lines = words.into_lines();
        assert_eq!(lines.len(), MAX_LINES);
        assert_eq!(lines[0], "line 11");
        assert_eq!(lines[19], "unfinished");
    }

    #[test]
    fn a_line_without_end_stays_bounded_and_colours_are_dropped() {
        let mut words = LastWords::default();
        words.hear(b"\x1b[31mred\x1b[0m\n\n");
        words.hear(&[b'x'; 100_000]);
        let lines = words.into_lines();
        assert_eq!(lines[0], "[31mred[0m");
        assert_eq!(lines[1].len(), MAX_LINE_BYTES);
    }
}
