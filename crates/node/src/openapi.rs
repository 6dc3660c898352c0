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
        crate::ollama::store::copy,
        crate::ollama::store::delete,
        crate::ollama::store::pull,
        crate::ollama::embed::embed,
        crate::ollama::embed::embeddings,
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
        crate::openai::responses::create,
        crate::openai::responses::input_tokens,
        crate::openai::responses::retrieve,
        crate::openai::responses::delete,
        crate::openai::responses::cancel,
        crate::openai::responses::input_items,
        crate::openai::responses::create_conversation,
        crate::openai::responses::retrieve_conversation,
        crate::openai::responses::update_conversation,
        crate::openai::responses::delete_conversation,
        crate::openai::responses::add_items,
        crate::openai::responses::list_items,
        crate::openai::responses::retrieve_item,
        crate::openai::responses::delete_item,
        crate::memory::add,
        crate::memory::search,
        crate::memory::list,
        crate::memory::one,
        crate::memory::change,
        crate::memory::forget,
        crate::memory::stats,
        crate::memory::examine,
        crate::memory::import,
        crate::memory::export,
        crate::mcp::http::answer,
        crate::mcp::http::look,
        crate::health::health,
        crate::events::events,
        crate::events::snapshot,
        crate::household::routes::invite,
        crate::household::routes::join,
        crate::household::routes::leave,
        crate::household::routes::remove,
        crate::household::routes::rename,
        crate::household::routes::peers,
        crate::household::routes::diagnosis,
        crate::peer::capabilities,
        crate::peer::echo,
        crate::peer::small_echo,
        crate::peer::leave,
        crate::peer::hello,
        crate::peer::join,
        crate::peer::generate::generate,
        crate::peer::generate::commit,
        crate::peer::memory::search,
        crate::peer::memory::everywhere,
        crate::peer::memory::share,
        crate::peer::memory::shared,
        crate::machine::report,
        crate::machine::remeasure,
        crate::machine::models,
        crate::native::metrics,
        crate::native::status,
        crate::share::blob,
        crate::share::list,
        crate::native::shutdown,
        crate::page::home,
        crate::page::asset,
        crate::page::household,
        crate::page::memories,
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
