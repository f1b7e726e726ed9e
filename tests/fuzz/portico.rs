//! The parts of the router that read bytes from the network and from its files,
//! compiled from its own sources without the rest: what is fuzzed builds in seconds.

extern crate self as portico;

/// As in the router.
#[path = "../../router/observe/code.rs"]
pub mod code;
/// As in the router.
#[path = "../../router/edge/http1/mod.rs"]
pub mod http1;
/// As in the router.
#[path = "../../router/feed/mod.rs"]
pub mod feed;

/// What must hold.
pub mod oracle;

/// As in the router.
pub mod observe {
    pub use crate::code::{Code, Fault};
}

/// As in the router.
pub mod edge {
    pub use crate::http1;
}

/// What of it the feed's files need: how messages show a path.
pub mod settings {
    use std::path::{Path, PathBuf};

    /// As it is.
    pub fn absolute(path: &Path) -> PathBuf {
        path.to_owned()
    }
}
