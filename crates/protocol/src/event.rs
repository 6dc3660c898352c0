//! The hub's state log on the wire: its events, where one stands, what a whole state looks like, and why a subscriber
//! cannot simply go on.
//!
//! Events are told in the order of their offsets, and a [`Cursor`] is the id of one event. A log goes on after a cursor
//! only if it still has exactly that event; else it answers with a [`Refusal`], and the subscriber takes a [`Snapshot`],
//! which replaces all it has.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use utoipa::ToSchema;

use crate::household::Sealed;

/// A small fact that the hub tells every node. A new kind is one variant here and one arm of `fanout`'s `state::place`.
///
/// Each event says all there is to say about one thing, with a version: the newest replaces the earlier ones. So the state
/// is the newest event of each thing, and applying an event again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StateEvent {
    /// What the hub says about one node: a [`crate::household::Member`], sealed.
    Member {
        /// The member's record.
        record: Sealed,
    },
}

/// An event or snapshot that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A newer Hearth wrote it. Whoever skips it would have a state that is not the hub's.
    #[error(
        "`{0}` is a kind of event that this version does not know; update Hearth on this machine"
    )]
    UnknownKind(String),
    /// It is not what it should be.
    #[error("not a state event: {0}")]
    Malformed(String),
}

impl StateEvent {
    /// Its kind, as JSON and the event stream name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Member { .. } => "member",
        }
    }

    /// Reads the JSON of one event, and tells a kind of a newer Hearth from damage.
    ///
    /// # Errors
    /// Which of the two it is.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        serde_json::from_str(text).map_err(|error| {
            let value = serde_json::from_str(text).unwrap_or_default();
            unknown_kind(&value).unwrap_or_else(|| Unreadable::Malformed(error.to_string()))
        })
    }
}

/// Kinds that [`StateEvent`] has.
const KINDS: [&str; 1] = ["member"];

fn unknown_kind(event: &Value) -> Option<Unreadable> {
    let kind = event.get("kind")?.as_str()?;
    let known = KINDS.contains(&kind);
    (!known).then(|| Unreadable::UnknownKind(kind.chars().take(60).collect()))
}

/// The id of an event, and with it the place after it, written `EPOCH:OFFSET`: 16 hexadecimal digits and a decimal number.
/// In a stream of events it is the id and `Last-Event-ID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cursor {
    /// Random, of the process that wrote the event: two events with one offset and one epoch are the same event, also
    /// where a log was restored from an old copy and went on differently.
    pub epoch: u64,
    /// Counts the events of a log from 1, without gaps. At most `i64::MAX`.
    pub offset: u64,
}

impl Cursor {
    /// Before the first event of a log.
    pub const START: Self = Self {
        epoch: 0,
        offset: 0,
    };
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}:{}", self.epoch, self.offset)
    }
}

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cursor is the id of an event, EPOCH:OFFSET, for example 0123456789abcdef:42")]
pub struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    /// Takes what [`Display`](fmt::Display) writes, and no other way to write the same.
    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (epoch, offset) = text.split_once(':').ok_or(NotACursor)?;
        let cursor = Self {
            epoch: u64::from_str_radix(epoch, 16).map_err(|_| NotACursor)?,
            offset: offset.parse().map_err(|_| NotACursor)?,
        };
        let sound = i64::try_from(cursor.offset).is_ok() && cursor.to_string() == text;
        sound.then_some(cursor).ok_or(NotACursor)
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The whole state after one event. It replaces what a subscriber has, and is never merged with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The last event in it; deltas go on after it.
    #[schema(value_type = String)]
    pub cursor: Cursor,
    /// The newest event of each thing, in no particular order.
    pub state: Vec<StateEvent>,
}

impl Snapshot {
    /// Reads the JSON of a snapshot.
    ///
    /// # Errors
    /// If it is damaged, or holds a kind of event that only a newer Hearth knows: half a state would be a wrong one.
    pub fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        serde_json::from_slice(text).map_err(|error| {
            let value: Value = serde_json::from_slice(text).unwrap_or_default();
            let events = value.get("state").and_then(Value::as_array);
            events
                .and_then(|events| events.iter().find_map(unknown_kind))
                .unwrap_or_else(|| Unreadable::Malformed(error.to_string()))
        })
    }
}

/// Why a subscriber cannot go on after its cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The events after it are no longer kept.
    Behind,
    /// The log has another event at its offset: it was made anew, or restored from an older copy and went on.
    OtherEpoch,
    /// The log has not come so far: it lost its end, or it is a follower's that lags.
    Ahead,
}

