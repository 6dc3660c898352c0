//! What a pull does when nothing goes wrong, and which model a name means.

use hearth_models::{Cancel, Digest, Kind, Reason, Source, State, pull};
use hearth_testkit::gguf::Quantisation;
use hearth_testkit::hub::{COMMIT, Faults, Hub};

use crate::household::{CHUNK, House, REPO, States, tiny, usual, with_token};

#[test]
fn parallel_ranges_make_the_file_and_its_name() {
    let house = House::new();
    let mut states = States::default();
    let mut bytes = 0;
    let mut hear = |progress: &hearth_models::Progress| {
        assert!(progress.bytes <= progress.total, "{progress:?}");
        bytes = progress.bytes;
        states.hear(progress);
    };
    let network = house.network();
    let pulled = pull(
        &house.store,
        REPO,
        None,
        &network,
        &Cancel::new(),
        &mut hear,
    )
    .unwrap();
    let model = &pulled.model;
    assert_eq!(model.name, "hf:org/tiny-GGUF:Q4_K_M");
    assert_eq!(model.files[0].digest, Digest::of_bytes(usual()));
    assert_eq!(pulled.downloaded, usual().len() as u64);
    assert_eq!(bytes, usual().len() as u64);
    house.assert_installed(model, usual());
    assert_eq!(model.facts.quantisation, "Q4_K_M");
    assert_eq!(model.facts.kind, Kind::Chat);
    assert!(model.facts.parameters > 0 && model.pulled.ends_with('Z'));
    let Source::Hub {
        repo, commit, file, ..
    } = &model.source
    else {
        panic!("{:?}", model.source);
    };
    assert_eq!((repo.as_str(), file.as_str()), (REPO, "tiny-Q4_K_M.gguf"));
    assert_eq!(commit.as_deref(), Some(COMMIT));
    assert_eq!(states.0.first(), Some(&State::Resolving));
    assert_eq!(states.0.last(), Some(&State::Done));
    // Every part once, beside the first look.
    let ranges = house
        .hub
        .seen()
        .iter()
        .filter(|seen| seen.range.is_some())
        .count();
    assert_eq!(ranges, 1 + usual().len().div_ceil(CHUNK as usize));
}

#[test]
fn what_is_here_is_not_fetched_again() {
    let house = House::new();
    let first = house.pull("org/tiny-GGUF:Q4_K_M").unwrap();
    house.hub.forget();
    let again = house.pull("hf:ORG/tiny-gguf:q4_k_m");
    // The hub's names have their case; a name in the store has none.
    assert_eq!(again.unwrap_err().reason(), Reason::NotFound);
    let again = house.pull("hf.co/org/tiny-GGUF").unwrap();
    assert_eq!(again.downloaded, 0);
    assert_eq!(house.hub.sent(), 0);
    assert_eq!(again.model.files, first.model.files);
    assert_eq!(house.store.list().unwrap().len(), 1);
}

#[test]
fn a_quantisation_can_be_chosen_and_a_wrong_one_is_answered_with_those_there_are() {
    let house = House::with_two();
    let model = house.pull("org/tiny-GGUF:q8_0").unwrap().model;
    assert_eq!(model.name, "hf:org/tiny-GGUF:Q8_0");
    let model = house.pull("org/tiny-GGUF:tiny-Q8_0.gguf").unwrap().model;
    assert_eq!(model.name, "hf:org/tiny-GGUF:tiny-Q8_0.gguf");
    assert_eq!(house.store.list().unwrap().len(), 2);
    let error = house.pull("org/tiny-GGUF:Q2_K").unwrap_err();
    assert_eq!(error.reason(), Reason::NotFound);
    assert!(
        error.message().contains("there are: Q4_K_M, Q8_0"),
        "{error}"
    );
}

#[test]
fn a_short_name_is_looked_up_in_the_catalogue() {
    let hub = Hub::start();
    let known = hearth_models::catalogue::known("qwen3:0.6b").unwrap();
    hub.add(&known.repo, "Qwen3-0.6B-Q4_K_M.gguf", usual().to_vec());
    hub.add(
        &known.repo,
        "Qwen3-0.6B-Q8_0.gguf",
        tiny(Quantisation::Q8_0, 1),
    );
    hub.add(&known.repo, "mmproj-F16.gguf", b"not a model".to_vec());
    let house = House::with(hub);
    let model = house.pull("qwen3:0.6b").unwrap().model;
    assert_eq!(model.name, "qwen3:0.6b");
    assert_eq!(model.facts.licence.as_deref(), Some("Apache-2.0"));
    assert_eq!(
        house.pull("qwen3:0.6b-q8_0").unwrap().model.name,
        "qwen3:0.6b-q8_0"
    );
    let error = house.pull("qwen9:1b").unwrap_err();
    assert!(error.to_string().contains("hf:org/repo"), "{error}");
    // Found without its tag only while it is the one.
    assert_eq!(
        house.store.find("qwen3").unwrap_err().reason(),
        Reason::NotHere
    );
    house.store.remove("qwen3:0.6b-q8_0").unwrap();
    assert_eq!(house.store.find("qwen3").unwrap().name, "qwen3:0.6b");
}

