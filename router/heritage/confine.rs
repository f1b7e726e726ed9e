//! What a child gives up before it does anything else. Opens nothing, and
//! never fails: a kernel without one of these is no reason not to serve.

use rustix::fs::Mode;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// What files of a child's are not for: the group may read them (the edge the
/// table), others nothing.
const UMASK: u32 = 0o027;

/// Call while the process has one thread: threads started later inherit it.
pub(super) fn give_up_rights() {
    // No binary it could execute, set-user-id or not, gives it more.
    let _ = rustix::thread::set_no_new_privs(true);
    // A user's process may have been given capabilities, to bind low ports,
    // say: that was for the supervisor. Root by the settings' wish is root.
    if !rustix::process::geteuid().is_root() {
        let _ = rustix::thread::clear_ambient_capability_set();
        let nothing = CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        };
        let _ = rustix::thread::set_capabilities(None, nothing);
    }
    rustix::process::umask(Mode::from_raw_mode(UMASK));
}
