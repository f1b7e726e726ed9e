//! The post of the edge: one member serves, one of the same vintage stands by
//! with its table loaded, a replacement warms up beside them, and those that
//! were replaced finish what is open on them.
//!
//! [`Post::tick`] reads as what is due, in this order: who is late or stalled
//! is killed; somebody is called to serve; the elders of one that serves hand
//! over; who stands by in vain is dismissed; who is missing is started.
//!
//! **Invariant**: while the post is wanted, a member that serves is never told
//! to go before another one is ready.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::roster::{Member, Roster, Stage};
use super::{Action, Departure, Duty, Ending, Limits, Post, Progress, Relief};
use crate::heritage::ProcessState;
use crate::supervisor::backoff::Backoff;
use crate::supervisor::moment::Moment;
use crate::supervisor::vintage::Vintage;

/// Unanswered pings before one counts as stalled.
const MAX_UNANSWERED: u32 = 5;
/// How many members may live at once. The last place is kept for a start when
/// nobody serves.
pub(super) const MAX_MEMBERS: usize = 32;
/// After one began to serve, before another is started to stand by: loading a
/// table must not take the processor from a takeover.
const RESERVE_PAUSE: Duration = Duration::from_secs(1);

/// A replacement that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::supervisor) struct Request {
    /// What is to serve.
    pub vintage: Vintage,
    /// Once warm it waits for [`EdgePost::release`].
    pub is_held: bool,
    /// What stands by stays of the old vintage, until [`EdgePost::settle`].
    pub keeps_reserve: bool,
}

/// A replacement under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Successor {
    request: Request,
    generation: u64,
}

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::supervisor) struct EdgePost {
    roster: Roster,
    is_wanted: bool,
    /// Of those started from now on.
    limits: Limits,
    /// What serves, or is started if nobody does.
    present: Vintage,
    /// What stands by.
    reserve: Vintage,
    /// Whether anybody may stand by.
    has_reserve: bool,
    reserve_at: Option<Moment>,
    reserve_backoff: Backoff,
    /// The replacement that is next: the last one asked for.
    asked: Option<Request>,
    successor: Option<Successor>,
    /// The last replacement that came to nothing, and why.
    failed: Option<(Vintage, String)>,
    start_at: Option<Moment>,
    backoff: Backoff,
    restarts: u64,
}

impl EdgePost {
    pub(in crate::supervisor) fn new(vintage: Vintage, limits: Limits) -> EdgePost {
        EdgePost {
            roster: Roster::new(MAX_UNANSWERED),
            is_wanted: true,
            limits,
            present: vintage,
            reserve: vintage,
            has_reserve: false,
            reserve_at: None,
            reserve_backoff: Backoff::reserve(),
            asked: None,
            successor: None,
            failed: None,
            start_at: None,
            backoff: Backoff::serving(),
            restarts: 0,
        }
    }

    /// For those started from now on.
    pub(in crate::supervisor) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// What serves, or is started if nobody does.
    pub(in crate::supervisor) fn present(&self) -> Vintage {
        self.present
    }

    /// What serves once every replacement asked for does.
    pub(in crate::supervisor) fn latest(&self) -> Vintage {
        let under_way = self.successor.as_ref().map(|one| one.request);
        self.asked
            .or(under_way)
            .map_or(self.present, |request| request.vintage)
    }

    /// Who serves.
    pub(in crate::supervisor) fn serving(&self) -> Option<u64> {
        let mut members = self.roster.iter().rev();
        let serving = members.find(|member| member.is_serving());
        serving.map(|member| member.generation)
    }

    /// The one started last of those that accept, or are about to.
    pub(in crate::supervisor) fn newest_on_duty(&self) -> Option<u64> {
        let on_duty = self.roster.iter().filter(|member| member.is_on_duty());
        on_duty.map(|member| member.generation).max()
    }

    /// Asks for a replacement. It begins when there is room and no other is
    /// under way; one that waits for that is given up for this one.
    pub(in crate::supervisor) fn replace(&mut self, request: Request) {
        self.asked = Some(request);
    }

