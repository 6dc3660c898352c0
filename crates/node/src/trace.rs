//! A request's place in a trace, as W3C has it (Trace Context, `traceparent`), and how its span goes along with work
//! that leaves its task.
//!
//! The trace's id is on the request's span, so that every log line of the request carries it. Handlers do not pass the
//! place on: it is the task's ([`here`]), because everything that answers a request runs in the request's task.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, HeaderName};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tokio::task::JoinHandle;
use tracing::Span;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// How a caller learns of a trace that it did not begin. W3C's own header for it, `traceresponse`, is a draft that names
/// one span; an answer may have several.
pub(crate) const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");

tokio::task_local! {
    static PLACE: Place;
}

/// A request's place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The trace; never all zeros.
    pub trace: u128,
    /// The caller's span, if it named one.
    pub parent: Option<u64>,
    /// Whether the trace is recorded: the caller's word, else yes.
    pub sampled: bool,
}

impl Place {
    /// As the request says, else at the beginning of a new trace.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut said = headers.get_all(&TRACEPARENT).iter();
        // Two parents are none.
        let one = said.next().filter(|_| said.next().is_none());
        let parent = one.and_then(|parent| parse(parent.to_str().ok()?));
        match parent {
            Some((trace, parent, sampled)) => Self {
                trace,
                parent: Some(parent),
                sampled,
            },
            None => Self {
                trace: rand::random::<u128>().max(1),
                parent: None,
                sampled: true,
            },
        }
    }

    /// The trace's id in 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

/// Trace, parent and whether it is sampled. Of a version that is not known the known fields count.
fn parse(text: &str) -> Option<(u128, u64, bool)> {
    let number = |text: &str, digits: usize| {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_whole = text.len() == digits && text.bytes().all(is_hex);
        is_whole.then(|| u128::from_str_radix(text, 16).ok())?
    };
    let mut fields = text.trim().split('-');
    let version = number(fields.next()?, 2)?;
    let trace = number(fields.next()?, 32)?;
    let parent = number(fields.next()?, 16)? as u64;
    let flags = number(fields.next()?, 2)?;
    let is_over = fields.next().is_none();
    let is_known = version == 0 && is_over || version != 0 && version != 0xff;
    (is_known && trace != 0 && parent != 0).then_some((trace, parent, flags & 1 == 1))
}

/// The place of the request that this task answers; `None` outside of requests.
pub(crate) fn here() -> Option<Place> {
    PLACE.try_with(|place| *place).ok()
}

/// Answers a request at this place.
pub(crate) async fn at<T>(place: Place, answer: impl Future<Output = T>) -> T {
    PLACE.scope(place, answer).await
}

/// [`tokio::task::spawn_blocking`], with the request's span around the work.
pub(crate) fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let span = Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
}

/// The response with its body written inside of the span: streams go on long after the handler.
pub(crate) fn spanned(response: Response, span: Span) -> Response {
    response.map(|body| Body::new(Spanned { body, span }))
}

struct Spanned {
    body: Body,
    span: Span,
}

impl HttpBody for Spanned {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let _entered = this.span.enter();
        Pin::new(&mut this.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::http::HeaderValue;

    use super::*;

    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;

    #[test]
    fn a_callers_place_is_taken_as_w3c_has_it() {
        let ids = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        for (text, sampled) in [
            (format!("00-{ids}-01"), Some(true)),
            (format!("00-{ids}-00"), Some(false)),
            (format!("00-{ids}-03"), Some(true)),
            // A later version may say more.
            (format!("01-{ids}-01-more"), Some(true)),
            (format!("00-{ids}-01-more"), None),
            (format!("ff-{ids}-01"), None),
            (format!("00-{}-01", ids.to_uppercase()), None),
            (format!("00-{ids}"), None),
            (format!("00-{}-01", ids.replace("4bf", "")), None),
            (format!("00-{:032x}-{PARENT:016x}-01", 0), None),
            (format!("00-{TRACE:032x}-{:016x}-01", 0), None),
            (String::new(), None),
        ] {
            let expected = sampled.map(|sampled| (TRACE, PARENT, sampled));
            assert_eq!(parse(&text), expected, "{text}");
        }
    }

    #[test]
    fn two_parents_are_none_and_a_trace_begins() {
        let parent = format!("00-{TRACE:032x}-{PARENT:016x}-00");
        let parent = HeaderValue::from_str(&parent).unwrap();
        let mut headers = HeaderMap::new();
        headers.append(&TRACEPARENT, parent.clone());
        let place = Place::of(&headers);
        assert_eq!((place.trace, place.parent), (TRACE, Some(PARENT)));
        assert!(!place.sampled, "as the caller says");
        headers.append(&TRACEPARENT, parent);
        let place = Place::of(&headers);
        assert!(place.trace != TRACE && place.trace != 0);
        assert_eq!((place.parent, place.sampled), (None, true));
    }
}
