//! Goodput against offered load as an SVG: a line a proxy. Hand-made, as lines
//! need no library.

use std::fmt::Write;

use super::report::Results;
use super::subject::Subject;
use crate::plot::{escaped, wrapped};

const WIDTH: f64 = 860.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 52.0;
const PLOT_WIDTH: f64 = 560.0;
const PLOT_HEIGHT: f64 = 380.0;
/// The loads that are drawn: case and multiple of capacity.
const LOADS: [(&str, f64); 4] = [("1x", 1.0), ("2x", 2.0), ("5x", 5.0), ("10x", 10.0)];
/// Least distance of two names beside their lines' ends.
const NAME_HEIGHT: f64 = 17.0;

/// The share of goodput at each load, of everybody.
pub fn goodput(results: &Results) -> String {
    let height = TOP + PLOT_HEIGHT + 100.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    text(
        &mut svg,
        LEFT - 40.0,
        24.0,
        "font-weight=\"600\"",
        "Goodput against offered load: answers within the client's second, % of capacity",
    );
    axes(&mut svg);
    let mut names = Vec::new();
    for subject in results.subjects("overload") {
        let points: Vec<(f64, f64)> = LOADS
            .iter()
            .filter_map(|(case, load)| {
                let value = results.value("overload", case, subject, "goodput")?;
                Some((x(*load), y(value)))
            })
            .collect();
        curve(&mut svg, subject, &points);
        if let Some((_, last)) = points.last() {
            names.push((*last, subject));
        }
    }
    for (at, (ends, subject)) in apart(names) {
        let right = LEFT + PLOT_WIDTH;
        let colour = colour(subject);
        element(
            &mut svg,
            &format!(
                "<polyline points=\"{:.1},{ends:.1} {:.1},{at:.1} {:.1},{at:.1}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"0.8\" opacity=\"0.6\"/>",
                right + 5.0,
                right + 16.0,
                right + 22.0
            ),
        );
        let weight = if subject.is_portico() { 600 } else { 400 };
        let style = format!("fill=\"{colour}\" font-weight=\"{weight}\"");
        text(&mut svg, right + 26.0, at + 4.0, &style, subject.name());
    }
    let legend = format!(
        "Four backends of 10 at once × 20 ms that queue the rest inside themselves; 6 s at each load after 2 s at half of it. Dashed: as it comes; solid: told the capacity. {}.",
        results.conditions()
    );
    let below = TOP + PLOT_HEIGHT + 56.0;
    for (line, words) in wrapped(&legend, 135).iter().enumerate() {
        let style = "font-size=\"11\" fill=\"#666666\"";
        text(
            &mut svg,
            LEFT - 40.0,
            below + line as f64 * 14.0,
            style,
            words,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Loads stand on a logarithmic scale.
fn x(load: f64) -> f64 {
    LEFT + load.log10() * PLOT_WIDTH
}

fn y(percent: f64) -> f64 {
    TOP + PLOT_HEIGHT * (1.0 - percent.clamp(0.0, 105.0) / 105.0)
}

fn axes(svg: &mut String) {
    let right = LEFT + PLOT_WIDTH;
    for percent in [0.0, 25.0, 50.0, 75.0, 100.0] {
        let at = y(percent);
        element(
            svg,
            &format!(
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#e2e8f0\"/>"
            ),
        );
        let style = "font-size=\"11\" fill=\"#64748b\" text-anchor=\"end\"";
        text(svg, LEFT - 8.0, at + 4.0, style, &format!("{percent:.0} %"));
    }
    for (_, load) in LOADS {
        let at = x(load);
        let bottom = TOP + PLOT_HEIGHT;
        element(
            svg,
            &format!(
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#f1f5f9\"/>"
            ),
        );
        let style = "font-size=\"11\" fill=\"#64748b\" text-anchor=\"middle\"";
        text(svg, at, bottom + 18.0, style, &format!("{load:.0}×"));
    }
    let style = "font-size=\"11\" fill=\"#64748b\" text-anchor=\"middle\"";
    text(
        svg,
        LEFT + PLOT_WIDTH / 2.0,
        TOP + PLOT_HEIGHT + 34.0,
        style,
        "offered load, multiples of capacity (2,000 requests/s)",
    );
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
/// its line's end or below the one before, and up again from the bottom's edge.
fn apart(mut names: Vec<(f64, Subject)>) -> Vec<(f64, (f64, Subject))> {
    names.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut placed: Vec<(f64, (f64, Subject))> = Vec::new();
    for name in names {
        let free = placed.last().map_or(f64::MIN, |(at, _)| at + NAME_HEIGHT);
        placed.push((name.0.max(free), name));
    }
    let mut free = TOP + PLOT_HEIGHT + 10.0;
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
        let bottom = TOP + PLOT_HEIGHT;
        let names = vec![
            (bottom, Subject::Portico),
            (bottom, Subject::NginxExpert),
            (TOP, Subject::EnvoyExpert),
            (TOP + 2.0, Subject::HaproxyExpert),
        ];
        let placed = apart(names);
        assert!(
            placed
                .windows(2)
                .all(|two| two[1].0 - two[0].0 >= NAME_HEIGHT - 1e-9)
        );
        assert!(
            placed
                .iter()
                .all(|(at, _)| (TOP..=bottom + 10.0).contains(at))
        );
    }

    #[test]
    fn loads_are_logarithmic() {
        assert!((x(1.0) - LEFT).abs() < 1e-9 && (x(10.0) - LEFT - PLOT_WIDTH).abs() < 1e-9);
        assert!(y(100.0) < y(0.0));
    }
}
