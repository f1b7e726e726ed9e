//! A backend for a try, from the balancer; a place in the app's queue when all
//! are full, or when all are down and may come up again.
//!
//! ```text
//!            ┌─▶ a backend ◀──────────────┐ room, or one came up
//! choose ────┼─▶ all full ──▶ queue ──────┤
//!            ├─▶ all down ──▶ held ───────┘──▶ time is up: H11, or the least
//!            └─▶ none left    ▲                recently failed is tried
//!                             └── all went down while they waited for room
//! ```
//!
//! Who waits and finds that there is nothing to wait for any more has what one
//! that just came would have.
//!
//! Owns the waits and their ends: room, patience, the client's leaving, a
//! drain. Chooses nothing itself: that is [`crate::policy::balance`], and the
//! order of the queue [`crate::policy::admission`].

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::attempt::Failed;
use super::client::Wire;
use super::exchange::{Exchange, after};
use super::open;
use crate::edge::clock::Micros;
use crate::edge::wanted;
use crate::observe::{Code, Counter, Gauge, Histogram};
use crate::policy::admission::{Joining, NoPlace, Turn, Waiter};
use crate::policy::balance::{Ask, Candidates, Choice, Tried};
use crate::table::{App, Checkout, Policy};

/// A request waits at most this long for a backend with room.
const QUEUE_PATIENCE: Duration = Duration::from_secs(5);

/// Places for requests that are held while an app is down, where it does not
/// say how many: it is only down for a moment, and its whole traffic waits.
const HELD: u32 = 1_000;

/// What the balancer has.
enum Found {
    Backend(Checkout),
    /// All that may be used are full.
    Full,
    /// None accepts connections; this one failed longest ago.
    Down(usize),
    /// There is none, or all were met.
    None,
}

fn choose<S: Wire>(ex: &Exchange<'_, S>, now_us: Micros, hedge: bool) -> Found {
    let thread = &ex.client.thread;
    loop {
        let ask = Ask {
            now_us,
            random: thread.random.borrow_mut().u64(..),
            tried: &ex.tries.tried,
            repeatable: ex.work.head.idempotent() && ex.upload.is_replayable(),
            hedge,
        };
        let (index, is_trial) = match ex.app.choose(&ask) {
            Choice::Backend(index) => (index, false),
            Choice::Trial(index) => (index, true),
            Choice::AllFull => return Found::Full,
            Choice::AllOut(index) => return Found::Down(index),
            Choice::NoneLeft => return Found::None,
        };
        if let Some(checkout) = Checkout::take(&ex.app, index, ask.now_us, is_trial) {
            return Found::Backend(checkout);
        }
    }
}

/// A backend that may be used at once and was not met yet.
pub(super) fn pick_now<S: Wire>(ex: &mut Exchange<'_, S>) -> Option<Checkout> {
    if !ex.refresh() {
        return None;
    }
    match choose(ex, ex.now(), true) {
        Found::Backend(checkout) => Some(checkout),
        Found::Full | Found::Down(_) | Found::None => None,
    }
}

/// A backend with room, after a wait where there is none.
pub(super) async fn pick<S: Wire>(ex: &mut Exchange<'_, S>) -> Result<Checkout, Failed> {
    if ex.ledger.tries > 0 && !ex.refresh() {
        return Err(Failed::Answer(Code::H14));
    }
    let (mut knocked, mut knocks) = (false, 0);
    // Of a request that just came, its beginning is recent enough.
    let mut now_us = match ex.ledger.tries {
        0 => ex.due_at,
        _ => ex.now(),
    };
    loop {
        match choose(ex, now_us, false) {
            Found::Backend(checkout) if knocked && knocks < ex.app.backends.len() => {
                if ex.tries.closed == 0 {
                    return Err(none_left(ex));
                }
                // It broke off and there is no other: is it still there?
                knocks += 1;
                open::knock(ex, checkout).await?;
            }
            Found::Backend(_) if knocked => return Err(none_left(ex)),
            Found::Backend(checkout) => return Ok(checkout),
            Found::Full => {
                if let Some(checkout) = wait(ex, Wait::Room).await? {
                    return Ok(checkout);
                }
            }
            Found::Down(_) if !knocked && !ex.tries.tried.is_empty() && boot_wait(ex).is_some() => {
                // Those that were met may come up as well as the others.
                knocked = true;
                ex.tries.forget();
            }
            Found::Down(index) => {
                if let Some(patience) = boot_wait(ex) {
                    if let Some(checkout) = wait(ex, Wait::Boot(patience)).await? {
                        return Ok(checkout);
                    }
                    // Held as long as it may be: one is tried all the same.
                } else if let Some(checkout) = Checkout::take(&ex.app, index, ex.now(), false) {
                    return Ok(checkout);
                }
            }
            Found::None if ex.app.backends.is_empty() => {
                let patience = boot_wait(ex).filter(|_| waits_for_first(&ex.app));
                let Some(patience) = patience else {
                    wanted::tell(&ex.client.thread, &ex.app);
                    return Err(Failed::Answer(Code::H14));
                };
                if let Some(checkout) = wait(ex, Wait::Boot(patience)).await? {
                    return Ok(checkout);
                }
            }
            Found::None if ex.tries.tried.is_empty() => return Err(Failed::Answer(Code::H14)),
            Found::None => {
                if knocked || boot_wait(ex).is_none() {
                    return Err(none_left(ex));
                }
                // All were met. Where all are down, one may come up again.
                knocked = true;
                ex.tries.forget();
            }
        }
        now_us = ex.now();
    }
}

