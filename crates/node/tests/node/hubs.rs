//! Several hubs of one household, which share a PostgreSQL: any of them does, and each may be away.

use std::path::Path;
use std::time::{Duration, Instant};

use hearth_engine::Catalogue;
use hearth_mesh::identity::Identity;
use hearth_node::{MeshOptions, NodeOptions, SCHEMA};
use hearth_store::Store;
use hearth_testkit::node::{TestNode, node_options, options, wait_until};
use hearth_testkit::postgres::Postgres;
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// Where machines that are switched off and on keep what they have, and the database that some of them share.
struct House {
    cluster: Postgres,
    database: String,
    homes: TempDir,
}

impl House {
    fn new() -> Self {
        let cluster = Postgres::start();
        let database = cluster.database();
        Self {
            cluster,
            database,
            homes: tempfile::tempdir().unwrap(),
        }
    }

    /// Switches on a machine that has the database.
    fn hub(&self, name: &str) -> TestNode {
        start(&self.homes.path().join(name), name, Some(&self.database))
    }

    /// Switches on a machine that opens the database as a user of its own.
    fn hub_as(&self, name: &str, user: &str) -> TestNode {
        let own = self
            .database
            .replace("user=hearth", &format!("user={user}"));
        assert_ne!(own, self.database);
        start(&self.homes.path().join(name), name, Some(&own))
    }

    /// Switches on a machine without it.
    fn machine(&self, name: &str) -> TestNode {
        start(&self.homes.path().join(name), name, None)
    }
}

fn start(home: &Path, name: &str, database: Option<&str>) -> TestNode {
    std::fs::create_dir_all(home).unwrap();
    let node = NodeOptions {
        store: Some(Store::open(&home.join("hearth.db"), SCHEMA).unwrap()),
        mesh: Some(MeshOptions {
            identity: Identity::load_or_create(&home.join("node.key")).unwrap(),
            name: name.into(),
            addresses: Some(vec!["http://127.0.0.1:0".parse().unwrap()]),
            database: database.map(str::to_owned),
            ..MeshOptions::unkept()
        }),
        ..node_options()
    };
    TestNode::serving(Catalogue::new(None), options(), node)
}

fn ticket(hub: &TestNode) -> Value {
    let invited = hub.post("/household/invite", "{}");
    assert_eq!(invited.status, 200, "{invited:?}");
    invited.json()["ticket"].clone()
}

fn join(node: &TestNode, ticket: &Value) {
    let joined = node.post("/household/join", json!({ "ticket": ticket }).to_string());
    assert_eq!(joined.status, 200, "{joined:?}");
}

/// The members' names, with a star after those of hubs, in their order.
fn members(node: &TestNode) -> Vec<String> {
    let peers = node.get("/peers").json();
    let members = peers["members"].as_array().unwrap().iter();
    let mut names: Vec<String> = members
        .map(|member| {
            let star = if member["is_hub"] == true { "*" } else { "" };
            format!("{}{star}", member["name"].as_str().unwrap())
        })
        .collect();
    names.sort();
    names
}

fn await_members(nodes: &[&TestNode], wanted: &[&str]) {
    for (at, node) in nodes.iter().enumerate() {
        wait_until(PATIENCE, &format!("{wanted:?} at {at}"), || {
            members(node) == wanted
        });
    }
}

/// Lets nobody into a database, or all again.
fn close(house: &House, closed: bool) {
    let cluster = &house.cluster;
    let name = house.database.trim_start_matches("postgres:///");
    let name = name.split('?').next().unwrap();
    let is_open = !closed;
    cluster.run(
        "postgres",
        &format!("ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {is_open}"),
    );
    if closed {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname =";
        cluster.run("postgres", &format!("{end} '{name}'"));
    }
}

#[test]
fn any_hub_does_and_each_may_be_away() {
    let house = House::new();
    let first = house.hub("first");
    let laptop = house.machine("laptop");
    join(&laptop, &ticket(&first));
    // Who may open the database needs no ticket.
    let second = house.hub("second");
    await_members(
        &[&first, &second, &laptop],
        &["first*", "laptop", "second*"],
    );
    let phone = house.machine("phone");
    join(&phone, &ticket(&second));
    let all = ["first*", "laptop", "phone", "second*"];
    await_members(&[&first, &second, &laptop, &phone], &all);

    // Streams of events, which have no end of their own, do not keep it.
    let stopping = Instant::now();
    drop(first);
    assert!(
        stopping.elapsed() < Duration::from_secs(9),
        "it waits for its followers"
    );
    // Through a member, which finds the other hub.
    let invited = laptop.post("/household/invite", "{}");
    assert_eq!(invited.status, 200, "{invited:?}");
    let tablet = house.machine("tablet");
    join(&tablet, &invited.json()["ticket"]);
    let removed = second.delete("/household/members/phone", "");
    assert_eq!(removed.status, 200, "{removed:?}");
    let left = ["first*", "laptop", "second*", "tablet"];
    await_members(&[&second, &laptop, &tablet], &left);
    wait_until(PATIENCE, "the removed machine knows", || {
        let refused = phone.post("/household/invite", "{}");
        refused.status == 403 || refused.status == 409
    });

    let first = house.hub("first");
    await_members(&[&first], &left);
    // It listens elsewhere now, which only a hub can tell.
    let place = first.address().to_string();
    wait_until(PATIENCE, "the laptop knows where it is", || {
        laptop.get("/peers").body.contains(&place)
    });
    drop(second);
    let removed = first.delete("/household/members/tablet", "");
    assert_eq!(removed.status, 200, "{removed:?}");
    await_members(&[&first, &laptop], &["first*", "laptop", "second*"]);
}

