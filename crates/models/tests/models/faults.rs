//! Networks, servers and files that fail: what comes of it, and what people are told.

use hearth_models::{Cancel, Error, Network, Progress, Reason, pull};
use hearth_testkit::hub::Faults;
use proptest::prelude::*;

use crate::household::{CHUNK, House, REPO, answer_once, names_in, usual, with_token};

#[test]
fn cut_connections_are_taken_up_where_they_broke() {
    let house = House::new();
    house.hub.set(Faults {
        cuts: Some((20_000, 12)),
        ..Faults::default()
    });
    let model = house.pull(REPO).unwrap().model;
    house.assert_installed(&model, usual());
    // A part goes on in its middle.
    let starts_inside = house.hub.seen().iter().any(|seen| {
        let first = seen
            .range
            .as_deref()
            .and_then(|range| range.strip_prefix("bytes="));
        let first = first.and_then(|range| range.split('-').next()?.parse::<u64>().ok());
        first.is_some_and(|first| first % CHUNK != 0)
    });
    assert!(starts_inside);
}

#[test]
fn a_network_that_stays_broken_is_given_up_and_what_came_is_kept() {
    let house = House::new();
    house.hub.set(Faults {
        dies_after: Some(200_000),
        ..Faults::default()
    });
    let error = house.pull(REPO).unwrap_err();
    assert_eq!(error.reason(), Reason::Unreachable);
    assert!(
        error.to_string().contains("goes on where it stopped"),
        "{error}"
    );
    house.assert_nothing_installed();
    house.hub.set(Faults::default());
    let pulled = house.pull(REPO).unwrap();
    house.assert_installed(&pulled.model, usual());
    assert!(pulled.downloaded < usual().len() as u64, "nothing was kept");
}

#[test]
fn a_server_without_ranges_works_and_a_cut_begins_anew() {
    let house = House::new();
    house.hub.set(Faults {
        no_ranges: true,
        cuts: Some((200_000, 2)),
        ..Faults::default()
    });
    let model = house.pull(REPO).unwrap().model;
    house.assert_installed(&model, usual());
}

#[test]
fn a_wrong_checksum_is_refused_and_nothing_is_installed_or_kept() {
    for no_ranges in [false, true] {
        let house = House::new();
        house.hub.set(Faults {
            wrong_bit: true,
            no_ranges,
            ..Faults::default()
        });
        let error = house.pull(REPO).unwrap_err();
        assert_eq!(error.reason(), Reason::Corrupt);
        assert!(error.message().contains("wrong checksum"), "{error}");
        house.assert_nothing_installed();
        assert_eq!(names_in(&house.store.root().join("partial")), [""; 0]);
        house.hub.set(Faults::default());
        let model = house.pull(REPO).unwrap().model;
        house.assert_installed(&model, usual());
    }
}

#[test]
fn what_an_earlier_pull_left_damaged_is_fetched_anew() {
    let house = House::new();
    house.hub.set(Faults {
        status: None,
        ..Faults::default()
    });
    let network = Network {
        connections: 1,
        ..house.network()
    };
    // The first parts come, then the server fails for good.
    house.hub.set(Faults {
        hold_after: Some(110_000),
        ..Faults::default()
    });
    let cancel = hearth_models::Cancel::new();
    std::thread::scope(|scope| {
        let pulling = scope.spawn(|| {
            hearth_models::pull(&house.store, REPO, None, &network, &cancel, &mut |_| {})
        });
        hearth_testkit::node::wait_until(crate::household::PATIENCE, "parts to come", || {
            house.hub.held() > 0
        });
        cancel.cancel();
        assert!(pulling.join().unwrap().is_err());
    });
    house.hub.release();
    let partials = house.store.root().join("partial");
    let partial = names_in(&partials)
        .into_iter()
        .find(|name| !name.ends_with(".chunks"));
    let partial = partials.join(partial.unwrap());
    let mut bytes = std::fs::read(&partial).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&partial, bytes).unwrap();
    let model = house.pull(REPO).unwrap().model;
    house.assert_installed(&model, usual());
}

