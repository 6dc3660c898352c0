//! What changes the models on disk: `pull`, `delete` and `copy`.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hearth_models::{Cancel, EncoderStore, Error, Reason, Take};
use hearth_protocol::ollama::{CopyRequest, ErrorBody, ModelRequest, Progress};
use tokio::sync::mpsc;

use super::answer::{JSON_LINES, push};
use super::{Refusal, read};
use crate::encoders;
use crate::share::Models;
use crate::state::{Node, Shared};

/// Digits of a digest in a line's words, as Ollama cuts it.
const DIGITS: usize = 12;

impl Refusal {
    /// A failure of the store or of a pull of `name`.
    fn of_store(error: &Error, name: &str) -> Self {
        let status = match error.reason() {
            // In the words that Ollama's clients look for.
            Reason::NotHere => return Self::not_found(name, &error.to_string()),
            Reason::NotFound => StatusCode::NOT_FOUND,
            Reason::Invalid | Reason::Refused => StatusCode::BAD_REQUEST,
            Reason::Denied | Reason::Offline => StatusCode::FORBIDDEN,
            Reason::Limited => StatusCode::TOO_MANY_REQUESTS,
            Reason::Unreachable | Reason::Corrupt => StatusCode::BAD_GATEWAY,
            Reason::Space => StatusCode::INSUFFICIENT_STORAGE,
            Reason::Cancelled | Reason::Storage => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

fn models(node: &Node) -> Result<&Models, Refusal> {
    node.options.models.as_ref().ok_or_else(|| {
        let message = "this node keeps no models; ask another one";
        Refusal::new(StatusCode::NOT_IMPLEMENTED, message)
    })
}

/// A failure of the store that has to do with model `name`. Who looks for a model that is not here is told of all that
/// are, not of the store's alone.
fn refusal(node: &Node, error: &Error, name: &str) -> Refusal {
    match node.engine.catalogue().resolve(Some(name)) {
        // Else it says more, such as which of several models may be meant.
        Err(unknown) if unknown.to_string().starts_with(error.message()) => unknown.into(),
        _ => Refusal::of_store(error, name),
    }
}

/// Runs what blocks.
async fn blocking<T: Send + 'static>(
    node: &Node,
    name: &str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Refusal> {
    match crate::trace::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| refusal(node, &error, name)),
        Err(error) => Err(Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        )),
    }
}

/// Whether another source than the store has a model of that name.
fn is_elsewhere(node: &Node, name: &str) -> bool {
    node.engine.catalogue().resolve(Some(name)).is_ok()
}

/// Removes a model that was pulled, imported or copied.
#[utoipa::path(delete, path = "/api/delete", tag = "ollama", request_body = ModelRequest, responses(
    (status = 200, description = "it is gone"),
    (status = 400, description = "a field is wrong, or the model is not the store's", body = ErrorBody),
    (status = 404, description = "no such model", body = ErrorBody)))]
pub(crate) async fn delete(State(node): State<Shared>, body: Body) -> Result<StatusCode, Refusal> {
    let request: ModelRequest = read(&node, body).await?;
    let name = request.model()?.to_owned();
    if let Some(encoder) = encoders::one(&node, &name) {
        let store = EncoderStore::new(encoder.folder.parent().unwrap_or(&encoder.folder));
        let gone = encoder.name.clone();
        blocking(&node, &name, move || store.remove(&encoder.name)).await?;
        encoders::forget(&node, &gone);
        return Ok(StatusCode::OK);
    }
    let store = models(&node)?.store.clone();
    let (sought, found) = (name.clone(), store.clone());
    let model = match blocking(&node, &name, move || found.find(&sought)).await {
        Err(refusal) if refusal.status == StatusCode::NOT_FOUND && is_elsewhere(&node, &name) => {
            let message = format!(
                "model '{name}' was not pulled: it is part of Hearth or a file of yours, and is not removed here"
            );
            return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
        }
        found => found?,
    };
    // Its name, not the one it was asked for by.
    let gone = model.name;
    let removing = gone.clone();
    blocking(&node, &name, move || store.remove(&removing)).await?;
    node.engine.keep(&gone, Some(Duration::ZERO));
    Ok(StatusCode::OK)
}

/// Gives a model a further name. A model that is not the store's is taken into it.
#[utoipa::path(post, path = "/api/copy", tag = "ollama", request_body = CopyRequest, responses(
    (status = 200, description = "the model has both names"),
    (status = 400, description = "a field is wrong", body = ErrorBody),
    (status = 404, description = "no such model", body = ErrorBody)))]
