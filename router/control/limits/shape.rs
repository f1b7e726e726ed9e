//! A limit as JSON: what `PUT /limits/{name}` takes and `GET` shows.
//!
//! Owns the fields, their checks and the sentences of refusals, each with the
//! name of its field. Never looks at what is stored.

use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use super::{CONCURRENCY_MAX, Known, Number, check_probes, is_name, recorded};
use crate::control::api::problem::Problem;
use crate::control::api::request::Object;
use crate::control::names;
use crate::feed::messages::{HeaderRecord, LimitRecord, PerRecord, RateRecord};
use crate::policy::limit::{NoRate, Rate, own};

/// Bytes of a header's value that a limit looks for.
const VALUE_MAX: usize = 256;
/// Bytes of a header's name.
const NAME_MAX: usize = 64;
/// Bytes of a path.
const PATH_MAX: usize = 256;

/// The body of a `PUT`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitShape {
    rate: Option<RateShape>,
    concurrency: Option<Whole<0, CONCURRENCY_MAX>>,
    burst: Option<Whole<1, { Rate::MOST_PER_SECOND }>>,
    app: Option<String>,
    path: Option<String>,
    header: Option<Object<HeaderShape>>,
    per: Option<PerShape>,
}

/// `{"name": "X-Plan", "value": "free"}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderShape {
    name: String,
    value: String,
}

/// `"10/s"`, `"600/m"`, `10`
#[derive(Clone, Copy, Debug)]
struct RateShape(Rate);

impl<'de> Deserialize<'de> for RateShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = RateShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rate such as \"10/s\", \"600/m\" or 10")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RateShape, E> {
                text.parse().map(RateShape).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<RateShape, E> {
                let count = u32::try_from(count).map_err(|_| E::custom(NoRate))?;
                let rate = Rate::per_second(count).checked();
                rate.map(RateShape).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<RateShape, E> {
                Err(E::custom(NoRate))
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<RateShape, E> {
                Err(E::custom(NoRate))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// A whole number in a range.
#[derive(Clone, Copy, Debug)]
struct Whole<const MIN: u32, const MAX: u32>(u32);

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || de::Error::custom(format!("expected a whole number from {MIN} to {MAX}"));
        let value = Value::deserialize(deserializer)?;
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        let fits = number.filter(|number| (MIN..=MAX).contains(number));
        fits.map(Whole).ok_or_else(wrong)
    }
}

/// `"client"`, `{"header": "X-Api-Key"}`
#[derive(Debug)]
enum PerShape {
    Client,
    Header(String),
}

impl<'de> Deserialize<'de> for PerShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const EXPECTED: &str = "\"client\" or {\"header\": NAME}";
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = PerShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PerShape, E> {
                match text {
                    "client" => Ok(PerShape::Client),
                    _ => Err(E::custom(format!("expected {EXPECTED}"))),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PerShape, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Named {
                    header: String,
                }
                let map = de::value::MapAccessDeserializer::new(map);
                Named::deserialize(map).map(|named| PerShape::Header(named.header))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A limit's name, checked.
///
/// # Errors
/// It is none.
pub fn checked_name(name: String) -> Result<String, Problem> {
    if is_name(&name) {
        return Ok(name);
    }
    let detail = format!("limit name {name:?}: expected [a-z][a-z0-9_-]{{0,62}}");
    Err(Problem::field("name", detail))
}

impl LimitShape {
    /// The record it stands for.
    ///
    /// # Errors
    /// What is wrong with it, with the field.
    pub fn record(self, name: &str) -> Result<LimitRecord, Problem> {
        let wrong = |field: &str, detail: &str| Problem::field(field, format!("{field}: {detail}"));
        let rate = match (self.rate, self.concurrency) {
            (Some(RateShape(rate)), None) => Some(RateRecord {
                burst: self.burst.map(|Whole(burst)| burst),
                ..recorded(rate)
            }),
            (None, Some(_)) if self.burst.is_some() => {
                return Err(wrong("burst", "only a rate has one"));
            }
            (None, Some(_)) => None,
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "concurrency",
                    "a limit is of a rate or of a concurrency, not of both",
                ));
            }
            (None, None) => return Err(wrong("rate", "say a rate, or a concurrency")),
        };
        let record = LimitRecord {
            name: name.to_owned(),
            rate,
            concurrency: self.concurrency.map(|Whole(most)| most),
            app: self.app.unwrap_or_default(),
            path: path(self.path.as_deref().unwrap_or_default())?,
            header: self
                .header
                .map(|Object(header)| checked_header(header))
                .transpose()?,
            per: self.per.map(per).transpose()?,
            ..LimitRecord::default()
        };
        if !record.app.is_empty() {
            names::check_app(&record.app).map_err(|detail| wrong("app", &detail))?;
        }
        if own::is_own(name) {
            check_own(&record)?;
        }
        Ok(record)
    }
}

/// The router's own flows are limited as a whole, by a rate.
fn check_own(record: &LimitRecord) -> Result<(), Problem> {
    let LimitRecord {
        name,
        concurrency,
        app,
        path,
        header,
        per,
        ..
    } = record;
    let said = [
        ("concurrency", concurrency.is_some()),
        ("app", !app.is_empty()),
        ("path", !path.is_empty()),
        ("header", header.is_some()),
        ("per", per.is_some()),
    ];
    if let Some((field, _)) = said.into_iter().find(|(_, is_said)| *is_said) {
        let detail =
            format!("{field}: {name} is a flow of the router's own, which takes only a rate");
        return Err(Problem::field(field, detail));
    }
    if name == own::PROBES
        && let Some(Number::Rate(rate)) = Number::of(record)
    {
        check_probes(rate).map_err(|detail| Problem::field("rate", format!("rate: {detail}")))?;
    }
    Ok(())
}

fn path(path: &str) -> Result<String, Problem> {
    let fits = path.is_empty() || path.starts_with('/');
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'?' && byte != b'#';
    if fits && path.len() <= PATH_MAX && path.bytes().all(is_plain) {
        return Ok(path.trim_end_matches('/').to_owned());
    }
    let detail = format!(
        "path: expected the beginning of a path, such as /publish, without a query, of at most {PATH_MAX} bytes"
    );
    Err(Problem::field("path", detail))
}

fn header_name(field: &str, name: String) -> Result<String, Problem> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_token) {
        return Ok(name);
    }
    let detail = format!("{field}: expected the name of a header, of at most {NAME_MAX} bytes");
    Err(Problem::field(field, detail))
}

