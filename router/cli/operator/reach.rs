//! Where the router is and who is asking.
//!
//! An option wins over its environment variable, and both over the settings
//! file, which is read only if something is still missing.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use clap::Args;
use rustix::fs::OFlags;

use super::CommandError;
use crate::cli::SettingsArgs;
use crate::cli::ready::{Addresses, addresses, reachable};
use crate::settings::Settings;

/// Options shared by every operator's command.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Reaching a router")]
pub struct Reach {
    /// Its admin port [default: admin.listen of the settings]
    #[arg(long, global = true, env = "PORTICO_ADMIN", value_name = "URL")]
    pub admin: Option<String>,
    /// Its registration API [default: api.listen of the settings]
    #[arg(long, global = true, env = "PORTICO_API", value_name = "URL")]
    pub api: Option<String>,
    /// The token to show [default: the file token in state_dir]
    #[arg(
        long,
        global = true,
        env = "PORTICO_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub token: Option<String>,
    /// Print the answers as JSON, a document a line
    #[arg(long, global = true)]
    pub json: bool,
}

impl Reach {
    /// The admin port's base URL.
    pub(super) fn admin_url(&self, settings: &SettingsArgs) -> Result<String, CommandError> {
        match given(self.admin.as_deref()) {
            Some(url) => base(url, "--admin"),
            None => listening(
                settings,
                |bound| bound.admin,
                |settings| settings.admin.listen,
            ),
        }
    }

    /// The API's base URL.
    pub(super) fn api_url(&self, settings: &SettingsArgs) -> Result<String, CommandError> {
        match given(self.api.as_deref()) {
            Some(url) => base(url, "--api"),
            None => listening(settings, |bound| bound.api, |settings| settings.api.listen),
        }
    }

    /// The token, or why there is none.
    pub(super) fn token(&self, settings: &SettingsArgs) -> Result<String, String> {
        if let Some(token) = given(self.token.as_deref()) {
            return Ok(token.to_owned());
        }
        let settings = settings
            .load()
            .map_err(|error| format!("bad settings: {error}"))?;
        let path = settings.token_path();
        match read_token(&path) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }
}

/// Reads the token, following no link: its folder may be an unprivileged user's
/// and the caller root, whose secrets are not to be sent to anybody.
fn read_token(path: &Path) -> io::Result<String> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = File::options()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.nlink() != 1 {
        return Err(io::Error::other("it is no plain file with one name"));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// An empty environment variable is as good as none.
fn given(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
}

/// `http://host:port/prefix` without a slash at the end; the scheme may be left
/// out.
fn base(url: &str, option: &str) -> Result<String, CommandError> {
    let wrong = |why: &str| CommandError::Usage(format!("{option} {url}: {why}"));
    let rest = match url.split_once("://") {
        None => url,
        Some(("http", rest)) => rest,
        Some(("https", _)) => return Err(wrong("these ports do not speak TLS; use http://")),
        Some(_) => return Err(wrong("expected http://HOST:PORT")),
    };
    let rest = rest.trim_end_matches('/');
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() || rest.contains(['?', '#', ' ']) {
        return Err(wrong("expected http://HOST:PORT"));
    }
    Ok(format!("http://{rest}"))
}

/// Where a running router of these settings was bound; what they say if none
/// has left word.
fn listening(
    settings: &SettingsArgs,
    bound: fn(Addresses) -> SocketAddr,
    set: fn(&Settings) -> SocketAddr,
) -> Result<String, CommandError> {
    let settings = settings.load()?;
    let address = addresses(&settings).map_or_else(|_| set(&settings), bound);
    Ok(format!("http://{}", reachable(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_brought_to_one_form() {
        for (given, url) in [
            ("127.0.0.1:8082", "http://127.0.0.1:8082"),
            ("http://127.0.0.1:8082/", "http://127.0.0.1:8082"),
            (
                "http://router.example/portico/",
                "http://router.example/portico",
            ),
            ("[::1]:1", "http://[::1]:1"),
        ] {
            assert_eq!(base(given, "--admin").unwrap(), url);
        }
        for bad in ["https://a:1", "ftp://a", "http://", "http://a?b", "a b"] {
            let error = base(bad, "--admin").unwrap_err();
            assert!(matches!(error, CommandError::Usage(_)), "{bad}");
            assert!(error.to_string().contains(bad), "{error}");
        }
    }

    #[test]
    fn what_was_bound_wins_over_what_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let settings = SettingsArgs {
            config: None,
            overrides: vec![
                format!("state_dir={:?}", folder.path().display().to_string()),
                "admin.listen=127.0.0.1:0".into(),
            ],
        };
        let reach = Reach::default();
        assert_eq!(reach.admin_url(&settings).unwrap(), "http://127.0.0.1:0");
        let bound = r#"{"http":[],"api":"127.0.0.1:4001","admin":"0.0.0.0:4002"}"#;
        std::fs::write(folder.path().join("addresses.json"), bound).unwrap();
        assert_eq!(reach.admin_url(&settings).unwrap(), "http://127.0.0.1:4002");
        assert_eq!(reach.api_url(&settings).unwrap(), "http://127.0.0.1:4001");
    }

    #[test]
    fn what_is_given_needs_no_settings() {
        let reach = Reach {
            admin: Some("a:1".into()),
            api: Some("b:2".into()),
            token: Some("t".into()),
            json: false,
        };
        let nowhere = SettingsArgs {
            config: Some("/no/such/file".into()),
            ..SettingsArgs::default()
        };
        assert_eq!(reach.admin_url(&nowhere).unwrap(), "http://a:1");
        assert_eq!(reach.api_url(&nowhere).unwrap(), "http://b:2");
        assert_eq!(reach.token(&nowhere).unwrap(), "t");
        let reach = Reach {
            admin: Some(" ".into()),
            ..Reach::default()
        };
        assert!(matches!(
            reach.admin_url(&nowhere),
            Err(CommandError::Settings(_))
        ));
    }
}