/// Whether requests wait for the app's first backend.
pub(super) fn waits_for_first(app: &App) -> bool {
    app.policy.boot_wait.is_some_and(|wait| !wait.is_zero())
}

/// Every backend was met, and one that is still there met the request too.
fn none_left<S: Wire>(ex: &mut Exchange<'_, S>) -> Failed {
    ex.count(Counter::WithheldNoBackend);
    Failed::Answer(ex.failed_as())
}

/// Whether a request that is with `held` could go to another backend at once.
pub(super) fn has_other<S: Wire>(ex: &Exchange<'_, S>, held: &Checkout) -> bool {
    let mut tried = ex.tries.tried;
    if let Some(index) = ex.index_of(held) {
        tried.push(index);
    }
    let now_us = ex.client.thread.clock.recent();
    matches!(preview(ex, now_us, &tried, true), Choice::Backend(_))
}

/// How long the request may be held for a backend to come up: backends that
/// never did are only waited for where the app says so.
fn boot_wait<S: Wire>(ex: &Exchange<'_, S>) -> Option<Duration> {
    let usual = ex.app.has_been_up().then_some(Policy::BOOT_WAIT);
    let patience = ex.app.policy.boot_wait.or(usual)?;
    let may = !ex.tries.held && !ex.tries.has_aside() && !patience.is_zero();
    may.then_some(patience)
}

/// Whether a request that was sent to nobody would be held now: every backend
/// is known to be down, and one may come up.
pub(super) fn may_be_held<S: Wire>(ex: &Exchange<'_, S>) -> bool {
    let choice = preview(ex, ex.now(), &Tried::default(), false);
    boot_wait(ex).is_some() && matches!(choice, Choice::AllOut(_))
}

/// What choosing would come to; claims nothing.
fn preview<S: Wire>(ex: &Exchange<'_, S>, now_us: Micros, tried: &Tried, hedge: bool) -> Choice {
    ex.app.preview(&Ask {
        now_us,
        random: 0,
        tried,
        repeatable: false,
        hedge,
    })
}

/// What a request waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// A backend with room.
    Room,
    /// A backend that accepts connections, for this long.
    Boot(Duration),
}

impl Wait {
    /// Places in the line for it.
    fn places<S: Wire>(self, ex: &Exchange<'_, S>) -> u32 {
        let backends = u32::try_from(ex.app.backends.len()).unwrap_or(u32::MAX / 50);
        let places = ex.app.policy.queue;
        match self {
            Wait::Room => {
                let places = places.unwrap_or(50 * backends);
                places.saturating_add(ex.app.withheld())
            }
            Wait::Boot(_) => places.unwrap_or(HELD.max(50 * backends)),
        }
    }

    /// When waiting for it since `since` is over.
    fn until<S: Wire>(self, ex: &Exchange<'_, S>, since: Micros) -> Micros {
        let patience = match self {
            Wait::Room => QUEUE_PATIENCE,
            Wait::Boot(patience) => patience,
        };
        after(since, patience)
            .min(open::phase_ends(ex, since))
            .min(ex.expires_at)
    }
}