fn checked_header(header: HeaderShape) -> Result<HeaderRecord, Problem> {
    let HeaderShape { name, value } = header;
    let name = header_name("header.name", name)?;
    let is_visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    if value.len() > VALUE_MAX || !value.bytes().all(is_visible) || value.trim() != value {
        let detail = format!(
            "header.value: expected printable ASCII without spaces around it, of at most {VALUE_MAX} bytes"
        );
        return Err(Problem::field("header.value", detail));
    }
    Ok(HeaderRecord { name, value })
}

fn per(shape: PerShape) -> Result<PerRecord, Problem> {
    let header = match shape {
        PerShape::Client => String::new(),
        PerShape::Header(name) => header_name("per.header", name)?,
    };
    Ok(PerRecord { header })
}

/// A limit as it is shown. Of what was left out, nothing is said.
pub fn shown(known: &Known) -> Value {
    let mut shown = Map::new();
    shown.insert("name".into(), json!(known.name));
    match &known.holds {
        Some(record) => shown.extend(shape(record)),
        None => drop(shown.insert("rate".into(), json!("unlimited"))),
    }
    let is_written = known
        .holds
        .as_ref()
        .is_some_and(|record| record.is_from_file);
    let source = match (is_written, &known.stored) {
        (true, _) => "file",
        (false, Some(_)) => "stored",
        (false, None) => "default",
    };
    shown.insert("source".into(), json!(source));
    if is_written {
        let stored = known
            .stored
            .as_ref()
            .map(|record| Value::Object(number(record)));
        shown.insert("stored".into(), json!(stored));
    }
    if let Some(stored) = &known.stored {
        shown.insert("revision".into(), json!(stored.revision));
    }
    Value::Object(shown)
}

/// The number as its field.
fn number(record: &LimitRecord) -> Map<String, Value> {
    let shown = match Number::of(record) {
        Some(Number::Plain(most)) => json!({ "concurrency": most }),
        Some(Number::Rate(rate)) => json!({ "rate": rate.to_string() }),
        None => json!({ "rate": null }),
    };
    match shown {
        Value::Object(shown) => shown,
        _ => Map::new(),
    }
}

