//! The models of this node as Ollama tells of them: `tags`, `ps`, `show` and `version`.

use std::time::{Duration, Instant, SystemTime};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use hearth_engine::{EngineError, ModelSource};
use hearth_gguf::Value as Stored;
use hearth_protocol::ollama::{
    ErrorBody, ListedModel, ModelRequest, Processes, RunningModel, Shown, Tags, Version,
};
use serde_json::{Map, Number, Value};

use super::facts::{self, Facts};
use super::{Refusal, read, tagged};
use crate::elsewhere::{self, Purpose};
use crate::encoders;
use crate::failure::Failure;
use crate::state::Shared;

/// Longest list that `show` tells without being asked for all.
const SHORT: u64 = 16;
/// As far away as Ollama puts the end of what never ends: 2^63 nanoseconds.
const NEVER: Duration = Duration::from_nanos(i64::MAX as u64);

/// Lists the models.
#[utoipa::path(get, path = "/api/tags", tag = "ollama", responses((status = 200, body = Tags)))]
pub(crate) async fn tags(State(node): State<Shared>) -> Json<Tags> {
    let sources = node.engine.catalogue().list();
    let facts = facts::all(&node, sources.clone()).await;
    let models = sources.iter().zip(facts);
    let models = models.map(|(source, facts)| listed(&source.name, &facts));
    let others = crate::trace::spawn_blocking(move || {
        let all = encoders::list(&node).into_iter();
        let encoders = all.map(|encoder| listed(&encoder.name, &facts::of_encoder(&encoder)));
        // Of what other machines answer with, nothing but the size is known here.
        let elsewhere = elsewhere::others_models(&node).into_iter();
        let elsewhere = elsewhere.map(|(model, _)| listed(&model.name, &facts::of_other(&model)));
        encoders.chain(elsewhere).collect::<Vec<_>>()
    });
    let models = models.chain(others.await.unwrap_or_default());
    Json(Tags {
        models: models.collect(),
    })
}

fn listed(name: &str, facts: &Facts) -> ListedModel {
    ListedModel {
        name: tagged(name),
        model: tagged(name),
        modified_at: modified(facts),
        size: facts.size,
        digest: facts.digest.clone(),
        details: facts.details.clone(),
        capabilities: capabilities(facts),
    }
}

/// Lists the loaded models.
#[utoipa::path(get, path = "/api/ps", tag = "ollama", responses((status = 200, body = Processes)))]
pub(crate) async fn ps(State(node): State<Shared>) -> Json<Processes> {
    let mut models = Vec::new();
    for status in node.engine.status() {
        let Some(residence) = node.engine.residence(&status.name) else {
            continue;
        };
        let Ok(source) = node.engine.catalogue().resolve(Some(&status.name)) else {
            continue;
        };
        let facts = facts::of(&node, &source).await;
        let left = residence.until.map_or(NEVER, |until| {
            until.saturating_duration_since(Instant::now())
        });
        models.push(RunningModel {
            name: tagged(&source.name),
            model: tagged(&source.name),
            size: residence.bytes,
            digest: facts.digest.clone(),
            details: facts.details.clone(),
            expires_at: after(left),
            size_vram: residence.gpu_bytes,
            context_length: residence.context,
        });
    }
    Json(Processes { models })
}

/// Tells all of one model.
#[utoipa::path(post, path = "/api/show", tag = "ollama", request_body = ModelRequest, responses(
    (status = 200, body = Shown),
    (status = 400, description = "a field is wrong", body = ErrorBody),
    (status = 404, description = "no such model", body = ErrorBody)))]
pub(crate) async fn show(State(node): State<Shared>, body: Body) -> Result<Json<Shown>, Refusal> {
    let request: ModelRequest = read(&node, body).await?;
    let name = request.model()?;
    let verbose = request.verbose == Some(true);
    match shown_here(&node, name, verbose).await {
        Err(error @ EngineError::UnknownModel { .. }) => {
            if !elsewhere::may_be_elsewhere(&node, name, Purpose::Show).await {
                return Err(error.into());
            }
            let shown = elsewhere::show(&node, name, verbose).await;
            shown.map(Json).map_err(|failure: Failure| failure.into())
        }
        shown => Ok(Json(shown?)),
    }
}

/// All of one model or encoder of this machine.
pub(crate) async fn shown_here(
    node: &Shared,
    name: &str,
    verbose: bool,
) -> Result<Shown, EngineError> {
    if let Some(encoder) = encoders::one(node, name) {
        return shown_encoder(node, encoder).await;
    }
    let source = node.engine.catalogue().resolve(Some(name))?;
    let name = source.name.clone();
    let facts = facts::of(node, &source).await;
    let shown = crate::trace::spawn_blocking(move || shown(&source, &facts, verbose));
    let shown = shown.await.unwrap_or_else(|error| Err(error.to_string()));
    shown.map_err(|reason| EngineError::LoadFailed { name, reason })
}