/// What is counted of a wait that ended; `held`: the app was down in it.
fn counter(held: bool, ended: &Result<Checkout, Unserved>) -> Counter {
    match ended {
        Ok(_) if held => Counter::HeldServed,
        Ok(_) => Counter::QueueAdmitted,
        Err(Unserved::Shed | Unserved::Failed(Failed::Dismissed)) => Counter::QueueShed,
        Err(Unserved::Failed(Failed::Client(_))) if held => Counter::HeldClientLeft,
        Err(Unserved::Failed(Failed::Client(_))) => Counter::QueueClientLeft,
        // H14: the app itself is gone.
        Err(Unserved::Gone | Unserved::Failed(Failed::Answer(Code::H14))) => match held {
            true => Counter::HeldGone,
            false => Counter::QueueGone,
        },
        Err(Unserved::Failed(_) | Unserved::HeldLong) if held => Counter::HeldTimedOut,
        Err(Unserved::Failed(_) | Unserved::HeldLong) => Counter::QueueTimedOut,
    }
}

/// How often one that waits for room has a look at what makes it wait.
const LOOK: Duration = Duration::from_millis(100);

/// What is waited for, and until when.
struct Patience {
    what: Wait,
    until: Micros,
    /// All of it ends here, however often what is waited for changes.
    ends: Micros,
    /// And being held here, once it was.
    held_until: Option<Micros>,
}

impl Patience {
    fn new<S: Wire>(ex: &Exchange<'_, S>, what: Wait, now: Micros) -> Self {
        let (until, ends) = (what.until(ex, now), open::phase_ends(ex, now));
        let patience = Patience {
            what,
            until,
            ends,
            held_until: (what != Wait::Room).then_some(until),
        };
        patience.look(ex, now);
        patience
    }

    /// From here on it waits for something else.
    fn turn<S: Wire>(&mut self, ex: &Exchange<'_, S>, what: Wait) {
        let now = ex.now();
        self.what = what;
        self.until = what.until(ex, now).min(self.ends);
        if what != Wait::Room {
            self.until = *self.held_until.get_or_insert(self.until);
        }
        self.look(ex, now);
    }

    /// Where nobody was answered for a while, more may be sent than was thought.
    fn look<S: Wire>(&self, ex: &Exchange<'_, S>, now: Micros) {
        let next = match self.what {
            Wait::Room => {
                ex.app.press(now);
                self.until.min(after(now, LOOK))
            }
            Wait::Boot(_) => self.until,
        };
        ex.client.deadline.set(next);
    }
}

/// How a wait ends without a backend.
enum Unserved {
    /// The line stands, and it waited as long as anyone does then.
    Shed,
    /// What it waited for will not come: it is as one that just came.
    Gone,
    /// It was held as long as it may be.
    HeldLong,
    Failed(Failed),
}

impl From<Failed> for Unserved {
    fn from(failed: Failed) -> Unserved {
        Unserved::Failed(failed)
    }
}

/// Waits in the app's line until there is a backend; `None`: there is nothing to
/// wait for any more.
async fn wait<S: Wire>(ex: &mut Exchange<'_, S>, wait: Wait) -> Result<Option<Checkout>, Failed> {
    if ex.tries.has_aside() {
        // A try is under way: better than any place in a line.
        return Err(Failed::Answer(Code::H11));
    }
    if wait != Wait::Room {
        wanted::tell(&ex.client.thread, &ex.app);
    }
    let since = ex.now();
    let live = Arc::clone(ex.app.live());
    let joined = live.queue.join(&Joining {
        limit: wait.places(ex),
        now_us: since,
        pace: ex.app.pace(),
        held: wait != Wait::Room,
    });
    let mut place = match joined {
        Ok(place) => place,
        Err(no_place) => {
            ex.count(match no_place {
                NoPlace::Full => Counter::QueueFull,
                NoPlace::Shed => Counter::QueueShed,
            });
            return Err(Failed::Answer(Code::H11));
        }
    };
    ex.client.thread.cells.up(Gauge::Queued);
    let mut patience = Patience::new(ex, wait, since);
    let slot = ex.client.deadline.slot();
    if wait == Wait::Room {
        ex.client.thread.lines.enter(slot, &live);
    }
    let waited = poll_fn(|cx| poll_wait(cx, ex, &mut place, &mut patience)).await;
    ex.client.thread.lines.leave(slot);
    let counter = counter(place.is_held(), &waited);
    if waited.is_ok() {
        place.served(ex.now(), &ex.app.pace());
    }
    let thread = &ex.client.thread;
    thread.cells.down(Gauge::Queued);
    let waited_us = thread.clock.now() - since;
    ex.ledger.queue_us += waited_us;
    thread.cells.observe(Histogram::QueueWait, waited_us);
    thread.cells.inc(counter);
    match waited {
        Ok(checkout) => Ok(Some(checkout)),
        Err(Unserved::Gone | Unserved::HeldLong) => Ok(None),
        Err(Unserved::Shed) => Err(Failed::Answer(Code::H11)),
        Err(Unserved::Failed(failed)) => Err(failed),
    }
}