pub(crate) async fn copy(State(node): State<Shared>, body: Body) -> Result<StatusCode, Refusal> {
    let request: CopyRequest = read(&node, body).await?;
    let store = models(&node)?.store.clone();
    let source = node.engine.catalogue().resolve(Some(&request.source)).ok();
    let (own, wanted) = (store.clone(), request.destination.clone());
    let named = blocking(&node, &request.destination, move || own.named(&wanted)).await?;
    if named.is_none() && is_elsewhere(&node, &request.destination) {
        let message = format!(
            "the name '{}' belongs to a model that is part of Hearth or a file of yours; choose another",
            request.destination
        );
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    let CopyRequest {
        source: from,
        destination: to,
    } = request;
    let name = from.clone();
    blocking(&node, &name, move || {
        match (store.copy(&from, &to), source) {
            (Err(error), Some(source)) if error.reason() == Reason::NotHere => store
                .import(
                    &source.path,
                    Some(&to),
                    Take::Copy,
                    &Cancel::default(),
                    &mut |_, _| {},
                )
                .map(drop),
            (copied, _) => copied.map(drop),
        }
    })
    .await?;
    Ok(StatusCode::OK)
}

/// Brings a model onto this machine. A client that goes away ends it; what came is kept for the next pull.
#[utoipa::path(post, path = "/api/pull", tag = "ollama", request_body = ModelRequest, responses(
    (status = 200, description = "how far it is, as JSON lines unless `stream` is false; the last one says `success` or what went wrong", body = Progress),
    (status = 400, description = "a field is wrong", body = ErrorBody),
    (status = 403, description = "settings forbid it", body = ErrorBody),
    (status = 404, description = "the hub has no such model", body = ErrorBody)))]
pub(crate) async fn pull(State(node): State<Shared>, body: Body) -> Result<Response, Refusal> {
    let request: ModelRequest = read(&node, body).await?;
    let name = request.model()?.to_owned();
    let mut pulling = Pulling::start(models(&node)?, name);
    if request.stream == Some(false) {
        while let Some(step) = pulling.next().await {
            step?;
        }
        return Ok(Json(status("success")).into_response());
    }
    // What is wrong at once is an answer, not the first line of one.
    let first = pulling.next().await.transpose()?;
    let state = (first.map(Ok), pulling);
    let lines = stream::unfold(state, |(first, mut pulling)| async move {
        let step = match first {
            Some(step) => step,
            None => pulling.next().await?,
        };
        let mut line = String::new();
        match step {
            Ok(progress) => push(&mut line, &progress),
            Err(refusal) => push(
                &mut line,
                &ErrorBody {
                    error: refusal.message,
                },
            ),
        }
        Some((
            Ok::<_, std::convert::Infallible>(Bytes::from(line)),
            (None, pulling),
        ))
    });
    Ok(([(CONTENT_TYPE, JSON_LINES)], Body::from_stream(lines)).into_response())
}

fn status(words: &str) -> Progress {
    Progress {
        status: words.into(),
        ..Progress::default()
    }
}

/// A pull on a thread of its own; dropping it cancels the pull.
struct Pulling {
    steps: mpsc::UnboundedReceiver<Result<hearth_models::Progress, Refusal>>,
    /// Lines that came out of the last step.
    ready: VecDeque<Progress>,
    /// What was said last of bytes and in words, so that it is not said again.
    last: [Option<Progress>; 2],
    cancel: Cancel,
}

impl Drop for Pulling {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Pulling {
    fn start(models: &Models, name: String) -> Self {
        let (told, steps) = mpsc::unbounded_channel();
        let (models, cancel) = (models.clone(), Cancel::default());
        let given_up = cancel.clone();
        crate::trace::spawn_blocking(move || {
            let mut hear = |progress: &hearth_models::Progress| {
                // Who asked may have gone; then it is cancelled, too.
                let _ = told.send(Ok(progress.clone()));
            };
            let (store, network) = (&models.store, &models.network);
            let pulled = hearth_models::pull(store, &name, None, network, &given_up, &mut hear);
            if let Err(error) = pulled {
                let _ = told.send(Err(Refusal::of_store(&error, &name)));
            }
        });
        Self {
            steps,
            ready: VecDeque::new(),
            last: [None, None],
            cancel,
        }
    }

    /// The next line; `None` after the last.
    async fn next(&mut self) -> Option<Result<Progress, Refusal>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            let progress = match self.steps.recv().await? {
                Ok(progress) => progress,
                Err(refusal) => return Some(Err(refusal)),
            };
            for line in lines(&progress) {
                let last = &mut self.last[usize::from(line.digest.is_none())];
                if last.as_ref() != Some(&line) {
                    *last = Some(line.clone());
                    self.ready.push_back(line);
                }
            }
        }
    }
}

/// A step in Ollama's words.
fn lines(progress: &hearth_models::Progress) -> Vec<Progress> {
    use hearth_models::State;
    let bytes = |file: &hearth_models::ModelFile| Progress {
        status: format!("pulling {}", &file.digest.hex()[..DIGITS]),
        digest: Some(file.digest.to_string()),
        total: Some(file.size),
        completed: Some(progress.file_bytes),
    };
    match progress.state {
        State::Resolving => vec![status("pulling manifest")],
        State::Waiting => vec![status("waiting for another download of the same file")],
        State::Downloading => progress.file.iter().map(bytes).collect(),
        State::Verifying => {
            let whole = progress.file.iter().map(bytes);
            whole.chain([status("verifying sha256 digest")]).collect()
        }
        State::Done => vec![status("writing manifest"), status("success")],
    }
}