/// What a subscriber is told instead of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error(
    "{}; this log goes on after {begin} up to {end}: {}",
    match reason {
        Reason::Behind => "the events after this cursor are no longer kept",
        Reason::OtherEpoch => "this log has another event at this offset",
        Reason::Ahead => "this log ends before this cursor",
    },
    if *leads || *reason == Reason::Behind {
        "take a snapshot, which replaces what you have"
    } else {
        "it follows the hub and may lag; ask again later, or ask the hub"
    }
)]
pub struct Refusal {
    /// What is wrong with the cursor.
    pub reason: Reason,
    /// The oldest cursor that the log goes on after.
    #[schema(value_type = String)]
    pub begin: Cursor,
    /// Its last event.
    #[schema(value_type = String)]
    pub end: Cursor,
    /// Whether this is the hub's own log. A follower's may lag, so nobody goes back to its state.
    pub leads: bool,
}

impl Refusal {
    /// Whether the subscriber is to take a snapshot where it was refused; else it asks again later, or asks the hub.
    pub fn wants_snapshot(&self) -> bool {
        self.leads || self.reason == Reason::Behind
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn member(text: &str) -> StateEvent {
        StateEvent::Member {
            record: Sealed {
                text: text.to_owned(),
                signature: "c2ln".to_owned(),
            },
        }
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_as_it_was_written(epoch: u64, offset in 0..=i64::MAX as u64) {
            let cursor = Cursor { epoch, offset };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
            let json = serde_json::to_string(&cursor).unwrap();
            prop_assert_eq!(serde_json::from_str::<Cursor>(&json).unwrap(), cursor);
        }

        #[test]
        fn no_other_text_is_a_cursor(text in "[0-9a-fA-F+ :-]{0,40}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn texts_that_look_like_a_cursor() {
        for text in [
            "",
            ":",
            "42",
            "0123456789abcdef",
            "0123456789ABCDEF:1",
            "123:1",
            "0123456789abcdef:01",
            "0123456789abcdef:+1",
            "0123456789abcdef:-1",
            "0123456789abcdef:9223372036854775808",
            "0123456789abcdef:1 ",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(NotACursor), "{text}");
        }
        assert_eq!("0000000000000000:0".parse(), Ok(Cursor::START));
    }

    #[test]
    fn an_event_says_its_kind() {
        let event = member("{}");
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["kind"], event.kind());
        assert!(KINDS.contains(&event.kind()));
        assert_eq!(StateEvent::parse(&json.to_string()), Ok(event));
    }

    #[test]
    fn a_kind_of_a_newer_version_is_told_from_damage() {
        let newer = r#"{"kind":"ban","address":"192.0.2.7"}"#;
        let unknown = Unreadable::UnknownKind("ban".to_owned());
        assert_eq!(StateEvent::parse(newer), Err(unknown.clone()));
        assert!(unknown.to_string().contains("update Hearth"));
        for damaged in ["", "{", "[]", "{}", r#"{"kind":7}"#, r#"{"kind":"member"}"#] {
            let error = StateEvent::parse(damaged).unwrap_err();
            assert!(matches!(error, Unreadable::Malformed(_)), "{damaged}");
        }
        let known = serde_json::to_string(&member("{}")).unwrap();
        let snapshot = |state: &str, more: &str| {
            let text = format!(
                r#"{{"cursor":"{}","state":[{state}]{more}}}"#,
                Cursor::START
            );
            Snapshot::parse(text.as_bytes())
        };
        assert_eq!(snapshot(&known, "").unwrap().state, [member("{}")]);
        assert_eq!(snapshot(&format!("{known},{newer}"), ""), Err(unknown));
        let error = snapshot(&known, r#","more":1"#).unwrap_err();
        assert!(matches!(error, Unreadable::Malformed(_)), "{error}");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let refusal = |reason, leads| Refusal {
            reason,
            begin: Cursor::START,
            end: Cursor::START,
            leads,
        };
        assert!(
            refusal(Reason::Ahead, true)
                .to_string()
                .contains("take a snapshot")
        );
        assert!(refusal(Reason::Behind, false).wants_snapshot());
        let lagging = refusal(Reason::Ahead, false);
        assert!(!lagging.wants_snapshot());
        assert!(lagging.to_string().contains("ask again later"));
        let json = serde_json::to_value(lagging).unwrap();
        assert_eq!(json["reason"], "ahead");
        assert_eq!(serde_json::from_value::<Refusal>(json).unwrap(), lagging);
    }
}
