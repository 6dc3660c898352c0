//! Models in several files: taken whole, linked so that the parts find each other, and removed whole.

use std::sync::mpsc;

use hearth_gguf::{File, Value};
use hearth_models::{Cancel, Digest, Progress, Reason, State, Take, pull};
use hearth_testkit::gguf::Quantisation;
use hearth_testkit::hub::{Faults, Hub};

use crate::household::{House, PATIENCE, REPO, names_in, tiny, usual};

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

fn kind(value: &Value<'_>) -> u32 {
    use hearth_gguf::ValueType as Type;
    match value.kind() {
        Type::U8 => 0,
        Type::I8 => 1,
        Type::U16 => 2,
        Type::I16 => 3,
        Type::U32 => 4,
        Type::I32 => 5,
        Type::F32 => 6,
        Type::Bool => 7,
        Type::Text => 8,
        Type::Array => 9,
        Type::U64 => 10,
        Type::I64 => 11,
        Type::F64 => 12,
    }
}

fn payload(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::U8(n) => out.extend(n.to_le_bytes()),
        Value::I8(n) => out.extend(n.to_le_bytes()),
        Value::U16(n) => out.extend(n.to_le_bytes()),
        Value::I16(n) => out.extend(n.to_le_bytes()),
        Value::U32(n) => out.extend(n.to_le_bytes()),
        Value::I32(n) => out.extend(n.to_le_bytes()),
        Value::F32(x) => out.extend(x.to_le_bytes()),
        Value::Bool(flag) => out.push((*flag).into()),
        Value::Text(bytes) => text(out, bytes),
        Value::U64(n) => out.extend(n.to_le_bytes()),
        Value::I64(n) => out.extend(n.to_le_bytes()),
        Value::F64(x) => out.extend(x.to_le_bytes()),
        Value::Array(array) => {
            let first = array.items().next().expect("an array with items");
            out.extend(kind(&first).to_le_bytes());
            out.extend(array.len().to_le_bytes());
            for item in array.items() {
                payload(out, &item);
            }
        }
    }
}

/// The usual model in two files, as the usual tools divide one: metadata and some tensors, then the other tensors.
fn halves() -> [Vec<u8>; 2] {
    halves_of(usual())
}

