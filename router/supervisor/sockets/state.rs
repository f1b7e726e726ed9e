//! The sockets as a successor takes them over: descriptors by number, each
//! with the address asked for and the one bound.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use serde::{Deserialize, Serialize};

use super::door::Door;
use super::{Group, Single, Sockets};
use crate::heritage::{Adopter, HeritageError};

/// All of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::supervisor) struct SocketsState {
    http: Vec<Held>,
    api: Held,
    admin: Held,
    feed: RawFd,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Held {
    asked: SocketAddr,
    bound: SocketAddr,
    sockets: Vec<RawFd>,
    /// Of each, the first edge that was lent it. A predecessor that did not tell
    /// lent all to everybody.
    #[serde(default)]
    lent: Vec<Option<u64>>,
}

impl SocketsState {
    /// Every descriptor it names.
    pub(in crate::supervisor) fn numbers(&self) -> Vec<RawFd> {
        let held = self.http.iter().chain([&self.api, &self.admin]);
        held.flat_map(|held| held.sockets.iter().copied())
            .chain([self.feed])
            .collect()
    }
}

impl Sockets {
    /// As they are.
    pub(in crate::supervisor) fn leave(&self) -> SocketsState {
        let single = |single: &Single| Held {
            asked: single.asked,
            bound: single.bound,
            sockets: vec![single.socket.as_raw_fd()],
            lent: Vec::new(),
        };
        let group = |group: &Group| Held {
            asked: group.asked,
            bound: group.bound,
            sockets: group
                .doors
                .iter()
                .map(|door| door.as_fd().as_raw_fd())
                .collect(),
            lent: group.doors.iter().map(Door::first).collect(),
        };
        SocketsState {
            http: self.http.iter().map(group).collect(),
            api: single(&self.api),
            admin: single(&self.admin),
            feed: self.feed.as_raw_fd(),
        }
    }

    /// What has to stay open.
    pub(in crate::supervisor) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let http = self.http.iter().flat_map(|group| &group.doors);
        http.map(AsFd::as_fd)
            .chain([&self.api.socket, &self.admin.socket].map(AsFd::as_fd))
            .chain([self.feed.as_fd()])
            .collect()
    }

    /// As they were left.
    ///
    /// # Errors
    /// One is not open, or no socket.
    pub(in crate::supervisor) fn enter(
        state: &SocketsState,
        adopter: &mut Adopter,
    ) -> Result<Sockets, HeritageError> {
        let mut http = Vec::with_capacity(state.http.len());
        for held in &state.http {
            let doors = held.sockets.iter().enumerate().map(|(index, fd)| {
                let socket = adopter.tcp(*fd, "edge listener")?;
                let first = held.lent.get(index).copied().unwrap_or(Some(0));
                Ok(Door::lent(socket, first))
            });
            http.push(Group {
                asked: held.asked,
                bound: held.bound,
                doors: doors.collect::<Result<_, _>>()?,
            });
        }
        let mut single = |held: &Held, what| {
            let fd = held.sockets.first().copied().unwrap_or(-1);
            Ok(Single {
                asked: held.asked,
                bound: held.bound,
                socket: adopter.tcp(fd, what)?,
            })
        };
        Ok(Sockets {
            http,
            api: single(&state.api, "API listener")?,
            admin: single(&state.admin, "admin listener")?,
            feed: adopter.unix(state.feed, "feed listener")?,
        })
    }
}
