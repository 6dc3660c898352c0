//! From a name to a model in the store: find it on the hub or another machine, bring what is missing, check it, and
//! only then make its name visible.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cancel::Cancel;
use crate::catalogue;
use crate::disk;
use crate::error::{Error, Reason};
use crate::fetch::{self, Server};
use crate::files::{self, plain};
use crate::http::{Http, Reply, Token};
use crate::hub;
use crate::manifest::{Digest, Facts, Kind, Model, ModelFile, Source};
use crate::name::Name;
use crate::peer;
use crate::store::{ModelStore, now};

/// The public hub.
pub const HUB: &str = "https://huggingface.co";
/// Branch that files are taken from.
pub(crate) const REVISION: &str = "main";
/// Time over which the speed is measured.
const WINDOW: Duration = Duration::from_secs(5);

/// How models may be fetched, and from where.
#[derive(Debug, Clone)]
pub struct Network {
    /// Address of the hub or of a mirror that speaks its protocol.
    pub hub: String,
    /// Who the hub knows its user as; sent to the hub's own address alone.
    pub token: Option<Token>,
    /// Contact nobody: every pull is refused.
    pub offline: bool,
    /// Proxy for the hub and whoever it redirects to; other machines of the house are asked directly.
    pub proxy: Option<ureq::Proxy>,
    /// Parts of a file that come at once, at least 1.
    pub connections: usize,
    /// Bytes of a part, at least 1. What one part already has is lost when the process ends.
    pub chunk: u64,
    /// Tries after a failed one without anything new, before the pull gives up.
    pub retries: u32,
    /// Pause before the second try; it doubles from there to 8 s.
    pub backoff: Duration,
    /// How long a server may say nothing.
    pub patience: Duration,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            hub: HUB.into(),
            token: None,
            offline: false,
            proxy: None,
            connections: 6,
            chunk: 8 << 20,
            retries: 6,
            backoff: Duration::from_millis(500),
            patience: Duration::from_secs(30),
        }
    }
}

/// What a pull is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Asking where the model's files are.
    Resolving,
    /// Another process fetches one of the files; this one goes on after it.
    Waiting,
    /// Bytes come.
    Downloading,
    /// All bytes are here; checksums and headers are looked at.
    Verifying,
    /// The model is in the store.
    Done,
}

/// How far a pull is. Told at each change of state and about ten times a second while bytes come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// What it is doing.
    pub state: State,
    /// The model's name in the store; as asked for while it is still being resolved.
    pub name: String,
    /// The file that is on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<ModelFile>,
    /// Bytes of that file that are here.
    pub file_bytes: u64,
    /// Bytes of the model that are here, those of earlier pulls included.
    pub bytes: u64,
    /// Bytes of the model; 0 while unknown.
    pub total: u64,
    /// Over the last seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<f64>,
    /// Time left at that speed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<f64>,
    /// What just went wrong and is tried again, as a sentence; told once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What a pull did.
#[derive(Debug, Clone, PartialEq)]
pub struct Pulled {
    /// The model.
    pub model: Model,
    /// Bytes that came over the network in this pull; 0 if all files were here.
    pub downloaded: u64,
}

/// What is to be fetched, and from whom.
struct Plan {
    name: Name,
    /// Each with its address.
    files: Vec<(ModelFile, String)>,
    source: Source,
    licence: Option<String>,
    kind: Option<Kind>,
}

/// Tells the caller how far the pull is, and measures its speed.
pub(crate) struct Teller<'a> {
    hear: &'a mut dyn FnMut(&Progress),
    pub progress: Progress,
    /// Bytes of the files before the current one.
    before: u64,
    samples: VecDeque<(Instant, u64)>,
}

impl<'a> Teller<'a> {
    pub fn new(hear: &'a mut dyn FnMut(&Progress), name: &str) -> Self {
        Self {
            hear,
            progress: Progress {
                state: State::Resolving,
                name: name.to_owned(),
                file: None,
                file_bytes: 0,
                bytes: 0,
                total: 0,
                bytes_per_second: None,
                eta_seconds: None,
                trouble: None,
            },
            before: 0,
            samples: VecDeque::new(),
        }
    }

