//! The encoders of a folder: found by name, opened once, and looked for again after a failure.
#![allow(clippy::unwrap_used)]

mod tiny;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Barrier};

use hearth_encoder::{Encoders, Error, Role};
use tiny::{TINY, Tiny};

fn place(home: &Path, name: &str) {
    let made = TINY.folder();
    fs::create_dir_all(home.join(name)).unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(made.path().join(file), home.join(name).join(file)).unwrap();
    }
}

#[test]
fn those_who_ask_at_once_share_one_that_is_opened_once() {
    let home = tempfile::tempdir().unwrap();
    place(home.path(), "minilm");
    let encoders = Encoders::new(home.path().to_owned());
    assert!(encoders.opened("minilm").is_none());
    let together = Barrier::new(4);
    let all: Vec<_> = std::thread::scope(|scope| {
        let ask = || {
            together.wait();
            encoders.get("minilm").unwrap()
        };
        let asking: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        asking
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(all.iter().all(|encoder| Arc::ptr_eq(encoder, &all[0])));
    assert!(Arc::ptr_eq(&encoders.opened("minilm").unwrap(), &all[0]));
}

#[test]
fn an_encoder_is_what_its_folder_holds_now() {
    let home = tempfile::tempdir().unwrap();
    place(home.path(), "minilm");
    let encoders = Encoders::new(home.path().to_owned());
    let first = encoders.get("minilm").unwrap();
    assert!(Arc::ptr_eq(&encoders.get("minilm").unwrap(), &first));
    fs::remove_dir_all(home.path().join("minilm")).unwrap();
    assert!(!encoders.holds("minilm"));
    assert!(encoders.opened("minilm").is_none());
    let gone = encoders.get("minilm").unwrap_err();
    assert!(matches!(gone, Error::Unknown { .. }), "{gone}");
    // Who holds it goes on using it.
    let vector = first.encode("the river", Role::Plain).unwrap().vector;
    assert_eq!(vector.len(), TINY.hidden);
    place(home.path(), "minilm");
    let second = encoders.get("minilm").unwrap();
    assert_eq!(second.id(), first.id());
    // Another one takes its place by a rename, as pulls do it.
    let other = Tiny { seed: 2, ..TINY }.folder();
    let new = home.path().join("minilm/new");
    fs::copy(other.path().join("model.safetensors"), &new).unwrap();
    fs::rename(&new, home.path().join("minilm/model.safetensors")).unwrap();
    assert!(encoders.opened("minilm").is_none());
    let third = encoders.get("minilm").unwrap();
    assert_ne!(third.id(), first.id());
    assert!(Arc::ptr_eq(&encoders.opened("minilm").unwrap(), &third));
    encoders.forget("minilm");
    assert!(encoders.opened("minilm").is_none());
    assert!(encoders.get("minilm").is_ok());
}

#[test]
fn names_are_folders_that_hold_an_encoder() {
    let home = tempfile::tempdir().unwrap();
    let encoders = Encoders::new(home.path().join("encoders"));
    assert_eq!(encoders.names(), [""; 0]);
    let folder = encoders.folder().to_owned();
    place(&folder, "b");
    place(&folder, "a");
    place(&folder, ".half");
    fs::create_dir(folder.join("empty")).unwrap();
    fs::write(folder.join("file"), "x").unwrap();
    assert_eq!(encoders.names(), ["a", "b"]);
    place(home.path(), "outside");
    for name in [
        "",
        ".half",
        "../outside",
        "a/../b",
        "nobody",
        "file",
        "a\\b",
    ] {
        assert!(!encoders.holds(name), "{name}");
        let error = encoders.get(name).unwrap_err();
        assert!(matches!(error, Error::Unknown { .. }), "{name}: {error}");
    }
    assert!(matches!(encoders.get("empty"), Err(Error::Read { .. })));
}

#[test]
fn a_failure_is_not_kept() {
    let home = tempfile::tempdir().unwrap();
    let encoders = Encoders::new(home.path().to_owned());
    assert!(matches!(encoders.get("late"), Err(Error::Unknown { .. })));
    place(home.path(), "late");
    let config = home.path().join("late/config.json");
    let sound = fs::read(&config).unwrap();
    fs::write(&config, "{").unwrap();
    assert!(matches!(encoders.get("late"), Err(Error::File { .. })));
    fs::write(&config, sound).unwrap();
    assert!(encoders.get("late").is_ok());
}
