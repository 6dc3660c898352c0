//! Sentence encoders in the list of models.

use std::path::Path;

use hearth_models::StoredEncoder;
use serde_json::{Value, json};

use crate::addressed;
use crate::config::{Config, show_size};
use crate::network;

/// The encoders of this home, unless the models that are listed are those of another one.
fn here(config: &Config, models: Option<&Path>) -> Vec<StoredEncoder> {
    if models.is_some_and(|folder| !addressed::is_same(folder, &config.models_dir)) {
        return Vec::new();
    }
    network::encoders(config).list().unwrap_or_else(|error| {
        tracing::warn!("{error}");
        Vec::new()
    })
}

/// As `hearth list --json` has them.
pub fn listed(config: &Config, models: Option<&Path>) -> Vec<Value> {
    let all = here(config, models).into_iter();
    all.map(|encoder| {
        json!({
            "name": encoder.name,
            "folder": encoder.folder,
            "size_bytes": encoder.size,
            "model": encoder.model,
        })
    })
    .collect()
}

/// As lines of the table of models.
pub fn rows(config: &Config, models: Option<&Path>) -> Vec<Vec<String>> {
    let all = here(config, models).into_iter();
    all.map(|encoder| {
        let context = encoder.model.and_then(|model| model.facts.context);
        vec![
            encoder.name,
            "encoder".into(),
            show_size(encoder.size),
            context.map_or_else(|| "-".into(), |context| context.to_string()),
        ]
    })
    .collect()
}