#[test]
fn a_household_moves_into_a_database_and_its_members_notice_nothing() {
    let house = House::new();
    let hub = house.machine("hub");
    let laptop = house.machine("laptop");
    join(&laptop, &ticket(&hub));
    let unused = ticket(&hub);
    let household = hub.get("/peers").json()["household"].clone();
    drop(hub);

    let hub = house.hub("hub");
    assert_eq!(hub.get("/peers").json()["household"], household);
    let second = house.hub("second");
    await_members(&[&hub, &second], &["hub*", "laptop", "second*"]);
    drop((laptop, hub));
    let laptop = house.machine("laptop");
    let phone = house.machine("phone");
    // A ticket of before is still good, at whichever hub its holder reaches.
    let answer = phone.post("/household/join", json!({ "ticket": unused }).to_string());
    assert_eq!(answer.status, 502, "its hub is off: {answer:?}");
    join(&phone, &ticket(&second));
    let all = ["hub*", "laptop", "phone", "second*"];
    await_members(&[&second, &phone], &all);

    // Without its database a machine is no hub any more: there would be two lists of members.
    let hub = house.machine("hub");
    let refused = hub.delete("/household/members/phone", "");
    assert_eq!(refused.status, 409, "{refused:?}");
    await_members(&[&hub, &second], &["hub", "laptop", "phone", "second*"]);
    drop(laptop);
}

#[test]
fn a_hub_whose_database_is_away_goes_on_as_a_member() {
    let house = House::new();
    let hub = house.hub("hub");
    let laptop = house.machine("laptop");
    join(&laptop, &ticket(&hub));
    await_members(&[&hub, &laptop], &["hub*", "laptop"]);

    close(&house, true);
    let refused = hub.post("/household/invite", "{}");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.body.contains("database_url"), "{refused:?}");
    await_members(&[&hub, &laptop], &["hub*", "laptop"]);
    drop(hub);
    let hub = house.hub("hub");
    await_members(&[&hub], &["hub*", "laptop"]);
    assert_eq!(hub.get("/peers").json()["is_hub"], false);
    close(&house, false);
    wait_until(PATIENCE, "it is a hub again", || {
        hub.get("/peers").json()["is_hub"] == true
    });
    let phone = house.machine("phone");
    join(&phone, &ticket(&hub));
    await_members(&[&hub, &phone], &["hub*", "laptop", "phone"]);
}

#[test]
fn a_database_of_which_nothing_comes_back_holds_up_nothing_for_long() {
    let house = House::new();
    let hub = house.hub("hub");
    let laptop = house.machine("laptop");
    join(&laptop, &ticket(&hub));
    await_members(&[&hub, &laptop], &["hub*", "laptop"]);

    // In the middle of a change: all can be read, and its event is never written.
    house
        .cluster
        .lock(&house.database, "fanout_event IN SHARE MODE");
    let refused = hub.delete("/household/members/laptop", "");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.body.contains("database_url"), "{refused:?}");
    house.cluster.end_locks();
    await_members(&[&hub, &laptop], &["hub*", "laptop"]);
    let renamed = hub.patch("/household/members/laptop", r#"{"name": "desk"}"#);
    assert_eq!(renamed.status, 200, "{renamed:?}");
    await_members(&[&hub, &laptop], &["desk", "hub*"]);

    // Before anything is known of the state.
    house.cluster.lock(
        &house.database,
        "household_key, household_ticket, fanout_log, fanout_event, fanout_state",
    );
    let refused = hub.delete("/household/members/desk", "");
    assert_eq!(refused.status, 503, "{refused:?}");
    wait_until(PATIENCE, "it goes on as a member", || {
        hub.get("/peers").json()["is_hub"] == false
    });
    house.cluster.end_locks();
    wait_until(PATIENCE, "it is a hub again", || {
        hub.get("/peers").json()["is_hub"] == true
    });
    let phone = house.machine("phone");
    join(&phone, &ticket(&hub));
    await_members(&[&hub, &phone], &["desk", "hub*", "phone"]);

    // A node that starts while the key can be read and the state cannot is a member meanwhile.
    drop(hub);
    house
        .cluster
        .lock(&house.database, "fanout_log, fanout_event, fanout_state");
    let hub = house.hub("hub");
    assert_eq!(hub.get("/peers").json()["is_hub"], false);
    await_members(&[&hub], &["desk", "hub*", "phone"]);
    house.cluster.end_locks();
    wait_until(PATIENCE, "it is a hub once more", || {
        hub.get("/peers").json()["is_hub"] == true
    });
}