/// All that it waited for room on went down, or away: it is held from here on, at
/// its place in the line, if one that just came would be. False: it would not.
fn hold<S: Wire>(
    ex: &Exchange<'_, S>,
    place: &mut Waiter<'_>,
    patience: &mut Patience,
    found: &Found,
) -> bool {
    let may_come = match found {
        Found::Down(_) => true,
        _ => ex.app.backends.is_empty() && waits_for_first(&ex.app),
    };
    let wait = boot_wait(ex).filter(|_| may_come && ex.tries.tried.is_empty());
    if let Some(wait) = wait {
        wanted::tell(&ex.client.thread, &ex.app);
        place.hold();
        ex.client.thread.lines.leave(ex.client.deadline.slot());
        patience.turn(ex, Wait::Boot(wait));
    }
    wait.is_some()
}

fn poll_wait<S: Wire>(
    cx: &mut Context<'_>,
    ex: &mut Exchange<'_, S>,
    place: &mut Waiter<'_>,
    patience: &mut Patience,
) -> Poll<Result<Checkout, Unserved>> {
    if ex
        .client
        .thread
        .lines
        .is_dismissed(ex.client.deadline.slot())
    {
        // An answer that was held back is better than none.
        return Poll::Ready(Err(match ex.tries.poor.is_some() {
            true => Failed::Answer(Code::H22).into(),
            false => Failed::Dismissed.into(),
        }));
    }
    loop {
        // Asked again in the line too: room made before joining it woke nobody.
        // By the newest version: a backend may have come, or all have gone.
        if !ex.refresh() {
            return Poll::Ready(Err(Failed::Answer(Code::H14).into()));
        }
        match choose(ex, ex.now(), false) {
            Found::Backend(checkout) => return Poll::Ready(Ok(checkout)),
            // One came up, and others were before us.
            Found::Full if patience.what != Wait::Room => patience.turn(ex, Wait::Room),
            Found::Full => {}
            found @ (Found::Down(_) | Found::None) if patience.what == Wait::Room => {
                if !hold(ex, place, patience, &found) {
                    return Poll::Ready(Err(Unserved::Gone));
                }
            }
            Found::None if ex.app.backends.is_empty() && !waits_for_first(&ex.app) => {
                return Poll::Ready(Err(Unserved::Gone));
            }
            Found::Down(_) | Found::None => {}
        }
        match Pin::new(&mut *place).poll(cx) {
            Poll::Ready(Turn::Come) => {}
            Poll::Ready(Turn::Shed) => return Poll::Ready(Err(Unserved::Shed)),
            Poll::Pending => break,
        }
    }
    if ex
        .upload
        .poll_gone(cx, ex.client, &mut ex.work.input)
        .is_ready()
    {
        return Poll::Ready(Err(Failed::Client(Code::H27).into()));
    }
    if ex.client.poll_forced(cx).is_ready() {
        return Poll::Ready(Err(Failed::Forced.into()));
    }
    ex.holds();
    while ex.client.deadline.poll(cx).is_ready() {
        let now = ex.now();
        if now >= ex.expires_at {
            return Poll::Ready(Err(Failed::Answer(Code::H12).into()));
        }
        if now >= patience.until && patience.what == Wait::Room {
            return Poll::Ready(Err(Failed::Answer(Code::H11).into()));
        }
        if now >= patience.until {
            ex.tries.held = true;
            return Poll::Ready(Err(Unserved::HeldLong));
        }
        patience.look(ex, now);
        // Whoever found that all are down woke nobody.
        if patience.what == Wait::Room
            && !ex.app.is_settled()
            && let Choice::AllOut(index) = preview(ex, now, &ex.tries.tried, false)
            && !hold(ex, place, patience, &Found::Down(index))
        {
            return Poll::Ready(Err(Unserved::Gone));
        }
    }
    Poll::Pending
}
