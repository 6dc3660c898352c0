//! The HTTP client of the commands: one connection a request, JSON in, JSON or server-sent events out.
//!
//! It is asynchronous so that dropping an answer closes its connection at once, which is how a client tells a node to
//! stop. Plain HTTP to an address the owner named; there is no TLS and no proxy.

use std::net::SocketAddr;
use std::time::Duration;

use hearth_protocol::status::NodeStatus;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::config::HostPort;
use crate::failure::{Exit, Failure, Outcome};

/// Largest body read whole.
const BODY_LIMIT: usize = 64 << 20;
/// A node on this machine or network accepts a connection sooner than this, or is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A node answers `GET /status` from memory.
const STATUS_LIMIT: Duration = Duration::from_secs(5);
/// How long another short question may take; health may have to wait for a token.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Talks to one node.
#[derive(Debug, Clone)]
pub struct Client {
    place: HostPort,
}

/// Why there was no useful answer.
#[derive(Debug)]
pub enum ClientError {
    /// The address has a name that this machine cannot look up.
    NoName(String),
    /// Nobody listens there.
    Unreachable(String),
    /// Somebody listens and does not speak as a node would.
    NotHearth(String),
    /// Somebody listens and says nothing for this long.
    Silent(Duration),
    /// The node said no.
    Refused {
        /// HTTP status.
        status: u16,
        /// The error body; null if it was not JSON.
        body: Value,
    },
    /// The connection broke in the middle.
    Broken(String),
}

impl ClientError {
    /// As a command's failure; `place` says where the node was looked for.
    pub fn failure(&self, place: &HostPort) -> Failure {
        match self {
            Self::NoName(reason) => Failure {
                exit: Exit::NoNode,
                ..Failure::new(format!(
                    "the name {} cannot be looked up ({reason})",
                    place.host
                ))
                .fix("check the address in --host, HEARTH_HOST or OLLAMA_HOST; 127.0.0.1:8321 is the usual one")
            },
            // A free port was asked for, and no node has recorded which one it took.
            Self::Unreachable(_) if place.port == 0 => {
                Failure::no_node("any address that this home knows")
            }
            Self::Unreachable(reason) => Failure::no_node(&format!("{place} ({reason})")),
            Self::NotHearth(what) => Failure::new(format!(
                "what answers at {place} is not a Hearth node: {what}"
            ))
            .fix("name the node's address with --host or HEARTH_HOST"),
            Self::Silent(limit) => Failure::new(format!(
                "what listens at {place} gave no answer within {} s",
                limit.as_secs()
            ))
            .fix("if that is the node, end its process; else name the node's address with --host or HEARTH_HOST"),
            Self::Refused { status: 403, body } if is_of_the_door(body) => Failure::new(format!(
                "the node at {place} refuses: {}",
                message(body).unwrap_or_else(|| "it gives no reason".into())
            ))
            .fix("use this command on the machine where that node runs"),
            Self::Refused { status, body } => {
                let text = message(body)
                    .unwrap_or_else(|| format!("the node answered with status {status}"));
                if self.is_unknown_model() {
                    Failure {
                        exit: Exit::Usage,
                        ..Failure::with_advice(&text)
                    }
                } else if *status == 400 || *status == 404 || *status == 422 {
                    Failure::usage(text)
                } else {
                    Failure::new(text)
                }
            }
            Self::Broken(reason) => {
                Failure::new(format!("the connection to the node broke: {reason}"))
                    .fix("see whether it still runs: hearth status")
            }
        }
    }

    /// Whether the node has no model of the name that was asked for.
    pub fn is_unknown_model(&self) -> bool {
        matches!(self, Self::Refused { status: 404, body } if body["error"]["code"] == "model_not_found")
    }

    /// `(progress, eta)` if the node only has to finish loading first.
    pub fn loading(&self) -> Option<(f32, Option<f32>)> {
        let Self::Refused { status: 503, body } = self else {
            return None;
        };
        // Inside OpenAI's error object, or at the top.
        let body = if body["state"].is_string() {
            body
        } else {
            &body["error"]
        };
        (body["state"] == "loading").then(|| {
            let number = |value: &Value| value.as_f64().map(|number| number as f32);
            (
                number(&body["progress"]).unwrap_or(0.0),
                number(&body["eta"]).or(number(&body["eta_seconds"])),
            )
        })
    }
}

