//! The comparison as an SVG: small multiples, hand-made as the other results'.
//!
//! Owns lines and labels. A column is a pool and a service, a row what is
//! shown of it; within, latency over the number of routers, both in doublings.

use std::fmt::Write;

use crate::Row;
use crate::strategies::Strategy;
use crate::table::{brief, service};

const WIDTH: f64 = 880.0;
const LEFT: f64 = 62.0;
const TOP: f64 = 84.0;
const PANEL_WIDTH: f64 = 176.0;
const PANEL_HEIGHT: f64 = 190.0;
const COLUMN: f64 = 204.0;
const LINE: f64 = 244.0;
/// The load drawn; the table has the others.
const LOAD: f64 = 0.9;
/// Milliseconds at the bottom and at the top of every panel.
const RANGE_MS: (f64, f64) = (20.0, 20_000.0);

/// What a line of panels shows.
struct Shown {
    title: &'static str,
    slow: bool,
    share: f64,
}

const SHOWN: [Shown; 3] = [
    Shown {
        title: "equal backends, p99",
        slow: false,
        share: 0.99,
    },
    Shown {
        title: "one 10 × slower, p99",
        slow: true,
        share: 0.99,
    },
    Shown {
        title: "one 10 × slower, p99.9",
        slow: true,
        share: 0.999,
    },
];

fn colour(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Random => "#cbd5e1",
        Strategy::RoundRobin => "#64748b",
        Strategy::LeastInFlight => "#2563eb",
        Strategy::TwoChoices => "#0d9488",
        Strategy::PeakEwma => "#9333ea",
        Strategy::Portico => "#c2410c",
    }
}

fn thickness(strategy: Strategy) -> f64 {
    if strategy == Strategy::Portico {
        3.0
    } else {
        1.6
    }
}

/// The whole drawing.
pub fn svg(rows: &[Row]) -> String {
    let height = TOP + LINE * SHOWN.len() as f64 + 6.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"600\">Routers over one shared pool, load {LOAD}: time from arrival to answer (at the top edge: without bound)</text>\n"
    );
    legend(&mut svg);
    let mut columns = Vec::new();
    for row in rows {
        let column = (row.setup.backends, service(row.setup.service));
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    for (down, shown) in SHOWN.iter().enumerate() {
        for (across, &(backends, service_name)) in columns.iter().enumerate() {
            let points: Vec<&Row> = rows
                .iter()
                .filter(|row| {
                    let setup = &row.setup;
                    (setup.backends, service(setup.service)) == (backends, service_name)
                        && setup.load == LOAD
                        && (setup.slowness > 1) == shown.slow
                })
                .collect();
            let panel = Panel {
                left: LEFT + across as f64 * COLUMN,
                top: TOP + 22.0 + down as f64 * LINE,
            };
            let title = format!("{backends} backends, {service_name}");
            panel.frame(&mut svg, &title, shown.title, across == 0);
            for (at, strategy) in Strategy::ALL.into_iter().enumerate() {
                panel.line(&mut svg, &points, at, strategy, shown.share);
            }
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    for (at, strategy) in Strategy::ALL.into_iter().enumerate() {
        let x = 12.0 + at as f64 * 128.0;
        let (colour, thickness) = (colour(strategy), thickness(strategy));
        writeln!(
            svg,
            "<line x1=\"{x}\" x2=\"{}\" y1=\"46\" y2=\"46\" stroke=\"{colour}\" stroke-width=\"{thickness}\"/><text x=\"{}\" y=\"50\">{}</text>",
            x + 22.0,
            x + 28.0,
            strategy.name()
        )
        .unwrap();
    }
}

struct Panel {
    left: f64,
    top: f64,
}

impl Panel {
    fn y(&self, ms: f64) -> f64 {
        let (low, high) = (RANGE_MS.0.ln(), RANGE_MS.1.ln());
        let part = ((ms.ln() - low) / (high - low)).clamp(0.0, 1.0);
        self.top + PANEL_HEIGHT * (1.0 - part)
    }

    fn x(&self, place: usize, places: usize) -> f64 {
        let inset = 16.0;
        self.left + inset + (PANEL_WIDTH - 2.0 * inset) * place as f64 / (places - 1) as f64
    }

    fn frame(&self, svg: &mut String, title: &str, what: &str, has_scale: bool) {
        let (left, top) = (self.left, self.top);
        writeln!(
            svg,
            "<text x=\"{left}\" y=\"{}\" font-weight=\"600\">{title}</text><text x=\"{left}\" y=\"{}\" fill=\"#475569\" font-size=\"11\">{what}</text>\n\
             <rect x=\"{left}\" y=\"{top}\" width=\"{PANEL_WIDTH}\" height=\"{PANEL_HEIGHT}\" fill=\"none\" stroke=\"#94a3b8\"/>",
            top - 18.0,
            top - 5.0
        )
        .unwrap();
        for ms in [100.0, 1_000.0, 10_000.0] {
            let y = self.y(ms);
            writeln!(
                svg,
                "<line x1=\"{left}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e2e8f0\"/>",
                left + PANEL_WIDTH
            )
            .unwrap();
            if has_scale {
                writeln!(
                    svg,
                    "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#475569\">{}</text>",
                    left - 6.0,
                    y + 4.0,
                    if ms < 1_000.0 {
                        format!("{} ms", brief(ms))
                    } else {
                        format!("{} s", ms / 1_000.0)
                    }
                )
                .unwrap();
            }
        }
    }

    fn line(&self, svg: &mut String, points: &[&Row], at: usize, strategy: Strategy, share: f64) {
        let mut path = String::new();
        for (place, row) in points.iter().enumerate() {
            let (x, y) = (
                self.x(place, points.len()),
                self.y(row.measured[at].quantile_ms(share)),
            );
            write!(path, "{x:.1},{y:.1} ").unwrap();
            if at == 0 {
                writeln!(
                    svg,
                    "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#475569\">{}</text>",
                    self.top + PANEL_HEIGHT + 15.0,
                    match (place, row.setup.routers) {
                        (0, 1) => "1 router".to_owned(),
                        (_, routers) => routers.to_string(),
                    }
                )
                .unwrap();
            }
        }
        let (colour, thickness) = (colour(strategy), thickness(strategy));
        writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{thickness}\" stroke-linejoin=\"round\"/>",
            path.trim_end()
        )
        .unwrap();
        for point in path.split_whitespace() {
            let (x, y) = point.split_once(',').unwrap();
            writeln!(
                svg,
                "<circle cx=\"{x}\" cy=\"{y}\" r=\"2.6\" fill=\"{colour}\"/>"
            )
            .unwrap();
        }
    }
}