fn halves_of(bytes: &[u8]) -> [Vec<u8>; 2] {
    let whole = File::parse(bytes).unwrap();
    let tensors = whole.tensors();
    let middle = tensors.len() / 2;
    let split = |no: u16| {
        [
            ("split.no", Value::U16(no)),
            ("split.count", Value::U16(2)),
            ("split.tensors.count", Value::I32(tensors.len() as i32)),
        ]
    };
    let part = |no: u16| {
        let own = match no {
            0 => &tensors[..middle],
            _ => &tensors[middle..],
        };
        let mut metadata: Vec<(&str, Value<'_>)> = match no {
            0 => whole.metadata().collect(),
            _ => Vec::new(),
        };
        metadata.extend(split(no));
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((own.len() as u64).to_le_bytes());
        out.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in &metadata {
            text(&mut out, key.as_bytes());
            out.extend(kind(value).to_le_bytes());
            payload(&mut out, value);
        }
        let alignment = whole.alignment() as usize;
        let mut data = Vec::new();
        for tensor in own {
            text(&mut out, tensor.name.as_bytes());
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for length in &tensor.shape {
                out.extend(length.to_le_bytes());
            }
            let id = (0..64).find(|id| hearth_gguf::TensorType::from_id(*id) == Some(tensor.kind));
            out.extend(id.unwrap().to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            let first = (whole.data_offset() + tensor.offset) as usize;
            data.extend(&bytes[first..first + tensor.bytes as usize]);
            data.resize(data.len().next_multiple_of(alignment), 0);
        }
        out.resize(out.len().next_multiple_of(alignment), 0);
        out.extend(data);
        out
    };
    [part(0), part(1)]
}

fn house() -> House {
    house_with(halves())
}

fn house_with([first, second]: [Vec<u8>; 2]) -> House {
    let hub = Hub::start();
    hub.add(REPO, "Q4_K_M/big-Q4_K_M-00002-of-00002.gguf", second);
    hub.add(REPO, "Q4_K_M/big-Q4_K_M-00001-of-00002.gguf", first);
    House::with(hub)
}

#[test]
fn a_split_model_is_pulled_whole_and_opens_through_its_first_part() {
    let house = house();
    house.hub.set(Faults {
        cuts: Some((50_000, 5)),
        ..Faults::default()
    });
    let model = house.pull(REPO).unwrap().model;
    assert_eq!(model.files.len(), 2);
    let path = house.store.path(&model);
    assert!(path.to_str().unwrap().ends_with("-00001-of-00002.gguf"));
    let opened = hearth_gguf::Model::open(&path).unwrap();
    assert_eq!(opened.files().count(), 2);
    assert_eq!(opened.parameters(), model.facts.parameters);
    assert_eq!(house.store.show(REPO).unwrap().size, model.size());

    // A second pull changes nothing, a second name shares the parts, and the last one takes everything along.
    assert_eq!(house.pull(REPO).unwrap().downloaded, 0);
    let copy = house.store.copy(REPO, "big").unwrap();
    assert_eq!(house.store.path(&copy), path);
    assert_eq!(house.store.remove(REPO).unwrap().freed, 0);
    assert!(hearth_gguf::Model::open(&path).is_ok());
    assert_eq!(house.store.remove("big").unwrap().freed, model.size());
    house.assert_nothing_installed();
    assert_eq!(names_in(&house.store.root().join("parts")), [""; 0]);
}

#[test]
fn a_damaged_part_is_fetched_again_and_linked_anew() {
    let house = house();
    let model = house.pull(REPO).unwrap().model;
    let blob = house
        .store
        .root()
        .join("blobs")
        .join(model.files[1].digest.file());
    let mut bytes = std::fs::read(&blob).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    let checked = house
        .store
        .verify(Some(REPO), &Cancel::new(), &mut |_, _| {})
        .unwrap();
    assert_eq!(
        checked.iter().filter(|blob| blob.problem.is_some()).count(),
        1
    );
    let again = house.pull(REPO).unwrap();
    assert_eq!(again.downloaded, model.files[1].size);
    let second = house
        .store
        .path(&model)
        .with_file_name("model-00002-of-00002.gguf");
    assert!(std::fs::read(second).unwrap() == halves()[1]);
}

#[test]
fn parts_that_do_not_fit_together_are_refused() {
    let house = house();
    let [first, _] = halves();
    house
        .hub
        .add(REPO, "Q4_K_M/big-Q4_K_M-00002-of-00002.gguf", first);
    let error = house.pull(REPO).unwrap_err();
    assert_eq!(error.reason(), Reason::Refused);
    house.assert_nothing_installed();
    assert_eq!(names_in(&house.store.root().join("parts")), [""; 0]);
}

#[test]
fn all_parts_are_imported_through_the_first() {
    let house = house();
    let [first, second] = halves();
    let path = house.folder().join("big-00001-of-00002.gguf");
    std::fs::write(&path, first).unwrap();
    let import = || {
        let store = &house.store;
        store.import(&path, None, Take::Copy, &Cancel::new(), &mut |_, _| {})
    };
    let error = import().unwrap_err();
    assert!(error.to_string().contains("part"), "{error}");
    std::fs::write(house.folder().join("big-00002-of-00002.gguf"), second).unwrap();
    let model = import().unwrap();
    assert_eq!((model.name.as_str(), model.files.len()), ("big:latest", 2));
    assert!(hearth_gguf::Model::open(&house.store.path(&model)).is_ok());
}

#[test]
fn an_import_and_a_pull_of_the_same_parts_do_not_wait_in_a_circle() {
    // The part that is read first must be the one that is claimed last.
    let [first, second] = (1..)
        .map(|seed| halves_of(&tiny(Quantisation::Q4KM, seed)))
        .find(|[first, second]| Digest::of_bytes(first) > Digest::of_bytes(second))
        .unwrap();
    let house = house_with([first.clone(), second.clone()]);
    let path = house.folder().join("big-00001-of-00002.gguf");
    std::fs::write(&path, &first).unwrap();
    std::fs::write(house.folder().join("big-00002-of-00002.gguf"), second).unwrap();
    let cancel = Cancel::new();
    let (at_second, is_at_second) = mpsc::channel();
    let (further, is_further) = mpsc::channel();
    let (ended, ends) = mpsc::channel();
    std::thread::scope(|scope| {
        let (store, cancel, length) = (&house.store, &cancel, first.len() as u64);
        let import_ended = ended.clone();
        scope.spawn(move || {
            let mut hear = |done: u64, _: u64| {
                if done > length {
                    at_second.send(()).unwrap();
                    // Until the pull waits for us, or does not have to.
                    let _ = is_further.recv_timeout(PATIENCE);
                }
            };
            let _ = import_ended.send(store.import(&path, None, Take::Copy, cancel, &mut hear));
        });
        is_at_second.recv_timeout(PATIENCE).unwrap();
        let house = &house;
        scope.spawn(move || {
            let mut hear = |progress: &Progress| {
                if matches!(progress.state, State::Waiting | State::Done) {
                    let _ = further.send(());
                }
            };
            let pulled = pull(store, REPO, None, &house.network(), cancel, &mut hear);
            let _ = ended.send(pulled.map(|pulled| pulled.model));
        });
        let outcomes = [ends.recv_timeout(PATIENCE), ends.recv_timeout(PATIENCE)];
        cancel.cancel();
        for outcome in outcomes {
            let model = outcome.expect("they wait for each other").unwrap();
            assert!(hearth_gguf::Model::open(&house.store.path(&model)).is_ok());
        }
    });
    assert_eq!(house.store.list().unwrap().len(), 2);
    assert_eq!(names_in(&house.store.root().join("partial")), [""; 0]);
}

#[test]
fn what_a_pull_is_about_to_name_is_neither_pruned_nor_removed_with_another_name() {
    let house = house();
    house.pull(REPO).unwrap();
    house.store.copy(REPO, "big").unwrap();
    house.store.remove(REPO).unwrap();
    let links = || names_in(&house.store.root().join("parts"));
    let there = links();
    assert_eq!(there.len(), 1);
    // All of it is here and has one name, which goes while the pull is about to give it another.
    let mut hear = |progress: &Progress| {
        if progress.state == State::Verifying {
            assert_eq!(house.store.remove("big").unwrap().freed, 0);
            assert_eq!(links(), there, "removed from under a pull");
            assert_eq!(house.store.prune().unwrap().blobs, 0);
            assert_eq!(links(), there, "pruned from under a pull");
        }
    };
    let network = house.network();
    let cancel = Cancel::new();
    let model = pull(&house.store, REPO, None, &network, &cancel, &mut hear)
        .unwrap()
        .model;
    assert!(hearth_gguf::Model::open(&house.store.path(&model)).is_ok());
    // Once nobody brings it any more, its parts are like all others.
    std::fs::remove_dir_all(house.store.root().join("names")).unwrap();
    assert_eq!(house.store.prune().unwrap().blobs, 2);
    assert_eq!(links(), [""; 0]);
}
