//! Short names for well-known open models: what `qwen3:1.7b` is, from the one readable file `catalogue.toml`.
//!
//! Beside the place of each model's files the list has what an estimate of its speed and memory needs, so that a model
//! can be judged for a machine before anything is downloaded.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::error::{Error, Reason};
use crate::files;
use crate::manifest::{Digest, Kind};
use crate::missing::closest;
use crate::name::Name;

/// A model of the catalogue.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// Name before the colon.
    pub name: String,
    /// Tags, the canonical one first; with `latest` the name alone means this model.
    pub tags: Vec<String>,
    /// Repository of its GGUF files on the hub.
    pub repo: String,
    /// What its files' names begin with, where a repository has several models.
    pub file: Option<String>,
    /// Quantisation that is taken unless another is asked for.
    pub quantisation: String,
    /// What it is for.
    pub kind: Kind,
    /// Licence: an SPDX identifier, or the name of the maker's own.
    pub licence: String,
    /// Weights.
    pub parameters: u64,
    /// Weights that take part in one token, where that is not all of them (mixture of experts).
    pub active: Option<u64>,
    /// Bytes of the files in that quantisation, about.
    pub bytes: u64,
    /// Longest sequence, in tokens.
    pub context: u32,
    /// Layers with a KV cache.
    pub layers: u32,
    /// Key and value heads of a layer.
    pub kv_heads: u32,
    /// Length of a key or value of one head.
    pub head: u32,
}

impl Known {
    /// Name and canonical tag: `qwen3:1.7b`.
    pub fn full_name(&self) -> String {
        match self.tags.first() {
            Some(tag) => format!("{}:{tag}", self.name),
            None => self.name.clone(),
        }
    }

    /// Weights that take part in one token.
    pub fn active_parameters(&self) -> u64 {
        self.active.unwrap_or(self.parameters)
    }

    /// Elements of keys and values that one token adds to the KV cache; two bytes each in 16 bit. An upper bound for
    /// models some of whose layers look back only so far.
    pub fn kv_elements(&self) -> u64 {
        2 * u64::from(self.layers) * u64::from(self.kv_heads) * u64::from(self.head)
    }
}

/// A sentence encoder of the catalogue: weights in safetensors with their tokenizer, for memories and embeddings.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownEncoder {
    /// Name of its folder, and what people type.
    pub name: String,
    /// What it is called elsewhere.
    pub aliases: Vec<String>,
    /// Repository on the hub.
    pub repo: String,
    /// Licence: an SPDX identifier.
    pub licence: String,
    /// Weights.
    pub parameters: u64,
    /// How they are stored: `F32`.
    pub weights: String,
    /// Bytes of its files, about.
    pub bytes: u64,
    /// Values of a vector.
    pub dimensions: u32,
    /// Longest text, in tokens.
    pub context: u32,
    /// What it was trained to see before a question; written down for it where its own files do not say.
    #[serde(default)]
    pub query: String,
    /// What it was trained to see before a text that is stored and found.
    #[serde(default)]
    pub passage: String,
    /// Where else it can be had.
    pub package: Option<Package>,
}

/// A package of Python's index that carries an encoder's files.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// The version that was looked at.
    pub version: String,
    /// Bytes of its archive.
    pub bytes: u64,
    /// The files to take, by their paths in the encoder's folder; nothing else in it is looked at.
    pub sha256: BTreeMap<String, Digest>,
}

/// What a short name means.
pub(crate) struct Found {
    pub model: &'static Known,
    /// The quantisation that the tag asks for (`8b-q8_0`).
    pub quantisation: Option<String>,
    /// The name in the store.
    pub name: Name,
}

/// Every model of the catalogue, in its order: by family, then by size.
///
/// # Panics
/// Never: the list is part of the program and tested.
pub fn all() -> &'static [Known] {
    &read().model
}

/// Every sentence encoder of the catalogue; the first one is the usual one.
///
/// # Panics
/// Never: the list is part of the program and tested.
pub fn encoders() -> &'static [KnownEncoder] {
    &read().encoder
}

