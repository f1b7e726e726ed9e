//! One clock and one timer for each edge thread.
//!
//! Owns the thread's notion of now and a heap of deadlines that every
//! connection of the thread shares. Never holds a runtime timer per read: a
//! connection has one [`Deadline`] for its whole life and moves it by storing a
//! number.
//!
//! Moving a deadline later (what every request on a kept connection does) costs
//! a store: the heap's old entry fires early, sees the later time, and is put
//! back. Moving it earlier than any entry the heap holds pushes one. So a
//! connection costs a heap operation every few seconds, not every request.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Microseconds since the origin of the process's clocks.
pub type Micros = u64;

const NEVER: Micros = Micros::MAX;

/// Deadlines fire at most this late on an idle thread: what a wake-up may wait
/// for others to share it.
const SLACK_US: Micros = 2_000;

/// A thread's clock. Cheap to clone; not `Send`.
#[derive(Clone)]
pub struct Clock(Rc<Inner>);

struct Inner {
    origin: Instant,
    /// The last reading.
    last: Cell<Micros>,
    /// Unix microseconds at `origin`.
    unix_origin_us: Cell<u64>,
    slots: RefCell<Slots>,
    heap: RefCell<BinaryHeap<Reverse<(Micros, u32)>>>,
    driver: RefCell<Option<Waker>>,
    /// When the driver wakes next unless woken.
    driver_wakes: Cell<Micros>,
}

#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<u32>,
}

struct Slot {
    /// When it is due, [`NEVER`] if it is not.
    due: Micros,
    /// The earliest entry that the heap holds for it.
    armed: Micros,
    /// Its time came since it was last set.
    fired: bool,
    waker: Option<Waker>,
    live: bool,
}

impl Slot {
    fn new(live: bool) -> Self {
        Slot {
            due: NEVER,
            armed: NEVER,
            fired: false,
            waker: None,
            live,
        }
    }
}

impl Clock {
    /// A clock that read zero at `origin`: of one origin, the clocks of several
    /// threads agree.
    pub fn since(origin: Instant) -> Self {
        let clock = Clock(Rc::new(Inner {
            origin,
            last: Cell::new(0),
            unix_origin_us: Cell::new(0),
            slots: RefCell::default(),
            heap: RefCell::default(),
            driver: RefCell::default(),
            driver_wakes: Cell::new(NEVER),
        }));
        clock.follow_system();
        clock
    }

    /// Microseconds since the origin.
    pub fn now(&self) -> Micros {
        let now = u64::try_from(self.0.origin.elapsed().as_micros()).unwrap_or(NEVER);
        self.0.last.set(now);
        now
    }

    /// The last reading: for those who follow one closely.
    pub fn recent(&self) -> Micros {
        self.0.last.get()
    }

    /// Unix milliseconds at `now`.
    pub fn unix_ms(&self, now: Micros) -> u64 {
        self.unix_us(now) / 1000
    }

    /// Unix microseconds at `now`.
    pub fn unix_us(&self, now: Micros) -> u64 {
        self.0.unix_origin_us.get() + now
    }

    /// Follows the system's clock where it was set since.
    pub fn follow_system(&self) {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let unix_us = u64::try_from(since_epoch.as_micros()).unwrap_or(0);
        self.0
            .unix_origin_us
            .set(unix_us.saturating_sub(self.now()));
    }

    /// A deadline that is not due.
    pub fn deadline(&self) -> Deadline {
        let mut slots = self.0.slots.borrow_mut();
        let fresh = Slot::new(true);
        let slot = if let Some(slot) = slots.free.pop() {
            // An entry of the slot's former life may still be in the heap; its
            // time comes, is not the armed one, and it is dropped.
            slots.all[slot as usize] = fresh;
            slot
        } else {
            slots.all.push(fresh);
            u32::try_from(slots.all.len() - 1).expect("connections must number under 2^32")
        };
        Deadline {
            clock: self.clone(),
            slot,
        }
    }

    /// Waits until `at` has come.
    pub async fn sleep_until(&self, at: Micros) {
        let left = at.saturating_sub(self.now());
        tokio::time::sleep(Duration::from_micros(left)).await;
    }

