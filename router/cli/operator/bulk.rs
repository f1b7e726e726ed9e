//! `import` and `export`: apps by the million, streamed.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{Client, Port};
use super::text::{bytes, print, print_json, shown};
use super::{CommandError, Import};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(1);
const CHUNK_BYTES: usize = 64 * 1024;

/// `portico import FILE|-`: fails if a line does, after all others were taken.
pub(super) fn import(client: &Client<'_>, args: &Import) -> Result<(), CommandError> {
    let (name, source, total): (&str, Box<dyn Read>, Option<u64>) = if args.file == "-" {
        ("standard input", Box::new(io::stdin().lock()), None)
    } else {
        let wrong = |error| CommandError::Failed(format!("{}: {error}", args.file));
        let file = File::open(&args.file).map_err(wrong)?;
        let about = file.metadata().map_err(wrong)?;
        if about.is_dir() {
            return Err(CommandError::Failed(format!("{}: is a folder", args.file)));
        }
        (
            &args.file,
            Box::new(file),
            about.is_file().then_some(about.len()),
        )
    };
    let mut reader = Progress::new(source, total);
    let path = if args.wait {
        "/v1/import?wait=active&timeout=60s"
    } else {
        "/v1/import"
    };
    let sent = client.post(Port::Api, path, Some(("application/x-ndjson", &mut reader)));
    reader.end();
    if let Some(error) = reader.failed.take() {
        return Err(CommandError::Failed(format!("{name}: {error}")));
    }
    let report = sent?;
    if client.json() {
        print_json(&report)?;
    } else {
        print(&summary(&report))?;
    }
    let failed = tell_errors(name, &report);
    if failed > 0 {
        return Err(CommandError::Failed(format!(
            "{name}: {failed} lines were not taken"
        )));
    }
    Ok(())
}

fn summary(report: &Value) -> String {
    let count = |key: &str| report[key].as_u64().unwrap_or(0);
    format!(
        "{} lines: {} created, {} updated, {} unchanged, {} failed (revision {})\n",
        count("lines"),
        count("created"),
        count("updated"),
        count("unchanged"),
        count("failed"),
        count("revision"),
    )
}

/// Every line's error on standard error; how many lines failed.
fn tell_errors(name: &str, report: &Value) -> u64 {
    let failed = report["failed"].as_u64().unwrap_or(0);
    let errors = report["errors"].as_array().map_or(&[][..], Vec::as_slice);
    for error in errors {
        eprintln!("{}", line_error(name, error));
    }
    let untold = failed.saturating_sub(errors.len() as u64);
    if untold > 0 {
        eprintln!("{name}: and {untold} more");
    }
    failed
}

/// `FILE:LINE[:COLUMN]: app NAME: what is wrong`
fn line_error(name: &str, error: &Value) -> String {
    let mut text = format!("{name}:{}", error["line"]);
    if let Some(column) = error["column"].as_u64() {
        text.push_str(&format!(":{column}"));
    }
    if let Some(app) = error["app"].as_str() {
        text.push_str(&format!(": app {}", shown(app)));
    }
    let detail = error["detail"]
        .as_str()
        .or_else(|| error["code"].as_str())
        .unwrap_or("refused");
    format!("{text}: {}", shown(detail))
}

/// `portico export`
pub(super) fn export(client: &Client<'_>) -> Result<(), CommandError> {
    let mut stream = client.stream(Port::Api, "/v1/export")?;
    let mut out = io::stdout().lock();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(CommandError::Failed(format!(
                    "the export broke off: {error}"
                )));
            }
        };
        out.write_all(&chunk[..read])
            .map_err(CommandError::Output)?;
    }
    out.flush().map_err(CommandError::Output)
}

/// A reader that tells how far it is, if somebody is looking.
struct Progress<R> {
    inner: R,
    read: u64,
    total: Option<u64>,
    told: Option<Instant>,
    /// What the source failed with; the HTTP client would say less.
    failed: Option<io::Error>,
}

impl<R: Read> Progress<R> {
    fn new(inner: R, total: Option<u64>) -> Progress<R> {
        let told = io::stderr().is_terminal().then(Instant::now);
        Progress {
            inner,
            read: 0,
            total,
            told,
            failed: None,
        }
    }

    fn tell(&mut self) {
        if self.told.is_some_and(|told| told.elapsed() >= PROGRESS) {
            eprint!(
                "\r\x1b[K{} sent{}",
                bytes(self.read as f64),
                share(self.read, self.total)
            );
            self.told = Some(Instant::now());
        }
    }

    /// Clears the line that progress was told on.
    fn end(&self) {
        if self.told.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

fn share(read: u64, total: Option<u64>) -> String {
    match total {
        Some(total) if total > 0 => format!(" ({}%)", read.min(total) * 100 / total),
        _ => String::new(),
    }
}

impl<R: Read> Read for Progress<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(read) => {
                self.read += read as u64;
                self.tell();
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let again = io::Error::new(error.kind(), error.to_string());
                self.failed = Some(error);
                Err(again)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_names_the_line() {
        let error = json!({"line": 7, "column": 3, "code": "bad_json", "detail": "expected `,`"});
        assert_eq!(
            line_error("apps.ndjson", &error),
            "apps.ndjson:7:3: expected `,`"
        );
        let error = json!({"line": 8, "app": "shop", "code": "host_taken"});
        assert_eq!(line_error("-", &error), "-:8: app shop: host_taken");
    }

    #[test]
    fn a_source_that_fails_is_what_is_told() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("disk on fire"))
            }
        }
        let mut reader = Progress::new(Broken, None);
        assert!(reader.read(&mut [0; 8]).is_err());
        assert_eq!(reader.failed.unwrap().to_string(), "disk on fire");
    }

    #[test]
    fn shares_of_what_is_known() {
        assert_eq!(share(50, Some(200)), " (25%)");
        assert_eq!(share(50, Some(0)), "");
        assert_eq!(share(50, None), "");
    }
}
