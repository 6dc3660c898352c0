//! Names and files of a store: import, show, copy, remove, verify, prune.

use std::path::PathBuf;

use hearth_models::{Cancel, Kind, ModelStore, Reason, Source, Sources, Take};
use hearth_testkit::gguf::Quantisation;

use crate::household::{House, REPO, names_in, tiny, usual};

fn import(
    store: &ModelStore,
    path: &std::path::Path,
    name: Option<&str>,
    take: Take,
) -> hearth_models::Model {
    store
        .import(path, name, take, &Cancel::new(), &mut |_, _| {})
        .unwrap()
}

fn file(house: &House, name: &str, bytes: &[u8]) -> PathBuf {
    let path = house.folder().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn an_imported_file_is_a_model_like_any_other() {
    let house = House::new();
    let path = file(&house, "My Model.Q4_K_M.gguf", usual());
    let mut told = Vec::new();
    let model = house
        .store
        .import(
            &path,
            None,
            Take::Copy,
            &Cancel::new(),
            &mut |done, total| told.push((done, total)),
        )
        .unwrap();
    assert_eq!(model.name, "my-model.q4_k_m:latest");
    let size = usual().len() as u64;
    assert_eq!(told.last(), Some(&(size, size)));
    house.assert_installed(&model, usual());
    assert!(matches!(&model.source, Source::Import { path } if path.ends_with(".gguf")));
    assert_eq!(model.facts.kind, Kind::Chat);
    // The copy is the store's own.
    std::fs::remove_file(&path).unwrap();
    let shown = house.store.show("my-model.Q4_K_M").unwrap();
    assert!(shown.template.unwrap().contains("<|im_start|>"));
    assert!(
        shown
            .metadata
            .iter()
            .any(|(key, _)| key == "general.architecture")
    );
    assert_eq!(shown.stored.unwrap(), model);
}

#[test]
fn a_link_takes_no_second_room_and_removing_it_leaves_the_file() {
    let house = House::new();
    let path = file(&house, "tiny.gguf", usual());
    let model = import(&house.store, &path, Some("tiny:small"), Take::Link);
    assert_eq!(model.name, "tiny:small");
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let inode = |path: &std::path::Path| std::fs::metadata(path).unwrap().ino();
        assert_eq!(inode(&path), inode(&house.store.path(&model)));
    }
    house.store.remove("tiny").unwrap();
    house.assert_nothing_installed();
    assert!(std::fs::read(&path).unwrap() == usual());
}

#[test]
fn what_is_no_model_is_not_imported() {
    let house = House::new();
    let path = file(&house, "bad.gguf", b"GGUF and nothing");
    let error = house
        .store
        .import(&path, None, Take::Copy, &Cancel::new(), &mut |_, _| {})
        .unwrap_err();
    assert_eq!(error.reason(), Reason::Refused);
    let missing = house.folder().join("missing.gguf");
    let error = house
        .store
        .import(&missing, None, Take::Copy, &Cancel::new(), &mut |_, _| {})
        .unwrap_err();
    assert_eq!(error.reason(), Reason::Invalid);
    let good = file(&house, "good.gguf", usual());
    let cancel = Cancel::new();
    cancel.cancel();
    let error = house
        .store
        .import(&good, None, Take::Copy, &cancel, &mut |_, _| {})
        .unwrap_err();
    assert_eq!(error.reason(), Reason::Cancelled);
    house.assert_nothing_installed();
    assert_eq!(names_in(&house.store.root().join("partial")), [""; 0]);
}

#[test]
fn names_share_files_and_the_last_one_takes_them_along() {
    let house = House::new();
    let model = house.pull(REPO).unwrap().model;
    let copy = house.store.copy(&model.name, "house").unwrap();
    assert_eq!(copy.name, "house:latest");
    // Whose name a further model would take: this very one, not one that could be meant.
    let named = |name: &str| house.store.named(name).unwrap().map(|model| model.name);
    assert_eq!(named("House").as_deref(), Some("house:latest"));
    assert_eq!(named("house:small"), None);
    assert_eq!(house.store.list().unwrap().len(), 2);
    assert_eq!(names_in(&house.store.root().join("blobs")).len(), 1);
    assert_eq!(house.store.remove(&model.name).unwrap().freed, 0);
    assert!(std::fs::read(house.store.path(&copy)).unwrap() == usual());
    assert_eq!(
        house.store.remove("house").unwrap().freed,
        usual().len() as u64
    );
    house.assert_nothing_installed();
    assert_eq!(
        house.store.remove("house").unwrap_err().reason(),
        Reason::NotHere
    );
    assert_eq!(
        house.store.copy("nothing", "x").unwrap_err().reason(),
        Reason::NotHere
    );
}

