//! Latency over time as an SVG: a row a proxy, a column a scenario that is
//! drawn, a logarithmic scale. Hand-made, as lines need no library.

use std::fmt::Write;

use super::catalogue::{SCENARIOS, SECONDS, Scenario, Step};
use super::figures::{BUCKET_US, Figures};
use super::report::Results;
use super::subject::Subject;
use crate::plot::{escaped, wrapped};

const LABEL_WIDTH: f64 = 132.0;
const PANEL_WIDTH: f64 = 380.0;
const PANEL_HEIGHT: f64 = 78.0;
const GAP: f64 = 18.0;
const TITLE_HEIGHT: f64 = 36.0;
/// The scale's ends, µs: below what any request takes, above the deadline.
const LOWEST_US: f64 = 3_000.0;
const HIGHEST_US: f64 = 2_200_000.0;
/// Lines across each panel, µs, and their labels.
const GRID: [(f64, &str); 3] = [(10_000.0, "10 ms"), (100_000.0, "100 ms"), (1e6, "1 s")];

/// One panel's place on the page.
#[derive(Clone, Copy)]
struct Panel {
    left: f64,
    top: f64,
}

impl Panel {
    fn x(self, ms: f64) -> f64 {
        self.left + ms / (SECONDS * 1_000) as f64 * PANEL_WIDTH
    }

    fn y(self, us: f64) -> f64 {
        let up = (us.clamp(LOWEST_US, HIGHEST_US) / LOWEST_US).ln() / (HIGHEST_US / LOWEST_US).ln();
        self.top + PANEL_HEIGHT * (1.0 - up)
    }
}

/// Latency over time of each proxy, for the scenarios that are drawn.
pub fn latencies(results: &Results) -> String {
    let drawn: Vec<&Scenario> = SCENARIOS.iter().filter(|one| one.drawn).collect();
    let rows: Vec<Subject> = Subject::ALL
        .into_iter()
        .filter(|subject| {
            drawn
                .iter()
                .any(|scenario| results.first(scenario, *subject).is_some())
        })
        .collect();
    let width = LABEL_WIDTH + drawn.len() as f64 * (PANEL_WIDTH + GAP) + 12.0;
    let height = TITLE_HEIGHT + rows.len() as f64 * (PANEL_HEIGHT + GAP) + 74.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (column, scenario) in drawn.iter().enumerate() {
        let left = LABEL_WIDTH + column as f64 * (PANEL_WIDTH + GAP);
        text(&mut svg, left, 22.0, "font-weight=\"600\"", scenario.title);
        for (row, subject) in rows.iter().enumerate() {
            let top = TITLE_HEIGHT + row as f64 * (PANEL_HEIGHT + GAP);
            let panel = Panel { left, top };
            frame(&mut svg, panel, scenario.steps);
            if let Some(figures) = results.first(scenario, *subject) {
                curve(&mut svg, panel, figures);
            }
        }
    }
    for (row, subject) in rows.iter().enumerate() {
        let top = TITLE_HEIGHT + row as f64 * (PANEL_HEIGHT + GAP);
        text(&mut svg, 12.0, top + 16.0, "", subject.name());
    }
    let legend = format!(
        "Line: median of each {} ms; bar: up to the slowest; dots on top: failed requests. Shaded: from the fault to its end. {}.",
        BUCKET_US / 1_000,
        results.how()
    );
    let top = height - 60.0;
    for (line, words) in wrapped(&legend, 165).iter().enumerate() {
        let style = "font-size=\"11\" fill=\"#666666\"";
        text(&mut svg, 12.0, top + line as f64 * 14.0, style, words);
    }
    svg.push_str("</svg>\n");
    svg
}

/// The panel's ground: the time of the fault shaded, the grid, the seconds.
fn frame(svg: &mut String, panel: Panel, steps: &[Step]) {
    let Panel { left, top } = panel;
    let at = |step: Option<&Step>| panel.x(step.map_or(0.0, |step| step.at_ms as f64));
    let (from, to) = (at(steps.first()), at(steps.last()));
    push(
        svg,
        &format!(
            "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{PANEL_HEIGHT}\" fill=\"#fdf2e9\"/>\n\
             <rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{PANEL_WIDTH}\" height=\"{PANEL_HEIGHT}\" fill=\"none\" stroke=\"#cbd5e1\"/>\n",
            to - from
        ),
    );
    for (us, label) in GRID {
        let y = panel.y(us);
        push(
            svg,
            &format!(
                "<line x1=\"{left:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e2e8f0\"/>\n",
                left + PANEL_WIDTH
            ),
        );
        let style = "font-size=\"9\" fill=\"#94a3b8\"";
        text(svg, left + 3.0, y - 2.0, style, label);
    }
    for second in (0..=SECONDS).step_by(2) {
        let x = panel.x((second * 1_000) as f64);
        let style = "font-size=\"9\" fill=\"#94a3b8\" text-anchor=\"middle\"";
        text(
            svg,
            x,
            top + PANEL_HEIGHT + 10.0,
            style,
            &format!("{second} s"),
        );
    }
}

fn curve(svg: &mut String, panel: Panel, figures: &Figures) {
    let bucket_ms = BUCKET_US as f64 / 1e3;
    let mut line = String::new();
    for (bucket, (p50_us, max_us, failed)) in figures.timeline.iter().enumerate() {
        let x = panel.x((bucket as f64 + 0.5) * bucket_ms);
        if *max_us > 0 {
            let (middle, highest) = (panel.y(*p50_us as f64), panel.y(*max_us as f64));
            push(
                svg,
                &format!(
                    "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{middle:.1}\" y2=\"{highest:.1}\" stroke=\"#94a3b8\" stroke-width=\"2.4\"/>\n"
                ),
            );
            write!(line, "{x:.1},{middle:.1} ").expect("writing to a String must succeed");
        }
        if *failed > 0 {
            let y = panel.top + 3.0;
            push(
                svg,
                &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.2\" fill=\"#dc2626\"/>\n"),
            );
        }
    }
    push(
        svg,
        &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"#c2410c\" stroke-width=\"1.4\"/>\n",
            line.trim_end()
        ),
    );
}

fn text(svg: &mut String, x: f64, y: f64, style: &str, words: &str) {
    let words = escaped(words);
    push(
        svg,
        &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{words}</text>\n"),
    );
}

fn push(svg: &mut String, element: &str) {
    svg.push_str(element);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_is_logarithmic_and_bounded() {
        let panel = Panel {
            left: 0.0,
            top: 100.0,
        };
        assert!((panel.y(1.0) - (100.0 + PANEL_HEIGHT)).abs() < 1e-9);
        assert!((panel.y(f64::INFINITY) - 100.0).abs() < 1e-9);
        let decade = panel.y(10_000.0) - panel.y(100_000.0);
        assert!((panel.y(100_000.0) - panel.y(1e6) - decade).abs() < 1e-9);
    }

    #[test]
    fn failures_are_dots_and_times_without_answers_are_gaps() {
        let mut svg = String::new();
        let figures = Figures {
            timeline: vec![(5_000, 6_000, 0), (0, 0, 7), (5_000, 900_000, 1)],
            ..Figures::default()
        };
        let panel = Panel {
            left: 0.0,
            top: 0.0,
        };
        curve(&mut svg, panel, &figures);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert_eq!(svg.matches("<line").count(), 2);
    }
}
