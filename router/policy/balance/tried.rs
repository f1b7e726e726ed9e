//! Which backends a request was tried on.
//!
//! Owns the list. Never looks at a backend.

/// Backends a request was tried on already, by index: not chosen again.
/// Remembers [`Tried::MOST`]; later ones are forgotten, never an error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    indices: [u32; Tried::MOST],
    len: u8,
}

impl Tried {
    /// As many as it remembers.
    pub const MOST: usize = 12;

    /// Remembers a backend.
    pub fn push(&mut self, index: usize) {
        if let Some(place) = self.indices.get_mut(usize::from(self.len)) {
            *place = index as u32;
            self.len += 1;
        }
    }

    /// Whether it was tried.
    pub fn contains(&self, index: usize) -> bool {
        self.indices[..usize::from(self.len)].contains(&(index as u32))
    }

    /// How many it remembers.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether nothing was tried yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}