    /// Everything comes anew, from another source.
    pub fn restart(&mut self) {
        (self.before, self.progress.bytes, self.progress.total) = (0, 0, 0);
        self.progress.file = None;
        self.progress.file_bytes = 0;
        self.samples.clear();
    }

    pub fn tell(&mut self, state: State) {
        self.progress.state = state;
        if state != State::Downloading {
            self.progress.bytes_per_second = None;
            self.progress.eta_seconds = None;
        }
        (self.hear)(&self.progress);
    }

    pub fn trouble(&mut self, what: &str) {
        self.progress.trouble = Some(what.to_owned());
        (self.hear)(&self.progress);
        self.progress.trouble = None;
    }

    pub fn begin(&mut self, file: &ModelFile) {
        self.progress.file = Some(file.clone());
        self.progress.file_bytes = 0;
        self.samples.clear();
    }

    pub fn came(&mut self, bytes: u64, complete: bool) {
        self.progress.file_bytes = bytes;
        self.progress.bytes = self.before + bytes;
        let now = Instant::now();
        self.samples.push_back((now, self.progress.bytes));
        while self.samples.len() > 2
            && self
                .samples
                .front()
                .is_some_and(|(time, _)| now.duration_since(*time) > WINDOW)
        {
            self.samples.pop_front();
        }
        if let Some((time, bytes)) = self.samples.front() {
            let seconds = now.duration_since(*time).as_secs_f64();
            let speed = self.progress.bytes.saturating_sub(*bytes) as f64 / seconds;
            let known = seconds > 0.2 && speed > 0.0;
            let left = self.progress.total.saturating_sub(self.progress.bytes);
            self.progress.bytes_per_second = known.then_some(speed);
            self.progress.eta_seconds = known.then_some(left as f64 / speed);
        }
        self.tell(match complete {
            true => State::Verifying,
            false => State::Downloading,
        });
    }

    pub fn end(&mut self, file: &ModelFile) {
        self.before += file.size;
        self.progress.file_bytes = file.size;
        self.progress.bytes = self.before;
    }
}

/// Brings a model into the store: `name` is a short name of the catalogue, or a repository of the hub and a
/// quantisation. With `from` it comes from another Hearth machine (`http://HOST:PORT`) and the hub is not asked.
/// Blocks; run it on a thread of its own. Files that are here already are not fetched again, unless
/// [`ModelStore::verify`] found them damaged.
///
/// # Errors
/// Every [`Reason`] but [`Reason::NotHere`], each with what to do. Whatever it is, the store is as before, and what
/// came is kept for the next pull of the same model, but for bytes that were wrong.
pub fn pull(
    store: &ModelStore,
    name: &str,
    from: Option<&str>,
    network: &Network,
    cancel: &Cancel,
    hear: &mut dyn FnMut(&Progress),
) -> Result<Pulled, Error> {
    let asked = Name::parse(name)?;
    let base = match from {
        Some(from) => peer::base(from),
        None => network.hub.trim_end_matches('/').to_owned(),
    };
    if network.offline {
        return Err(Error::new(
            Reason::Offline,
            format!(
                "offline is on: nothing is fetched, and {} is not contacted",
                crate::http::host(&base)
            ),
        )
        .fix("set offline to off, or import a file with `hearth models import FILE`"));
    }
    let mut teller = Teller::new(hear, &asked.to_string());
    teller.tell(State::Resolving);
    let (plan, server) = match from {
        Some(_) => from_peer(&asked, &base, network, cancel, &mut teller)?,
        None => from_hub(asked, &base, network, cancel, &mut teller)?,
    };
    bring(store, plan, &server, &mut teller)
}

pub(crate) fn server(
    base: &str,
    network: &Network,
    cancel: &Cancel,
    of_hub: bool,
    explain: fetch::Explain,
) -> Result<Server, Error> {
    let (token, proxy) = match of_hub {
        true => (network.token.clone(), network.proxy.clone()),
        false => (None, None),
    };
    Ok(Server {
        http: Arc::new(Http::new(base, token, proxy, network.patience)?),
        explain,
        absent: if of_hub { hub::absent } else { peer::absent },
        met: Arc::default(),
        connections: network.connections.max(1),
        chunk: network.chunk.max(1),
        retries: network.retries,
        backoff: network.backoff,
        cancel: cancel.clone(),
    })
}

