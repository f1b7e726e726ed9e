//! The report as an SVG: bars, one panel a table. Hand-made, as bars need no library.

use std::fmt::Write;

use crate::peer::Peer;
use crate::report::Report;

const WIDTH: f64 = 760.0;
const LABEL_WIDTH: f64 = 170.0;
const VALUE_WIDTH: f64 = 90.0;
const BAR_HEIGHT: f64 = 20.0;
const BAR_GAP: f64 = 6.0;
const TITLE_HEIGHT: f64 = 34.0;

/// A titled group of bars on a scale of its own.
pub struct Panel {
    /// Above it.
    pub title: String,
    /// Behind each value.
    pub unit: &'static str,
    /// Names and values; Portico's stand out.
    pub bars: Vec<(String, f64)>,
}

impl Panel {
    fn height(&self) -> f64 {
        TITLE_HEIGHT + self.bars.len() as f64 * (BAR_HEIGHT + BAR_GAP) + 14.0
    }
}

/// CPU per request for each body, then p99 at half rate.
pub fn throughput(report: &Report) -> String {
    let mut panels: Vec<Panel> = report
        .tables
        .iter()
        .map(|table| Panel {
            title: format!("CPU time per request, {} body, full rate", table.body),
            unit: "µs",
            bars: table
                .rows
                .iter()
                .map(|row| (row.peer.name().to_owned(), row.cpu_us()))
                .collect(),
        })
        .collect();
    if let Some(rows) = &report.half_rate {
        panels.push(Panel {
            title: "p99 at half of each one's own maximum rate, open loop".to_owned(),
            unit: "µs",
            bars: rows
                .iter()
                .map(|row| (row.peer.name().to_owned(), row.p99_us()))
                .collect(),
        });
    }
    draw(&panels, &report.conditions())
}

/// The panels, one below the other, and the caption under them.
pub fn draw(panels: &[Panel], caption: &str) -> String {
    let height: f64 = panels.iter().map(Panel::height).sum::<f64>() + 60.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let mut top = 10.0;
    for panel in panels {
        draw_panel(&mut svg, panel, top).expect("writing to a String must succeed");
        top += panel.height();
    }
    for (line, words) in wrapped(caption, 120).iter().enumerate() {
        let y = top + 12.0 + line as f64 * 14.0;
        writeln!(
            svg,
            "<text x=\"12\" y=\"{y}\" font-size=\"11\" fill=\"#666666\">{}</text>",
            escaped(words)
        )
        .expect("writing to a String must succeed");
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_panel(svg: &mut String, panel: &Panel, top: f64) -> std::fmt::Result {
    writeln!(
        svg,
        "<text x=\"12\" y=\"{}\" font-weight=\"600\">{}</text>",
        top + 20.0,
        escaped(&panel.title)
    )?;
    let longest = panel
        .bars
        .iter()
        .map(|(_, value)| *value)
        .fold(f64::MIN_POSITIVE, f64::max);
    let room = WIDTH - LABEL_WIDTH - VALUE_WIDTH;
    for (place, (peer, value)) in panel.bars.iter().enumerate() {
        let y = top + TITLE_HEIGHT + place as f64 * (BAR_HEIGHT + BAR_GAP);
        let width = (value / longest * room).max(1.0);
        let colour = if peer.starts_with(Peer::Portico.name()) {
            "#c2410c"
        } else {
            "#94a3b8"
        };
        let middle = y + BAR_HEIGHT * 0.72;
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>",
            LABEL_WIDTH - 8.0,
            escaped(peer)
        )?;
        writeln!(
            svg,
            "<rect x=\"{LABEL_WIDTH}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT}\" rx=\"2\" fill=\"{colour}\"/>"
        )?;
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{middle}\">{value:.1} {}</text>",
            LABEL_WIDTH + width + 6.0,
            panel.unit
        )?;
    }
    Ok(())
}

/// Text as SVG takes it.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Lines of at most about `width` characters.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_room_and_text_is_escaped() {
        let panel = Panel {
            title: "a < b & c".to_owned(),
            unit: "µs",
            bars: vec![("Portico".to_owned(), 5.0), ("nginx".to_owned(), 10.0)],
        };
        let svg = draw(&[panel], "one two");
        assert!(svg.contains("a &lt; b &amp; c"));
        assert!(
            svg.contains("width=\"500.0\"") && svg.contains("width=\"250.0\""),
            "{svg}"
        );
        assert_eq!(svg.matches("<rect").count(), 3);
    }

    #[test]
    fn captions_wrap() {
        assert_eq!(wrapped("aa bb cc", 6), ["aa bb", "cc"]);
    }
}
