//! The limit on open descriptors. Each proxied connection costs up to two,
//! and the usual soft limit of 1,024 is meant for programs that use
//! `select(2)`; children inherit what is raised here.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. What cannot be raised stays: the
/// edge bounds its connections by what it finds.
pub(super) fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Raising to the hard limit needs no rights; should it fail, nothing is
    // worse than before.
    let _ = setrlimit(Resource::Nofile, limit);
}