/// A label as it can stand in a name: some files are named as no name can be.
fn as_tag(label: &str) -> String {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let tag: String = label
        .chars()
        .map(|letter| if fits(letter) { letter } else { '-' })
        .collect();
    tag.trim_matches('.').to_owned()
}

fn from_hub(
    asked: Name,
    base: &str,
    network: &Network,
    cancel: &Cancel,
    teller: &mut Teller<'_>,
) -> Result<(Plan, Server), Error> {
    let listed = match asked.repository() {
        Some(_) => None,
        None => Some(catalogue::find(&asked)?),
    };
    let repo = match (&listed, asked.repository()) {
        (Some(found), _) => found.model.repo.clone(),
        (None, repository) => repository.unwrap_or_default().to_owned(),
    };
    let (own_base, own_repo) = (base.to_owned(), repo.clone());
    let explain: fetch::Explain = Arc::new(move |http: &Http, reply: &mut Reply| {
        hub::explain(http, &own_base, &own_repo, reply)
    });
    let server = server(base, network, cancel, true, explain)?;
    let all = hub::list(base, &repo, REVISION, &mut |url| {
        server.ask(url, None, &mut |what| teller.trouble(what))
    })?;
    let quantisation = match &listed {
        Some(found) => found.quantisation.as_deref(),
        None => asked.tag(),
    };
    let variant = files::choose(
        files::variants(&all),
        quantisation.filter(|tag| !tag.eq_ignore_ascii_case("latest")),
        listed
            .as_ref()
            .map(|found| found.model.quantisation.as_str()),
        listed
            .as_ref()
            .and_then(|found| found.model.file.as_deref()),
        &repo,
    )?;
    let name = match &listed {
        Some(found) => found.name.clone(),
        // A file that was named keeps its name: it may be one of several of a quantisation.
        None => match asked
            .tag()
            .filter(|tag| tag.to_ascii_lowercase().ends_with(".gguf"))
        {
            Some(file) => Name::of_repository(&repo, file)?,
            None => Name::of_repository(&repo, &as_tag(&variant.label))?,
        },
    };
    let mut files = Vec::new();
    for file in &variant.files {
        let digest = file.sha256.as_deref().and_then(|text| text.parse().ok());
        let digest: Digest = digest.ok_or_else(|| {
            Error::new(
                Reason::Corrupt,
                format!("the hub gives no checksum for {}", plain(&file.path)),
            )
            .fix("download it by other means and use `hearth models import FILE`")
        })?;
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        files.push((
            ModelFile {
                name: plain(name),
                digest,
                size: file.size,
            },
            hub::file_url(base, &repo, REVISION, &file.path),
        ));
    }
    let plan = Plan {
        name,
        files,
        source: Source::Hub {
            hub: base.to_owned(),
            repo,
            revision: REVISION.into(),
            commit: None,
            file: plain(&variant.files[0].path),
        },
        licence: listed.as_ref().map(|found| found.model.licence.clone()),
        kind: listed.map(|found| found.model.kind),
    };
    Ok((plan, server))
}

fn from_peer(
    asked: &Name,
    base: &str,
    network: &Network,
    cancel: &Cancel,
    teller: &mut Teller<'_>,
) -> Result<(Plan, Server), Error> {
    let own_base = base.to_owned();
    let explain: fetch::Explain =
        Arc::new(move |_: &Http, reply: &mut Reply| peer::explain(&own_base, reply));
    let server = server(base, network, cancel, false, explain)?;
    let reply = server.ask(&format!("{base}{}", peer::MODELS), None, &mut |what| {
        teller.trouble(what);
    })?;
    let model = peer::find(base, asked, reply)?;
    if model.files.is_empty() {
        return Err(Error::new(
            Reason::Corrupt,
            format!("{} lists no files of `{asked}`", crate::http::host(base)),
        )
        .fix("update Hearth there"));
    }
    let address = |file: ModelFile| {
        let url = peer::blob_url(base, &file.digest);
        let name = plain(&file.name);
        (ModelFile { name, ..file }, url)
    };
    let plan = Plan {
        name: Name::parse(&model.name)?.or_tag("latest"),
        files: model.files.into_iter().map(address).collect(),
        source: Source::Peer {
            address: base.to_owned(),
            repo: model.repo.map(|repo| plain(&repo)),
        },
        licence: model.facts.licence.map(|licence| plain(&licence)),
        kind: Some(model.facts.kind),
    };
    Ok((plan, server))
}

