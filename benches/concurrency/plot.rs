//! The comparison as an SVG, hand-made as the other results'.
//!
//! Owns lines, bars and labels. Above, three scenarios over time: the limit of
//! one backend, and what answers take. Below, goodput and p99 of every scenario.

use std::fmt::Write;

use crate::Row;
use crate::engine::SECOND;
use crate::limits::Way;
use crate::run::{Measured, Sample, WARM_UP_US};

const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 1_150.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 16.0;
const GAP: f64 = 34.0;

/// Scenarios shown over time, by their place.
const OVER_TIME: [usize; 3] = [2, 3, 4];

fn colour(way: Way) -> &'static str {
    match way {
        Way::None => "#94a3b8",
        Way::Told => "#111827",
        Way::ToldWrong => "#a16207",
        Way::Aimd => "#0ea5e9",
        Way::Vegas => "#16a34a",
        Way::Gradient2 => "#9333ea",
        Way::Envoy => "#f9a8d4",
        Way::EnvoyAlone => "#db2777",
        Way::Portico => "#ea580c",
    }
}

fn thickness(way: Way) -> f64 {
    if way == Way::Portico { 2.8 } else { 1.3 }
}

/// A logarithmic scale.
struct Scale {
    low: f64,
    high: f64,
    marks: &'static [(f64, &'static str)],
}

const LIMITS: Scale = Scale {
    low: 2.0,
    high: 250.0,
    marks: &[(3.0, "3"), (10.0, "10"), (30.0, "30"), (100.0, "100")],
};

const TIMES: Scale = Scale {
    low: 15_000.0,
    high: 4_000_000.0,
    marks: &[
        (20_000.0, "20 ms"),
        (100_000.0, "100 ms"),
        (1_000_000.0, "1 s"),
    ],
};

impl Scale {
    /// Where it is, from 0 at the bottom to 1.
    fn part(&self, value: f64) -> f64 {
        ((value / self.low).ln() / (self.high / self.low).ln()).clamp(0.0, 1.0)
    }
}

struct Panel {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Panel {
    /// The panel of `across` in a row of `of`.
    fn at(across: usize, of: usize, top: f64, height: f64) -> Panel {
        let gaps = GAP * (of - 1) as f64;
        let width = (WIDTH - LEFT - RIGHT - gaps) / of as f64;
        Panel {
            left: LEFT + across as f64 * (width + GAP),
            top,
            width,
            height,
        }
    }

    fn y(&self, part: f64) -> f64 {
        self.top + self.height * (1.0 - part)
    }

    fn frame(&self, svg: &mut String, title: &str, scale: &Scale, has_labels: bool) {
        let Panel {
            left,
            top,
            width,
            height,
        } = self;
        writeln!(
            svg,
            "<text x=\"{left}\" y=\"{}\" font-weight=\"600\">{title}</text>\n\
             <rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" fill=\"none\" stroke=\"#94a3b8\"/>",
            top - 7.0
        )
        .unwrap();
        for &(value, label) in scale.marks {
            let y = self.y(scale.part(value));
            writeln!(
                svg,
                "<line x1=\"{left}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e2e8f0\"/>",
                left + width
            )
            .unwrap();
            if has_labels {
                text(svg, left - 6.0, y + 4.0, "end", label);
            }
        }
    }

    fn line(&self, svg: &mut String, way: Way, values: &[f64], scale: &Scale) {
        let step = self.width / (values.len() - 1) as f64;
        let mut path = String::new();
        // Samples without any answer are left out.
        for (at, &value) in values.iter().enumerate().filter(|(_, value)| **value > 0.0) {
            let x = self.left + at as f64 * step;
            write!(path, "{x:.1},{:.1} ", self.y(scale.part(value))).unwrap();
        }
        writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"/>",
            path.trim_end(),
            colour(way),
            thickness(way)
        )
        .unwrap();
    }

    fn seconds(&self, svg: &mut String, seconds: u64) {
        for second in (0..=seconds).step_by(10) {
            let x = self.left + self.width * second as f64 / seconds as f64;
            text(
                svg,
                x,
                self.top + self.height + 14.0,
                "middle",
                &format!("{second} s"),
            );
        }
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#475569\" font-size=\"11\">{words}</text>"
    )
    .unwrap();
}