#[test]
fn a_name_that_gets_other_files_lets_go_of_the_old_ones() {
    let house = House::new();
    let first = house.pull(REPO).unwrap().model;
    house
        .hub
        .add(REPO, "tiny-Q4_K_M.gguf", tiny(Quantisation::Q4KM, 2));
    let second = house.pull(REPO).unwrap().model;
    assert_eq!(first.name, second.name);
    assert_ne!(first.files, second.files);
    assert_eq!(
        names_in(&house.store.root().join("blobs")),
        [second.files[0].digest.file()]
    );
}

#[test]
fn damage_is_found_and_the_next_pull_repairs_it() {
    let house = House::new();
    let model = house.pull(REPO).unwrap().model;
    house.store.copy(&model.name, "house").unwrap();
    let verify = || {
        let checked = house
            .store
            .verify(None, &Cancel::new(), &mut |_, _| {})
            .unwrap();
        assert_eq!(checked.len(), 1, "one blob under two names");
        assert_eq!(checked[0].names.len(), 2);
        checked.into_iter().next().unwrap().problem
    };
    assert_eq!(verify(), None);
    let path = house.store.path(&model);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(verify().unwrap().contains("other content"));
    assert!(
        house.store.blob(&model.files[0].digest).is_none(),
        "damaged and still given out"
    );
    let again = house.pull(REPO).unwrap();
    assert_eq!(again.downloaded, usual().len() as u64);
    assert_eq!(verify(), None);
    house.assert_installed(&again.model, usual());

    std::fs::write(&path, b"short").unwrap();
    assert!(verify().unwrap().contains("has 5 bytes"));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(verify().as_deref(), Some("is missing"));
    assert!(house.pull(REPO).is_ok());
    assert_eq!(verify(), None);
}

#[test]
fn pruning_leaves_what_is_used_and_counts_what_it_removes() {
    let house = House::with_two();
    assert_eq!(house.store.prune().unwrap(), Default::default());
    let model = house.pull(REPO).unwrap().model;
    let other = house.pull("org/tiny-GGUF:Q8_0").unwrap().model;
    // As if a process had ended before it could remove the file.
    let manifests = house.store.root().join("names");
    let own = names_in(&manifests)
        .into_iter()
        .find(|name| name.contains("q8_0"));
    std::fs::remove_file(manifests.join(own.unwrap())).unwrap();
    std::fs::write(manifests.join("tmp-1-1"), b"{").unwrap();
    let pruned = house.store.prune().unwrap();
    assert_eq!((pruned.blobs, pruned.freed), (1, other.size()));
    house.assert_installed(&model, usual());
    assert_eq!(names_in(&manifests).len(), 1);
}

#[test]
fn a_manifest_of_a_newer_version_is_left_alone_and_so_are_its_files() {
    let house = House::new();
    house.pull(REPO).unwrap();
    let manifests = house.store.root().join("names");
    let path = manifests.join(&names_in(&manifests)[0]);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    assert_eq!(house.store.list().unwrap(), []);
    let error = house.store.find("hf:org/tiny-GGUF:Q4_K_M").unwrap_err();
    assert!(error.to_string().contains("newer Hearth"), "{error}");
    // What it uses is not known, so nothing may be removed.
    assert!(house.store.prune().is_err());
    assert_eq!(names_in(&house.store.root().join("blobs")).len(), 1);
}

#[test]
fn new_models_are_seen_at_once_and_gone_ones_are_not() {
    let house = House::new();
    let sources = Sources::new(house.store.clone());
    assert_eq!(sources.list(), []);
    for _ in 0..3 {
        let model = house.pull(REPO).unwrap().model;
        assert_eq!(
            sources.list(),
            [(model.name.clone(), house.store.path(&model))]
        );
        house.store.copy(REPO, "b").unwrap();
        assert_eq!(sources.list().len(), 2);
        house.store.remove("b").unwrap();
        house.store.remove(REPO).unwrap();
        assert_eq!(sources.list(), []);
    }
}
