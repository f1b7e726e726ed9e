//! Tokens: who may do what.
//!
//! Owns the scopes, the hashes of issued tokens and the operator's token file.
//! A token's secret exists only in the answer that issues it; what is kept is
//! its SHA-256. Never logs a secret.
//!
//! The operator's first token is the file `<state_dir>/token` itself: whoever
//! replaces or deletes it has rotated it, at the next start.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use prost::Message;
use sha2::{Digest, Sha256};

use super::names;
use crate::settings::absolute;

/// What a token allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything.
    Operator,
    /// Reading everything.
    Read,
    /// Reading and changing one app.
    App(String),
}

impl Scope {
    /// Parses `operator`, `read` or `app:NAME`.
    ///
    /// # Errors
    /// One sentence for the caller.
    pub fn parse(text: &str) -> Result<Scope, String> {
        match text {
            "operator" => Ok(Scope::Operator),
            "read" => Ok(Scope::Read),
            other => match other.strip_prefix("app:") {
                Some(app) => {
                    names::check_app(app)?;
                    Ok(Scope::App(app.to_owned()))
                }
                None => Err(format!("`{other}` is no scope: operator, read or app:NAME")),
            },
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Scope::Operator => f.write_str("operator"),
            Scope::Read => f.write_str("read"),
            Scope::App(app) => write!(f, "app:{app}"),
        }
    }
}

/// Who is calling: what its token allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The token's id; `operator` for the token file's.
    pub token_id: String,
    /// Its scopes.
    pub scopes: Vec<Scope>,
}

impl Caller {
    /// May change anything, and see and issue tokens.
    pub fn is_operator(&self) -> bool {
        self.scopes.contains(&Scope::Operator)
    }

    /// May read everything.
    pub fn may_read_all(&self) -> bool {
        self.scopes
            .iter()
            .any(|scope| matches!(scope, Scope::Operator | Scope::Read))
    }

    /// May read this app.
    pub fn may_read(&self, app: &str) -> bool {
        self.may_read_all() || self.may_change(app)
    }

    /// May change this app.
    pub fn may_change(&self, app: &str) -> bool {
        self.scopes.iter().any(|scope| match scope {
            Scope::Operator => true,
            Scope::App(name) => name == app,
            Scope::Read => false,
        })
    }
}

/// An issued token as stored; never its secret.
#[derive(Clone, PartialEq, Message)]
pub struct TokenRecord {
    /// Names it in `DELETE /v1/tokens/{id}`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// What a person called it.
    #[prost(string, tag = "2")]
    pub name: String,
    /// As [`Scope::parse`] reads them.
    #[prost(string, repeated, tag = "3")]
    pub scopes: Vec<String>,
    /// SHA-256 of the secret.
    #[prost(bytes = "vec", tag = "4")]
    pub sha256: Vec<u8>,
    /// When it was issued, Unix milliseconds.
    #[prost(uint64, tag = "5")]
    pub created_at_ms: u64,
}

/// Every token that is valid now.
#[derive(Debug, Default)]
pub struct Tokens {
    operator_sha256: Option<[u8; 32]>,
    issued: RwLock<BTreeMap<String, TokenRecord>>,
}

impl Tokens {
    /// With the operator's token and those issued earlier.
    pub fn new(operator: &str, issued: Vec<TokenRecord>) -> Tokens {
        let issued = issued
            .into_iter()
            .map(|token| (token.id.clone(), token))
            .collect();
        Tokens {
            operator_sha256: Some(sha256(operator)),
            issued: RwLock::new(issued),
        }
    }

    /// Whose token this is, from the value of an `Authorization` header.
    pub fn authorize(&self, header: &[u8]) -> Option<Caller> {
        let (scheme, secret) = std::str::from_utf8(header).ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let hash = sha256(secret.trim());
        if self
            .operator_sha256
            .is_some_and(|known| same(&known, &hash))
        {
            return Some(Caller {
                token_id: "operator".into(),
                scopes: vec![Scope::Operator],
            });
        }
        // An issued secret starts with its id, so one comparison decides.
        let id = secret.trim().strip_prefix("pt_")?.split_once('_')?.0;
        let issued = self.issued.read().unwrap_or_else(PoisonError::into_inner);
        let token = issued.get(id).filter(|token| same(&token.sha256, &hash))?;
        Some(Caller {
            token_id: token.id.clone(),
            scopes: token
                .scopes
                .iter()
                .filter_map(|scope| Scope::parse(scope).ok())
                .collect(),
        })
    }

    /// Issued tokens, by id.
    pub fn list(&self) -> Vec<TokenRecord> {
        let issued = self.issued.read().unwrap_or_else(PoisonError::into_inner);
        issued.values().cloned().collect()
    }

    /// Whether a token of this id was issued.
    pub fn contains(&self, id: &str) -> bool {
        self.issued
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(id)
    }