/// A node's answer as what it should be.
pub fn understood<T: DeserializeOwned>(answer: Value) -> Outcome<T> {
    serde_json::from_value(answer)
        .map_err(|error| Failure::new(format!("the node's answer is odd: {error}")))
}

/// The text of OpenAI's error object or of a problem document.
fn message(body: &Value) -> Option<String> {
    [
        &body["error"]["message"],
        &body["detail"],
        &body["title"],
        &body["error"],
    ]
    .into_iter()
    .find_map(|text| text.as_str().map(str::to_owned))
}

/// Whether the node's door refuses, and not what is behind it.
fn is_of_the_door(body: &Value) -> bool {
    let kind = body["type"].as_str().unwrap_or("/problems/not_local");
    let kinds = [
        "not_local",
        "foreign_host",
        "foreign_site",
        "foreign_origin",
    ];
    kinds.iter().any(|known| kind.ends_with(known))
}

/// Whether this is how a node refuses something on its own routes.
fn is_problem(body: &Value) -> bool {
    body["type"]
        .as_str()
        .is_some_and(|kind| kind.starts_with("/problems/"))
}

impl Client {
    /// A client of the node at `place`. Nothing is sent yet.
    pub fn new(place: HostPort) -> Self {
        Self {
            place: place.reachable(),
        }
    }

    /// Where it looks for the node.
    pub fn place(&self) -> &HostPort {
        &self.place
    }

    /// `GET /status`; also how a node is told from something else.
    pub async fn status(&self) -> Result<NodeStatus, ClientError> {
        let value = match self.json(Method::GET, "/status", None).await {
            Err(ClientError::Refused { status, body }) if !is_problem(&body) => {
                return Err(ClientError::NotHearth(format!("/status gives {status}")));
            }
            other => other?,
        };
        serde_json::from_value(value)
            .map_err(|error| ClientError::NotHearth(format!("/status: {error}")))
    }

    /// [`Client::json`] for a command: the answer as what it is, or why the command fails.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Outcome<T> {
        let answer = self.json(method, path, body).await;
        let answer = answer.map_err(|error| error.failure(&self.place))?;
        understood(answer)
    }

    /// A short exchange: JSON in, JSON out. An empty answer is null.
    pub async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let exchange = async {
            let (response, _connection) = self.send(method, path, body).await?;
            let status = response.status();
            let bytes = read(response).await?;
            if bytes.is_empty() {
                return Ok(Value::Null);
            }
            match serde_json::from_slice(&bytes) {
                Ok(value) => Ok(value),
                // Health and shutdown may answer in plain words.
                Err(_) if status.is_success() && path != "/status" => Ok(Value::Null),
                Err(_) => Err(ClientError::NotHearth(format!(
                    "{path} does not answer in JSON"
                ))),
            }
        };
        let limit = if path == "/status" {
            STATUS_LIMIT
        } else {
            ANSWER_LIMIT
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Silent(limit)),
        }
    }

    /// `POST` whose answer is a stream of server-sent events.
    pub async fn events(&self, path: &str, body: &Value) -> Result<Events, ClientError> {
        let (response, connection) = self.send(Method::POST, path, Some(body)).await?;
        Ok(Events {
            body: response.into_body(),
            lines: Lines::default(),
            _connection: connection,
        })
    }

    /// Connects to the first address that takes it.
    async fn connect(&self) -> Result<TcpStream, ClientError> {
        let place = (self.place.host.as_str(), self.place.port);
        let addresses = tokio::net::lookup_host(place)
            .await
            .map_err(|error| ClientError::NoName(error.to_string()))?;
        let addresses: Vec<SocketAddr> = addresses.collect();
        TcpStream::connect(addresses.as_slice())
            .await
            .map_err(|error| ClientError::Unreachable(error.kind().to_string()))
    }

    /// Sends a request; an error status is an error.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(Response<Incoming>, Connection), ClientError> {
        let connect = self.connect();
        let stream = match tokio::time::timeout(CONNECT_LIMIT, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                return Err(ClientError::Unreachable(
                    "nobody accepts the connection".into(),
                ));
            }
        };
        // A node knows its addresses. A name could be anybody's, so it takes none but localhost.
        let host = stream
            .peer_addr()
            .map_or_else(|_| self.place.to_string(), |address| address.to_string());
        // Tokens are small writes; waiting to join them would be felt.
        let _ = stream.set_nodelay(true);
        let not_hearth = |error: hyper::Error| ClientError::NotHearth(error.to_string());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(not_hearth)?;
        let connection = Connection(tokio::spawn(async move {
            // What breaks here is reported by the request or the body that waits for it.
            let _ = connection.await;
        }));
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", host)
            .header("content-type", "application/json")
            .header("user-agent", concat!("hearth/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|error| ClientError::Broken(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(not_hearth)?;
        let status = response.status();
        if status.is_success() {
            return Ok((response, connection));
        }
        let body = serde_json::from_slice(&read(response).await?).unwrap_or(Value::Null);
        Err(ClientError::Refused {
            status: StatusCode::as_u16(&status),
            body,
        })
    }
}

