//! Goodput against offered load as an SVG, and below it what the successes had
//! to wait: a line a proxy. Hand-made, as lines need no library.

use std::fmt::Write;

use super::report::Results;
use super::subject::Subject;
use crate::plot::{escaped, wrapped};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 64.0;
const PLOT_WIDTH: f64 = 560.0;
const PLOT_HEIGHT: f64 = 300.0;
/// A title above a panel, and its axis below.
const TITLE_HEIGHT: f64 = 48.0;
const AXIS_HEIGHT: f64 = 56.0;
/// The loads that are drawn: case and multiple of capacity.
const LOADS: [(&str, f64); 4] = [("1x", 1.0), ("2x", 2.0), ("5x", 5.0), ("10x", 10.0)];
/// Least distance of two names beside their lines' ends.
const NAME_HEIGHT: f64 = 17.0;

/// One figure against offered load.
struct Panel {
    title: &'static str,
    /// The figure's key.
    key: &'static str,
    unit: &'static str,
    /// Lines across.
    grid: &'static [f64],
    /// From the bottom (0) to the top (1), whatever the value.
    height: fn(f64) -> f64,
}

const PANELS: [Panel; 2] = [
    Panel {
        title: "Goodput against offered load: answers within the client's second, % of capacity",
        key: "goodput",
        unit: "%",
        grid: &[0.0, 25.0, 50.0, 75.0, 100.0],
        height: |percent| percent / 105.0,
    },
    Panel {
        title: "What the successes had to wait: p99, for 20 ms of service",
        key: "p99_ms",
        unit: "ms",
        grid: &[20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0],
        height: |ms| (ms / 15.0).log10() / (1_100.0_f64 / 15.0).log10(),
    },
];

/// The panels, one below the other, with everybody in each.
pub fn goodput(results: &Results) -> String {
    let panel_height = TITLE_HEIGHT + PLOT_HEIGHT + AXIS_HEIGHT;
    let panels_height = PANELS.len() as f64 * panel_height;
    let height = panels_height + 60.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    for (number, panel) in PANELS.iter().enumerate() {
        let top = number as f64 * panel_height + TITLE_HEIGHT;
        let style = "font-weight=\"600\"";
        text(&mut svg, LEFT - 40.0, top - 22.0, style, panel.title);
        panel.draw_axes(&mut svg, top);
        panel.draw(&mut svg, top, results);
    }
    let legend = format!(
        "Four backends of 10 at once × 20 ms that queue the rest inside themselves; 6 s at each load after 2 s at half of it. Dashed: told nothing; solid: told the capacity. {}.",
        results.conditions(|run| &run.date)
    );
    for (line, words) in wrapped(&legend, 135).iter().enumerate() {
        let style = "font-size=\"11\" fill=\"#666666\"";
        let at = panels_height + 16.0 + line as f64 * 14.0;
        text(&mut svg, LEFT - 40.0, at, style, words);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Loads stand on a logarithmic scale.
fn x(load: f64) -> f64 {
    LEFT + load.log10() * PLOT_WIDTH
}

impl Panel {
    fn y(&self, top: f64, value: f64) -> f64 {
        top + PLOT_HEIGHT * (1.0 - (self.height)(value).clamp(0.0, 1.0))
    }

    fn draw(&self, svg: &mut String, top: f64, results: &Results) {
        let mut names = Vec::new();
        for subject in results.subjects("overload") {
            let point = |(case, load): &(&str, f64)| {
                let value = results.value("overload", case, subject, self.key)?;
                (!value.is_nan()).then(|| (x(*load), self.y(top, value)))
            };
            let points: Vec<(f64, f64)> = LOADS.iter().filter_map(point).collect();
            curve(svg, subject, &points);
            if let Some((_, last)) = points.last() {
                names.push((*last, subject));
            }
        }
        let right = LEFT + PLOT_WIDTH;
        for (at, (ends, subject)) in apart(names, top + PLOT_HEIGHT + 10.0) {
            let colour = colour(subject);
            element(
                svg,
                &format!(
                    "<polyline points=\"{:.1},{ends:.1} {:.1},{at:.1} {:.1},{at:.1}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"0.8\" opacity=\"0.6\"/>",
                    right + 5.0,
                    right + 16.0,
                    right + 22.0
                ),
            );
            let weight = if subject.is_portico() { 600 } else { 400 };
            let style = format!("fill=\"{colour}\" font-weight=\"{weight}\"");
            text(svg, right + 26.0, at + 4.0, &style, subject.name());
        }
    }

    fn draw_axes(&self, svg: &mut String, top: f64) {
        let (right, bottom) = (LEFT + PLOT_WIDTH, top + PLOT_HEIGHT);
        let small = "font-size=\"11\" fill=\"#64748b\"";
        for value in self.grid {
            let at = self.y(top, *value);
            element(
                svg,
                &format!(
                    "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#e2e8f0\"/>"
                ),
            );
            let style = format!("{small} text-anchor=\"end\"");
            let words = format!("{value:.0} {}", self.unit);
            text(svg, LEFT - 8.0, at + 4.0, &style, &words);
        }
        let style = format!("{small} text-anchor=\"middle\"");
        for (_, load) in LOADS {
            let at = x(load);
            element(
                svg,
                &format!(
                    "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"#f1f5f9\"/>"
                ),
            );
            text(svg, at, bottom + 18.0, &style, &format!("{load:.0}×"));
        }
        let words = "offered load, multiples of capacity (2,000 requests/s)";
        text(svg, LEFT + PLOT_WIDTH / 2.0, bottom + 34.0, &style, words);
    }
}

/// Portico's colour stands out; a peer's is its own.
fn colour(subject: Subject) -> &'static str {
    match subject {
        Subject::Portico | Subject::PorticoLimit => "#c2410c",
        Subject::NginxDefaults | Subject::NginxExpert => "#15803d",
        Subject::HaproxyDefaults | Subject::HaproxyExpert => "#1d4ed8",
        Subject::EnvoyDefaults | Subject::EnvoyExpert => "#7e22ce",
        Subject::EnvoyAdaptive => "#db2777",
    }
}

/// Dashed: told nothing.
fn dashes(subject: Subject) -> &'static str {
    match subject {
        Subject::PorticoLimit
        | Subject::NginxExpert
        | Subject::HaproxyExpert
        | Subject::EnvoyExpert => "",
        Subject::Portico
        | Subject::NginxDefaults
        | Subject::HaproxyDefaults
        | Subject::EnvoyDefaults
        | Subject::EnvoyAdaptive => "stroke-dasharray=\"6 4\"",
    }
}

