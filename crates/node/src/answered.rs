//! Which machine answered a request, and why it: noted by whoever chose, told in the answer's headers.
//!
//! The note is the task's, as the request's place in a trace is, so that no surface has to pass it on. A node that is
//! alone notes nothing.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// The machine that answered.
const NODE: HeaderName = HeaderName::from_static("hearth-node");
/// Why it did.
const WHY: HeaderName = HeaderName::from_static("hearth-why");

tokio::task_local! {
    static NOTE: Note;
}

/// What is noted of one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Note(Arc<Mutex<Option<(String, String)>>>);

impl Note {
    /// Answers a request whose handler may note something.
    pub async fn taken<T>(&self, answer: impl Future<Output = T>) -> T {
        NOTE.scope(self.clone(), answer).await
    }

    /// The note of the request that this task answers; `None` outside of requests.
    pub fn here() -> Option<Self> {
        NOTE.try_with(Clone::clone).ok()
    }

    /// Notes which machine answers; the last word counts.
    pub fn set(&self, node: &str, why: &str) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *noted = Some((node.to_owned(), why.to_owned()));
    }

    /// Says on an answer what was noted.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((node, why)) = &*noted else { return };
        for (name, text) in [(NODE, node), (WHY, why)] {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        }
    }
}
