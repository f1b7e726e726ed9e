//! A backend for a request that need not have one: taken only if that costs
//! nobody else anything.
//!
//! Owns what such a request may have. That it is one, is said by
//! [`collect`](super::collect), whose client is slow, and
//! [`attempt`](super::attempt), whose try is under way.

use super::client::Wire;
use super::exchange::Exchange;
use crate::policy::balance::{Ask, Choice};
use crate::table::Checkout;

/// A backend that may be used at once and was not met yet, to which a connection
/// is kept.
pub(super) fn pick_kept<S: Wire>(ex: &mut Exchange<'_, S>) -> Option<Checkout> {
    pick_if(ex, |ex, index| {
        let key = ex.app.backends[index].key();
        ex.app.policy.backend_keepalive && ex.client.thread.pool.has(key)
    })
}

/// A backend that may be used at once, with room to spare for a client that is
/// slow to send: the request counts as one of those.
pub(super) fn pick_spare<S: Wire>(ex: &mut Exchange<'_, S>) -> Option<Checkout> {
    let checkout = pick_if(ex, |ex, index| ex.app.is_spare(index))?;
    checkout.park();
    Some(checkout)
}

/// The best backend, if it `fits`. Looked at before it is taken: a hold that is
/// given back would count as a request.
fn pick_if<S: Wire>(
    ex: &mut Exchange<'_, S>,
    fits: impl FnOnce(&Exchange<'_, S>, usize) -> bool,
) -> Option<Checkout> {
    if !ex.refresh() {
        return None;
    }
    let now_us = ex.now();
    let ask = Ask {
        now_us,
        random: ex.client.thread.random.borrow_mut().u64(..),
        tried: &ex.tries.tried,
        repeatable: false,
        hedge: true,
    };
    let Choice::Backend(index) = ex.app.preview(&ask) else {
        return None;
    };
    if !fits(ex, index) {
        return None;
    }
    Checkout::take(&ex.app, index, now_us, false)
}