/// The task that moves a connection's bytes; dropping it closes the connection, even while the node still thinks.
struct Connection(tokio::task::JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn read(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), BODY_LIMIT)
        .collect()
        .await;
    Ok(body
        .map_err(|error| ClientError::Broken(error.to_string()))?
        .to_bytes())
}

/// The events of an answer. Dropping it closes the connection.
pub struct Events {
    body: Incoming,
    lines: Lines,
    _connection: Connection,
}

impl Events {
    /// The data of the next event as JSON; `None` after `[DONE]`. A stream that ends without it is an error.
    pub async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        loop {
            if let Some(data) = self.lines.next_data() {
                if data == "[DONE]" {
                    return Ok(None);
                }
                let value: Value = serde_json::from_str(&data)
                    .map_err(|error| ClientError::NotHearth(format!("an event: {error}")))?;
                if !value["error"].is_null() {
                    let status = value["error"]["code"].as_u64().unwrap_or(500) as u16;
                    return Err(ClientError::Refused {
                        status,
                        body: value,
                    });
                }
                return Ok(Some(value));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.lines.push(bytes);
                    }
                }
                Some(Err(error)) => return Err(ClientError::Broken(error.to_string())),
                None => {
                    return Err(ClientError::Broken(
                        "the stream ended in the middle of the answer".into(),
                    ));
                }
            }
        }
    }
}

/// Splits bytes into the `data` fields of server-sent events, wherever the pieces were cut.
#[derive(Debug, Default)]
struct Lines {
    pending: Vec<u8>,
    data: String,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    fn next_data(&mut self) -> Option<String> {
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if let Some(data) = line.strip_prefix("data:") {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            } else if line.is_empty() && !self.data.is_empty() {
                return Some(std::mem::take(&mut self.data));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_wherever_the_bytes_are_cut() {
        let stream = ": keep-alive\n\ndata: {\"a\":\"é\"}\n\nevent: x\r\ndata: one\r\ndata:two\r\n\r\ndata: [DONE]\n\n".as_bytes();
        for size in 1..stream.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                lines.push(piece);
                while let Some(data) = lines.next_data() {
                    found.push(data);
                }
            }
            assert_eq!(
                found,
                ["{\"a\":\"é\"}", "one\ntwo", "[DONE]"],
                "cut every {size} bytes"
            );
        }
    }

    #[test]
    fn a_loading_model_is_told_from_other_refusals() {
        let loading = |status, body: &str| {
            ClientError::Refused {
                status,
                body: serde_json::from_str(body).unwrap_or_default(),
            }
            .loading()
        };
        assert_eq!(
            loading(503, r#"{"state":"loading","progress":0.5,"eta":2}"#),
            Some((0.5, Some(2.0)))
        );
        assert_eq!(
            loading(503, r#"{"error":{"state":"loading","progress":0.25}}"#),
            Some((0.25, None))
        );
        assert_eq!(loading(503, r#"{"state":"failed"}"#), None);
        assert_eq!(loading(429, r#"{"state":"loading"}"#), None);
    }
}
