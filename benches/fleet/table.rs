//! The comparison as Markdown: one table a pool and service.
//!
//! Owns words and columns. Measures nothing.

use std::fmt::Write;

use crate::Row;
use crate::load::Service;
use crate::run::Setup;
use crate::strategies::Strategy;

const INTRODUCTION: &str = "\
# Many routers, one pool: ways of choosing a backend

Written by `cargo bench --bench fleet`: a simulation in virtual time with a
seed, the same on every machine. Each router sees its own requests only. Every
backend has one worker and a queue; requests arrive independently of each other
(open loop), each at a random router; nothing fails and nobody is ejected.
*Exponential*: 5 ms on average. *Bimodal*: nine of ten take 1 ms, one 41 ms. In
the rows marked ×10 one backend takes ten times as long. Load is the share of
what all backends together can serve. A cell is p50 / **p99** / p99.9 of the time
from arrival to answer, milliseconds; ∞ is over 10 s, where a backend gets more
than it can serve, and the longer the run the longer the wait. *Busiest*:
requests at the fullest backend, averaged over time, for the first and the last
way; *spread*: the standard deviation of the equal backends' requests, percent
of their mean, for Portico.

`two choices` is Portico before it went by latency; `peak EWMA` is Finagle's.

![p99 of each way of choosing](fleet.svg)
";

/// A service as a heading.
pub fn service(service: Service) -> &'static str {
    match service {
        Service::Bimodal { .. } => "bimodal",
        Service::Constant(_) => "constant",
        Service::Exponential(_) => "exponential",
    }
}

/// Every row, in tables by pool and service.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut last = None;
    for row in rows {
        let group = (row.setup.backends, service(row.setup.service));
        if last != Some(group) {
            last = Some(group);
            head(&mut text, &row.setup);
        }
        line(&mut text, row);
    }
    text
}

fn head(text: &mut String, setup: &Setup) {
    let (backends, service) = (setup.backends, service(setup.service));
    writeln!(text, "\n## {backends} backends, {service} service\n").unwrap();
    text.push_str("| one slow | load | routers |");
    for strategy in Strategy::ALL {
        write!(text, " {} |", strategy.name()).unwrap();
    }
    text.push_str(" busiest | spread |\n|---|---|---|");
    text.push_str(&"---|".repeat(Strategy::ALL.len() + 2));
    text.push('\n');
}

fn line(text: &mut String, row: &Row) {
    let Setup {
        slowness,
        load,
        routers,
        ..
    } = row.setup;
    let slow = if slowness > 1 {
        format!("×{slowness}")
    } else {
        "–".to_owned()
    };
    write!(text, "| {slow} | {load} | {routers} |").unwrap();
    for measured in &row.measured {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| brief(measured.quantile_ms(share)));
        write!(text, " {p50} / **{p99}** / {p999} |").unwrap();
    }
    let (first, last) = (&row.measured[0], &row.measured[row.measured.len() - 1]);
    writeln!(
        text,
        " {} → {} | {:.1} % |",
        brief(first.busiest),
        brief(last.busiest),
        last.spread_percent
    )
    .unwrap();
}

/// Three digits are enough; what is over ten seconds here grows with the length
/// of the run.
pub fn brief(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.1}"),
        ..10_000.0 => format!("{value:.0}"),
        _ => "∞".to_owned(),
    }
}