fn curve(svg: &mut String, subject: Subject, points: &[(f64, f64)]) {
    let (colour, dashes) = (colour(subject), dashes(subject));
    let width = if subject.is_portico() { 2.8 } else { 1.6 };
    let mut line = String::new();
    for (x, y) in points {
        write!(line, "{x:.1},{y:.1} ").expect("writing to a String must succeed");
    }
    element(
        svg,
        &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" {dashes}/>",
            line.trim_end()
        ),
    );
    for (x, y) in points {
        element(
            svg,
            &format!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{:.1}\" fill=\"{colour}\"/>",
                width + 0.8
            ),
        );
    }
}

/// Where each name stands so that none covers another: from the top, each at
/// its line's end or below the one before, and up again from `lowest`.
fn apart(mut names: Vec<(f64, Subject)>, lowest: f64) -> Vec<(f64, (f64, Subject))> {
    names.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut placed: Vec<(f64, (f64, Subject))> = Vec::new();
    for name in names {
        let free = placed.last().map_or(f64::MIN, |(at, _)| at + NAME_HEIGHT);
        placed.push((name.0.max(free), name));
    }
    let mut free = lowest;
    for (at, _) in placed.iter_mut().rev() {
        *at = at.min(free);
        free = *at - NAME_HEIGHT;
    }
    placed
}

fn text(svg: &mut String, x: f64, y: f64, style: &str, words: &str) {
    let words = escaped(words);
    element(
        svg,
        &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{words}</text>"),
    );
}

fn element(svg: &mut String, element: &str) {
    svg.push_str(element);
    svg.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_apart_and_on_the_page() {
        let names = vec![
            (300.0, Subject::Portico),
            (300.0, Subject::NginxExpert),
            (50.0, Subject::EnvoyExpert),
            (52.0, Subject::HaproxyExpert),
        ];
        let placed = apart(names, 310.0);
        let distances = placed.windows(2).map(|two| two[1].0 - two[0].0);
        assert!(distances.into_iter().all(|one| one >= NAME_HEIGHT - 1e-9));
        assert!(placed.iter().all(|(at, _)| (50.0..=310.0).contains(at)));
    }

    #[test]
    fn scales_are_bounded() {
        assert!((x(1.0) - LEFT).abs() < 1e-9 && (x(10.0) - LEFT - PLOT_WIDTH).abs() < 1e-9);
        for panel in PANELS {
            assert!(panel.y(0.0, 1e9) >= 0.0 && panel.y(0.0, 0.0) <= PLOT_HEIGHT);
            let grid = panel.grid.iter().map(|value| panel.y(0.0, *value));
            let down: Vec<f64> = grid.collect();
            assert!(
                down.windows(2).all(|two| two[0] > two[1]),
                "{}",
                panel.title
            );
        }
    }
}
