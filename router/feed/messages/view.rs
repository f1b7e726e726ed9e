//! An app's record read where it lies, without a copy of any text.
//!
//! Owns the reading of an encoded [`AppRecord`] into an [`AppView`], which has
//! what a router needs of it: a start with a million apps reads ten million
//! texts and keeps few of them. Never checks what a record means.
//!
//! **Invariant**: it accepts exactly the bytes that [`AppRecord::decode`]
//! accepts, and tells the same of them: unknown fields are passed over, of a
//! field that comes twice the last counts, parts of a policy add up, texts are
//! UTF-8.
//!
//! [`AppRecord::decode`]: prost::Message::decode

use prost::bytes::Buf;
use prost::encoding::{
    DecodeContext, WireType, check_wire_type, decode_key, decode_varint, skip_field,
};
use prost::{DecodeError, Message};

use super::{AppRecord, BackendRecord, PolicyRecord};

/// An app's record, borrowed from its bytes or from an [`AppRecord`], whose
/// fields these are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppView<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its domains.
    pub domains: Vec<&'a str>,
    /// What it overrides.
    pub policy: Option<PolicyRecord>,
    /// Its instances.
    pub backends: Vec<BackendView<'a>>,
    /// The store's revision of its last change.
    pub revision: u64,
}

/// What a router needs of a [`BackendRecord`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendView<'a> {
    /// Its id.
    pub id: &'a str,
    /// `ip:port`.
    pub address: &'a str,
    /// Its share.
    pub weight: u32,
    /// The release it runs.
    pub release: &'a str,
    /// A [`Standing`](super::Standing).
    pub standing: i32,
    /// New with every registration under another address.
    pub incarnation: u64,
    /// Out of rotation by an operator's order.
    pub ejected: bool,
}

/// Why bytes are not an encoded record.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// They are not protobuf, or a field is of another kind.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text(#[from] std::str::Utf8Error),
    /// A length is over what is left.
    #[error("a length over what is left")]
    Length,
}

impl<'a> AppView<'a> {
    /// The view of a decoded record.
    pub fn of(record: &'a AppRecord) -> AppView<'a> {
        AppView {
            name: &record.name,
            domains: record.domains.iter().map(String::as_str).collect(),
            policy: record.policy.clone(),
            backends: record.backends.iter().map(BackendView::of).collect(),
            revision: record.revision,
        }
    }

    /// Reads an encoded record in place of what it was a view of.
    ///
    /// # Errors
    /// The bytes are not an encoded [`AppRecord`]; the view is then of no use.
    pub fn read(&mut self, mut bytes: &'a [u8]) -> Result<(), ViewError> {
        self.name = "";
        self.domains.clear();
        self.policy = None;
        self.backends.clear();
        self.revision = 0;
        while bytes.has_remaining() {
            let (tag, kind) = decode_key(&mut bytes)?;
            match tag {
                1 => self.name = text(kind, &mut bytes)?,
                2 => self.domains.push(text(kind, &mut bytes)?),
                3 => {
                    let part = delimited(kind, &mut bytes)?;
                    self.policy.get_or_insert_default().merge(part)?;
                }
                4 => {
                    let part = delimited(kind, &mut bytes)?;
                    self.backends.push(BackendView::read(part)?);
                }
                5 => self.revision = integer(kind, &mut bytes)?,
                _ => skip_field(kind, tag, &mut bytes, DecodeContext::default())?,
            }
        }
        Ok(())
    }
}

impl<'a> BackendView<'a> {
    fn of(record: &'a BackendRecord) -> BackendView<'a> {
        BackendView {
            id: &record.id,
            address: &record.address,
            weight: record.weight,
            release: &record.release,
            standing: record.standing,
            incarnation: record.incarnation,
            ejected: record.ejected,
        }
    }

    fn read(mut bytes: &'a [u8]) -> Result<BackendView<'a>, ViewError> {
        let mut view = BackendView::default();
        while bytes.has_remaining() {
            let (tag, kind) = decode_key(&mut bytes)?;
            match tag {
                1 => view.id = text(kind, &mut bytes)?,
                2 => view.address = text(kind, &mut bytes)?,
                3 => view.weight = integer(kind, &mut bytes)? as u32,
                4 => view.release = text(kind, &mut bytes)?,
                5 => view.standing = integer(kind, &mut bytes)? as i32,
                6 => view.incarnation = integer(kind, &mut bytes)?,
                9 => view.ejected = integer(kind, &mut bytes)? != 0,
                // Control's own, but a record with nonsense there is none.
                7 | 8 | 10 => drop(integer(kind, &mut bytes)?),
                _ => skip_field(kind, tag, &mut bytes, DecodeContext::default())?,
            }
        }
        Ok(view)
    }
}

fn integer(kind: WireType, bytes: &mut &[u8]) -> Result<u64, ViewError> {
    check_wire_type(WireType::Varint, kind)?;
    Ok(decode_varint(bytes)?)
}

fn delimited<'a>(kind: WireType, bytes: &mut &'a [u8]) -> Result<&'a [u8], ViewError> {
    check_wire_type(WireType::LengthDelimited, kind)?;
    split_delimited(bytes)
}

fn text<'a>(kind: WireType, bytes: &mut &'a [u8]) -> Result<&'a str, ViewError> {
    let text = delimited(kind, bytes)?;
    Ok(std::str::from_utf8(text)?)
}

