//! Values of keys: how each kind is read, and shown as the file writes it.
//!
//! Owns the kinds (durations, addresses, accounts, lists). Knows no key.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use super::User;

/// The longest list a key takes: listeners cost a socket per data thread,
/// trusted proxies a comparison per request.
const MAX_LIST: usize = 256;
/// A time longer than a day is a typing error.
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

/// Text.
pub(super) fn string(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("this is {}", kind(value)))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// A list of texts, each read by `item`.
pub(super) fn list<T>(
    value: &Value,
    item: fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let items = value
        .as_array()
        .ok_or_else(|| format!("this is {}", kind(value)))?;
    if items.len() > MAX_LIST {
        return Err(format!("{} items, at most {MAX_LIST}", items.len()));
    }
    items.iter().map(|value| item(string(value)?)).collect()
}

/// A path; whether there is anything is found out where it is needed.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("the path is empty or holds a NUL".into());
    }
    Ok(PathBuf::from(text))
}

/// An account. Whether it exists is found out where it is needed.
pub(super) fn user(value: &Value) -> Result<User, String> {
    if let Some(id) = value.as_integer() {
        // The last id stands for "no change" in the system's calls.
        let id = u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        return match id.ok_or("this is no user id")? {
            0 => Ok(User::Root),
            id => Ok(User::Id(id)),
        };
    }
    match string(value)? {
        "auto" => Ok(User::Auto),
        "root" => Ok(User::Root),
        name => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let fits = (1..=32).contains(&name.len()) && name.chars().all(plain);
            let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            match fits && starts {
                true => Ok(User::Name(name.to_owned())),
                false => Err("this is no user's name".into()),
            }
        }
    }
}

pub(super) fn shown_user(user: &User) -> Value {
    match user {
        User::Auto => "auto".into(),
        User::Root => "root".into(),
        User::Name(name) => name.as_str().into(),
        User::Id(id) => Value::Integer(i64::from(*id)),
    }
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not IP:PORT"))
}

/// A whole number from 0 to `most`.
pub(super) fn amount(value: &Value, most: u64) -> Result<u64, String> {
    let number = value
        .as_integer()
        .ok_or_else(|| format!("this is {}", kind(value)))?;
    u64::try_from(number)
        .ok()
        .filter(|number| *number <= most)
        .ok_or_else(String::new)
}

/// A CIDR block; a plain address is a block of one.
pub(super) fn block(text: &str) -> Result<ipnet::IpNet, String> {
    text.parse::<ipnet::IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(ipnet::IpNet::from))
        .map_err(|_| format!("{text:?} is not a CIDR block"))
}

/// `"30s"`, `"250ms"`, `"1m"`, `"1h"`, or a number of seconds.
pub(super) fn duration(value: &Value) -> Result<Duration, String> {
    let seconds = match value {
        Value::Integer(seconds) => *seconds as f64,
        Value::Float(seconds) => *seconds,
        Value::String(text) => {
            let split = text
                .find(|c: char| c.is_ascii_alphabetic())
                .unwrap_or(text.len());
            let (digits, unit) = text.split_at(split);
            let plain = digits
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.');
            let count: f64 = digits
                .parse()
                .ok()
                .filter(|_| plain)
                .ok_or_else(String::new)?;
            count
                * match unit {
                    "ms" => 0.001,
                    "s" => 1.0,
                    "m" => 60.0,
                    "h" => 3600.0,
                    "" => return Err("the unit is missing: ms, s, m or h".into()),
                    _ => return Err(format!("{unit:?} is not one of ms, s, m, h")),
                }
        }
        other => return Err(format!("this is {}", kind(other))),
    };
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or_else(String::new)
}

pub(super) fn shown_duration(duration: Duration) -> String {
    match (duration.subsec_nanos(), duration.as_secs()) {
        (0, seconds @ 3600..) if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        (0, seconds) => format!("{seconds}s"),
        _ => format!("{}ms", duration.as_millis()),
    }
}

pub(super) fn shown<T: ToString>(items: &[T]) -> Value {
    Value::Array(items.iter().map(|item| item.to_string().into()).collect())
}
