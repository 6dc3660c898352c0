//! `/openapi.json`: every route of this node with its errors.

use axum::Json;
use axum::response::IntoResponse;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hearth",
        description = "One private AI over the machines you own.",
        license(name = "Apache-2.0 OR MIT")
    ),
    paths(
        crate::ollama::chat::chat,
        crate::ollama::generate::generate,
        crate::ollama::models::ps,
        crate::ollama::models::show,
        crate::ollama::models::tags,
        crate::ollama::models::version,
        crate::openai::chat::chat,
        crate::openai::completions::completions,
        crate::openai::embeddings::embeddings,
        crate::anthropic::messages::messages,
        crate::anthropic::messages::count_tokens,
        crate::openai::models::list,
        crate::openai::models::one,
        crate::health::health,
        crate::native::metrics,
        crate::native::status,
        crate::native::shutdown,
        crate::page::home,
        crate::page::asset,
        describe,
    ),
    components(schemas(hearth_protocol::error::Problem))
)]
struct Api;

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "node", responses((status = 200, description = "OpenAPI 3.1")))]
pub(crate) async fn describe() -> impl IntoResponse {
    Json(Api::openapi())
}