#[derive(Deserialize)]
struct Catalogue {
    model: Vec<Known>,
    encoder: Vec<KnownEncoder>,
}

fn read() -> &'static Catalogue {
    static READ: LazyLock<Catalogue> = LazyLock::new(|| {
        toml::from_str(include_str!("catalogue.toml")).expect("catalogue.toml is tested")
    });
    &READ
}

/// The catalogue's encoder that a name means: its own, one it has elsewhere, or its repository on the hub.
pub fn encoder(name: &str) -> Option<&'static KnownEncoder> {
    let name = Name::parse(name).ok()?;
    let is_whole = name
        .tag()
        .is_none_or(|tag| tag.eq_ignore_ascii_case("latest"));
    let meant = |known: &&KnownEncoder| match name.repository() {
        Some(repository) => is_whole && repository.eq_ignore_ascii_case(&known.repo),
        None => {
            let asked = name.to_string();
            let asked = if is_whole { name.base() } else { &asked };
            let mut own = std::iter::once(&known.name).chain(&known.aliases);
            own.any(|own| own.eq_ignore_ascii_case(asked))
        }
    };
    encoders().iter().find(meant)
}

/// The catalogue's model of that name, if it has one.
pub fn known(name: &str) -> Option<&'static Known> {
    find(&Name::parse(name).ok()?).ok().map(|found| found.model)
}

