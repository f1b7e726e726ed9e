//! From a feed record to an [`App`], or the reason why not.
//!
//! Owns every check of a record. A record is used whole or not at all. Never
//! publishes: that is [`super::change`].

use std::borrow::Borrow;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;

use ahash::RandomState;
use ecow::EcoString;
use hashbrown::HashTable;
use once_cell::race::OnceBox;

use super::domain::canonical;
use super::live::HotApps;
use super::policy::PolicyError;
use super::{App, Backend, Domains, Policy};
use crate::feed::messages::{AppView, BackendView, Standing};

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompileError {
    #[error("the name is not [a-z][a-z0-9-]{{0,62}}")]
    Name,
    #[error("domain `{domain}`: {reason}")]
    Domain {
        domain: String,
        reason: &'static str,
    },
    #[error("policy: {0}")]
    Policy(#[from] PolicyError),
    #[error("backend `{id}`: {reason}")]
    Backend { id: String, reason: &'static str },
}

/// Compiles records; shares what many apps have in common.
#[derive(Debug)]
pub(super) struct Compiler {
    hot: Arc<HotApps>,
    /// That of an app that overrides nothing, as most do.
    usual: Arc<Policy>,
    policies: Interned<Policy>,
    releases: Interned<Box<str>>,
}

impl Compiler {
    pub(super) fn new(hot: Arc<HotApps>) -> Self {
        Compiler {
            hot,
            usual: Arc::default(),
            policies: Interned::default(),
            releases: Interned::default(),
        }
    }

    /// The app of a record, without live state.
    pub(super) fn compile(&mut self, record: &AppView<'_>) -> Result<App, CompileError> {
        if !is_name(record.name) {
            return Err(CompileError::Name);
        }
        let domains = record.domains.iter().map(|&domain| {
            canonical(domain).map_err(|reason| CompileError::Domain {
                domain: domain.to_owned(),
                reason,
            })
        });
        let domains = Domains::of(domains.collect::<Result<_, _>>()?);
        let policy = match &record.policy {
            None => Arc::clone(&self.usual),
            Some(policy) => {
                let policy = Policy::from_record(Some(policy))?;
                self.policies.get(&policy, Policy::clone)
            }
        };
        let mut backends = Vec::with_capacity(record.backends.len());
        for backend in &record.backends {
            let compiled = self.backend(backend);
            backends.push(compiled.map_err(|reason| CompileError::Backend {
                id: backend.id.to_owned(),
                reason,
            })?);
        }
        backends.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        if let Some(twins) = backends.windows(2).find(|two| two[0].id == two[1].id) {
            return Err(CompileError::Backend {
                id: twins[0].id.to_string(),
                reason: "the id appears twice",
            });
        }
        Ok(App {
            name: EcoString::from(record.name),
            domains,
            policy,
            backends: backends.into_boxed_slice(),
            revision: record.revision,
            live: OnceBox::new(),
            hot: Arc::clone(&self.hot),
        })
    }

    fn backend(&mut self, record: &BackendView<'_>) -> Result<Backend, &'static str> {
        if record.id.is_empty() {
            return Err("the id is empty");
        }
        let address: SocketAddr = record
            .address
            .parse()
            .map_err(|_| "the address is not ip:port")?;
        if address.port() == 0 {
            return Err("the port is 0");
        }
        if matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0) {
            return Err("an address with a scope is not supported");
        }
        let standing = match Standing::try_from(record.standing) {
            Ok(Standing::Active) => 0,
            Ok(Standing::Suspect) => 1,
            Ok(Standing::Draining) => 2,
            Err(_) => return Err("the standing is unknown to this version"),
        };
        let (ip, port) = Backend::pack(address);
        Ok(Backend {
            id: EcoString::from(record.id),
            weight: record.weight,
            incarnation: record.incarnation,
            release: self.releases.get(record.release, |name| name.into()),
            ip,
            port,
            standing,
            ejected: record.ejected,
            live: OnceBox::new(),
        })
    }

    /// Shares from now on what another one shared.
    pub(super) fn absorb(&mut self, other: Compiler) {
        self.policies.absorb(other.policies);
        self.releases.absorb(other.releases);
    }

    /// Bytes of the shared policies and release names.
    pub(super) fn shared_bytes(&self) -> usize {
        let text: usize = self.releases.values.iter().map(|text| text.len()).sum();
        self.policies.bytes() + self.releases.bytes() + text
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Equal values kept once. What nobody uses any more is dropped whenever the
/// set has doubled, so it holds at most twice what is in use, plus a few.
#[derive(Debug)]
struct Interned<T> {
    hash: RandomState,
    values: HashTable<Arc<T>>,
    sweep_at: usize,
}

const SWEEP_FLOOR: usize = 64;

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Interned {
            hash: RandomState::new(),
            values: HashTable::new(),
            sweep_at: SWEEP_FLOOR,
        }
    }
}

impl<T: Hash + Eq> Interned<T> {
    /// The one value that equals `value`, made of it if there is none yet.
    fn get<Q: Hash + Eq + ?Sized>(&mut self, value: &Q, make: impl FnOnce(&Q) -> T) -> Arc<T>
    where
        T: Borrow<Q>,
    {
        self.sweep();
        let hash = self.hash.hash_one(value);
        let known = self.values.entry(
            hash,
            |known| (**known).borrow() == value,
            |known| self.hash.hash_one(&**known),
        );
        Arc::clone(known.or_insert_with(|| Arc::new(make(value))).get())
    }

    fn sweep(&mut self) {
        if self.values.len() >= self.sweep_at {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep_at = (2 * self.values.len()).max(SWEEP_FLOOR);
        }
    }

    fn absorb(&mut self, other: Interned<T>) {
        for value in other.values {
            self.sweep();
            let hash = self.hash.hash_one(&*value);
            let known = self.values.entry(
                hash,
                |known| *known == value,
                |known| self.hash.hash_one(&**known),
            );
            known.or_insert(value);
        }
    }

    fn bytes(&self) -> usize {
        self.values.allocation_size() + self.values.len() * (size_of::<T>() + 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_uses_is_dropped() {
        let mut interned = Interned::default();
        let kept = interned.get(&0u64, u64::clone);
        for value in 1..10_000 {
            let _ = interned.get(&value, u64::clone);
        }
        assert!(interned.values.len() <= SWEEP_FLOOR);
        assert!(Arc::ptr_eq(&kept, &interned.get(&0, u64::clone)));
    }
}
