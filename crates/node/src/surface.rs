//! Whose clients send a request, read off its path and headers alone; also of one that finds no route, so that it is
//! told in its own API's shape which address was meant.
//!
//! Most of those have a base URL that is right for another API: OpenAI's clients want `/v1` in it, Anthropic's and
//! Ollama's add what they need themselves.

use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;

use crate::{anthropic, failure};

/// Whose shape an answer must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surface {
    OpenAi,
    Anthropic,
    Ollama,
    /// This node's own routes, and whatever nobody's clients send.
    Hearth,
}

/// What OpenAI's clients append to their base URL.
const OPENAIS: [&str; 6] = [
    "/chat/completions",
    "/completions",
    "/embeddings",
    "/responses",
    "/conversations",
    "/models",
];
/// What Anthropic's clients append to theirs, which has no `/v1`.
const ANTHROPICS: [&str; 3] = ["/v1/messages", "/v1/messages/count_tokens", "/v1/models"];
/// What OpenAI has and this node has not, and what is said of it.
const LACKING: [(&str, &str); 12] = [
    ("/images", "makes no images"),
    ("/audio", "neither speaks nor listens"),
    ("/videos", "makes no videos"),
    ("/moderations", "has no model for moderation"),
    ("/files", "keeps no files; send texts in the request itself"),
    (
        "/uploads",
        "keeps no files; send texts in the request itself",
    ),
    ("/batches", "has no batches; send the requests one by one"),
    ("/fine_tuning", "trains no models"),
    ("/assistants", "has no assistants; use /v1/responses"),
    ("/threads", "has no threads; use /v1/conversations"),
    (
        "/vector_stores",
        "keeps no vectors; /v1/embeddings makes them",
    ),
    ("/realtime", "has no realtime sessions; use /v1/responses"),
];

impl Surface {
    /// Whose a request is, or is meant to be.
    pub fn of(path: &str, headers: &HeaderMap) -> Self {
        // Asked by another of Hearth's nodes, whatever the path ends in.
        if is_below(path, "/peer") {
            return Self::Hearth;
        }
        let bare = without_version(path);
        let is_openais = |route: &&str| is_below(bare, route) || path.ends_with(route);
        let versioned = ANTHROPICS[..2].iter().any(|route| path.ends_with(route));
        if versioned || is_below(bare, "/messages") {
            Self::Anthropic
        } else if is_below(bare, "/api") && !path.ends_with("/completions") {
            Self::Ollama
        } else if anthropic::asks(headers)
            && (is_below(bare, "/models") || !OPENAIS.iter().any(is_openais))
        {
            Self::Anthropic
        } else if is_below(path, "/v1")
            || OPENAIS.iter().any(is_openais)
            || LACKING.iter().any(|(route, _)| is_below(bare, route))
        {
            Self::OpenAi
        } else {
            Self::Hearth
        }
    }

    /// What to say to a request that found no route, after "there is no route …".
    fn hint(self, path: &str, host: &str) -> String {
        let bare = without_version(path);
        let before = |route: &str| path.strip_suffix(route);
        match self {
            Self::Ollama => match path.find("/api/") {
                Some(at) if at > 0 => format!(
                    "; leave {} out of the host: it is http://{host}",
                    &path[..at]
                ),
                _ => "; of Ollama's routes this node has chat, generate, embed, tags, show, ps, version, pull, delete and copy".into(),
            },
            Self::Anthropic => match ANTHROPICS.iter().find_map(|route| before(route)) {
                Some(base) if !base.is_empty() => format!(
                    "; leave {base} out of the base URL: it is http://{host}, and the client adds /v1 itself"
                ),
                _ if ANTHROPICS.iter().any(|route| route.strip_prefix("/v1") == Some(bare)) => {
                    format!("; did you mean /v1{bare}?")
                }
                _ => "; of Anthropic's routes this node has /v1/messages, /v1/messages/count_tokens and /v1/models".into(),
            },
            Self::OpenAi | Self::Hearth => {
                openais_hint(path, bare, host).unwrap_or_else(|| words_hint(path).into())
            }
        }
    }
}

/// For a path that one of OpenAI's clients made of its base URL and a route.
fn openais_hint(path: &str, bare: &str, host: &str) -> Option<String> {
    if let Some((_, lack)) = LACKING.iter().find(|(route, _)| is_below(bare, route)) {
        return Some(format!(": this node {lack}"));
    }
    let base = match OPENAIS.iter().find_map(|route| path.strip_suffix(route)) {
        Some(base) => base,
        // What a route has behind it, such as a model's name.
        None => {
            OPENAIS.iter().find(|route| is_below(bare, route))?;
            &path[..path.len() - bare.len()]
        }
    };
    let right = format!("http://{host}/v1");
    match base {
        "" => Some(format!("; add /v1 to the base URL: {right}")),
        // A route that is there, with something after it.
        "/v1" => None,
        base => Some(format!(
            "; end the base URL in one /v1, and not in {base}: {right}"
        )),
    }
}

/// For a path that looks like one of the routes.
fn words_hint(path: &str) -> &'static str {
    match path {
        _ if path.contains("chat") => "; did you mean /v1/chat/completions?",
        _ if path.contains("completion") => "; did you mean /v1/completions?",
        _ if path.contains("embed") => "; did you mean /v1/embeddings?",
        _ if path.contains("message") => "; did you mean /v1/messages?",
        _ if path.contains("response") => "; did you mean /v1/responses?",
        _ if path.contains("model") => "; did you mean /v1/models?",
        _ => "; /openapi.json lists all routes",
    }
}

/// Whether a path is a route, or goes on below it.
fn is_below(path: &str, route: &str) -> bool {
    let rest = path.strip_prefix(route);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path without all `/v1` that it begins with.
fn without_version(mut path: &str) -> &str {
    while is_below(path, "/v1") {
        path = &path["/v1".len()..];
    }
    path
}

/// The answer to a request that found no route.
pub(crate) async fn unknown(request: Request) -> Response {
    let path = request.uri().path();
    // A node's own name, or it would not have come this far.
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.unwrap_or("HOST:PORT");
    let hint = Surface::of(path, request.headers()).hint(path, host);
    failure::on_route(
        &request,
        StatusCode::NOT_FOUND,
        "unknown_route",
        &format!("there is no route {path}{hint}"),
    )
}

/// The answer to a request that found a route, but not for its method.
pub(crate) async fn wrong_method(method: Method, request: Request) -> Response {
    let path = request.uri().path();
    let message = format!("{path} does not take {method}; see the Allow header");
    failure::on_route(
        &request,
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        &message,
    )
}
