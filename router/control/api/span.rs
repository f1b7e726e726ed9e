//! Durations as the API writes them: `"5s"`, `"250ms"`, `"1m"`, `"1h"`, or a
//! number of seconds.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration, whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Milliseconds.
    pub ms: u64,
}

impl Span {
    /// Reads `5s`, `250ms`, `1m`, `1h`, `1.5s` or a bare number of seconds.
    pub fn parse(text: &str) -> Option<Span> {
        let number_ends = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(number_ends);
        let unit_ms = match unit {
            "ms" => 1,
            "s" | "" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 {
            return None;
        }
        let whole: u64 = whole.parse().ok()?;
        let scale = 10u64.pow(u32::try_from(fraction.len()).ok()?);
        let part = fraction.parse::<u64>().ok()?.checked_mul(unit_ms)? / scale;
        Some(Span {
            ms: whole.checked_mul(unit_ms)?.checked_add(part)?,
        })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ms.is_multiple_of(1_000) {
            write!(f, "{}s", self.ms / 1_000)
        } else {
            write!(f, "{}ms", self.ms)
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        struct Reader;
        impl de::Visitor<'_> for Reader {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"5s\", \"250ms\" or a number of seconds")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                Span::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Span, E> {
                let ms = seconds.checked_mul(1_000);
                ms.map(|ms| Span { ms })
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(seconds), &self))
            }

            fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Span, E> {
                Err(E::invalid_value(de::Unexpected::Signed(seconds), &self))
            }

            fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Span, E> {
                if !(0.0..=1e12).contains(&seconds) {
                    return Err(E::invalid_value(de::Unexpected::Float(seconds), &self));
                }
                // In range: checked above.
                Ok(Span {
                    ms: (seconds * 1_000.0).round() as u64,
                })
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, ms) in [
            ("5s", 5_000),
            ("250ms", 250),
            ("1m", 60_000),
            ("2h", 7_200_000),
            ("1.5s", 1_500),
            ("7", 7_000),
            ("0s", 0),
        ] {
            assert_eq!(Span::parse(text), Some(Span { ms }), "{text}");
        }
        for bad in [
            "",
            "s",
            "5 s",
            "-5s",
            "5d",
            ".5s",
            "5.s",
            "1e3",
            "99999999999999999999s",
            "5S",
        ] {
            assert_eq!(Span::parse(bad), None, "{bad}");
        }
        assert_eq!(serde_json::from_str::<Span>("0.25").unwrap().ms, 250);
        assert_eq!(serde_json::from_str::<Span>("3").unwrap().ms, 3_000);
        for bad in ["-1", "true", "null", "[]", "\"x\"", "1e300"] {
            assert!(serde_json::from_str::<Span>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn is_written_as_it_is_read() {
        for ms in [0, 1, 250, 1_000, 1_500, 60_000] {
            assert_eq!(Span::parse(&Span { ms }.to_string()), Some(Span { ms }));
        }
    }
}