/// All of one encoder, which is opened for it.
async fn shown_encoder(node: &Shared, listed: encoders::Listed) -> Result<Shown, EngineError> {
    let encoder = encoders::open(node, &listed.name).await?;
    let facts = crate::trace::spawn_blocking(move || {
        let facts = facts::of_encoder(&listed);
        (facts, listed)
    });
    let (facts, listed) = facts.await.unwrap_or_else(|error| {
        tracing::warn!(%error, "an encoder's folder could not be looked at");
        Default::default()
    });
    let mut info = Map::new();
    info.insert("general.architecture".into(), "bert".into());
    info.insert("bert.context_length".into(), encoder.max_tokens().into());
    info.insert("bert.embedding_length".into(), encoder.dimensions().into());
    Ok(Shown {
        license: None,
        modelfile: format!(
            "# A Modelfile for this model\nFROM {}\n",
            listed.folder.display()
        ),
        parameters: String::new(),
        template: String::new(),
        details: facts.details.clone(),
        model_info: info,
        capabilities: capabilities(&facts),
        modified_at: modified(&facts),
    })
}

/// The version of Ollama's API that these routes speak. Clients look here for what they may use, and some refuse to work
/// with versions that lack tools, structured output or levels of thinking.
const SPOKEN: &str = "0.12.0";

/// The version of Ollama's API, and of this node.
#[utoipa::path(get, path = "/api/version", tag = "ollama", responses((status = 200, body = Version)))]
pub(crate) async fn version(State(node): State<Shared>) -> Json<Version> {
    Json(Version {
        version: SPOKEN.into(),
        hearth: node.options.version.into(),
    })
}

fn shown(source: &ModelSource, facts: &Facts, verbose: bool) -> Result<Shown, String> {
    let model = hearth_gguf::Model::open(&source.path).map_err(|error| error.to_string())?;
    let file = model.first();
    let mut info = Map::new();
    for (key, value) in file.metadata() {
        // It has a field of its own.
        if key != "tokenizer.chat_template" {
            info.insert(key.to_owned(), told(&value, verbose));
        }
    }
    info.insert("general.parameter_count".into(), model.parameters().into());
    let template = file.chat_template().unwrap_or_default().to_owned();
    let parameters = parameters(file);
    let mut modelfile = format!(
        "# A Modelfile for this model\nFROM {}\n",
        source.path.display()
    );
    if !template.is_empty() {
        modelfile += &format!("TEMPLATE \"\"\"{template}\"\"\"\n");
    }
    for (name, value) in &parameters {
        modelfile += &format!("PARAMETER {name} {value}\n");
    }
    let lines = parameters.iter();
    let lines: Vec<String> = lines
        .map(|(name, value)| format!("{name:<30} {value}"))
        .collect();
    Ok(Shown {
        license: file.text("general.license").map(str::to_owned),
        modelfile,
        parameters: lines.join("\n"),
        template,
        details: facts.details.clone(),
        model_info: info,
        capabilities: capabilities(facts),
        modified_at: modified(facts),
    })
}

/// What the file recommends for requests that do not say, under Ollama's names.
fn parameters(file: &hearth_gguf::File) -> Vec<(&'static str, String)> {
    let names = [
        ("temp", "temperature"),
        ("top_k", "top_k"),
        ("top_p", "top_p"),
        ("min_p", "min_p"),
        ("penalty_repeat", "repeat_penalty"),
        ("penalty_last_n", "repeat_last_n"),
    ];
    let said = names.iter().filter_map(|(key, name)| {
        let value = file.get(&format!("general.sampling.{key}"))?;
        Some((*name, value.to_string()))
    });
    said.collect()
}

/// A value of the file as JSON; long lists are null unless all is wanted.
fn told(value: &Stored<'_>, verbose: bool) -> Value {
    let real = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    match *value {
        Stored::U8(number) => number.into(),
        Stored::I8(number) => number.into(),
        Stored::U16(number) => number.into(),
        Stored::I16(number) => number.into(),
        Stored::U32(number) => number.into(),
        Stored::I32(number) => number.into(),
        Stored::U64(number) => number.into(),
        Stored::I64(number) => number.into(),
        // As short as it was written: not the f64 beside it.
        Stored::F32(number) => real(number.to_string().parse().unwrap_or(f64::from(number))),
        Stored::F64(number) => real(number),
        Stored::Bool(flag) => flag.into(),
        Stored::Text(bytes) => String::from_utf8_lossy(bytes).into_owned().into(),
        Stored::Array(array) if verbose || array.len() <= SHORT => {
            let items = array.items().map(|item| told(&item, verbose));
            Value::Array(items.collect())
        }
        Stored::Array(_) => Value::Null,
    }
}

fn capabilities(facts: &Facts) -> Vec<String> {
    facts
        .capabilities
        .iter()
        .map(|name| (*name).into())
        .collect()
}

fn modified(facts: &Facts) -> String {
    let time = facts.modified.unwrap_or(SystemTime::UNIX_EPOCH);
    let time = jiff::Timestamp::try_from(time);
    time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// The time so long from now.
fn after(time: Duration) -> String {
    let time = jiff::SignedDuration::try_from(time).unwrap_or(jiff::SignedDuration::MAX);
    let now = jiff::Timestamp::now();
    now.checked_add(time)
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}
