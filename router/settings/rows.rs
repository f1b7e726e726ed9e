//! One row per key: how it is checked, shown and explained. The only place
//! that knows the names of keys. Never reads a file.

use std::net::SocketAddr;
use std::time::Duration;

use toml::Value;

use super::error::{Place, SettingsError};
use super::source::Entry;
use super::values::{
    address, amount, block, duration, list, path, shown, shown_duration, shown_user, string, user,
};
use super::{AccessLog, LogFormat, Settings, Shed, Standby, Tokens, absolute, cores};

/// More data threads than any machine has cores.
const MAX_THREADS: i64 = 1024;

/// One setting.
pub struct Row {
    /// Its dotted key.
    pub key: &'static str,
    /// What a value must be; ends an error message.
    pub expected: &'static str,
    /// Whether it takes a list: a bare `--set` word is then a list of one.
    list: bool,
    /// Checks and stores a value; the error says what exactly is wrong.
    set: fn(&mut Settings, &Value) -> Result<(), String>,
    /// The value as the file would write it.
    pub show: fn(&Settings) -> Value,
}

/// A head that may take less makes clients fail whose packets get lost.
const LEAST_PATIENCE: Duration = Duration::from_millis(100);
/// More than a client that anybody would call slow sends or takes.
const MAX_RATE: u64 = 1 << 20;

/// With less the router could serve nobody.
const LEAST_BUFFERS: u64 = 1 << 20;
/// More connections than a machine has descriptors for.
const MAX_CONNECTIONS: u64 = 10_000_000;

/// What `user` and `edge.user` take.
const USER: &str = "\"auto\", \"root\", the name of a user, or a user id";

/// What times that a client is given take.
const PATIENCE: &str = "a duration from 100ms to 24h, such as \"10s\", or a number of seconds";

/// What rates that a client must keep take.
const RATE: &str = "bytes a second, a whole number up to 1048576 (0 = any rate will do)";

