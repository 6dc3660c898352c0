//! Asking another node: a request over its best door, and an answer whose body comes in pieces.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, DATE, HeaderValue};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use hearth_mesh::peers::{Answer, PathTaken, SendError};
use hearth_protocol::error::Problem;
use hearth_protocol::household::{Address, Member, NodeId};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Household, Live};

/// Longest answer that is read whole.
const LONGEST: usize = 64 << 20;
/// How long an answer that is read whole may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer on its way.
pub(crate) type Asking = Pin<Box<dyn Future<Output = Result<Reply, Unasked>> + Send>>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unasked {
    /// This node is alone.
    #[error("this machine belongs to no household")]
    Alone,
    /// There is nobody to ask.
    #[error(
        "no hub of the household is known; if this machine was one, set its database_url again"
    )]
    NoHub,
    /// It cannot be reached.
    #[error(transparent)]
    Unsent(#[from] SendError),
}

/// An answer that has begun.
#[derive(Debug)]
pub(crate) struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Incoming,
    /// The way that was taken.
    pub path: PathTaken,
}

impl Reply {
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The other machine's time, in seconds since 1970, if it says so.
    pub fn date(&self) -> Option<i64> {
        let text = self.headers.get(DATE)?.to_str().ok()?;
        let parsed = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text);
        Some(parsed.ok()?.as_second())
    }

    /// The next piece of the body; `None` after the last. Dropping the future loses nothing.
    pub async fn piece(&mut self) -> Option<Result<Bytes, String>> {
        loop {
            let frame = match self.body.frame().await? {
                Ok(frame) => frame,
                Err(error) => return Some(Err(error.to_string())),
            };
            if let Ok(piece) = frame.into_data() {
                return Some(Ok(piece));
            }
        }
    }

    /// The whole body.
    pub async fn whole(self) -> Result<Bytes, String> {
        let reading = Limited::new(self.body, LONGEST).collect();
        match tokio::time::timeout(PATIENCE, reading).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the answer was not there within {PATIENCE:?}")),
        }
    }

    /// What a problem document says: its kind and its words.
    pub async fn problem(self) -> (StatusCode, Option<String>, String) {
        let status = self.status;
        let bytes = self.whole().await.unwrap_or_default();
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => {
                let code = problem.kind.rsplit('/').next().unwrap_or_default();
                (status, Some(code.to_owned()), problem.detail)
            }
            Err(_) => (status, None, format!("it answers with status {status}")),
        }
    }

    /// The stable name of a refusal, as its head says it.
    pub fn code(&self) -> String {
        let code = self.headers.get(hearth_mesh::signature::REFUSAL);
        let code = code.and_then(|code| code.to_str().ok());
        code.unwrap_or("refused").to_owned()
    }
}

impl Household {
    /// Asks a member. The answer has to begin in time.
    pub fn ask(self: Arc<Self>, member: Member, request: Request<Bytes>, head: Duration) -> Asking {
        Box::pin(async move {
            self.send(member.node, &member.addresses, request, head)
                .await
        })
    }

    /// Asks a node at these addresses.
    pub async fn send(
        &self,
        node: NodeId,
        addresses: &[Address],
        request: Request<Bytes>,
        head: Duration,
    ) -> Result<Reply, Unasked> {
        let live = self.live().ok_or(Unasked::Alone)?;
        Ok(live.send(node, addresses, request, head).await?)
    }
}

impl Live {
    /// Sends a request to a node; not to this machine's own addresses, which a node elsewhere may have too (of a network
    /// inside of it).
    pub(super) async fn send(
        &self,
        node: NodeId,
        addresses: &[Address],
        request: Request<Bytes>,
        head: Duration,
    ) -> Result<Reply, SendError> {
        let own = self.roster(|roster| {
            let own = roster.record(&self.own);
            own.map_or(Vec::new(), |own| own.addresses.clone())
        });
        let others: Vec<Address> = addresses
            .iter()
            .filter(|address| matches!(address, Address::Relay(_)) || !own.contains(address))
            .cloned()
            .collect();
        let answer = self.peers.send(node, &others, request, head).await?;
        Ok(Reply::of(answer))
    }

    /// Asks a hub: the one that did last what it was asked, or else the next; one may be behind the others, or without its
    /// database. If all refuse, what the first one said. What is asked must be right to ask twice. The answer has to begin
    /// in time.
    pub(super) async fn ask_hub(
        &self,
        request: &Request<Bytes>,
        head: Duration,
    ) -> Result<Reply, Unasked> {
        let (mut refused, mut failed) = (None, Unasked::NoHub);
        for (hub, addresses) in self.hubs() {
            match self.send(hub, &addresses, request.clone(), head).await {
                Ok(reply) if reply.status().is_success() => {
                    *self.last_hub() = Some(hub);
                    return Ok(reply);
                }
                Ok(reply) => refused = refused.or(Some(reply)),
                Err(error) => failed = error.into(),
            }
        }
        refused.ok_or(failed)
    }
}

impl Reply {
    pub fn of(answer: Answer) -> Self {
        let (head, body) = answer.response.into_parts();
        Self {
            status: head.status,
            headers: head.headers,
            body,
            path: answer.path,
        }
    }
}

/// A request without a body.
pub(crate) fn get(path: &str) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = path.parse().unwrap_or_default();
    request
}

/// A request with JSON.
pub(crate) fn post<T: Serialize>(path: &str, body: &T) -> Request<Bytes> {
    let mut request = get(path);
    *request.method_mut() = Method::POST;
    *request.body_mut() = serde_json::to_vec(body).unwrap_or_default().into();
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(CONTENT_TYPE, json);
    request
}

/// A whole JSON answer, or what is wrong in words.
pub(crate) async fn json<T: DeserializeOwned>(reply: Reply) -> Result<T, String> {
    if !reply.status().is_success() {
        return Err(reply.problem().await.2);
    }
    let bytes = reply.whole().await?;
    serde_json::from_slice(&bytes).map_err(|error| format!("its answer cannot be read: {error}"))
}
