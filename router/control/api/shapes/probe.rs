//! The JSON shape of an active probe, and of the statuses that pass it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

use super::policy::wrong;
use crate::control::api::problem::Problem;
use crate::control::api::span::Span;
use crate::feed::messages::{ProbeRecord, StatusRange};

/// How an app's backends are asked whether they are well: by a `path`, or by
/// opening a connection (`tcp`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// What is asked for with `GET`; at most 2,048 bytes of visible ASCII.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "/healthz")]
    pub path: Option<String>,
    /// A connection that opens is enough; `path`, `host` and `status` then make no sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<bool>,
    /// The `Host` sent. Absent: the backend's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "shop.example")]
    pub host: Option<String>,
    /// Between the starts of two probes of one backend; `100ms` to `1h`. Absent: `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "5s")]
    pub interval: Option<Span>,
    /// From connecting to the end of the answer's head; above 0, at most the interval. Absent:
    /// `2s`, or the interval where that is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "2s")]
    pub timeout: Option<Span>,
    /// Passed probes in a row that bring a backend back; 1 to 100. Absent: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 2)]
    pub rise: Option<u32>,
    /// Failed probes in a row that take it out; 1 to 100. Absent: 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 3)]
    pub fall: Option<u32>,
    /// Statuses that pass: single ones and ranges within 100 to 599, with commas between, that do
    /// not overlap. Absent: `200-399`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "200,204,300-399")]
    pub status: Option<Statuses>,
}

impl Probe {
    pub(super) fn record(&self) -> Result<ProbeRecord, Problem> {
        if self.tcp == Some(true) {
            let http = [
                ("probe.path", self.path.is_some()),
                ("probe.host", self.host.is_some()),
                ("probe.status", self.status.is_some()),
            ];
            if let Some((key, _)) = http.into_iter().find(|(_, is_given)| *is_given) {
                let detail = "contradicts tcp, which opens a connection and asks for nothing";
                return Err(wrong(key, detail));
            }
        } else if self.path.is_none() {
            let detail = "expected a path to ask for, or \"tcp\": true to open connections alone";
            return Err(wrong("probe.path", detail));
        }
        // A record says neither with an empty text.
        if self.path.as_deref() == Some("") {
            return Err(wrong("probe.path", "expected a path that starts with /"));
        }
        if self.path.as_ref().is_some_and(|path| path.contains('#')) {
            return Err(wrong("probe.path", "a fragment (#) is never sent"));
        }
        if self.host.as_deref().is_some_and(|host| !is_host(host)) {
            let expected = "expected a host name or address, with or without a port";
            return Err(wrong("probe.host", expected));
        }
        let ms = |span: Option<Span>| span.map(|span| span.ms);
        Ok(ProbeRecord {
            path: self.path.clone().unwrap_or_default(),
            host: self.host.clone().unwrap_or_default(),
            interval_ms: ms(self.interval),
            timeout_ms: ms(self.timeout),
            rise: self.rise,
            fall: self.fall,
            statuses: match &self.status {
                Some(Statuses(ranges)) => ranges.clone(),
                None => Vec::new(),
            },
        })
    }

    pub(super) fn of(record: &ProbeRecord) -> Probe {
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        let span = |ms: Option<u64>| ms.map(|ms| Span { ms });
        let statuses = &record.statuses;
        Probe {
            path: text(&record.path),
            tcp: record.path.is_empty().then_some(true),
            host: text(&record.host),
            interval: span(record.interval_ms),
            timeout: span(record.timeout_ms),
            rise: record.rise,
            fall: record.fall,
            status: (!statuses.is_empty()).then(|| Statuses(statuses.clone())),
        }
    }
}

fn is_host(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    !text.is_empty() && text.len() <= 255 && text.bytes().all(fits)
}

/// Statuses as ranges, in order and apart; at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Statuses(Vec<StatusRange>);

impl Statuses {
    /// Reads `200`, `200-399` or several of these with commas between.
    fn parse(text: &str) -> Result<Statuses, String> {
        let mut ranges = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Some(first), Some(last)) = (status(first), status(last)) else {
                return Err(format!(
                    "`{}` is no status of three digits within 100 to 599, nor a range of them",
                    part.chars().take(20).collect::<String>().escape_default()
                ));
            };
            if last < first {
                return Err(format!("the range {first}-{last} runs backwards"));
            }
            ranges.push(StatusRange { first, last });
        }
        ranges.sort_by_key(|range| range.first);
        match ranges.windows(2).find(|two| two[1].first <= two[0].last) {
            Some(two) => Err(format!("{} and {} overlap", show(&two[0]), show(&two[1]))),
            None => Ok(Statuses(ranges)),
        }
    }
}

fn status(text: &str) -> Option<u32> {
    let is_three_digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    let status = text.parse().ok().filter(|_| is_three_digits)?;
    (100..=599).contains(&status).then_some(status)
}

fn show(range: &StatusRange) -> String {
    if range.first == range.last {
        range.first.to_string()
    } else {
        format!("{}-{}", range.first, range.last)
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.0.iter().map(show).collect();
        f.write_str(&ranges.join(","))
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Statuses, D::Error> {
        struct Reader;
        impl de::Visitor<'_> for Reader {
            type Value = Statuses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("statuses such as \"200-399\" or \"200,204,300-399\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Statuses, E> {
                Statuses::parse(text).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, status: u64) -> Result<Statuses, E> {
                self.visit_str(&status.to_string())
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_one_way_to_be_written() {
        for (text, normal) in [
            ("200-399", "200-399"),
            ("200,204,300-399", "200,204,300-399"),
            (" 404 , 200-204", "200-204,404"),
            ("100-599", "100-599"),
        ] {
            let statuses = Statuses::parse(text).unwrap();
            assert_eq!(statuses.to_string(), normal);
            assert_eq!(Statuses::parse(normal).unwrap(), statuses);
        }
        let number: Statuses = serde_json::from_str("204").unwrap();
        assert_eq!(number.to_string(), "204");
    }

    #[test]
    fn statuses_that_cannot_be_meant_are_refused() {
        for bad in [
            "",
            ",",
            "200,",
            "99",
            "600",
            "200-",
            "-200",
            "300-200",
            "200-299,250",
            "200,200",
            "200-299,299-300",
            "2xx",
            "0200",
            "200-300-400",
            "+20",
            "two",
            "1e2",
        ] {
            assert!(Statuses::parse(bad).is_err(), "{bad}");
        }
        for bad in ["true", "-200", "200.5", "[200]", "{}"] {
            assert!(serde_json::from_str::<Statuses>(bad).is_err(), "{bad}");
        }
    }
}