/// Every key there is, in the order of `config/portico.toml`.
pub static ROWS: &[Row] = &[
    Row {
        key: "state_dir",
        expected: "the path of a folder, as a string",
        list: false,
        set: |settings, value| {
            settings.state_dir = path(string(value)?)?;
            Ok(())
        },
        show: |settings| settings.state_dir.display().to_string().into(),
    },
    Row {
        key: "user",
        expected: USER,
        list: false,
        set: |settings, value| {
            settings.user = user(value)?;
            Ok(())
        },
        show: |settings| shown_user(&settings.user),
    },
    Row {
        key: "rates_dir",
        expected: "the path of a folder, as a string; empty for none",
        list: false,
        set: |settings, value| {
            // From where the router was started: control works elsewhere.
            let folder = Some(string(value)?).filter(|text| !text.is_empty());
            let folder = folder.map(|text| path(text).map(|path| absolute(&path)));
            settings.rates_dir = folder.transpose()?;
            Ok(())
        },
        show: |settings| settings.rates_dir_text().into(),
    },
    Row {
        key: "edge.http",
        expected: "a list of addresses, such as [\"0.0.0.0:8080\"]",
        list: true,
        set: |settings, value| {
            let listeners = list(value, address)?;
            if listeners.is_empty() {
                return Err("without a listener the router serves nobody".into());
            }
            settings.edge.http = listeners;
            Ok(())
        },
        show: |settings| shown(&settings.edge.http),
    },
    Row {
        key: "edge.https",
        expected: "an empty list",
        list: true,
        set: |_, value| match list(value, address)?.is_empty() {
            true => Ok(()),
            false => Err("this version does not serve TLS yet: end TLS in front of it".into()),
        },
        show: |_| Value::Array(Vec::new()),
    },
    Row {
        key: "edge.threads",
        expected: "a whole number from 0 to 1024 (0 = one per core)",
        list: false,
        set: |settings, value| {
            let asked = value
                .as_integer()
                .filter(|count| (0..=MAX_THREADS).contains(count))
                .and_then(|count| usize::try_from(count).ok())
                .ok_or_else(String::new)?;
            settings.edge.threads_asked = asked;
            settings.edge.threads = if asked == 0 { cores() } else { asked };
            Ok(())
        },
        show: |settings| {
            Value::Integer(i64::try_from(settings.edge.threads_asked).unwrap_or(MAX_THREADS))
        },
    },
    Row {
        key: "edge.trusted_proxies",
        expected: "a list of CIDR blocks or addresses, such as [\"10.0.0.0/8\"]",
        list: true,
        set: |settings, value| {
            settings.edge.trusted_proxies = list(value, block)?;
            Ok(())
        },
        show: |settings| shown(&settings.edge.trusted_proxies),
    },
    Row {
        key: "edge.drain_timeout",
        expected: "a duration up to 24h, such as \"30s\", or a number of seconds",
        list: false,
        set: |settings, value| {
            settings.edge.drain_timeout = duration(value)?;
            Ok(())
        },
        show: |settings| shown_duration(settings.edge.drain_timeout).into(),
    },
    Row {
        key: "edge.handover_timeout",
        expected: "a duration up to 24h, such as \"1h\", or a number of seconds",
        list: false,
        set: |settings, value| {
            settings.edge.handover_timeout = duration(value)?;
            Ok(())
        },
        show: |settings| shown_duration(settings.edge.handover_timeout).into(),
    },
    Row {
        key: "edge.standby",
        expected: "\"auto\", \"on\" or \"off\"",
        list: false,
        set: |settings, value| {
            settings.edge.standby = match value {
                Value::Boolean(true) => Standby::On,
                Value::Boolean(false) => Standby::Off,
                value => match string(value)? {
                    "auto" => Standby::Auto,
                    "on" => Standby::On,
                    "off" => Standby::Off,
                    _ => return Err(String::new()),
                },
            };
            Ok(())
        },
        show: |settings| match settings.edge.standby {
            Standby::Auto => "auto".into(),
            Standby::On => "on".into(),
            Standby::Off => "off".into(),
        },
    },
    Row {
        key: "edge.shed",
        expected: "\"auto\" or \"off\"",
        list: false,
        set: |settings, value| {
            settings.edge.shed = match value {
                Value::Boolean(false) => Shed::Off,
                value => match string(value)? {
                    "auto" => Shed::Auto,
                    "off" => Shed::Off,
                    _ => return Err(String::new()),
                },
            };
            Ok(())
        },
        show: |settings| match settings.edge.shed {
            Shed::Auto => "auto".into(),
            Shed::Off => "off".into(),
        },
    },
    Row {
        key: "edge.user",
        expected: USER,
        list: false,
        set: |settings, value| {
            settings.edge.user = user(value)?;
            Ok(())
        },
        show: |settings| shown_user(&settings.edge.user),
    },
    Row {
        key: "edge.head_timeout",
        expected: PATIENCE,
        list: false,
        set: |settings, value| {
            settings.edge.clients.head_timeout = patience(value)?;
            Ok(())
        },
        show: |settings| shown_duration(settings.edge.clients.head_timeout).into(),
    },
    Row {
        key: "edge.keepalive_timeout",
        expected: PATIENCE,
        list: false,
        set: |settings, value| {
            settings.edge.clients.keepalive_timeout = patience(value)?;
            Ok(())
        },
        show: |settings| shown_duration(settings.edge.clients.keepalive_timeout).into(),
    },
    Row {
        key: "edge.min_body_rate",
        expected: RATE,
        list: false,
        set: |settings, value| {
            settings.edge.clients.min_body_rate = amount(value, MAX_RATE)?;
            Ok(())
        },
        show: |settings| shown_amount(settings.edge.clients.min_body_rate),
    },
    Row {
        key: "edge.min_drain_rate",
        expected: RATE,
        list: false,
        set: |settings, value| {
            settings.edge.clients.min_drain_rate = amount(value, MAX_RATE)?;
            Ok(())
        },
        show: |settings| shown_amount(settings.edge.clients.min_drain_rate),
    },
    Row {
        key: "edge.max_connections",
        expected: "a whole number up to 10000000 (0 = as the limit on descriptors allows)",
        list: false,
        set: |settings, value| {
            settings.edge.clients.max_connections = amount(value, MAX_CONNECTIONS)?;
            Ok(())
        },
        show: |settings| shown_amount(settings.edge.clients.max_connections),
    },
    Row {
        key: "edge.max_connections_per_address",
        expected: "a whole number up to 10000000 (0 = any number)",
        list: false,
        set: |settings, value| {
            settings.edge.clients.max_connections_per_address = amount(value, MAX_CONNECTIONS)?;
            Ok(())
        },
        show: |settings| shown_amount(settings.edge.clients.max_connections_per_address),
    },
    Row {
        key: "edge.buffer_bytes",
        expected: "\"auto\" or bytes, a whole number from 1048576",
        list: false,
        set: |settings, value| {
            settings.edge.clients.buffer_bytes = match value.as_str() {
                Some("auto") => 0,
                _ => amount(value, i64::MAX as u64)
                    .ok()
                    .filter(|bytes| *bytes >= LEAST_BUFFERS)
                    .ok_or_else(String::new)?,
            };
            Ok(())
        },
        show: |settings| match settings.edge.clients.buffer_bytes {
            0 => "auto".into(),
            bytes => shown_amount(bytes),
        },
    },
    Row {
        key: "api.listen",
        expected: "an address, such as \"127.0.0.1:8081\"",
        list: false,
        set: |settings, value| {
            settings.api.listen = address(string(value)?)?;
            Ok(())
        },
        show: |settings| settings.api.listen.to_string().into(),
    },
    Row {
        key: "admin.listen",
        expected: "an address, such as \"127.0.0.1:8082\"",
        list: false,
        set: |settings, value| {
            settings.admin.listen = address(string(value)?)?;
            Ok(())
        },
        show: |settings| settings.admin.listen.to_string().into(),
    },
    Row {
        key: "auth.tokens",
        expected: "\"auto\"",
        list: false,
        set: |settings, value| match string(value)? {
            "auto" => {
                settings.auth.tokens = Tokens::Auto;
                Ok(())
            }
            _ => Err(String::new()),
        },
        show: |settings| match settings.auth.tokens {
            Tokens::Auto => "auto".into(),
        },
    },
    Row {
        key: "log.access",
        expected: "\"stdout\", \"off\" or \"file:PATH\"",
        list: false,
        set: |settings, value| {
            settings.log.access = match string(value)? {
                "stdout" => AccessLog::Stdout,
                "off" => AccessLog::Off,
                other => match other.strip_prefix("file:") {
                    Some(file) => AccessLog::File(path(file)?),
                    None => return Err(String::new()),
                },
            };
            Ok(())
        },
        show: |settings| match &settings.log.access {
            AccessLog::Stdout => "stdout".into(),
            AccessLog::Off => "off".into(),
            AccessLog::File(path) => format!("file:{}", path.display()).into(),
        },
    },
    Row {
        key: "log.format",
        expected: "\"logfmt\" or \"json\"",
        list: false,
        set: |settings, value| {
            settings.log.format = match string(value)? {
                "logfmt" => LogFormat::Logfmt,
                "json" => LogFormat::Json,
                _ => return Err(String::new()),
            };
            Ok(())
        },
        show: |settings| match settings.log.format {
            LogFormat::Logfmt => "logfmt".into(),
            LogFormat::Json => "json".into(),
        },
    },
];