    /// Brings the time of a deadline forward to now, by its
    /// [`slot`](Deadline::slot).
    pub fn expire(&self, slot: u32) {
        let waker = {
            let mut slots = self.0.slots.borrow_mut();
            let slot = &mut slots.all[slot as usize];
            slot.fired = true;
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Wakes every task that waits on a deadline, due or not: how a drain
    /// reaches connections that wait for their client.
    pub fn wake_all(&self) {
        let mut wakers = Vec::new();
        for slot in &mut self.0.slots.borrow_mut().all {
            wakers.extend(slot.waker.take());
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Fires deadlines; runs for as long as the thread does.
    pub async fn drive(self) {
        loop {
            self.fire();
            let next = self
                .0
                .heap
                .borrow()
                .peek()
                .map_or(NEVER, |Reverse((at, _))| *at);
            self.0.driver_wakes.set(next);
            let pause = next.saturating_sub(self.now()).saturating_add(SLACK_US);
            let sleep = tokio::time::sleep(Duration::from_micros(pause.min(60_000_000)));
            tokio::pin!(sleep);
            poll_fn(|cx| {
                *self.0.driver.borrow_mut() = Some(cx.waker().clone());
                if self.0.driver_wakes.get() < next {
                    return Poll::Ready(());
                }
                sleep.as_mut().poll(cx)
            })
            .await;
        }
    }

    fn fire(&self) {
        let now = self.now();
        let mut due = Vec::new();
        {
            let mut heap = self.0.heap.borrow_mut();
            let mut slots = self.0.slots.borrow_mut();
            while let Some(Reverse((at, index))) = heap.peek().copied() {
                if at > now {
                    break;
                }
                heap.pop();
                let slot = &mut slots.all[index as usize];
                // An entry that is not the armed one was overtaken; put back,
                // it would live as long as its connection.
                if !slot.live || at != slot.armed {
                    continue;
                }
                slot.armed = NEVER;
                if slot.due <= now {
                    slot.fired = true;
                    due.extend(slot.waker.take());
                } else if slot.due != NEVER {
                    slot.armed = slot.due;
                    heap.push(Reverse((slot.due, index)));
                }
            }
        }
        due.into_iter().for_each(Waker::wake);
    }
}

/// A connection's one deadline.
pub struct Deadline {
    clock: Clock,
    slot: u32,
}

impl Deadline {
    /// Its number: no other deadline of the clock has it.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Due at `at`, replacing what was.
    pub fn set(&self, at: Micros) {
        let inner = &self.clock.0;
        let mut slots = inner.slots.borrow_mut();
        let slot = &mut slots.all[self.slot as usize];
        slot.due = at;
        slot.fired = false;
        if at < slot.armed {
            slot.armed = at;
            inner.heap.borrow_mut().push(Reverse((at, self.slot)));
            if at < inner.driver_wakes.get() {
                inner.driver_wakes.set(at);
                if let Some(driver) = inner.driver.borrow_mut().take() {
                    driver.wake();
                }
            }
        }
    }

    /// Due `after` from `now`, a reading of the same clock.
    pub fn set_after(&self, now: Micros, after: Duration) {
        self.set(now.saturating_add(u64::try_from(after.as_micros()).unwrap_or(NEVER)));
    }

    /// When it is due.
    pub fn due(&self) -> Micros {
        self.clock.0.slots.borrow().all[self.slot as usize].due
    }

    /// Not due any more.
    pub fn clear(&self) {
        let mut slots = self.clock.0.slots.borrow_mut();
        let slot = &mut slots.all[self.slot as usize];
        slot.due = NEVER;
        slot.fired = false;
    }

    /// Ready once due; otherwise the task is woken when it may be, or when
    /// [`Clock::wake_all`] is called.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut slots = self.clock.0.slots.borrow_mut();
        let slot = &mut slots.all[self.slot as usize];
        if !slot
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            slot.waker = Some(cx.waker().clone());
        }
        if slot.fired {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut slots = self.clock.0.slots.borrow_mut();
        slots.all[self.slot as usize] = Slot::new(false);
        slots.free.push(self.slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime must build")
            .block_on(tokio::task::LocalSet::new().run_until(test));
    }

    #[test]
    fn a_deadline_fires_at_its_time_and_not_before() {
        run(async {
            let clock = Clock::since(Instant::now());
            tokio::task::spawn_local(clock.clone().drive());
            let deadline = clock.deadline();
            let start = clock.now();
            deadline.set_after(start, Duration::from_millis(30));
            poll_fn(|cx| deadline.poll(cx)).await;
            assert!(clock.now() >= start + 30_000);
        });
    }

    #[test]
    fn a_deadline_moved_earlier_or_later_fires_at_its_last_time() {
        run(async {
            let clock = Clock::since(Instant::now());
            tokio::task::spawn_local(clock.clone().drive());
            let deadline = clock.deadline();
            let start = clock.now();
            deadline.set_after(start, Duration::from_secs(3600));
            deadline.set_after(start, Duration::from_millis(10));
            deadline.set_after(start, Duration::from_millis(40));
            poll_fn(|cx| deadline.poll(cx)).await;
            assert!(clock.now() >= start + 40_000);
            deadline.clear();
            assert!(
                poll_fn(|cx| Poll::Ready(deadline.poll(cx)))
                    .await
                    .is_pending()
            );
        });
    }

    #[test]
    fn a_deadline_moved_back_and_forth_leaves_no_entries_behind() {
        let clock = Clock::since(Instant::now());
        let deadline = clock.deadline();
        let end = clock.now() + 20_000;
        while clock.now() < end {
            deadline.set_after(clock.now(), Duration::from_micros(900));
            deadline.set_after(clock.now(), Duration::from_micros(300));
            clock.fire();
            deadline.set_after(clock.now(), Duration::from_micros(900));
        }
        deadline.set_after(clock.now(), Duration::from_secs(60));
        let settled = clock.now() + 2_000;
        while clock.now() < settled {
            clock.fire();
        }
        assert_eq!(clock.0.heap.borrow().len(), 1);
    }

    #[test]
    fn a_recycled_slot_does_not_inherit_a_deadline() {
        run(async {
            let clock = Clock::since(Instant::now());
            tokio::task::spawn_local(clock.clone().drive());
            let first = clock.deadline();
            first.set_after(clock.now(), Duration::from_millis(5));
            drop(first);
            let second = clock.deadline();
            let start = clock.now();
            second.set_after(start, Duration::from_millis(50));
            poll_fn(|cx| second.poll(cx)).await;
            assert!(clock.now() >= start + 50_000);
        });
    }
}
