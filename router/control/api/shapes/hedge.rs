//! When a try is overtaken, as JSON writes it: one word.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::control::api::span::Span;
use crate::feed::messages::HedgeRecord;

/// When a try that has not answered is overtaken by one on another backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedge {
    /// `"auto"`: after what the app's own answers teach.
    Auto,
    /// `"off"`: never.
    Off,
    /// `"p95"`, `"p99.9"`: when this share of the app's recent answers would
    /// have come, in thousandths.
    Quantile(u32),
    /// `"50ms"`: after this long.
    After(Span),
}

const EXPECTED: &str = "\"auto\", \"off\", a quantile from \"p50\" to \"p99.9\", or a time above 0 \
     and at most 24h with its unit, such as \"50ms\"";

impl Hedge {
    fn parse(text: &str) -> Option<Hedge> {
        match text {
            "auto" => Some(Hedge::Auto),
            "off" => Some(Hedge::Off),
            _ => match text.strip_prefix('p') {
                Some(percent) => permille(percent).map(Hedge::Quantile),
                // A bare number could be meant either way.
                None if text.ends_with(|c: char| c.is_ascii_digit()) => None,
                None => Span::parse(text).map(Hedge::After),
            },
        }
    }

    pub(super) fn record(self) -> HedgeRecord {
        match self {
            Hedge::Auto => HedgeRecord {
                learned: true,
                ..HedgeRecord::default()
            },
            Hedge::Off => HedgeRecord::default(),
            Hedge::Quantile(permille) => HedgeRecord {
                permille: Some(permille),
                ..HedgeRecord::default()
            },
            Hedge::After(span) => HedgeRecord {
                after_ms: Some(span.ms),
                ..HedgeRecord::default()
            },
        }
    }

    pub(super) fn of(record: &HedgeRecord) -> Hedge {
        match (record.learned, record.permille, record.after_ms) {
            (true, _, _) => Hedge::Auto,
            (false, Some(permille), _) => Hedge::Quantile(permille),
            (false, None, Some(ms)) => Hedge::After(Span { ms }),
            (false, None, None) => Hedge::Off,
        }
    }
}

/// `95` as 950, `99.9` as 999: two digits and at most one behind the point.
fn permille(percent: &str) -> Option<u32> {
    let (whole, tenth) = percent.split_once('.').unwrap_or((percent, "0"));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() != 2 || tenth.len() != 1 || !is_digits(whole) || !is_digits(tenth) {
        return None;
    }
    let permille = whole.parse::<u32>().ok()? * 10 + tenth.parse::<u32>().ok()?;
    (500..=999).contains(&permille).then_some(permille)
}

impl fmt::Display for Hedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hedge::Auto => f.write_str("auto"),
            Hedge::Off => f.write_str("off"),
            Hedge::Quantile(permille) if permille % 10 == 0 => write!(f, "p{}", permille / 10),
            Hedge::Quantile(permille) => write!(f, "p{}.{}", permille / 10, permille % 10),
            Hedge::After(span) => span.fmt(f),
        }
    }
}

impl Serialize for Hedge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hedge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hedge, D::Error> {
        struct Reader;
        impl de::Visitor<'_> for Reader {
            type Value = Hedge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Hedge, E> {
                Hedge::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

impl PartialSchema for Hedge {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(format!("{EXPECTED}.")))
            .examples(["auto", "off", "p95", "p99.9", "50ms"])
            .into()
    }
}

impl ToSchema for Hedge {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_it_is_read() {
        for (text, hedge) in [
            ("auto", Hedge::Auto),
            ("off", Hedge::Off),
            ("p50", Hedge::Quantile(500)),
            ("p95", Hedge::Quantile(950)),
            ("p99.9", Hedge::Quantile(999)),
            ("50ms", Hedge::After(Span { ms: 50 })),
            ("2s", Hedge::After(Span { ms: 2_000 })),
        ] {
            assert_eq!(Hedge::parse(text), Some(hedge), "{text}");
            assert_eq!(hedge.to_string(), text);
            assert_eq!(Hedge::of(&hedge.record()), hedge, "{text}");
        }
        assert_eq!(Hedge::parse("p95.0"), Some(Hedge::Quantile(950)));
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "", "on", "AUTO", "p", "p5", "p49.9", "p100", "p99.99", "p9x", "p-95", "p95.", "50",
            "0.5", "-5ms", "95%",
        ] {
            assert_eq!(Hedge::parse(bad), None, "{bad}");
        }
        for bad in ["true", "0.95", "95", "{}", "[\"auto\"]"] {
            assert!(serde_json::from_str::<Hedge>(bad).is_err(), "{bad}");
        }
    }
}