    /// How many were issued.
    pub fn len(&self) -> usize {
        self.issued
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Whether none was issued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in a token already durable.
    pub(super) fn admit(&self, token: TokenRecord) {
        let mut issued = self.issued.write().unwrap_or_else(PoisonError::into_inner);
        issued.insert(token.id.clone(), token);
    }

    /// Forgets a token durably removed.
    pub(super) fn forget(&self, id: &str) {
        self.issued
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }
}

/// Makes a token: the record to store and the secret to hand out once.
///
/// # Errors
/// The system's source of randomness failed.
pub fn issue(name: &str, scopes: &[Scope], now_ms: u64) -> io::Result<(TokenRecord, String)> {
    let id = random_hex(8)?;
    let secret = format!("pt_{id}_{}", random_hex(24)?);
    let token = TokenRecord {
        id,
        name: name.to_owned(),
        scopes: scopes.iter().map(Scope::to_string).collect(),
        sha256: sha256(&secret).to_vec(),
        created_at_ms: now_ms,
    };
    Ok((token, secret))
}

/// Where the operator's token is.
pub fn operator_token_path(state_dir: &Path) -> PathBuf {
    state_dir.join("token")
}

/// Reads the operator's token, or makes one (mode 0600) if there is none.
///
/// # Errors
/// The file cannot be read or written, or holds no usable token.
pub fn operator_token(state_dir: &Path) -> io::Result<String> {
    let path = operator_token_path(state_dir);
    let named = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("operator token {}: {error}", absolute(&path).display()),
        )
    };
    match fs::read_to_string(&path) {
        Ok(text) if text.trim().is_empty() => fs::remove_file(&path).map_err(named)?,
        Ok(text) => {
            let token = text.trim();
            if token.len() < 16 || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(named(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "expected at least 16 printable characters without spaces; \
                     delete the file to have a new one made",
                )));
            }
            return Ok(token.to_owned());
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(named(error)),
    }
    let token = format!("pt_operator_{}", random_hex(24)?);
    // Written whole under another name: a crash leaves no half token behind.
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(named)?;
    file.write_all(format!("{token}\n").as_bytes())
        .map_err(named)?;
    file.sync_all().map_err(named)?;
    fs::rename(&fresh, &path).map_err(named)?;
    Ok(token)
}

fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Compares in a time that does not depend on where two hashes differ.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && std::hint::black_box(
            left.iter()
                .zip(right)
                .fold(0u8, |differing, (l, r)| differing | (l ^ r)),
        ) == 0
}

fn random_hex(bytes: usize) -> io::Result<String> {
    let mut random = vec![0u8; bytes];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_operator_token_survives_and_is_replaced_when_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let first = operator_token(dir.path()).unwrap();
        assert_eq!(operator_token(dir.path()).unwrap(), first);
        let mode = fs::metadata(operator_token_path(dir.path()))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_file(operator_token_path(dir.path())).unwrap();
        assert_ne!(operator_token(dir.path()).unwrap(), first);
    }

    #[test]
    fn a_damaged_token_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(operator_token_path(dir.path()), "short\n").unwrap();
        let error = operator_token(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("token") && error.contains("16 printable"),
            "{error}"
        );
    }

    #[test]
    fn only_the_whole_secret_of_an_issued_token_is_accepted() {
        let scopes = [Scope::App("shop".into())];
        let (token, secret) = issue("deploy", &scopes, 1).unwrap();
        let tokens = Tokens::new("operator-token-of-test", vec![token.clone()]);
        let caller = tokens
            .authorize(format!("Bearer {secret}").as_bytes())
            .unwrap();
        assert!(caller.may_change("shop") && caller.may_read("shop"));
        assert!(!caller.may_change("other") && !caller.may_read("other"));
        assert!(!caller.is_operator() && !caller.may_read_all());
        for wrong in [
            &secret[..secret.len() - 1],
            &token.id,
            "",
            "pt__",
            "operator",
        ] {
            assert_eq!(tokens.authorize(format!("Bearer {wrong}").as_bytes()), None);
        }
        assert_eq!(tokens.authorize(format!("Basic {secret}").as_bytes()), None);
        assert!(
            tokens
                .authorize(b"bearer operator-token-of-test")
                .unwrap()
                .is_operator()
        );
        tokens.forget(&token.id);
        assert_eq!(
            tokens.authorize(format!("Bearer {secret}").as_bytes()),
            None
        );
    }

    #[test]
    fn scopes_parse_back() {
        for text in ["operator", "read", "app:shop"] {
            assert_eq!(Scope::parse(text).unwrap().to_string(), text);
        }
        for bad in ["", "admin", "app:", "app:Shop", "Operator"] {
            assert!(Scope::parse(bad).is_err(), "{bad}");
        }
    }
}