    /// Whether a replacement is asked for or under way.
    pub(in crate::supervisor) fn is_replacing(&self) -> bool {
        self.asked.is_some() || self.successor.is_some()
    }

    /// Whether a replacement could begin.
    pub(in crate::supervisor) fn has_room(&self) -> bool {
        self.roster.len() < MAX_MEMBERS - 1
    }

    /// Lets a replacement that was asked for as held serve as soon as it can.
    pub(in crate::supervisor) fn release(&mut self, vintage: Vintage) {
        let under_way = self.successor.iter_mut().map(|one| &mut one.request);
        for request in under_way.chain(&mut self.asked) {
            request.is_held &= request.vintage != vintage;
        }
    }

    /// Gives a replacement up, unless it is the one that serves by now.
    pub(in crate::supervisor) fn abandon(&mut self, vintage: Vintage) {
        self.asked = self.asked.filter(|request| request.vintage != vintage);
        let generation = match &self.successor {
            Some(one) if one.request.vintage == vintage => one.generation,
            _ => return,
        };
        // One that was called may have accepted: it has to become ready first.
        if self
            .roster
            .any(|member| member.generation == generation && member.is_in_reserve())
        {
            self.successor = None;
            self.failed = Some((vintage, "given up".to_owned()));
        }
    }

    /// Whether one may stand by, and is to be dismissed if it does.
    pub(in crate::supervisor) fn allow_reserve(&mut self, has_reserve: bool) {
        self.has_reserve = has_reserve;
    }

    /// Whether one may stand by, as far as is known.
    pub(in crate::supervisor) fn is_reserve_allowed(&self) -> bool {
        self.has_reserve
    }

    /// Whether one does, or will.
    pub(in crate::supervisor) fn stands_by(&self) -> bool {
        self.roster
            .any(|member| member.is_in_reserve() && !self.is_successor(member))
    }

    /// Whether one would be started now if it is allowed.
    pub(in crate::supervisor) fn is_reserve_due(&self, now: Moment) -> bool {
        self.misses_reserve() && self.reserve_at.is_none_or(|at| at <= now)
    }

    /// What serves is what shall stand by as well.
    pub(in crate::supervisor) fn settle(&mut self) {
        self.reserve = self.present;
    }

    /// What stands by is what shall serve from now on.
    pub(in crate::supervisor) fn fall_back(&mut self) {
        self.present = self.reserve;
    }

    fn misses_reserve(&self) -> bool {
        let serves = self.roster.any(Member::is_serving);
        let has_one = self.roster.any(Member::is_in_reserve);
        self.is_wanted && serves && !has_one && !self.is_replacing() && self.has_room()
    }

    /// Nobody serves, and nobody will.
    fn is_deserted(&self) -> bool {
        let is_candidate = |member: &Member| member.is_on_duty() || member.is_in_reserve();
        self.is_wanted && !self.roster.any(is_candidate)
    }

    fn is_successor(&self, member: &Member) -> bool {
        let successor = self.successor.as_ref();
        successor.is_some_and(|one| one.generation == member.generation)
    }

    /// A replacement that was killed has failed, however long it takes to die.
    fn give_up_killed(&mut self) {
        let Some(one) = &self.successor else {
            return;
        };
        let member = self.roster.get(one.generation);
        if let Some(reason) = member.and_then(Member::killed_for) {
            self.failed = Some((one.request.vintage, reason.to_owned()));
            self.successor = None;
        }
    }

    /// A replacement that is warm; if nobody is on duty, whoever is warm.
    fn call(&mut self, now: Moment) -> Option<Action> {
        let is_deserted = !self.roster.any(Member::is_on_duty);
        let is_let = self
            .successor
            .as_ref()
            .is_some_and(|one| !one.request.is_held);
        let warm = self.roster.iter().filter(|member| member.is_warm());
        let callable = warm.filter(|member| is_deserted || (is_let && self.is_successor(member)));
        let best = callable.max_by_key(|member| {
            let is_next = is_let && self.is_successor(member);
            (is_next, member.vintage == self.present, member.generation)
        });
        let generation = best?.generation;
        Some(self.roster.get_mut(generation)?.call(now))
    }

