//! The parts of the router that read bytes from the network, compiled from its
//! own sources without the rest: what is fuzzed builds in seconds.

extern crate self as portico;

/// As in the router.
#[path = "../../router/observe/code.rs"]
pub mod code;
/// As in the router.
#[path = "../../router/feed/codec.rs"]
pub mod codec;
/// As in the router.
#[path = "../../router/edge/http1/mod.rs"]
pub mod http1;
/// As in the router.
#[path = "../../router/feed/messages/mod.rs"]
pub mod messages;

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

/// As in the router.
pub mod feed {
    pub use crate::{codec, messages};
}