/// The fields that a `PUT` would take.
fn shape(record: &LimitRecord) -> Map<String, Value> {
    let mut shown = number(record);
    if let Some(burst) = record.rate.and_then(|rate| rate.burst) {
        shown.insert("burst".into(), json!(burst));
    }
    if !record.app.is_empty() {
        shown.insert("app".into(), json!(record.app));
    }
    if !record.path.is_empty() {
        shown.insert("path".into(), json!(record.path));
    }
    if let Some(header) = &record.header {
        let header = json!({ "name": header.name, "value": header.value });
        shown.insert("header".into(), header);
    }
    match record.per.as_ref().map(|per| per.header.as_str()) {
        None => {}
        Some("") => drop(shown.insert("per".into(), json!("client"))),
        Some(header) => drop(shown.insert("per".into(), json!({ "header": header }))),
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::request::parse;

    fn put(name: &str, body: &str) -> Result<LimitRecord, Problem> {
        parse::<LimitShape>(body.as_bytes())?.record(name)
    }

    #[test]
    fn what_is_shown_is_what_was_put() {
        for body in [
            json!({ "rate": "10/s" }),
            json!({ "rate": "600/m", "burst": 3, "app": "shop", "path": "/publish" }),
            json!({ "concurrency": 5, "per": "client" }),
            json!({ "rate": "0/s", "per": { "header": "X-Api-Key" },
                    "header": { "name": "X-Plan", "value": "free" } }),
        ] {
            let record = put("publish", &body.to_string()).unwrap();
            assert_eq!(Value::Object(shape(&record)), body);
        }
        let record = put("a", r#"{"rate": 7, "path": "/x/"}"#).unwrap();
        assert_eq!(
            Value::Object(shape(&record)),
            json!({ "rate": "7/s", "path": "/x" })
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, field) in [
            (r"{}", "rate"),
            (r#"{"rate": -1}"#, "rate"),
            (r#"{"rate": "-1/s"}"#, "rate"),
            (r#"{"rate": "ten"}"#, "rate"),
            (r#"{"rate": 1.5}"#, "rate"),
            (r#"{"rate": 1e300}"#, "rate"),
            (r#"{"rate": 18446744073709551615}"#, "rate"),
            (r#"{"rate": 1000001}"#, "rate"),
            (r#"{"rate": [1]}"#, "rate"),
            (r#"{"concurrency": -1}"#, "concurrency"),
            (r#"{"concurrency": "5"}"#, "concurrency"),
            (r#"{"concurrency": 1000001}"#, "concurrency"),
            (r#"{"rate": 1, "concurrency": 1}"#, "concurrency"),
            (r#"{"concurrency": 1, "burst": 1}"#, "burst"),
            (r#"{"rate": 1, "burst": 0}"#, "burst"),
            (r#"{"rate": 1, "brust": 2}"#, "brust"),
            (r#"{"rate": 1, "app": "No"}"#, "app"),
            (r#"{"rate": 1, "path": "publish"}"#, "path"),
            (r#"{"rate": 1, "path": "/a?b"}"#, "path"),
            (r#"{"rate": 1, "per": "clients"}"#, "per"),
            (r#"{"rate": 1, "per": {"header": "a b"}}"#, "per.header"),
            (r#"{"rate": 1, "per": {"cookie": "a"}}"#, "per.cookie"),
            (r#"{"rate": 1, "header": {"name": "a"}}"#, "header.value"),
            (
                r#"{"rate": 1, "header": {"name": "a", "value": "\n"}}"#,
                "header.value",
            ),
        ] {
            let problem = put("publish", body).expect_err(body);
            assert_eq!(
                problem.field_name(),
                Some(field),
                "{body}: {}",
                problem.detail()
            );
        }
        for (name, body, field) in [
            ("retries", r#"{"concurrency": 1}"#, "concurrency"),
            ("changes", r#"{"rate": 1, "path": "/x"}"#, "path"),
            ("probes", r#"{"rate": 1001}"#, "rate"),
        ] {
            let problem = put(name, body).expect_err(body);
            assert_eq!(
                problem.field_name(),
                Some(field),
                "{name}: {}",
                problem.detail()
            );
        }
        assert!(put("probes", r#"{"rate": "60000/m"}"#).is_ok());
    }
}