/// Fails if the missing bytes do not fit on the disk.
fn check_room(store: &ModelStore, name: &Name, missing: u64) -> Result<(), Error> {
    let free = disk::free(store.root())?;
    if missing <= free {
        return Ok(());
    }
    Err(Error::new(
        Reason::Space,
        format!(
            "`{name}` needs {} MiB more and the disk of {} has {} MiB free",
            missing.div_ceil(1 << 20),
            store.root().display(),
            free >> 20
        ),
    )
    .fix("free some space there (`hearth models prune`, `hearth rm`), choose a smaller quantisation, or another folder with models_dir"))
}

fn bring(
    store: &ModelStore,
    plan: Plan,
    server: &Server,
    teller: &mut Teller<'_>,
) -> Result<Pulled, Error> {
    for folder in [store.names(), store.blobs(), store.partials()] {
        disk::create_folder(&folder)?;
    }
    teller.progress.name = plan.name.to_string();
    let sizes = plan.files.iter().map(|(file, _)| file.size);
    teller.progress.total = sizes.fold(0, u64::saturating_add);
    let files: Vec<ModelFile> = plan.files.iter().map(|(file, _)| file.clone()).collect();
    let claims = store.claim_all(&files, &server.cancel, &mut || teller.tell(State::Waiting))?;
    let claims = Arc::new(claims);

    let is_here =
        |file: &ModelFile| store.blob(&file.digest).map(|(_, length)| length) == Some(file.size);
    let missing = plan
        .files
        .iter()
        .filter(|(file, _)| !is_here(file))
        .map(|(file, _)| file.size - fetch::resumable(store, file).min(file.size))
        .fold(0, u64::saturating_add);
    check_room(store, &plan.name, missing)?;

    let mut commit = None;
    let mut downloaded = 0;
    for (file, url) in &plan.files {
        teller.begin(file);
        if !is_here(file) {
            let probe = fetch::probe(server, url, file, &mut |what| teller.trouble(what))?;
            commit = commit.or_else(|| probe.commit.clone());
            let had = fetch::resumable(store, file);
            teller.came(had, false);
            fetch::fetch(
                store,
                server,
                url,
                &probe,
                file,
                &claims,
                &mut |bytes, complete| {
                    teller.came(bytes, complete);
                },
            )?;
            downloaded += file.size - had.min(file.size);
        }
        // Also what a process left that ended between making the file a blob and removing its map.
        fetch::forget(store, &file.digest)?;
        teller.end(file);
    }
    teller.tell(State::Verifying);
    let mut source = plan.source;
    if let Source::Hub { commit: known, .. } = &mut source {
        *known = commit.map(|commit| plain(&commit));
    }
    let mut model = Model {
        name: plan.name.to_string(),
        files,
        source,
        pulled: now(),
        // Replaced by what the file says, before anybody sees it.
        facts: Facts {
            architecture: String::new(),
            parameters: 0,
            quantisation: String::new(),
            context: None,
            kind: plan.kind.unwrap_or(Kind::Chat),
            licence: None,
        },
    };
    match store.check(&model) {
        Ok(facts) => {
            model.facts = Facts {
                kind: plan.kind.unwrap_or(facts.kind),
                licence: facts.licence.clone().or(plan.licence),
                ..facts
            };
        }
        Err(error) => {
            // Whole and useless: the next pull would only find it useless again.
            drop(claims);
            if error.reason() == Reason::Refused {
                store.discard(&model)?;
            }
            return Err(error);
        }
    }
    store.install(&plan.name, &model)?;
    drop(claims);
    teller.tell(State::Done);
    Ok(Pulled { model, downloaded })
}
