//! `POST /api/embed`, and its older form `POST /api/embeddings`.

use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use hearth_engine::{EmbedInput, EmbedRequest, Embeddings, EngineError, ModelSource};
use hearth_protocol::embedding::MOST_INPUTS;
use hearth_protocol::error::ApiError;
use hearth_protocol::ollama::{
    self as wire, EmbedResponse, EmbeddingsRequest, EmbeddingsResponse, ErrorBody, KeepAlive,
    Options,
};

use super::answer::nanoseconds;
use super::{Refusal, facts, keep, load, read};
use crate::elsewhere::{self, Purpose};
use crate::failure::Failure;
use crate::state::Shared;
use crate::{encoders, finished};

/// Embeds texts; without any it loads the model.
#[utoipa::path(post, path = "/api/embed", tag = "ollama", request_body = wire::EmbedRequest, responses(
    (status = 200, description = "one vector for each text, in their order", body = EmbedResponse),
    (status = 400, description = "a field is wrong, a text is too long, or the model generates text", body = ErrorBody),
    (status = 404, description = "no such model", body = ErrorBody),
    (status = 413, description = "the body is too large", body = ErrorBody),
    (status = 503, description = "the queue is full or there is no room for the model; see Retry-After", body = ErrorBody)))]
pub(crate) async fn embed(
    State(node): State<Shared>,
    body: Body,
) -> Result<Json<EmbedResponse>, Refusal> {
    let begun = Instant::now();
    let request: wire::EmbedRequest = read(&node, body).await?;
    let name = request.model()?.to_owned();
    request.check()?;
    let single = matches!(request.input, Some(hearth_protocol::chat::Stop::One(_)));
    let texts = request.input.map(|input| input.texts());
    let mut texts = texts.unwrap_or_default();
    if single {
        texts.retain(|text| !text.is_empty());
    }
    if texts.len() > MOST_INPUTS {
        let message = format!(
            "input holds {} texts, and a request may hold {MOST_INPUTS}; send them in several",
            texts.len()
        );
        return Err(Failure::from(ApiError::invalid(Some("input".into()), message)).into());
    }
    let asked = Asked {
        texts,
        dimensions: request.dimensions.filter(|dimensions| *dimensions > 0),
        options: request.options,
        keep_alive: request.keep_alive,
        cut: request.truncate != Some(false),
        field: single.then_some("input"),
    };
    let (vectors, load) = answer(&node, &name, asked).await?;
    Ok(Json(EmbedResponse {
        model: name,
        prompt_eval_count: vectors.as_ref().map_or(0, |vectors| vectors.prompt_tokens),
        embeddings: vectors.map(|vectors| vectors.vectors).unwrap_or_default(),
        total_duration: nanoseconds(begun.elapsed()),
        load_duration: nanoseconds(load),
    }))
}

/// Embeds one text; without one it loads the model.
#[utoipa::path(post, path = "/api/embeddings", tag = "ollama", request_body = EmbeddingsRequest, responses(
    (status = 200, description = "the text's vector", body = EmbeddingsResponse),
    (status = 400, description = "a field is wrong, the text is too long, or the model generates text", body = ErrorBody),
    (status = 404, description = "no such model", body = ErrorBody),
    (status = 413, description = "the body is too large", body = ErrorBody),
    (status = 503, description = "the queue is full or there is no room for the model; see Retry-After", body = ErrorBody)))]
pub(crate) async fn embeddings(
    State(node): State<Shared>,
    body: Body,
) -> Result<Json<EmbeddingsResponse>, Refusal> {
    let request: EmbeddingsRequest = read(&node, body).await?;
    let name = request.model()?.to_owned();
    request.check()?;
    let asked = Asked {
        texts: request
            .prompt
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect(),
        dimensions: None,
        options: request.options,
        keep_alive: request.keep_alive,
        cut: true,
        field: Some("prompt"),
    };
    let (vectors, _) = answer(&node, &name, asked).await?;
    let vector = vectors.and_then(|vectors| vectors.vectors.into_iter().next());
    Ok(Json(EmbeddingsResponse {
        embedding: vector.unwrap_or_default(),
    }))
}