#[test]
fn a_hub_that_alone_lost_the_database_follows_another_one() {
    let house = House::new();
    let sql = |sql: &str| house.cluster.run("postgres", sql);
    sql("CREATE ROLE cut LOGIN SUPERUSER");
    let first = house.hub_as("first", "cut");
    let laptop = house.machine("laptop");
    join(&laptop, &ticket(&first));
    let phone = house.machine("phone");
    join(&phone, &ticket(&first));
    let second = house.hub("second");
    let all = ["first*", "laptop", "phone", "second*"];
    await_members(&[&first, &second, &laptop, &phone], &all);

    sql("ALTER ROLE cut NOLOGIN");
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'cut'");
    // What a member asks, another hub does, whichever it followed.
    let renamed = laptop.post("/household/invite", "{}");
    assert_eq!(renamed.status, 200, "{renamed:?}");
    let removed = second.delete("/household/members/phone", "");
    assert_eq!(removed.status, 200, "{removed:?}");
    await_members(&[&second, &first, &laptop], &["first", "laptop", "second*"]);

    sql("ALTER ROLE cut LOGIN");
    let back = ["first*", "laptop", "second*"];
    await_members(&[&first, &second, &laptop], &back);
}

#[test]
fn hubs_take_turns() {
    let house = House::new();
    let hubs = [house.hub("one"), house.hub("two")];
    // Both found the household at once, and there is one.
    let tickets: Vec<Value> = std::thread::scope(|scope| {
        let each = hubs
            .each_ref()
            .map(|hub| scope.spawn(move || (0..3).map(|_| ticket(hub)).collect::<Vec<Value>>()));
        each.into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    await_members(&[&hubs[0], &hubs[1]], &["one*", "two*"]);
    // Six machines of the same name come in at both doors at once.
    let homes: Vec<_> = tickets
        .iter()
        .map(|_| tempfile::tempdir().unwrap())
        .collect();
    let nodes: Vec<TestNode> = std::thread::scope(|scope| {
        let joining = homes.iter().zip(&tickets).map(|(home, ticket)| {
            scope.spawn(move || {
                let node = start(home.path(), "box", None);
                join(&node, ticket);
                node
            })
        });
        let joining: Vec<_> = joining.collect();
        joining
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let all = [
        "box", "box-2", "box-3", "box-4", "box-5", "box-6", "one*", "two*",
    ];
    await_members(&hubs.iter().chain(&nodes).collect::<Vec<_>>(), &all);
}

#[test]
fn who_was_removed_or_is_of_another_household_does_not_come_in_by_the_database() {
    let house = House::new();
    let hub = house.hub("hub");
    let back = ticket(&hub);
    let second = house.hub("second");
    await_members(&[&hub], &["hub*", "second*"]);
    let left = second.post("/household/leave", "{}");
    assert_eq!(left.status, 200, "{left:?}");
    await_members(&[&hub], &["hub*"]);
    let refused = second.post("/household/invite", "{}");
    assert_eq!(refused.status, 403, "{refused:?}");
    drop(second);
    let second = house.hub("second");
    assert_eq!(second.get("/peers").json()["household"], Value::Null);
    join(&second, &back);
    await_members(&[&hub, &second], &["hub*", "second*"]);

    let stranger = house.machine("stranger");
    let other = ticket(&stranger);
    drop(stranger);
    let third = house.hub("third");
    await_members(&[&third], &["hub*", "second*", "third*"]);
    let left = third.post("/household/leave", "{}");
    assert_eq!(left.status, 200, "{left:?}");
    let refused = third.post("/household/join", json!({ "ticket": other }).to_string());
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(refused.body.contains("other_household"), "{refused:?}");

    // The last one puts out the light.
    let left = second.post("/household/leave", "{}");
    assert_eq!(left.status, 200, "{left:?}");
    let left = hub.post("/household/leave", "{}");
    assert_eq!(left.status, 200, "{left:?}");
    ticket(&second);
    await_members(&[&second], &["second*"]);
}
