//! The one rule of how an event changes the state: of each thing, the event with the highest version stays.
//!
//! [`place`] has one arm for each kind of event. Storages know no kinds; they keep the newest row of each place.

use hearth_protocol::event::StateEvent;
use hearth_protocol::household::{NodeId, Sealed};
use serde::Deserialize;

use crate::Error;

/// Largest event, in bytes of its JSON: subscribers hold one in memory while it arrives.
pub const EVENT_LIMIT: usize = 256 * 1024;

/// Which thing an event is about, and which word about it this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Names the thing among those of its kind.
    pub key: String,
    /// From 1; a higher one replaces a lower one.
    pub version: u64,
}

/// An event, ready to be stored.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub kind: &'static str,
    pub place: Place,
    /// JSON of the event.
    pub body: String,
}

impl Row {
    /// Finds an event's place and writes it down.
    pub fn new(event: &StateEvent) -> Result<Self, Error> {
        let kind = event.kind();
        let unusable = |reason: String| Error::Unusable { kind, reason };
        let place = place(event).map_err(unusable)?;
        if place.version == 0 || i64::try_from(place.version).is_err() {
            return Err(unusable("its version is not between 1 and 2^63 - 1".into()));
        }
        let body = serde_json::to_string(event).map_err(|error| unusable(error.to_string()))?;
        if body.len() > EVENT_LIMIT {
            return Err(Error::TooLarge { bytes: body.len() });
        }
        Ok(Self { kind, place, body })
    }

    /// The error of one whose place holds as new a word already.
    pub fn stale(&self) -> Error {
        Error::Stale {
            kind: self.kind,
            key: self.place.key.clone(),
            version: self.place.version,
        }
    }
}

fn place(event: &StateEvent) -> Result<Place, String> {
    match event {
        StateEvent::Member { record } => member(record),
    }
}

fn member(record: &Sealed) -> Result<Place, String> {
    /// What of a [`hearth_protocol::household::Member`] matters here.
    #[derive(Deserialize)]
    struct Said {
        node: NodeId,
        version: u64,
    }
    let said: Said = serde_json::from_str(&record.text).map_err(|error| error.to_string())?;
    Ok(Place {
        key: said.node.to_string(),
        version: said.version,
    })
}
