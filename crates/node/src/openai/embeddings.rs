//! `POST /v1/embeddings`.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hearth_engine::{EmbedInput, EmbedRequest};
use hearth_protocol::embedding::{
    Embedding, EmbeddingInput, EmbeddingList, EmbeddingRequest, EmbeddingUsage, EncodingFormat,
    Vector,
};
use hearth_protocol::error::ErrorBody;
use hearth_protocol::parse;

use crate::body::received;
use crate::failure::Failure;
use crate::state::Shared;
use crate::{elsewhere, finished};

/// Embeds texts.
#[utoipa::path(post, path = "/v1/embeddings", tag = "openai", request_body = EmbeddingRequest, responses(
    (status = 200, description = "one vector for each text, in their order", body = EmbeddingList),
    (status = 400, description = "a field is wrong (`param` names it), a text is too long, or the model generates text", body = ErrorBody),
    (status = 404, description = "no such model", body = ErrorBody),
    (status = 413, description = "the body is too large", body = ErrorBody),
    (status = 429, description = "the queue is full; see Retry-After", body = ErrorBody),
    (status = 503, description = "the model is loading; see Retry-After, `progress` and `eta`", body = ErrorBody)))]
pub(crate) async fn embeddings(
    State(node): State<Shared>,
    body: Body,
) -> Result<Json<EmbeddingList>, Failure> {
    let request: EmbeddingRequest = parse::body(&received(&node, body).await?)?;
    request.check()?;
    let single = request.input.count().is_none();
    let format = request.encoding_format.unwrap_or_default();
    let asked = EmbedRequest {
        inputs: inputs(request.input),
        dimensions: request.dimensions,
    };
    let (model, dimensions) = (request.model.as_deref(), asked.dimensions);
    let embedding = elsewhere::embed(&node, model, asked, false);
    let answer = finished::embedded(&node, model, dimensions, embedding).await;
    let answer = answer.map_err(|error| renamed(error, single))?;
    tracing::Span::current().record("model", &answer.model);
    let data = answer.vectors.into_iter().zip(0..);
    Ok(Json(EmbeddingList {
        object: "list".into(),
        data: data
            .map(|(vector, index)| Embedding {
                object: "embedding".into(),
                index,
                embedding: written(vector, format),
            })
            .collect(),
        model: answer.model,
        usage: EmbeddingUsage {
            prompt_tokens: answer.prompt_tokens,
            total_tokens: answer.prompt_tokens,
        },
    }))
}

fn inputs(input: EmbeddingInput) -> Vec<EmbedInput> {
    match input {
        EmbeddingInput::Text(text) => vec![EmbedInput::Text(text)],
        EmbeddingInput::Texts(texts) => texts.into_iter().map(EmbedInput::Text).collect(),
        EmbeddingInput::Tokens(tokens) => vec![EmbedInput::Tokens(tokens)],
        EmbeddingInput::ManyTokens(many) => many.into_iter().map(EmbedInput::Tokens).collect(),
    }
}

fn written(vector: Vec<f32>, format: EncodingFormat) -> Vector {
    match format {
        EncodingFormat::Float => Vector::Float(vector),
        EncodingFormat::Base64 => {
            let bytes: Vec<u8> = vector.into_iter().flat_map(f32::to_le_bytes).collect();
            Vector::Base64(STANDARD.encode(bytes))
        }
    }
}

/// The engine counts inputs from 0; one that stands without an array around it has no number.
fn renamed(mut failure: Failure, single: bool) -> Failure {
    const FIRST: &str = "input[0]";
    let error = &mut failure.error;
    if single && let Some(rest) = error.message.strip_prefix(FIRST) {
        error.message = format!("input{rest}");
        error.param = Some("input".into());
    }
    failure
}
