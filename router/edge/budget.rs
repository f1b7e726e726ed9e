//! How many bytes of buffers the process may hold.
//!
//! Owns the count of all [`Buffer`](super::buffer::Buffer)s there are, taken or
//! idle, and what it means: how near they are to `edge.buffer_bytes`. Each
//! thread counts for itself and tells of what is worth telling, so a buffer
//! that is recycled costs nothing here and one that is made costs an addition.
//!
//! Whoever holds twice as much of it as is left has his share (Choudhury and
//! Hahne, "Dynamic queue length thresholds for shared-memory packet switches",
//! 1998): ten that want all of it have two parts of 21 each, and one part is left
//! to those that hold little. Below [`SCARCE`] it is kept from nobody, so that one
//! alone has as much as that.
//!
//! | from | what gives way |
//! |---|---|
//! | [`FRUGAL`] | buffers are small, none is kept idle |
//! | [`TIGHT`] | of apps that have their share, bodies awaited longest go, and none is kept for a retry; heads awaited longest, if all that is no app's is a share |
//! | [`SCARCE`] | new requests of apps that have their share are answered with H22 |
//! | [`SPENT`] | requests of theirs end that would take more |
//! | the end | everybody has his share |
//!
//! An app's count is of what its requests hold while they wait for others, kept
//! by each thread in the app's own cells (the journey's ledger tells it); it is
//! summed up, over the threads, only from [`TIGHT`] on. Below that a request pays
//! for a few additions, and nobody ever looks at all apps.
//!
//! **Invariant**: an app that holds less than twice what is left is refused nothing
//! for want of memory.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use crate::heritage::memory;
use crate::settings::Clients;

/// Pressure from which on buffers are small.
pub const FRUGAL: f32 = 0.5;
/// Pressure from which on it matters who has his share: bodies and heads go.
pub const TIGHT: f32 = 0.75;
/// Pressure from which on whoever has his share begins no request.
pub const SCARCE: f32 = 0.85;
/// Pressure from which on whoever has his share takes no more.
pub const SPENT: f32 = 0.9;

/// Bytes that a thread counts by itself before it tells.
const UNTOLD: i64 = 64 * 1024;

/// What the budget is if the system does not say how much memory there is.
const UNKNOWN: u64 = 1 << 30;
/// The least that is chosen unasked.
const LEAST: u64 = 64 << 20;

/// Told by all threads.
static HELD: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static COUNTED: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    let counted = COUNTED.get() + bytes;
    if counted.abs() < UNTOLD {
        COUNTED.set(counted);
    } else {
        COUNTED.set(0);
        HELD.fetch_add(counted, Relaxed);
    }
}

/// So many bytes more are held.
pub(super) fn took(bytes: usize) {
    count(i64::try_from(bytes).unwrap_or(i64::MAX));
}

/// So many bytes fewer.
pub(super) fn gave(bytes: usize) {
    count(-i64::try_from(bytes).unwrap_or(i64::MAX));
}

/// Bytes held by all threads, but for what each has not told.
pub fn held_bytes() -> u64 {
    u64::try_from(HELD.load(Relaxed)).unwrap_or(0)
}

/// The process's budget.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { bytes: UNKNOWN }
    }
}

impl Budget {
    /// As the settings ask, or a quarter of the memory there is.
    pub fn new(settings: &Clients) -> Budget {
        let bytes = match settings.buffer_bytes {
            0 => memory::total_bytes().map_or(UNKNOWN, |there_is| (there_is / 4).max(LEAST)),
            asked => asked,
        };
        Budget { bytes }
    }

    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How much of it is used: 0 nothing, 1 all.
    #[inline]
    pub fn pressure(&self) -> f32 {
        (held_bytes() as f32 / self.bytes as f32).min(1.0)
    }

    /// Whether whoever holds so many bytes has his share of what there is.
    pub fn is_share(&self, bytes: u64) -> bool {
        is_share(bytes, self.bytes.saturating_sub(held_bytes()))
    }
}

/// Whether so many bytes are a share where so many are left.
fn is_share(bytes: u64, left: u64) -> bool {
    bytes >= left.saturating_mul(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::buffer::{Buffer, LARGE_BYTES};

    #[test]
    fn what_is_made_and_freed_is_counted_by_any_thread() {
        let budget = Budget::new(&Clients {
            buffer_bytes: 256 << 20,
            ..Clients::default()
        });
        // Other tests make buffers too, but not as many.
        let before = budget.pressure();
        let many: Vec<Buffer> = (0..1_024).map(|_| Buffer::with_room(LARGE_BYTES)).collect();
        let during = budget.pressure();
        assert!(
            (0.45..0.6).contains(&(during - before)),
            "{before} {during}"
        );
        std::thread::spawn(move || drop(many)).join().unwrap();
        assert!(budget.pressure() < before + 0.05);
    }

    /// What each of so many has that want all of it, of a budget of 1,000, and
    /// what is left.
    fn wanted_by(count: usize) -> (Vec<u64>, u64) {
        let (mut held, mut left) = (vec![0; count], 1_000);
        while held.iter().any(|held| !is_share(*held, left)) {
            for held in &mut held {
                if !is_share(*held, left) {
                    *held += 1;
                    left -= 1;
                }
            }
        }
        (held, left)
    }

    #[test]
    fn half_as_much_as_each_has_is_left_for_others() {
        for (count, each) in [(1, 667), (2, 400), (10, 95), (100, 10)] {
            let (held, left) = wanted_by(count);
            assert!(left.abs_diff(each / 2) <= 2, "{left} by {count}");
            for held in held {
                assert!(held.abs_diff(each) <= 2, "{held} of {each}, by {count}");
            }
        }
    }

    #[test]
    fn at_the_end_of_it_everybody_has_his_share() {
        assert!(is_share(0, 0));
        assert!(!is_share(0, 1));
    }

    #[test]
    fn unasked_it_is_a_quarter_of_what_there_is() {
        let budget = Budget::new(&Clients::default());
        assert!(budget.bytes() >= LEAST);
        assert!(
            budget.bytes()
                <= memory::total_bytes()
                    .map_or(UNKNOWN, |bytes| bytes / 2)
                    .max(LEAST)
        );
    }
}
