//! Processes that end in the middle of a pull, and disks that are full in the middle of it.

use std::process::{Child, Command, Stdio};

use hearth_models::Reason;
use hearth_testkit::hub::Faults;
use hearth_testkit::node::wait_until;

use crate::household::{House, PATIENCE, REPO, names_in, network, usual};

/// What a child process is told.
pub const HUB: &str = "HEARTH_TEST_HUB";
pub const FOLDER: &str = "HEARTH_TEST_FOLDER";

/// Not a test of its own: the process that the tests below end.
#[test]
#[ignore = "run by other tests as a process of its own"]
fn child() {
    let (Ok(hub), Ok(folder)) = (std::env::var(HUB), std::env::var(FOLDER)) else {
        return;
    };
    let store = hearth_models::ModelStore::new(folder);
    let cancel = hearth_models::Cancel::new();
    let network = hearth_models::Network {
        chunk: CHILD_CHUNK,
        ..network(&hub)
    };
    match hearth_models::pull(&store, REPO, None, &network, &cancel, &mut |_| {}) {
        Ok(_) => {}
        Err(error) => {
            println!("reason: {:?}", error.reason());
            println!("{error}");
            std::process::exit(7);
        }
    }
}

/// Bytes of a part in that process: the hub sends so many at once.
const CHILD_CHUNK: u64 = 16 << 10;

/// How this program is told to be that process.
pub fn arguments() -> [&'static str; 4] {
    ["--exact", "interrupted::child", "--ignored", "--nocapture"]
}

fn pull_in_a_process(house: &House) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(arguments())
        .env(HUB, house.hub.url())
        .env(FOLDER, house.store.root())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Parts that are noted as complete.
fn parts_done(house: &House) -> u64 {
    let partial = house.store.root().join("partial");
    let maps = names_in(&partial);
    let Some(map) = maps.iter().find(|name| name.ends_with(".chunks")) else {
        return 0;
    };
    let text = std::fs::read_to_string(partial.join(map)).unwrap();
    (text.lines().count() as u64).saturating_sub(1)
}

#[test]
fn a_pull_that_was_killed_anywhere_goes_on_where_it_was() {
    let house = House::new();
    let total = usual().len() as u64;
    // Points all over the file, each from where the last process was ended.
    for share in [1, 7, 20, 33, 50, 66, 80, 92] {
        let (sent, done) = (house.hub.sent(), parts_done(&house));
        house.hub.set(Faults {
            hold_after: Some(total * share / 100),
            ..Faults::default()
        });
        let mut child = pull_in_a_process(&house);
        wait_until(PATIENCE, "all that was sent to be kept", || {
            // Every answer but the first look's byte has a part's length.
            let parts = (house.hub.sent() - sent) / CHILD_CHUNK;
            house.hub.held() > 0 && parts_done(&house) >= done + parts.saturating_sub(1)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(house.store.list().unwrap(), [], "a name before its time");
    }
    house.hub.release();
    let kept = parts_done(&house) * CHILD_CHUNK;
    assert!(kept > total / 2, "{kept} of {total}");
    let pulled = house.pull(REPO).unwrap();
    house.assert_installed(&pulled.model, usual());
    assert!(pulled.downloaded <= total - kept + CHILD_CHUNK);
}

#[test]
fn a_process_killed_after_its_download_left_the_old_state_or_the_new() {
    // The window between the last byte and the name is short: many tries, each ended a little later.
    for turn in 0..12u64 {
        let house = House::new();
        let mut child = pull_in_a_process(&house);
        let total = usual().len() as u64;
        let mut looks = 0;
        wait_until(PATIENCE, "the last byte", || {
            looks += u64::from(house.hub.sent() > total);
            looks > turn % 4 || child.try_wait().unwrap().is_some()
        });
        child.kill().unwrap();
        child.wait().unwrap();
        for model in house.store.list().unwrap() {
            assert!(std::fs::read(house.store.path(&model)).unwrap() == usual());
        }
        let model = house.pull(REPO).unwrap().model;
        house.assert_installed(&model, usual());
    }
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_said_and_the_pull_goes_on_when_there_is_room() {
    let house = House::new();
    // A limit on the length of files stands for the disk: the same writes fail, and no rights are needed.
    let blocks = usual().len() / 512 / 2;
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    let ended = Command::new("sh")
        .args(["-c", &script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(arguments())
        .env(HUB, house.hub.url())
        .env(FOLDER, house.store.root())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(ended.status.code(), Some(7), "{said}");
    assert!(
        said.contains(&format!("reason: {:?}", Reason::Space)),
        "{said}"
    );
    assert!(said.contains("free some space"), "{said}");
    house.assert_nothing_installed();
    assert_eq!(names_in(&house.store.root().join("partial")).len(), 2);
    let pulled = house.pull(REPO).unwrap();
    house.assert_installed(&pulled.model, usual());
    assert!(pulled.downloaded < usual().len() as u64, "nothing was kept");
}

#[test]
fn what_was_left_behind_is_pruned_and_what_is_under_way_is_not() {
    let house = House::new();
    house.hub.set(Faults {
        hold_after: Some(200_000),
        ..Faults::default()
    });
    let mut child = pull_in_a_process(&house);
    wait_until(PATIENCE, "the child's pull", || house.hub.held() > 0);
    let pruned = house.store.prune().unwrap();
    assert_eq!(
        (pruned.partials, pruned.freed),
        (0, 0),
        "taken from under a pull"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let pruned = house.store.prune().unwrap();
    assert_eq!(pruned.partials, 1);
    assert!(pruned.freed > 0);
    assert_eq!(names_in(&house.store.root().join("partial")), [""; 0]);
    assert_eq!(names_in(&house.store.root().join("locks")), ["store"]);
}