#[test]
fn a_list_over_several_pages_is_read_to_its_end() {
    let house = House::with_two();
    house.hub.set(Faults {
        page: Some(1),
        ..Faults::default()
    });
    assert!(house.pull("org/tiny-GGUF:Q8_0").is_ok());
    let pages = house
        .hub
        .seen()
        .iter()
        .filter(|seen| seen.path.contains("/tree/"))
        .count();
    assert_eq!(pages, 3);
}

#[test]
fn the_token_stays_with_the_hub_when_files_are_elsewhere() {
    let house = House::new();
    house.hub.set(Faults {
        redirect: true,
        token: Some("hf_secret".into()),
        ..Faults::default()
    });
    let network = with_token(house.network(), "hf_secret");
    let model = house.pull_with(REPO, &network).unwrap().model;
    house.assert_installed(&model, usual());
    let seen = house.hub.seen();
    let (elsewhere, hub): (Vec<_>, Vec<_>) = seen.iter().partition(|seen| seen.elsewhere);
    assert!(!elsewhere.is_empty() && !hub.is_empty());
    assert!(elsewhere.iter().all(|seen| seen.authorization.is_none()));
    let authorised =
        |authorization: &Option<String>| authorization.as_deref() == Some("Bearer hf_secret");
    assert!(hub.iter().all(|seen| authorised(&seen.authorization)));
    // The hub is asked once where the file is, not for each part.
    assert_eq!(
        hub.iter()
            .filter(|seen| seen.path.contains("/resolve/"))
            .count(),
        1
    );
}

#[test]
fn an_address_that_expires_is_asked_for_anew() {
    let house = House::new();
    house.hub.set(Faults {
        redirect: true,
        address_uses: Some(3),
        ..Faults::default()
    });
    let model = house.pull(REPO).unwrap().model;
    house.assert_installed(&model, usual());
}

#[test]
fn a_mirror_is_an_address_like_any_other_and_may_have_a_path() {
    let house = House::new();
    let mut network = house.network();
    network.hub = format!("{}/", network.hub);
    assert!(house.pull_with(REPO, &network).is_ok());
    network.hub = "not an address".into();
    let error = house.pull_with(REPO, &network).unwrap_err();
    assert_eq!(error.reason(), Reason::Invalid);
}

#[test]
fn offline_contacts_nobody_and_says_so() {
    let house = House::new();
    let network = hearth_models::Network {
        offline: true,
        ..house.network()
    };
    for from in [None, Some(house.hub.url())] {
        let error = pull(
            &house.store,
            REPO,
            from.as_deref(),
            &network,
            &Cancel::new(),
            &mut |_| {},
        )
        .unwrap_err();
        assert_eq!(error.reason(), Reason::Offline);
        assert!(error.to_string().contains("offline"), "{error}");
    }
    assert_eq!(house.hub.seen(), []);
}

#[test]
fn two_pulls_of_one_model_fetch_it_once() {
    let house = House::new();
    house.hub.set(Faults {
        hold_after: Some(100_000),
        ..Faults::default()
    });
    std::thread::scope(|scope| {
        let first = scope.spawn(|| house.pull(REPO));
        hearth_testkit::node::wait_until(crate::household::PATIENCE, "the first pull", || {
            house.hub.held() > 0
        });
        let (waiting, waits) = std::sync::mpsc::channel();
        let second = scope.spawn(|| {
            let waiting = waiting;
            let mut hear = |progress: &hearth_models::Progress| {
                if progress.state == State::Waiting {
                    let _ = waiting.send(());
                }
            };
            pull(
                &house.store,
                REPO,
                None,
                &house.network(),
                &Cancel::new(),
                &mut hear,
            )
        });
        waits.recv_timeout(crate::household::PATIENCE).unwrap();
        house.hub.release();
        let first = first.join().unwrap().unwrap();
        let second = second.join().unwrap().unwrap();
        assert_eq!(first.downloaded, usual().len() as u64);
        assert_eq!(second.downloaded, 0);
        house.assert_installed(&second.model, usual());
    });
    let probe = 1;
    assert_eq!(house.hub.sent(), usual().len() as u64 + probe);
}

#[test]
fn a_cancelled_pull_returns_and_the_next_goes_on() {
    let house = House::new();
    house.hub.set(Faults {
        hold_after: Some(120_000),
        ..Faults::default()
    });
    let cancel = Cancel::new();
    std::thread::scope(|scope| {
        let pulling = scope.spawn(|| {
            pull(
                &house.store,
                REPO,
                None,
                &house.network(),
                &cancel,
                &mut |_| {},
            )
        });
        hearth_testkit::node::wait_until(crate::household::PATIENCE, "parts to come", || {
            house.hub.held() > 0
        });
        cancel.cancel();
        let error = pulling.join().unwrap().unwrap_err();
        assert_eq!(error.reason(), Reason::Cancelled);
    });
    house.assert_nothing_installed();
    house.hub.release();
    let pulled = house.pull(REPO).unwrap();
    house.assert_installed(&pulled.model, usual());
    assert!(pulled.downloaded < usual().len() as u64, "nothing was kept");
}
