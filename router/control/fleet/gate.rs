//! Whether an edge may be sent the table now: not while the store is doubted,
//! and not after the edge refused a whole table, until an operator confirmed.

use tokio::sync::watch;

use crate::control::shrink::Standing;

/// One link's view of it.
#[derive(Debug)]
pub(super) struct Gate {
    standing: watch::Receiver<Standing>,
    /// The number of confirmations there were when the edge refused a table.
    refused: watch::Receiver<Option<u64>>,
    was_shut: bool,
}

/// What may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// What comes next.
    Open,
    /// The whole table, confirmed: what was sent before counts for nothing.
    Whole,
    /// Nothing of the table.
    Shut,
}

impl Gate {
    pub fn new(standing: watch::Receiver<Standing>, refused: watch::Receiver<Option<u64>>) -> Gate {
        Gate {
            standing,
            refused,
            was_shut: false,
        }
    }

    /// Looks, now.
    pub fn pass(&mut self) -> Pass {
        let standing = *self.standing.borrow_and_update();
        let refused = *self.refused.borrow_and_update();
        let awaits = refused.is_some_and(|then| then >= standing.confirmations);
        if standing.withheld.is_some() || awaits {
            self.was_shut = true;
            return Pass::Shut;
        }
        match std::mem::take(&mut self.was_shut) {
            true => Pass::Whole,
            false => Pass::Open,
        }
    }

    /// Waits until looking again may tell something else.
    pub async fn changed(&mut self) {
        let heard = tokio::select! {
            heard = self.standing.changed() => heard,
            heard = self.refused.changed() => heard,
        };
        if heard.is_err() {
            // Nobody is left to change it: the link ends by other means.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::shrink::{Shrink, Tally};

    #[tokio::test]
    async fn it_is_shut_by_a_doubt_and_opens_with_the_whole_table() {
        let shrink = Shrink {
            held: Tally::default(),
            offered: Tally::default(),
            unexplained: Tally::default(),
        };
        let (guard, standing) = watch::channel(Standing {
            withheld: Some(shrink),
            confirmations: 0,
        });
        let (refuse, refused) = watch::channel(None);
        let mut gate = Gate::new(standing, refused);
        assert_eq!((gate.pass(), gate.pass()), (Pass::Shut, Pass::Shut));
        let confirm = || {
            guard.send_modify(|standing| {
                standing.withheld = None;
                standing.confirmations += 1;
            });
        };
        confirm();
        gate.changed().await;
        assert_eq!((gate.pass(), gate.pass()), (Pass::Whole, Pass::Open));
        // An edge's own refusal waits for the next confirmation.
        refuse.send_replace(Some(1));
        gate.changed().await;
        assert_eq!(gate.pass(), Pass::Shut);
        confirm();
        gate.changed().await;
        assert_eq!((gate.pass(), gate.pass()), (Pass::Whole, Pass::Open));
    }
}
