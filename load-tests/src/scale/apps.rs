//! The apps of a scenario: names, hosts, addresses, and the file that an
//! import reads. A number says everything about an app, so none is held.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};

/// The first of them have backends that exist; traffic goes there.
pub const WITH_BACKENDS: usize = 4_096;

/// Apps with one domain and two backends each.
#[derive(Clone, Debug)]
pub struct Apps {
    /// How many.
    pub count: usize,
    /// Backends that exist, at least two.
    pub backends: Vec<SocketAddr>,
}

impl Apps {
    /// `app-0000042`
    pub fn name(number: usize) -> String {
        format!("app-{number:07}")
    }

    /// `app-0000042.apps.example`
    pub fn host(number: usize) -> String {
        format!("app-{number:07}.apps.example")
    }

    /// The two addresses of an app's backends: of processes that exist for the
    /// first apps, of nobody on the loopback net for the others.
    pub fn addresses(&self, number: usize) -> [SocketAddr; 2] {
        if number < WITH_BACKENDS {
            let at = |offset| self.backends[(number + offset) % self.backends.len()];
            return [at(0), at(1)];
        }
        let [_, high, middle, low] = u32::try_from(number)
            .expect("apps must be few enough")
            .to_be_bytes();
        // 127.64.0.0/10: nothing listens there.
        [9_001, 9_002].map(|port| SocketAddr::from(([127, 64 | (high & 63), middle, low], port)))
    }

    /// Its line of an import.
    pub fn line(&self, number: usize) -> String {
        let (app, host) = (Self::name(number), Self::host(number));
        let [first, second] = self.addresses(number);
        format!(
            r#"{{"app":"{app}","domains":["{host}"],"backends":{{"web.1":{{"address":"{first}","release":"v1"}},"web.2":{{"address":"{second}","release":"v1"}}}}}}"#
        )
    }

    /// Writes the file that `portico import` reads; returns its bytes.
    pub fn write_import(&self, path: &Path) -> Result<u64> {
        self.write(path, |number| self.line(number))
    }

    /// Writes a line for each app; returns the file's bytes.
    pub fn write(&self, path: &Path, line: impl Fn(usize) -> String) -> Result<u64> {
        let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        for number in 0..self.count {
            writeln!(out, "{}", line(number))?;
        }
        out.flush()?;
        Ok(path.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apps() -> Apps {
        Apps {
            count: 1_000_000,
            backends: vec![
                "127.0.0.1:1".parse().unwrap(),
                "127.0.0.1:2".parse().unwrap(),
            ],
        }
    }

    #[test]
    fn the_first_apps_have_backends_that_exist() {
        let [first, second] = apps().addresses(3);
        assert_eq!((first.port(), second.port()), (2, 1));
        let [first, second] = apps().addresses(999_999);
        assert_eq!(first.to_string(), "127.79.66.63:9001");
        assert_eq!(second.to_string(), "127.79.66.63:9002");
    }

    #[test]
    fn a_line_is_an_app_whole() {
        let line: serde_json::Value = serde_json::from_str(&apps().line(7)).unwrap();
        assert_eq!(line["app"], "app-0000007");
        assert_eq!(line["domains"][0], "app-0000007.apps.example");
        assert_eq!(line["backends"]["web.2"]["address"], "127.0.0.1:1");
    }
}