#[test]
fn a_file_that_is_no_model_is_refused_and_not_kept() {
    let house = House::new();
    let mut hostile = usual().to_vec();
    // A number of tensors that no file has.
    hostile[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    for (path, bytes) in [
        ("a-Q4_0.gguf", hostile),
        ("b-Q4_1.gguf", b"<html>not a model</html>".to_vec()),
        ("c-Q5_0.gguf", usual()[..usual().len() / 2].to_vec()),
    ] {
        house.hub.add(REPO, path, bytes);
        let error = house.pull(&format!("{REPO}:{}", &path[2..6])).unwrap_err();
        assert_eq!(error.reason(), Reason::Refused, "{path}: {error}");
        assert!(error.advice().is_some(), "{error}");
        house.assert_nothing_installed();
    }
}

#[test]
fn a_list_that_lies_about_the_length_is_found_out_before_the_first_byte() {
    let house = House::new();
    house.hub.set(Faults {
        wrong_size: true,
        ..Faults::default()
    });
    let error = house.pull(REPO).unwrap_err();
    assert_eq!(error.reason(), Reason::Corrupt);
    assert!(house.hub.sent() <= 1);
}

#[test]
fn each_refusal_of_the_hub_is_explained_with_its_fix() {
    let house = House::new();
    let gated = Faults {
        token: Some("hf_good".into()),
        ..Faults::default()
    };
    house.hub.set(gated.clone());
    let error = house.pull(REPO).unwrap_err();
    assert_eq!(error.reason(), Reason::Denied);
    let fix = error.advice().unwrap();
    assert!(
        fix.contains("accept the licence at") && fix.contains("HF_TOKEN"),
        "{fix}"
    );
    let error = house
        .pull_with(REPO, &with_token(house.network(), "hf_bad"))
        .unwrap_err();
    assert_eq!(error.reason(), Reason::Denied);
    assert!(
        error
            .advice()
            .unwrap()
            .contains("with the account of your HF_TOKEN"),
        "{error}"
    );
    assert!(
        !error.to_string().contains("hf_bad"),
        "a token is never shown"
    );
    assert!(
        house
            .pull_with(REPO, &with_token(house.network(), "hf_good"))
            .is_ok()
    );

    let house = House::new();
    let error = house.pull("org/nothing").unwrap_err();
    assert_eq!(error.reason(), Reason::NotFound);
    assert!(
        error.to_string().contains("no repository org/nothing"),
        "{error}"
    );

    for (status, reason, words) in [
        (401, Reason::Denied, "private, gated, or not there"),
        (403, Reason::Denied, "refuses"),
        (
            429,
            Reason::Limited,
            "with HF_TOKEN set the limit is higher",
        ),
        (500, Reason::Unreachable, "in trouble"),
        (503, Reason::Unreachable, "in trouble"),
        (418, Reason::Unreachable, "status 418"),
    ] {
        house.hub.set(Faults {
            list_status: Some(status),
            ..Faults::default()
        });
        let error = house.pull(REPO).unwrap_err();
        assert_eq!(error.reason(), reason, "{status}: {error}");
        assert!(error.to_string().contains(words), "{status}: {error}");
        assert!(error.advice().is_some(), "{status}");
    }
}

#[test]
fn passing_trouble_is_waited_out() {
    for status in [429, 500, 503] {
        let house = House::new();
        house.hub.set(Faults {
            status: Some((status, 3)),
            status_header: Some(("retry-after", "0".into())),
            ..Faults::default()
        });
        assert!(house.pull(REPO).is_ok(), "{status}");
    }
    // Nobody waits an hour without being told.
    let house = House::new();
    house.hub.set(Faults {
        status: Some((429, 1)),
        status_header: Some(("retry-after", "3600".into())),
        ..Faults::default()
    });
    assert_eq!(house.pull(REPO).unwrap_err().reason(), Reason::Limited);
}

/// What a hub lists that has one file of this length.
fn list_of_one(size: u64) -> String {
    let entry = serde_json::json!([{
        "type": "file", "path": "m-Q4_K_M.gguf", "size": size,
        "lfs": {"oid": "0".repeat(64), "size": size}
    }]);
    entry.to_string()
}

/// A pull from this hub that fails, and what was told of its tries.
fn tries(house: &House, hub: String) -> (Error, Vec<String>) {
    let network = Network {
        hub,
        ..house.network()
    };
    let mut told = Vec::new();
    let mut hear = |progress: &Progress| told.extend(progress.trouble.clone());
    let cancel = Cancel::new();
    let error = pull(&house.store, REPO, None, &network, &cancel, &mut hear).unwrap_err();
    assert_eq!(error.reason(), Reason::Unreachable);
    (error, told)
}

#[test]
fn a_hub_that_is_not_there_is_named_soon_with_other_ways() {
    let house = House::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let (error, told) = tries(&house, format!("http://{address}"));
    let what = format!("the hub cannot be reached: {address} does not accept connections");
    assert_eq!(error.message(), what);
    assert_eq!(told, [format!("{what}; trying again (2 of 2)")]);
    for way in ["--from", "--hub", "hearth models import"] {
        assert!(error.advice().unwrap().contains(way), "{error}");
    }
    // A name that nobody has, RFC 6761; a slow look-up is not repeated.
    let (error, told) = tries(&house, "http://hub.invalid".into());
    assert!(error.message().contains("the name hub.invalid"), "{error}");
    assert!(error.advice().unwrap().contains("--from"), "{error}");
    assert!(told.len() <= 1, "{told:?}");
}

#[test]
fn a_hub_that_was_met_and_goes_away_is_waited_for() {
    let house = House::new();
    let (address, server) = answer_once("200 OK", list_of_one(1_000));
    let (error, told) = tries(&house, format!("http://{address}"));
    server.join().unwrap();
    assert!(error.advice().unwrap().contains("goes on"), "{error}");
    let ends: Vec<&str> = told
        .iter()
        .map(|what| &what[what.len() - "(2 of 4)".len()..])
        .collect();
    assert_eq!(ends, ["(2 of 4)", "(3 of 4)", "(4 of 4)"]);
}

#[test]
fn a_model_that_does_not_fit_on_the_disk_is_refused_before_the_first_byte() {
    let house = House::new();
    // A length that no disk has; the list may say what it likes.
    let (address, server) = answer_once("200 OK", list_of_one(1 << 60));
    let network = Network {
        hub: format!("http://{address}"),
        ..house.network()
    };
    let error = house.pull_with(REPO, &network).unwrap_err();
    server.join().unwrap();
    assert_eq!(error.reason(), Reason::Space);
    assert!(error.message().contains("MiB free"), "{error}");
    house.assert_nothing_installed();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_mixture_of_faults_ends_with_the_right_file(
        cut in 1_000u64..400_000,
        cuts in 0usize..6,
        busy in 0usize..4,
        no_ranges in any::<bool>(),
        redirect in any::<bool>(),
        uses in prop::option::of(2usize..6),
        connections in 1usize..8,
        chunk in 10_000u64..2_000_000,
    ) {
        let house = House::new();
        house.hub.set(Faults {
            cuts: Some((cut, cuts)),
            status: Some((503, busy)),
            no_ranges,
            redirect,
            address_uses: uses,
            ..Faults::default()
        });
        let network = Network { connections, chunk, retries: 20, ..house.network() };
        let model = house.pull_with(REPO, &network).unwrap().model;
        house.assert_installed(&model, usual());
    }
}
