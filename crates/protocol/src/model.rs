//! `GET /v1/models`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One model in OpenAI's shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Model {
    /// Name a request uses.
    pub id: String,
    /// Always `model`.
    pub object: String,
    /// When the file was last changed, seconds since 1970.
    pub created: u64,
    /// Always `hearth`.
    pub owned_by: String,
}

/// All models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelList {
    /// Always `list`.
    pub object: String,
    /// The models, the default one first.
    pub data: Vec<Model>,
}