/// Takes a message and its length's prefix off the front of `bytes`.
///
/// # Errors
/// The length is none, or over what is left.
pub fn split_delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], ViewError> {
    let length = decode_varint(bytes)?;
    let cut = usize::try_from(length)
        .ok()
        .and_then(|length| bytes.split_at_checked(length));
    let (message, rest) = cut.ok_or(ViewError::Length)?;
    *bytes = rest;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::feed::messages::{HedgeRecord, ProbeRecord, StatusRange};

    fn policy() -> impl Strategy<Value = PolicyRecord> {
        let numbers = any::<(Option<u64>, Option<u32>, Option<bool>)>();
        (numbers, any::<(bool, u32)>()).prop_map(|((time, count, flag), (has_more, number))| {
            PolicyRecord {
                deadline_ms: time,
                retries: count,
                ejection: flag,
                hedge: has_more.then_some(HedgeRecord {
                    permille: Some(number),
                    ..HedgeRecord::default()
                }),
                probe: has_more.then(|| ProbeRecord {
                    path: "/up".to_owned(),
                    statuses: vec![StatusRange {
                        first: number,
                        last: 2,
                    }],
                    ..ProbeRecord::default()
                }),
                ..PolicyRecord::default()
            }
        })
    }

    fn backend() -> impl Strategy<Value = BackendRecord> {
        let texts = (".{0,9}", ".{0,9}", ".{0,9}");
        let numbers = any::<(u32, i32, u64, u32, u64, bool)>();
        (texts, numbers).prop_map(|((id, address, release), numbers)| BackendRecord {
            id,
            address,
            release,
            weight: numbers.0,
            standing: numbers.1,
            incarnation: numbers.2,
            lease_seconds: numbers.3,
            drain_ms: numbers.4,
            ejected: numbers.5,
            ejected_at_ms: numbers.4 / 2,
        })
    }

    fn record() -> impl Strategy<Value = AppRecord> {
        (
            ".{0,12}",
            proptest::collection::vec(".{0,20}", 0..4),
            proptest::option::of(policy()),
            proptest::collection::vec(backend(), 0..4),
            any::<u64>(),
        )
            .prop_map(|(name, domains, policy, backends, revision)| AppRecord {
                name,
                domains,
                policy,
                backends,
                revision,
            })
    }

    /// Both readings of the same bytes.
    fn agree(bytes: &[u8]) -> Result<(), TestCaseError> {
        let decoded = AppRecord::decode(bytes);
        let mut view = AppView {
            name: "left over",
            domains: vec!["left over"],
            ..AppView::default()
        };
        let read = view.read(bytes);
        prop_assert_eq!(read.is_ok(), decoded.is_ok(), "{:?} {:?}", read, decoded);
        if let Ok(decoded) = decoded {
            prop_assert_eq!(view, AppView::of(&decoded));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn reads_what_is_decoded(record in record()) {
            agree(&record.encode_to_vec())?;
        }

        /// Damage, unknown fields, wrong kinds of fields, repeated ones.
        #[test]
        fn refuses_and_passes_over_the_same(
            record in record(),
            other in record(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
            is_cut in proptest::bool::weighted(0.2),
        ) {
            let mut bytes = record.encode_to_vec();
            bytes.extend(other.encode_to_vec());
            // Field 77, a varint; field 78, bytes.
            bytes.extend([0xe8, 0x04, 0x05, 0xf2, 0x04, 0x01, 0xff]);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if is_cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            agree(&bytes)?;
        }
    }
}