    /// One serves: the others hand over, but for a replacement on its way.
    fn relieve(&mut self, now: Moment) -> Vec<Action> {
        let serving = self.roster.iter().filter(|member| member.is_serving());
        let heir = serving.max_by_key(|member| (member.vintage == self.present, member.generation));
        let Some(heir) = heir.map(|heir| heir.generation) else {
            return Vec::new();
        };
        let successor = self.successor.as_ref().map(|one| one.generation);
        let stays = |generation| generation == heir || Some(generation) == successor;
        let elders = self.roster.iter_mut();
        elders
            .filter(|member| member.is_on_duty() && !stays(member.generation))
            .map(|member| member.hand_over(now))
            .collect()
    }

    /// Whoever stands by though it may not, or is of another vintage, or is
    /// one too many. Not while nobody serves: then it is needed.
    fn dismiss(&mut self, now: Moment) -> Vec<Action> {
        if !self.roster.any(Member::is_serving) {
            return Vec::new();
        }
        let standing = self.roster.iter().filter(|member| {
            member.is_in_reserve() && member.vintage == self.reserve && !self.is_successor(member)
        });
        let kept = standing
            .max_by_key(|member| (member.is_warm(), std::cmp::Reverse(member.generation)))
            .filter(|_| self.has_reserve)
            .map(|member| member.generation);
        let successor = self.successor.as_ref().map(|one| one.generation);
        let members = self
            .roster
            .iter_mut()
            .filter(|member| member.is_in_reserve());
        members
            .filter(|member| ![kept, successor].contains(&Some(member.generation)))
            .map(|member| member.drain(now))
            .collect()
    }

    /// The one that is missing most.
    fn start(&mut self, now: Moment) -> Option<Action> {
        if self.is_deserted() {
            let is_due = self.start_at.is_none_or(|at| at <= now);
            if !is_due || self.roster.len() >= MAX_MEMBERS {
                return None;
            }
            self.start_at = None;
            return match self.asked.take() {
                Some(request) => Some(self.start_successor(request, now)),
                None => Some(self.roster.start(self.present, self.limits, now)),
            };
        }
        if self.successor.is_none()
            && self.has_room()
            && let Some(request) = self.asked.take()
        {
            return Some(self.start_successor(request, now));
        }
        if self.has_reserve && self.is_reserve_due(now) {
            return Some(self.roster.start(self.reserve, self.limits, now));
        }
        None
    }

    fn start_successor(&mut self, request: Request, now: Moment) -> Action {
        let action = self.roster.start(request.vintage, self.limits, now);
        let generation = match action {
            Action::Start(generation, _) => generation,
            _ => unreachable!("a start must be an order to start"),
        };
        self.successor = Some(Successor {
            request,
            generation,
        });
        action
    }

    /// Who does the work from now on; sets when to start if nobody would.
    fn relief(&mut self, duty: Duty, now: Moment) -> Relief {
        if !self.is_wanted {
            Relief::Nobody
        } else if self.roster.any(Member::is_serving) {
            Relief::Serves
        } else if self
            .roster
            .any(|member| member.is_on_duty() || member.is_warm())
        {
            Relief::TakesOver
        } else if self.roster.any(Member::is_in_reserve) {
            Relief::Loads
        } else {
            let delay = match duty {
                Duty::Serving(served) => self.backoff.died(served),
                Duty::Waiting | Duty::Leaving => Duration::ZERO,
            };
            self.start_at = Some(now + delay);
            Relief::Starts(delay)
        }
    }
}

impl Post for EdgePost {
    fn tick(&mut self, now: Moment) -> Vec<Action> {
        let mut actions = self.roster.kill_late(now);
        self.give_up_killed();
        if self.is_wanted {
            actions.extend(self.call(now));
            actions.extend(self.relieve(now));
            actions.extend(self.dismiss(now));
            actions.extend(self.start(now));
        } else {
            let members = self.roster.iter_mut();
            let staying = members
                .filter(|member| member.stage != Stage::Draining && member.killed_for().is_none());
            actions.extend(staying.map(|member| member.drain(now)));
        }
        actions
    }

