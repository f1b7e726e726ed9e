//! The table against a naive model: random deltas and whole tables, domains
//! that change hands, wildcards and prefixes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The model: who holds which domain, looked through from end to end.
#[derive(Default)]
struct Model {
    apps: BTreeMap<String, Vec<String>>,
    holders: BTreeMap<String, String>,
}

impl Model {
    /// Of several changes of one app the last counts; all give up before any
    /// claims.
    fn apply(&mut self, changes: &[(String, Option<Vec<String>>)]) {
        let later = |at: usize| changes[at + 1..].iter().map(|(name, _)| name);
        let last = |at: usize| !later(at).any(|name| *name == changes[at].0);
        let changes = (0..changes.len())
            .filter(|&at| last(at))
            .map(|at| &changes[at]);
        for (name, domains) in changes.clone() {
            let keeps =
                |domain: &String| domains.as_ref().is_some_and(|kept| kept.contains(domain));
            self.holders
                .retain(|domain, holder| holder != name || keeps(domain));
        }
        for (name, domains) in changes {
            self.apps.remove(name);
            if let Some(domains) = domains {
                self.claim(name, domains);
                self.apps.insert(name.clone(), domains.clone());
            }
        }
    }

    fn claim(&mut self, name: &str, domains: &[String]) {
        for domain in domains {
            self.holders
                .entry(domain.clone())
                .or_insert_with(|| name.to_owned());
        }
    }

    fn route(&self, host: &str, path: &str) -> Option<String> {
        let score = |domain: &str| {
            let (wanted, prefix) = domain.split_at(domain.find('/').unwrap_or(domain.len()));
            let by_host = match wanted.strip_prefix('*') {
                Some(tail) => {
                    (host.ends_with(tail) && host.len() > tail.len()).then_some(tail.len())
                }
                None => (host == wanted).then_some(usize::MAX),
            }?;
            let rest = path.strip_prefix(prefix)?;
            let bounded = prefix.is_empty() || rest.is_empty() || rest.starts_with(['/', '?']);
            bounded.then_some((by_host, prefix.len()))
        };
        self.holders
            .iter()
            .filter_map(|(domain, holder)| Some((score(domain)?, holder)))
            .max_by_key(|(score, _)| *score)
            .map(|(_, holder)| holder.clone())
    }
}

fn domain() -> impl Strategy<Value = String> {
    "(\\*\\.)?([ab]\\.){0,2}[ab](/[xy]){0,2}"
}

fn put_of(name: &str, domains: &[String]) -> AppRecord {
    app(
        name,
        &domains.iter().map(String::as_str).collect::<Vec<_>>(),
    )
}

fn change() -> impl Strategy<Value = (String, Option<Vec<String>>)> {
    let domains = proptest::collection::vec(domain(), 0..4);
    ("[p-t]", proptest::option::weighted(0.8, domains))
}

proptest! {
    // A table has two thousand shards, slow to make and replace unoptimized.
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn routes_like_the_model(
        deltas in proptest::collection::vec(
            (proptest::collection::vec(change(), 1..5), proptest::bool::weighted(0.1)),
            1..20,
        ),
        requests in proptest::collection::vec(("([ab]\\.){0,3}[ab]", "(/[xyz]){0,3}\\??"), 1..20),
    ) {
        let table = Table::new(1);
        let mut model = Model::default();
        for (changes, whole) in deltas {
            let op = |(name, domains): &(String, Option<Vec<String>>)| match domains {
                Some(domains) => Change::Put(put_of(name, domains)),
                None => Change::Delete(name.clone()),
            };
            let to = table.revision() + 1;
            table.apply(&delta(to, changes.iter().map(op).collect()));
            model.apply(&changes);
            if whole {
                // The whole table again moves no domain from its holder; one
                // that was refused goes to the first by name if it is free.
                let mut install = table.install();
                for (name, domains) in &model.apps.clone() {
                    install.part(&[put_of(name, domains)]);
                    model.claim(name, domains);
                }
                install.finish(table.revision());
            }
            for (host, path) in &requests {
                prop_assert_eq!(route(&table, host, path), model.route(host, path));
            }
            prop_assert_eq!(table.len(), model.apps.len());
            prop_assert_eq!(table.backends(), 2 * model.apps.len() as u64);
            prop_assert_eq!(table.names.iter().count(), model.apps.len());
        }
        for (name, domains) in &model.apps {
            let found = table.app(name).expect("the app must be there");
            for domain in domains {
                prop_assert_eq!(found.domains.contains(domain), model.holders.get(domain) == Some(name));
            }
        }
    }
}
