//! The comparison as Markdown: a table of goodput, latency and refusals.
//!
//! Owns words and columns. Measures nothing.

use std::fmt::Write;

use crate::Row;
use crate::limits::Way;
use crate::run::Measured;

const INTRODUCTION: &str = "\
# How many requests can a backend have at once? Ways of finding out

Written by `cargo bench --bench concurrency`: a simulation in virtual time with a
seed, the same on every machine. Four backends of ten workers, 20 ms a request
(*noisy*: nine of ten take 10 ms, one 110 ms); beyond ten they queue inside
themselves. Requests arrive independently of each other (open loop); clients leave
after 1 s. Every router has a limit for each backend and a line for those who find
no room: the line is Portico's in every column but one, also for those limits that
come with none and would refuse at once; Envoy's is shown both ways.

The ways: no limit; the right one, told; four times the right one, told; Netflix's
`AIMDLimit` told that over 50 ms is too long; its `VegasLimit`; its
`Gradient2Limit` (lowest limit 1); Envoy's adaptive concurrency with the values of
its example (each minute the limit is 3 until 50 answers came); Portico's
([`router/policy/concurrency`](../../router/policy/concurrency)).

*Goodput* is what was answered within 1 s, of what the pool could do or, if that is
less, of what came. *p99* is from arrival to answer, of all answers. *Shed* is what
was refused: below the capacity it should be nobody. The first 5 s are not counted.

![limits and answers over time, goodput by scenario](concurrency.svg)
";

/// What is told of a run.
type Figure = (&'static str, fn(&Measured) -> String);

const FIGURES: [Figure; 3] = [
    ("Goodput, percent", |one| {
        format!("{:.1}", one.goodput * 100.0)
    }),
    ("p99, milliseconds", |one| brief(one.p99_ms())),
    ("Shed, percent of what came", |one| {
        match one.shed_percent() {
            0.0 => "0".to_owned(),
            percent if percent < 0.1 => format!("{percent:.3}"),
            percent => format!("{percent:.1}"),
        }
    }),
];

/// Every row, in a table for each figure.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = INTRODUCTION.to_owned();
    for (title, figure) in FIGURES {
        writeln!(text, "\n## {title}\n").unwrap();
        text.push_str("| |");
        for way in Way::ALL {
            write!(text, " {} |", way.name()).unwrap();
        }
        text.push_str("\n|---|");
        text.push_str(&"---:|".repeat(Way::ALL.len()));
        text.push('\n');
        for row in rows {
            write!(text, "| {} |", row.scenario.name).unwrap();
            for (way, measured) in Way::ALL.into_iter().zip(&row.measured) {
                let figure = figure(measured);
                if way == Way::Portico {
                    write!(text, " **{figure}** |").unwrap();
                } else {
                    write!(text, " {figure} |").unwrap();
                }
            }
            text.push('\n');
        }
    }
    text
}

/// Three digits are enough; over ten seconds it grows with the length of the
/// run.
pub fn brief(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.1}"),
        ..10_000.0 => format!("{value:.0}"),
        _ => "∞".to_owned(),
    }
}