    fn wake_at(&self) -> Option<Moment> {
        let start_at = self.start_at.filter(|_| self.is_deserted());
        let is_reserve_next = self.has_reserve && self.misses_reserve();
        let reserve_at = self.reserve_at.filter(|_| is_reserve_next);
        let late_at = self.roster.next_late();
        late_at.into_iter().chain(start_at).chain(reserve_at).min()
    }

    /// Those that hand over are drained as well.
    fn retire(&mut self) {
        self.is_wanted = false;
        self.asked = None;
        self.successor = None;
    }

    fn pinged(&mut self) {
        self.roster.pinged();
    }

    fn answered(&mut self, generation: u64) {
        self.roster.answered(generation);
    }

    fn warm(&mut self, generation: u64, _now: Moment) {
        self.roster.answered(generation);
        if let Some(member) = self.roster.get_mut(generation) {
            member.warm();
        }
    }

    fn ready(&mut self, generation: u64, now: Moment) {
        self.roster.answered(generation);
        let Some(member) = self.roster.get_mut(generation) else {
            return;
        };
        // One that was not called accepts nothing, whatever it says.
        if member.stage != Stage::Called || !member.serves(now) {
            return;
        }
        self.start_at = None;
        self.reserve_at = Some(now + RESERVE_PAUSE);
        if let Some(successor) = self.successor.take_if(|one| one.generation == generation) {
            let request = successor.request;
            self.present = request.vintage;
            if !request.keeps_reserve {
                self.reserve = request.vintage;
            }
        }
    }

    fn died(&mut self, generation: u64, ending: &Ending, now: Moment) -> Option<Departure> {
        let member = self.roster.remove(generation)?;
        let (reason, is_own_fault) = member.epitaph(ending);
        let is_alone = !self.roster.any(Member::is_on_duty);
        let duty = member.duty(is_alone, now);
        let lived = member.lived(now);
        if self.is_wanted && duty != Duty::Leaving {
            self.restarts += 1;
        }
        if let Some(successor) = self.successor.take_if(|one| one.generation == generation) {
            self.failed = Some((successor.request.vintage, reason.clone()));
        } else if duty == Duty::Waiting {
            self.reserve_at = Some(now + self.reserve_backoff.died(lived));
        }
        let relief = self.relief(duty, now);
        Some(Departure {
            vintage: member.vintage,
            duty,
            reason,
            is_own_fault,
            lived,
            relief,
        })
    }

    fn state_of(&self, generation: u64) -> Option<ProcessState> {
        self.roster.get(generation).map(Member::state)
    }

    fn is_manned(&self) -> bool {
        self.roster.any(Member::is_serving)
    }

    fn is_empty(&self) -> bool {
        self.roster.is_empty()
    }

    fn restarts(&self) -> u64 {
        self.restarts
    }

    fn vintages(&self) -> Vec<Vintage> {
        let members = self.roster.iter().map(|member| member.vintage);
        let asked = self.asked.map(|request| request.vintage);
        let successor = self.successor.as_ref().map(|one| one.request.vintage);
        members
            .chain([self.present, self.reserve])
            .chain(asked)
            .chain(successor)
            .collect()
    }

    fn progress(&self, vintage: Vintage) -> Progress {
        if self.asked.is_some_and(|request| request.vintage == vintage) {
            return Progress::Asked;
        }
        if let Some(successor) = &self.successor
            && successor.request.vintage == vintage
        {
            let member = self.roster.get(successor.generation);
            return match member {
                Some(member) if member.is_warm() => Progress::Warm,
                _ => Progress::Starting,
            };
        }
        let serves = |member: &Member| member.vintage == vintage && member.is_serving();
        if self.roster.any(serves) {
            return Progress::Serving;
        }
        match &self.failed {
            Some((failed, reason)) if *failed == vintage => Progress::Failed(reason.clone()),
            _ => Progress::Failed("another replacement took its place".to_owned()),
        }
    }
}
