//! Tests of the rows and of their sum over threads.

use std::collections::HashSet;

use super::*;
use crate::feed::messages::Sample;
use crate::observe::{Code, EdgeCells};

#[test]
fn every_row_is_named_and_explained() {
    let mut names = HashSet::new();
    for row in rows() {
        assert!(names.insert(row.name), "{} is there twice", row.name);
        assert!(row.name.starts_with("portico_"), "{}", row.name);
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        assert!(row.name.bytes().all(plain), "{}", row.name);
        assert!(
            row.help.len() > 30 && row.help.ends_with('.'),
            "{} lacks prose",
            row.name
        );
        assert!(!row.unit.is_empty(), "{} lacks a unit", row.name);
    }
}

#[test]
fn units_come_last() {
    for row in rows() {
        match row.kind {
            Kind::Counter => assert!(row.name.ends_with("_total"), "{}", row.name),
            Kind::Histogram => assert!(row.name.ends_with("_seconds"), "{}", row.name),
            Kind::Gauge => assert!(!row.name.ends_with("_total"), "{}", row.name),
        }
        if row.unit == "bytes" {
            assert!(row.name.ends_with("_bytes") || row.name.ends_with("_bytes_total"));
        }
    }
}

#[test]
fn a_series_has_a_value_for_every_label_and_is_there_once() {
    let mut seen = HashSet::new();
    for counter in Counter::ALL {
        assert_eq!(
            counter.row().labels.len(),
            counter.values().len(),
            "{counter:?}"
        );
        assert!(
            seen.insert((counter.row().name, counter.values())),
            "{counter:?}"
        );
    }
    for gauge in Gauge::ALL {
        assert_eq!(gauge.row().labels.len(), gauge.values().len(), "{gauge:?}");
    }
}

fn value(samples: &[Sample], name: &str, label: Option<&str>) -> f64 {
    let of_row = samples.iter().filter(|sample| sample.name == name);
    of_row
        .filter(|sample| label.is_none_or(|label| sample.labels.iter().any(|l| l == label)))
        .map(|sample| sample.value)
        .sum()
}

#[test]
fn a_total_is_the_sum_of_its_reasons_over_all_threads() {
    let threads = [EdgeCells::default(), EdgeCells::default()];
    threads[0].inc(Counter::responses(200));
    threads[1].inc(Counter::responses(204));
    threads[1].inc(Counter::responses(503));
    threads[1].inc_code(Code::H12);
    threads[1].add(Counter::ClientSentBytes, 4096);
    threads[0].up(Gauge::ConnectionsOpen);
    threads[1].up(Gauge::ConnectionsOpen);
    threads[0].down(Gauge::ConnectionsOpen);
    let (samples, _) = collect(&threads);
    assert_eq!(value(&samples, "portico_requests_total", None), 3.0);
    assert_eq!(value(&samples, "portico_requests_total", Some("2xx")), 2.0);
    assert_eq!(
        value(&samples, "portico_coded_requests_total", Some("H12")),
        1.0
    );
    assert_eq!(
        value(&samples, "portico_coded_requests_total", Some("app")),
        1.0
    );
    assert_eq!(
        value(&samples, "portico_client_sent_bytes_total", None),
        4096.0
    );
    assert_eq!(value(&samples, "portico_client_connections", None), 1.0);
}

#[test]
fn every_row_is_collected_even_before_it_counts() {
    let (mut samples, histograms) = collect(&[EdgeCells::default()]);
    let off = crate::settings::Log {
        access: crate::settings::AccessLog::Off,
        format: crate::settings::LogFormat::Logfmt,
    };
    samples.extend(
        crate::observe::access_log::Log::open(&off, None)
            .unwrap()
            .samples(),
    );
    let of_limits = |row: &&Row| row.labels == ["limit"];
    for row in rows().filter(|row| !of_limits(row)) {
        let sampled = samples.iter().any(|sample| sample.name == row.name);
        let observed = histograms
            .iter()
            .any(|histogram| histogram.name == row.name);
        assert!(sampled ^ observed, "{} is not collected", row.name);
    }
}

#[test]
fn histograms_add_up_over_threads() {
    let threads = [EdgeCells::default(), EdgeCells::default()];
    threads[0].observe(Histogram::Total, 1_000);
    threads[1].observe(Histogram::Total, 1_000);
    threads[1].observe(Histogram::Total, 2_000_000);
    let (_, histograms) = collect(&threads);
    let total = histograms
        .iter()
        .find(|h| h.name == "portico_request_duration_seconds")
        .unwrap();
    assert_eq!(total.buckets.iter().sum::<u64>(), 3);
    assert_eq!(total.buckets[crate::observe::histogram::bucket(1_000)], 2);
    assert!((total.sum - 2.002).abs() < 1e-9);
}

/// Every Rust source of the edge, tests left out, as one text.
fn edge_sources() -> String {
    let mut folders = vec![std::path::PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/router/edge"
    ))];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    text
}

#[test]
fn every_series_is_written_somewhere_in_the_edge() {
    let sources = edge_sources();
    let series = Counter::ALL
        .iter()
        .map(|counter| format!("Counter::{counter:?}"));
    let series = series.chain(Gauge::ALL.iter().map(|gauge| format!("Gauge::{gauge:?}")));
    let series = series.chain(
        Histogram::ALL
            .iter()
            .map(|timed| format!("Histogram::{timed:?}")),
    );
    let unwritten: Vec<String> = series
        // Chosen by `Counter::responses`.
        .filter(|name| !name.starts_with("Counter::Responses"))
        .filter(|name| {
            let mut found = sources.match_indices(name.as_str());
            let ends = |at: usize| !sources[at..].starts_with(|c: char| c.is_ascii_alphanumeric());
            !found.any(|(at, _)| ends(at + name.len()))
        })
        .collect();
    assert!(unwritten.is_empty(), "never written: {unwritten:?}");
}