/// The whole drawing.
pub fn svg(rows: &[Row]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"600\">How many requests at once can a backend of ten workers have? Ways of finding out</text>\n"
    );
    legend(&mut svg);
    over_time(&mut svg, rows);
    by_scenario(&mut svg, rows);
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    for (at, way) in Way::ALL.into_iter().enumerate() {
        let x = 12.0 + at as f64 * 108.0;
        writeln!(
            svg,
            "<line x1=\"{x}\" x2=\"{}\" y1=\"46\" y2=\"46\" stroke=\"{}\" stroke-width=\"{}\"/><text x=\"{}\" y=\"50\">{}</text>",
            x + 22.0,
            colour(way),
            thickness(way) + 1.0,
            x + 28.0,
            way.name()
        )
        .unwrap();
    }
}

/// What is drawn of a sample: the heading, the value, its scale.
type Shown = (&'static str, fn(&Sample) -> f64, Scale);

fn over_time(svg: &mut String, rows: &[Row]) {
    let shown: [Shown; 2] = [
        ("limit", |sample| f64::from(sample.limit), LIMITS),
        ("time to answer", |sample| sample.took_us, TIMES),
    ];
    for (down, (what, value, scale)) in shown.into_iter().enumerate() {
        let top = 96.0 + down as f64 * 236.0;
        for (across, row) in OVER_TIME.map(|at| &rows[at]).into_iter().enumerate() {
            let panel = Panel::at(across, OVER_TIME.len(), top, 180.0);
            let title = format!("{}: {what}", row.scenario.name);
            panel.frame(svg, &title, &scale, across == 0);
            panel.seconds(svg, row.scenario.length_us / SECOND);
            for (way, measured) in Way::ALL.into_iter().zip(&row.measured) {
                let values: Vec<f64> = measured.samples.iter().map(value).collect();
                panel.line(svg, way, &values, &scale);
            }
            let warm = panel.width * WARM_UP_US as f64 / row.scenario.length_us as f64;
            writeln!(
                svg,
                "<rect x=\"{}\" y=\"{top}\" width=\"{warm:.1}\" height=\"{}\" fill=\"#94a3b8\" opacity=\"0.15\"/>",
                panel.left, panel.height
            )
            .unwrap();
        }
    }
}

/// Below a ten-thousandth nothing is drawn.
const REFUSED: Scale = Scale {
    low: 0.01,
    high: 100.0,
    marks: &[(0.1, "0.1 %"), (1.0, "1 %"), (10.0, "10 %")],
};

const SHARES: Scale = Scale {
    low: 0.5,
    high: 1.0,
    marks: &[(0.6, "60 %"), (0.7, "70 %"), (0.8, "80 %"), (0.9, "90 %")],
};

/// What a panel over all scenarios shows: its title, the value, and the scale.
type Compared = (&'static str, fn(&Measured) -> f64, Scale);

fn by_scenario(svg: &mut String, rows: &[Row]) {
    let shown: [Compared; 3] = [
        (
            "Goodput, of what the pool could do or of what came",
            |one| one.goodput,
            SHARES,
        ),
        (
            "From arrival to answer, p99 (at the top edge: without bound)",
            |one| one.p99_ms() * 1_000.0,
            TIMES,
        ),
        (
            "Refused, of what came: of healthy traffic nobody should be",
            Measured::shed_percent,
            REFUSED,
        ),
    ];
    for (down, (title, value, scale)) in shown.into_iter().enumerate() {
        let top = 576.0 + down as f64 * 190.0;
        let panel = Panel::at(0, 1, top, 130.0);
        panel.frame(svg, title, &scale, true);
        let each = panel.width / rows.len() as f64;
        for (number, row) in rows.iter().enumerate() {
            let left = panel.left + number as f64 * each;
            let bar = (each - 24.0) / Way::ALL.len() as f64;
            for (at, (way, measured)) in Way::ALL.into_iter().zip(&row.measured).enumerate() {
                let part = scale.part(value(measured));
                writeln!(
                    svg,
                    "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
                    left + 12.0 + at as f64 * bar,
                    panel.y(part),
                    bar - 1.0,
                    panel.height * part,
                    colour(way)
                )
                .unwrap();
            }
            let (first, second) = row
                .scenario
                .name
                .split_once(", ")
                .unwrap_or((row.scenario.name, ""));
            let middle = left + each / 2.0;
            text(svg, middle, top + panel.height + 14.0, "middle", first);
            text(svg, middle, top + panel.height + 27.0, "middle", second);
        }
    }
}
