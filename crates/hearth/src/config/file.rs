//! The configuration file as a layer: flat TOML, where an unknown key is an error and not a silent surprise.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{Key, Layer, Origin};
use crate::failure::{Failure, Outcome};

/// Reads the file; a missing one is empty unless somebody named it.
pub fn read(path: &Path, named: bool) -> Outcome<Layer> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(path, &text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => Ok(Layer::new()),
        Err(error) => Err(Failure::usage(format!(
            "cannot read the configuration file {}: {error}",
            path.display()
        ))
        .fix("correct --config or HEARTH_CONFIG, or create the file")),
    }
}

fn parse(path: &Path, text: &str) -> Outcome<Layer> {
    let at = |offset: usize| format!("{}:{}", path.display(), line(text, offset));
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        Failure::usage(format!("{}: {}", at(offset), error.message()))
            .fix("write it as TOML: key = \"text\" or key = 42")
    })?;
    let mut layer = Layer::new();
    for (name, value) in table.get_ref().iter() {
        let offset = name.span().start;
        let name: &str = name.get_ref();
        let Some(key) = Key::ALL.into_iter().find(|key| key.name() == name) else {
            return Err(
                Failure::usage(format!("{}: unknown key `{name}`", at(offset))).fix(nearest(name)),
            );
        };
        let text_value = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Boolean(on) => on.to_string(),
            other => {
                let kind = other.type_str();
                return Err(Failure::usage(format!(
                    "{}: {name} cannot be of type {kind}",
                    at(offset)
                ))
                .fix(format!("use {}", key.accepts())));
            }
        };
        layer.insert(
            key,
            (
                text_value,
                Origin::File(path.to_owned(), line(text, offset)),
            ),
        );
    }
    Ok(layer)
}

/// Line of a byte offset, from 1.
fn line(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

/// What somebody who wrote `name` probably meant.
fn nearest(name: &str) -> String {
    match Key::nearest(name) {
        Some(key) => format!("did you mean `{}`?", key.name()),
        None => format!("use one of: {}", Key::ALL.map(Key::name).join(", ")),
    }
}
