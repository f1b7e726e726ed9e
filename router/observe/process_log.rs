//! The process log: what the program has to say about itself, as logfmt lines
//! on standard error.
//!
//! Owns the format and the filter. `PORTICO_LOG` sets the level, overall or by
//! module (`debug`, `info,portico::edge=trace`); without it, `info`. A standard
//! error that cannot be written to is ignored: logging ends no process.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The environment variable of the filter.
pub const VARIABLE: &str = "PORTICO_LOG";
const DEFAULT: &str = "info";

/// Starts the log of this process. `role` is on every line. A second call
/// changes nothing.
pub fn init(role: &'static str) {
    let (filter, refused) = filter(std::env::var(VARIABLE).ok().as_deref());
    let started = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .event_format(Logfmt {
            role,
            pid: std::process::id(),
        })
        .try_init()
        .is_ok();
    if let Some(reason) = refused.filter(|_| started) {
        tracing::warn!(reason, "{VARIABLE} is not a filter; logging at {DEFAULT}");
    }
}

/// The filter asked for, or the default and why the asked one was refused.
fn filter(asked: Option<&str>) -> (EnvFilter, Option<String>) {
    match asked
        .filter(|asked| !asked.is_empty())
        .map(EnvFilter::try_new)
    {
        None => (EnvFilter::new(DEFAULT), None),
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(DEFAULT), Some(error.to_string())),
    }
}

struct Logfmt {
    role: &'static str,
    pid: u32,
}

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str("time=")?;
        SystemTime.format_time(&mut writer)?;
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        write!(writer, " level={level} role={} pid={}", self.role, self.pid)?;
        let mut fields = Fields::default();
        event.record(&mut fields);
        write!(writer, " msg=")?;
        value(&mut writer, &fields.message)?;
        writeln!(writer, "{}", fields.rest)
    }
}

/// An event's fields; the message apart, since it comes first.
#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn take(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            text.clone_into(&mut self.message);
        } else if !text.is_empty() {
            // A String takes any write.
            let _ = write!(self.rest, " {}=", field.name());
            let _ = value(&mut self.rest, text);
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, text: &str) {
        self.take(field, text);
    }

    fn record_debug(&mut self, field: &Field, debug: &dyn fmt::Debug) {
        self.take(field, &format!("{debug:?}"));
    }

    fn record_error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.take(field, &text);
    }
}

/// Writes a value, quoted where it needs it; never more than one line.
fn value(out: &mut impl Write, text: &str) -> fmt::Result {
    let plain = |c: char| !c.is_control() && !matches!(c, ' ' | '=' | '"' | '\\');
    if !text.is_empty() && text.chars().all(plain) {
        return out.write_str(text);
    }
    out.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            _ if character.is_control() => write!(out, "\\u{:04x}", u32::from(character))?,
            _ => out.write_char(character)?,
        }
    }
    out.write_char('"')
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(say: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .event_format(Logfmt {
                role: "edge",
                pid: 7,
            })
            .finish();
        tracing::subscriber::with_default(subscriber, say);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_is_one_logfmt_line() {
        let error = io::Error::other("no such\ndisk");
        let line = logged(|| {
            tracing::warn!(
                app = "shop",
                backend = "",
                n = 3,
                error = &error as &dyn std::error::Error,
                "it \"broke\""
            );
        });
        let (time, rest) = line.split_once(" level=").unwrap();
        assert!(time.starts_with("time=20") && time.ends_with('Z'), "{time}");
        assert_eq!(
            rest,
            "warn role=edge pid=7 msg=\"it \\\"broke\\\"\" app=shop n=3 error=\"no such\\ndisk\"\n"
        );
    }

    #[test]
    fn a_filter_that_is_none_leaves_the_default() {
        assert!(filter(None).1.is_none());
        assert!(filter(Some("")).1.is_none());
        assert!(filter(Some("info,portico::edge=trace")).1.is_none());
        let (filter, refused) = filter(Some("edge=loudly"));
        assert_eq!(filter.to_string(), DEFAULT);
        assert!(refused.is_some());
    }
}
