//! Tables and figures for a terminal. Whatever a name holds, it cannot move
//! the cursor: control characters are shown as `?`.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::CommandError;

/// Which way a column leans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lean {
    Left,
    Right,
}

/// Rows under headings, each column as wide as its widest cell.
#[derive(Debug)]
pub(super) struct Table {
    heads: Vec<(&'static str, Lean)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(heads: &[(&'static str, Lean)]) -> Table {
        Table {
            heads: heads.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row: a cell for every heading.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().map(|cell| shown(&cell)).collect();
        debug_assert_eq!(cells.len(), self.heads.len());
        self.rows.push(cells);
    }

    /// The table's lines.
    pub fn text(&self) -> String {
        let heads: Vec<String> = self
            .heads
            .iter()
            .map(|(head, _)| (*head).to_owned())
            .collect();
        let lines = || std::iter::once(&heads).chain(&self.rows);
        let widths: Vec<usize> = (0..heads.len())
            .map(|column| {
                let width = |line: &Vec<String>| line.get(column).map_or(0, |c| c.chars().count());
                lines().map(width).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for line in lines() {
            let mut shown = String::new();
            for ((cell, width), (_, lean)) in line.iter().zip(&widths).zip(&self.heads) {
                // A String takes any write.
                let _ = match lean {
                    Lean::Left => write!(shown, "{cell:<width$}  "),
                    Lean::Right => write!(shown, "{cell:>width$}  "),
                };
            }
            text.push_str(shown.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Text without control characters.
pub(super) fn shown(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Writes to standard output.
pub(super) fn print(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(CommandError::Output)
}

/// A document on a line of its own.
pub(super) fn print_json(value: &serde_json::Value) -> Result<(), CommandError> {
    print(&format!("{value}\n"))
}

/// `950`, `12.3k`, `4.1M`.
pub(super) fn count(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.1}G", v / 1e9),
        v if v >= 1e6 => format!("{:.1}M", v / 1e6),
        v if v >= 1e4 => format!("{:.1}k", v / 1e3),
        v if v >= 100.0 || v.fract() == 0.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}

/// `512 B`, `1.5 MiB`.
pub(super) fn bytes(value: f64) -> String {
    let (mut value, mut unit) = (value, 0);
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    while value >= 1024.0 && unit < units.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{value:.0} B")
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// `85 µs`, `1.24 ms`, `3.0 s`; `-` for nothing observed.
pub(super) fn seconds(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(s) if s < 0.001 => format!("{:.0} µs", s * 1e6),
        Some(s) if s < 0.1 => format!("{:.2} ms", s * 1e3),
        Some(s) if s < 1.0 => format!("{:.0} ms", s * 1e3),
        Some(s) => format!("{s:.2} s"),
    }
}

/// `45s`, `12m`, `3h`, `9d`.
pub(super) fn age(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..90 => format!("{s}s"),
        s @ 90..5_400 => format!("{}m", s / 60),
        s @ 5_400..172_800 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_names_cannot_move_the_cursor() {
        let mut table = Table::new(&[("APP", Lean::Left), ("N", Lean::Right), ("X", Lean::Left)]);
        table.row(["shop".into(), "5".into(), String::new()]);
        table.row(["a\x1b[2J".into(), "1234".into(), "é".into()]);
        assert_eq!(
            table.text(),
            "APP       N  X\nshop      5\na?[2J  1234  é\n"
        );
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            ["0", "0.5", "12.3k", "1.0M"],
            [count(0.0), count(0.5), count(12_345.0), count(1e6)]
                .each_ref()
                .map(String::as_str)
        );
        assert_eq!(
            (bytes(512.0), bytes(1_572_864.0)),
            ("512 B".into(), "1.5 MiB".into())
        );
        assert_eq!(
            (seconds(None), seconds(Some(0.00124))),
            ("-".into(), "1.24 ms".into())
        );
        assert_eq!((age(1_000), age(7_200_000)), ("1s".into(), "2h".into()));
    }
}