/// What a short name means. A tag may end in a quantisation: `8b-q8_0`.
pub(crate) fn find(name: &Name) -> Result<Found, Error> {
    let tag = name.tag().unwrap_or("latest");
    let family: Vec<&'static Known> = all()
        .iter()
        .filter(|known| known.name.eq_ignore_ascii_case(name.base()))
        .collect();
    let of = |tag: &str| {
        family
            .iter()
            .copied()
            .find(|known| known.tags.iter().any(|own| own.eq_ignore_ascii_case(tag)))
    };
    let full = |known: &Known, rest: &str| Name::parse(&format!("{}{rest}", known.full_name()));
    if let Some(model) = of(tag) {
        return Ok(Found {
            name: full(model, "")?,
            quantisation: None,
            model,
        });
    }
    for (at, _) in tag.match_indices('-') {
        let (size, rest) = (&tag[..at], &tag[at + 1..]);
        if let Some(model) = of(size)
            && let Some(quantisation) = files::quantisation(rest)
            && quantisation.eq_ignore_ascii_case(rest)
        {
            return Ok(Found {
                name: full(model, &format!("-{}", rest.to_ascii_lowercase()))?,
                quantisation: Some(quantisation),
                model,
            });
        }
    }
    let unknown = Error::new(
        Reason::NotFound,
        format!("`{name}` is not in the catalogue of short names"),
    );
    if !family.is_empty() {
        let sizes: Vec<String> = family.iter().map(|known| known.full_name()).collect();
        return Err(unknown.fix(format!("choose one of {}", sizes.join(", "))));
    }
    if let Some(encoder) = encoder(&name.to_string()) {
        let message = format!("`{name}` is a sentence encoder and no model that is loaded");
        let fix = format!("run `hearth pull {}` on that machine", encoder.name);
        return Err(Error::new(Reason::Invalid, message).fix(fix));
    }
    let mut names: Vec<&str> = all().iter().map(|known| known.name.as_str()).collect();
    names.dedup();
    names.extend(encoders().iter().map(|known| known.name.as_str()));
    if let Some(near) = closest(name.base(), &names) {
        return Err(unknown.fix(format!(
            "did you mean `{near}`? A repository of the hub is named as hf:org/repo:Q4_K_M"
        )));
    }
    Err(unknown.fix(format!(
        "choose one of {}, or name a repository of the hub: hf:org/repo:Q4_K_M",
        names.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use super::*;

    fn found(name: &str) -> Result<(String, Option<String>), Error> {
        find(&Name::parse(name).unwrap()).map(|found| (found.name.to_string(), found.quantisation))
    }

    #[test]
    fn every_entry_is_sane() {
        let mut names = BTreeSet::new();
        for known in all() {
            let name = known.full_name();
            for tag in &known.tags {
                let full = format!("{}:{tag}", known.name);
                assert!(Name::parse(&full).is_ok(), "{full}");
                assert!(names.insert(full.clone()), "{full} is there twice");
                assert_eq!(found(&full).unwrap().0, name);
            }
            assert_eq!(
                Name::parse(&known.repo).unwrap().repository(),
                Some(&*known.repo),
                "{name}"
            );
            let quantisation = files::quantisation(&known.quantisation);
            assert_eq!(
                quantisation.as_deref(),
                Some(&*known.quantisation),
                "{name}"
            );
            assert!(known.active_parameters() <= known.parameters, "{name}");
            // From two bits to four bytes a weight.
            let bits = known.bytes as f64 * 8.0 / known.parameters as f64;
            assert!(
                (2.0..34.0).contains(&bits),
                "{name} has {bits:.1} bits a weight"
            );
            assert!(
                known.context >= 512 && known.layers > 0 && known.kv_elements() > 0,
                "{name}"
            );
            assert!(!known.licence.is_empty(), "{name}");
        }
        assert!(all().len() >= 25);
    }

    #[test]
    fn every_encoder_is_sane_and_found_by_all_its_names() {
        let mut names = BTreeSet::new();
        for known in encoders() {
            for name in std::iter::once(&known.name).chain(&known.aliases) {
                assert!(
                    names.insert(name.to_ascii_lowercase()),
                    "{name} is there twice"
                );
                assert_eq!(encoder(name), Some(known));
                assert_eq!(encoder(&name.to_uppercase()), Some(known));
                assert!(
                    find(&Name::parse(name).unwrap()).is_err(),
                    "{name} is a model too"
                );
            }
            assert_eq!(encoder(&format!("{}:latest", known.name)), Some(known));
            for name in [known.repo.clone(), format!("hf:{}", known.repo)] {
                assert_eq!(encoder(&name), Some(known), "{name}");
            }
            // Four bytes a weight, and a tokenizer.
            let weights = 4 * known.parameters;
            assert!(
                (weights..weights + (2 << 20)).contains(&known.bytes),
                "{}",
                known.name
            );
            assert_eq!(known.weights, "F32");
            let files = known
                .package
                .iter()
                .flat_map(|package| package.sha256.keys());
            assert!(
                files
                    .clone()
                    .all(|path| !path.contains("..") && !path.starts_with('/'))
            );
        }
        assert_eq!(encoders()[0].name, "minilm");
        assert_eq!(encoder("minilm:q8_0"), None);
        assert_eq!(encoder("all-minilm:l6-v2"), Some(&encoders()[0]));
    }

    #[test]
    fn every_family_has_a_usual_size() {
        for known in all() {
            assert!(
                found(&known.name).is_ok(),
                "{} needs a `latest`",
                known.name
            );
        }
    }

    #[test]
    fn tags_may_end_in_a_quantisation() {
        let (name, quantisation) = found("Qwen3:1.7B-Q8_0").unwrap();
        assert_eq!(
            (name.as_str(), quantisation.as_deref()),
            ("qwen3:1.7b-q8_0", Some("Q8_0"))
        );
        assert_eq!(
            found("qwen3:30b-a3b").unwrap(),
            ("qwen3:30b-a3b".into(), None)
        );
        assert_eq!(
            found("qwen3:30b-a3b-q4_k_m").unwrap().1.as_deref(),
            Some("Q4_K_M")
        );
    }

    #[test]
    fn what_is_unknown_is_said_with_what_is_known() {
        let error = found("qwen3:9b").unwrap_err().to_string();
        assert!(error.contains("qwen3:1.7b, qwen3:4b"), "{error}");
        let error = found("qwen9").unwrap_err().to_string();
        assert!(
            error.contains("did you mean `qwen3`?") && error.contains("hf:org/repo"),
            "{error}"
        );
        let error = found("qwne3").unwrap_err().to_string();
        assert!(error.contains("did you mean `qwen3`?"), "{error}");
        let error = found("nonsense").unwrap_err().to_string();
        assert!(error.contains("choose one of qwen3, "), "{error}");
        assert!(found("qwen3:8b-nonsense").is_err());
    }
}