/// Whether `key` names a setting.
pub(super) fn is_key(key: &str) -> bool {
    ROWS.iter().any(|row| row.key == key)
}

/// Whether `key` names a table that holds settings.
pub(super) fn is_section(key: &str) -> bool {
    ROWS.iter().any(|row| {
        row.key
            .split_once('.')
            .is_some_and(|(section, _)| section == key)
    })
}

/// Checks one entry and stores its value.
pub(super) fn apply(settings: &mut Settings, entry: &Entry) -> Result<(), SettingsError> {
    let row = ROWS
        .iter()
        .find(|row| row.key == entry.key)
        .ok_or_else(|| unknown(entry))?;
    let as_list = entry.bare && row.list;
    let value = if as_list {
        Value::Array(vec![entry.value.clone()])
    } else {
        entry.value.clone()
    };
    (row.set)(settings, &value).map_err(|why| SettingsError::Value {
        place: entry.place.clone(),
        key: row.key,
        value: value.to_string(),
        expected: row.expected,
        why: if why.is_empty() {
            why
        } else {
            format!("; {why}")
        },
    })
}

fn unknown(entry: &Entry) -> SettingsError {
    let hint = if is_section(&entry.key) {
        format!("; {} is a section: set a key inside it", entry.key)
    } else {
        let last = entry.key.rsplit('.').next().unwrap_or(&entry.key);
        ROWS.iter()
            .map(|row| (distance(row.key, &entry.key), row))
            .min_by_key(|(distance, _)| *distance)
            .filter(|(distance, row)| *distance <= 3 || row.key.rsplit('.').next() == Some(last))
            .map(|(_, row)| format!("; did you mean {}?", row.key))
            .unwrap_or_default()
    };
    SettingsError::Unknown {
        place: entry.place.clone(),
        key: entry.key.clone(),
        value: entry.value.to_string(),
        hint,
    }
}

/// Edits between two names (Levenshtein), for the hint on a typing error.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

/// No two listeners may want one address: with `SO_REUSEPORT` the kernel
/// would share it silently between, say, the data plane and the API.
pub(super) fn check_listeners(settings: &Settings, given: &[Entry]) -> Result<(), SettingsError> {
    let mut taken: Vec<(&'static str, SocketAddr)> = Vec::new();
    let wanted = settings
        .edge
        .http
        .iter()
        .map(|address| ("edge.http", *address));
    let wanted = wanted.chain([
        ("api.listen", settings.api.listen),
        ("admin.listen", settings.admin.listen),
    ]);
    for (key, address) in wanted {
        if let Some((other_key, other)) = taken.iter().find(|(_, other)| overlap(address, *other)) {
            let place = given
                .iter()
                .rfind(|entry| entry.key == key)
                .or_else(|| given.iter().rfind(|entry| entry.key == *other_key))
                .map_or(Place::Default, |entry| entry.place.clone());
            return Err(SettingsError::Value {
                place,
                key,
                value: address.to_string(),
                expected: "an address of its own",
                why: format!("; {other_key} already listens on {other}"),
            });
        }
        taken.push((key, address));
    }
    Ok(())
}

/// Port 0 never overlaps: the kernel picks another each time. IPv6 sockets
/// are bound v6-only, so the families never meet.
fn overlap(left: SocketAddr, right: SocketAddr) -> bool {
    left.port() == right.port()
        && left.port() != 0
        && left.is_ipv4() == right.is_ipv4()
        && (left.ip() == right.ip() || left.ip().is_unspecified() || right.ip().is_unspecified())
}

fn patience(value: &Value) -> Result<Duration, String> {
    let time = duration(value)?;
    match time >= LEAST_PATIENCE {
        true => Ok(time),
        false => Err(String::new()),
    }
}

fn shown_amount(amount: u64) -> Value {
    Value::Integer(i64::try_from(amount).unwrap_or(i64::MAX))
}