/// What both routes ask for.
struct Asked {
    texts: Vec<String>,
    dimensions: Option<u32>,
    options: Option<Options>,
    keep_alive: Option<KeepAlive>,
    /// Whether an encoder may cut a text that is too long.
    cut: bool,
    /// The field of the only text; `None` if they are a list.
    field: Option<&'static str>,
}

/// The vectors, `None` if there are no texts; and how long the model took to load.
async fn answer(
    node: &Shared,
    name: &str,
    asked: Asked,
) -> Result<(Option<Embeddings>, Duration), Refusal> {
    if let Some(encoder) = encoders::chosen(node, name) {
        return encoded(node, &encoder, asked).await;
    }
    let source = node.engine.catalogue().resolve(Some(name));
    let detour = match &source {
        Ok(source) => !asked.texts.is_empty() && elsewhere::is_ready_elsewhere(node, &source.name),
        Err(_) => elsewhere::may_be_elsewhere(node, name, Purpose::Embed).await,
    };
    if detour {
        return Ok((vectors(node, name, asked).await?, Duration::ZERO));
    }
    here(node, source?, asked).await
}

/// As [`answer`], by a model that this machine has and loads first, if it is not loaded.
async fn here(
    node: &Shared,
    source: ModelSource,
    asked: Asked,
) -> Result<(Option<Embeddings>, Duration), Refusal> {
    // Known from its file: a large model need not be loaded to say so.
    let facts = facts::of(node, &source).await;
    if facts.readable && !facts.capabilities.contains(&facts::EMBEDDING) {
        let name = source.name;
        return Err(EngineError::OnlyGenerates { name }.into());
    }
    let load = load(node, &source, asked.options.as_ref()).await?;
    let keep_alive = asked.keep_alive;
    let vectors = vectors(node, &source.name, asked).await?;
    keep(node, &source, keep_alive);
    Ok((vectors, load))
}

/// As [`answer`], by an encoder: it stays open, whatever is said of how long a model stays loaded.
async fn encoded(
    node: &Shared,
    name: &str,
    asked: Asked,
) -> Result<(Option<Embeddings>, Duration), Refusal> {
    tracing::Span::current().record("model", name);
    let begun = Instant::now();
    let context = encoders::open(node, name).await?.max_tokens();
    let load = begun.elapsed();
    let wanted = asked.options.as_ref().and_then(|options| options.num_ctx);
    if let Some(wanted) = wanted.filter(|wanted| *wanted > context as i64) {
        let message = format!(
            "options.num_ctx is {wanted}, and model '{name}' takes {context} tokens; leave it out"
        );
        return Err(ApiError::invalid(Some("options.num_ctx".into()), message).into());
    }
    Ok((vectors(node, name, asked).await?, load))
}

/// The vectors of texts, from whichever machine; `None` if there are no texts.
async fn vectors(node: &Shared, name: &str, asked: Asked) -> Result<Option<Embeddings>, Refusal> {
    if asked.texts.is_empty() {
        return Ok(None);
    }
    let request = EmbedRequest {
        inputs: asked.texts.into_iter().map(EmbedInput::Text).collect(),
        dimensions: asked.dimensions,
    };
    let dimensions = request.dimensions;
    let embedding = elsewhere::embed(node, Some(name), request, asked.cut);
    let vectors = finished::embedded(node, Some(name), dimensions, embedding).await;
    vectors.map(Some).map_err(|mut failure| {
        // Texts are counted from 0.
        let rest = failure.error.message.strip_prefix("input[0]");
        if let (Some(field), Some(rest)) = (asked.field, rest) {
            failure.error = ApiError::invalid(Some(field.into()), format!("{field}{rest}"));
        }
        Refusal::from(failure)
    })
}
