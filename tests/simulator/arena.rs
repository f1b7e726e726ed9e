//! Requests and tries by number: a number of one that ended finds nothing.
//!
//! Owns the places and their reuse, so that an event set long ago never meets
//! the wrong request.

/// The number of one value of an [`Arena`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id {
    slot: u32,
    generation: u32,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Values by number.
pub struct Arena<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Arena<T> {
    /// Empty.
    pub fn new() -> Self {
        Arena {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Keeps a value; its number is never given again.
    pub fn insert(&mut self, value: T) -> Id {
        if let Some(slot) = self.free.pop() {
            let place = &mut self.slots[slot as usize];
            place.value = Some(value);
            return Id {
                slot,
                generation: place.generation,
            };
        }
        self.slots.push(Slot {
            generation: 0,
            value: Some(value),
        });
        Id {
            slot: self.slots.len() as u32 - 1,
            generation: 0,
        }
    }

    /// The value, if it was not removed.
    pub fn get(&self, id: Id) -> Option<&T> {
        let slot = &self.slots[id.slot as usize];
        if slot.generation == id.generation {
            slot.value.as_ref()
        } else {
            None
        }
    }

    /// The value, if it was not removed.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        let slot = &mut self.slots[id.slot as usize];
        if slot.generation == id.generation {
            slot.value.as_mut()
        } else {
            None
        }
    }

    /// Takes the value out.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        let slot = &mut self.slots[id.slot as usize];
        if slot.generation != id.generation {
            return None;
        }
        slot.generation += 1;
        self.free.push(id.slot);
        slot.value.take()
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
