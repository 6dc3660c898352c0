//! What two nodes say to each other while one answers for the other: a question, then frames as lines of JSON.
//!
//! While the answering node works it sends a frame now and then ([`hearth_dispatch::serving`]), so that silence means that
//! it is gone and a long prompt needs no long time limit.

use hearth_dispatch::CommitWhen;
use hearth_engine::{Event, Request};
use hearth_protocol::error::ApiError;
use serde::{Deserialize, Serialize};

use super::task::Answer;
use crate::failure::Failure;

/// Version of these shapes. What an older node would misunderstand gets another number.
pub(crate) const VERSION: u32 = 1;
/// Longest frame in bytes: the probabilities of a token and its 20 likeliest others take some thousands.
pub(crate) const LONGEST: usize = 1 << 20;

/// The body of `POST /peer/generate`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Question {
    /// [`VERSION`] of who asks.
    pub version: u32,
    /// Name of the run, drawn by who asks: 32 hexadecimal digits.
    pub run: String,
    /// The model; `None` is the default one of the node that is asked.
    pub model: Option<String>,
    /// Whether the commit comes when everything is there, and not after the first token.
    #[serde(default)]
    pub commit_at_end: bool,
    /// What is asked.
    pub request: Request,
}

impl Question {
    /// When who asks commits.
    pub fn commit_when(&self) -> CommitWhen {
        match self.commit_at_end {
            true => CommitWhen::Held,
            false => CommitWhen::FirstToken,
        }
    }
}

/// What a node is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// The model is being loaded, or the request waits to be taken.
    Loading,
    /// Waits for a slot.
    Queued,
    /// Reads the prompt.
    Prefilling,
    /// Writes.
    Decoding,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Frame {
    /// The request is read and will be worked on.
    Accepted,
    /// The model that answers, once it is known.
    Model(String),
    /// Nothing new, but it is being worked on.
    Working {
        /// At what.
        at: Work,
        /// Tokens that the node computed so far, of all requests: a number that stands still means that it is stuck.
        computed: u64,
    },
    /// Everything is there but the end, which waits for the commit.
    Held,
    /// Something happened.
    Event(Event),
    /// All of what a task comes to (`POST /peer/task`); nothing follows.
    Answer(Answer),
    /// It broke off, or never began.
    Failed {
        /// HTTP status that the failure has.
        status: u16,
        /// Seconds until another try makes sense.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
        /// What is wrong, with the engine's names of fields.
        error: ApiError,
    },
}

impl Frame {
    /// A failure as a frame.
    pub fn failed(failure: Failure) -> Self {
        Self::Failed {
            status: failure.status.as_u16(),
            retry_after: failure.retry_after,
            error: failure.error,
        }
    }

    /// Appends the frame as a line.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Nothing in a frame can fail to be written: no maps with odd keys, no foreign types.
        let _ = serde_json::to_writer(&mut *out, self);
        out.push(b'\n');
    }
}

/// Reads frames from pieces of any length.
#[derive(Debug)]
pub(crate) struct Frames {
    held: Vec<u8>,
    /// Up to where `held` was looked through for an end of line.
    seen: usize,
    /// Bytes that a frame may have.
    longest: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self::up_to(LONGEST)
    }
}

impl Frames {
    /// Takes frames of up to so many bytes.
    pub fn up_to(longest: usize) -> Self {
        Self {
            held: Vec::new(),
            seen: 0,
            longest,
        }
    }

    /// Takes a piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.held.extend_from_slice(piece);
    }

    /// The next whole frame, if there is one; an error if the other end writes something else.
    pub fn next(&mut self) -> Option<Result<Frame, String>> {
        let Some(at) = self.held[self.seen..]
            .iter()
            .position(|byte| *byte == b'\n')
        else {
            self.seen = self.held.len();
            return (self.seen > self.longest).then(|| Err("a frame has no end".into()));
        };
        let line: Vec<u8> = self.held.drain(..=self.seen + at).collect();
        self.seen = 0;
        Some(serde_json::from_slice(&line).map_err(|error| format!("a frame is wrong: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_engine::{Chat, Constraint, Prompt};
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_question_stays_what_it_is() {
        let mut request = Request::new(Prompt::Chat(Chat::new(vec![
            json!({"role": "user", "content": "Grüße \u{2028} 🔥"}),
        ])));
        request.constraint = Constraint::JsonSchema(json!({"type": "object"}));
        request.sampling.logit_bias = vec![(3, -1.5)];
        request.sampling.seed = Some(u64::MAX);
        request.stop = vec!["\n".into()];
        let question = Question {
            version: VERSION,
            run: "0".repeat(32),
            model: Some("m".into()),
            commit_at_end: false,
            request: request.clone(),
        };
        let json = serde_json::to_string(&question).expect("JSON");
        let read: Question = serde_json::from_str(&json).expect("the same");
        assert_eq!(read.request, request);
        insta::assert_snapshot!(json);
    }

    #[test]
    fn frames_have_these_shapes() {
        let frames = [
            Frame::Accepted,
            Frame::Model("ember".into()),
            Frame::Working {
                at: Work::Prefilling,
                computed: 7,
            },
            Frame::Event(Event::Text {
                choice: 0,
                text: "a".into(),
                logprobs: vec![],
            }),
            Frame::Held,
            Frame::Event(Event::Done(Default::default())),
            Frame::Failed {
                status: 429,
                retry_after: Some(1),
                error: ApiError::new("rate_limit_error", None, "full"),
            },
        ];
        let mut out = Vec::new();
        for frame in &frames {
            frame.write(&mut out);
        }
        insta::assert_snapshot!(String::from_utf8(out.clone()).expect("text"));
        let mut reader = Frames::default();
        reader.push(&out);
        for frame in frames {
            assert_eq!(reader.next(), Some(Ok(frame)));
        }
        assert_eq!(reader.next(), None);
    }

    proptest! {
        #[test]
        fn pieces_of_any_length_give_the_same_frames(cuts in proptest::collection::vec(1..40_usize, 1..40)) {
            let mut all = Vec::new();
            for number in 0..20 {
                let text = "ü\n\"".repeat(number);
                Frame::Event(Event::Reasoning { choice: 0, text }).write(&mut all);
            }
            let mut whole = Frames::default();
            whole.push(&all);
            let mut parts = Frames::default();
            let mut found = Vec::new();
            let (mut rest, mut cuts) = (all.as_slice(), cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                parts.push(piece);
                rest = after;
                found.extend(std::iter::from_fn(|| parts.next()));
            }
            let expected: Vec<_> = std::iter::from_fn(|| whole.next()).collect();
            prop_assert_eq!(expected.len(), 20);
            prop_assert_eq!(found, expected);
        }
    }
}
