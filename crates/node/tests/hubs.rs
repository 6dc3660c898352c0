//! Several hubs of one household, which share a PostgreSQL: any of them does, and each may be away.

#![allow(clippy::unwrap_used)]
#![cfg(unix)]

use std::path::Path;
use std::time::{Duration, Instant};

use hearth_engine::Catalogue;
use hearth_mesh::identity::Identity;
use hearth_node::{MeshOptions, NodeOptions, SCHEMA};
use hearth_store::Store;
use hearth_testkit::node::{TestNode, node_options, options, wait_until};
use hearth_testkit::postgres::Postgres;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// A machine that can be switched off and on.
struct Machine<'a> {
    name: &'static str,
    home: &'a Path,
}

impl Machine<'_> {
    fn start(&self, database: Option<&str>) -> TestNode {
        let home = self.home.join(self.name);
        std::fs::create_dir_all(&home).unwrap();
        let node = NodeOptions {
            store: Some(Store::open(&home.join("hearth.db"), SCHEMA).unwrap()),
            mesh: Some(MeshOptions {
                identity: Identity::load_or_create(&home.join("node.key")).unwrap(),
                name: self.name.into(),
                addresses: Some(vec!["http://127.0.0.1:0".parse().unwrap()]),
                database: database.map(str::to_owned),
                ..MeshOptions::unkept()
            }),
            ..node_options()
        };
        TestNode::serving(Catalogue::new(None), options(), node)
    }
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
fn close(cluster: &Postgres, url: &str, closed: bool) {
    let name = url.trim_start_matches("postgres:///");
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
    let cluster = Postgres::start();
    let (database, home) = (cluster.database(), tempfile::tempdir().unwrap());
    let machine = |name| Machine {
        name,
        home: home.path(),
    };
    let first = machine("first").start(Some(&database));
    let laptop = machine("laptop").start(None);
    join(&laptop, &ticket(&first));
    // Who may open the database needs no ticket.
    let second = machine("second").start(Some(&database));
    await_members(
        &[&first, &second, &laptop],
        &["first*", "laptop", "second*"],
    );
    let phone = machine("phone").start(None);
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
    let tablet = machine("tablet").start(None);
    join(&tablet, &invited.json()["ticket"]);
    let removed = second.delete("/household/members/phone", "");
    assert_eq!(removed.status, 200, "{removed:?}");
    let left = ["first*", "laptop", "second*", "tablet"];
    await_members(&[&second, &laptop, &tablet], &left);
    wait_until(PATIENCE, "the removed machine knows", || {
        let refused = phone.post("/household/invite", "{}");
        refused.status == 403 || refused.status == 409
    });

    let first = machine("first").start(Some(&database));
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
    let cluster = Postgres::start();
    let (database, home) = (cluster.database(), tempfile::tempdir().unwrap());
    let machine = |name| Machine {
        name,
        home: home.path(),
    };
    let hub = machine("hub").start(None);
    let laptop = machine("laptop").start(None);
    join(&laptop, &ticket(&hub));
    let unused = ticket(&hub);
    let household = hub.get("/peers").json()["household"].clone();
    drop(hub);

    let hub = machine("hub").start(Some(&database));
    assert_eq!(hub.get("/peers").json()["household"], household);
    let second = machine("second").start(Some(&database));
    await_members(&[&hub, &second], &["hub*", "laptop", "second*"]);
    drop((laptop, hub));
    let laptop = machine("laptop").start(None);
    let phone = machine("phone").start(None);
    // A ticket of before is still good, at whichever hub its holder reaches.
    let answer = phone.post("/household/join", json!({ "ticket": unused }).to_string());
    assert_eq!(answer.status, 502, "its hub is off: {answer:?}");
    join(&phone, &ticket(&second));
    let all = ["hub*", "laptop", "phone", "second*"];
    await_members(&[&second, &phone], &all);

    // Without its database a machine is no hub any more: there would be two lists of members.
    let hub = machine("hub").start(None);
    let refused = hub.delete("/household/members/phone", "");
    assert_eq!(refused.status, 409, "{refused:?}");
    await_members(&[&hub, &second], &["hub", "laptop", "phone", "second*"]);
    drop(laptop);
}

#[test]
fn a_hub_whose_database_is_away_goes_on_as_a_member() {
    let cluster = Postgres::start();
    let (database, home) = (cluster.database(), tempfile::tempdir().unwrap());
    let machine = |name| Machine {
        name,
        home: home.path(),
    };
    let hub = machine("hub").start(Some(&database));
    let laptop = machine("laptop").start(None);
    join(&laptop, &ticket(&hub));
    await_members(&[&hub, &laptop], &["hub*", "laptop"]);

    close(&cluster, &database, true);
    let refused = hub.post("/household/invite", "{}");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.body.contains("database_url"), "{refused:?}");
    await_members(&[&hub, &laptop], &["hub*", "laptop"]);
    drop(hub);
    let hub = machine("hub").start(Some(&database));
    await_members(&[&hub], &["hub*", "laptop"]);
    assert_eq!(hub.get("/peers").json()["is_hub"], false);
    close(&cluster, &database, false);
    wait_until(PATIENCE, "it is a hub again", || {
        hub.get("/peers").json()["is_hub"] == true
    });
    let phone = machine("phone").start(None);
    join(&phone, &ticket(&hub));
    await_members(&[&hub, &phone], &["hub*", "laptop", "phone"]);
}

#[test]
fn hubs_take_turns() {
    let cluster = Postgres::start();
    let (database, home) = (cluster.database(), tempfile::tempdir().unwrap());
    let machine = |name| Machine {
        name,
        home: home.path(),
    };
    let hubs = [
        machine("one").start(Some(&database)),
        machine("two").start(Some(&database)),
    ];
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
                let machine = Machine {
                    name: "box",
                    home: home.path(),
                };
                let node = machine.start(None);
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
    let cluster = Postgres::start();
    let (database, home) = (cluster.database(), tempfile::tempdir().unwrap());
    let machine = |name| Machine {
        name,
        home: home.path(),
    };
    let hub = machine("hub").start(Some(&database));
    let back = ticket(&hub);
    let second = machine("second").start(Some(&database));
    await_members(&[&hub], &["hub*", "second*"]);
    let left = second.post("/household/leave", "{}");
    assert_eq!(left.status, 200, "{left:?}");
    await_members(&[&hub], &["hub*"]);
    let refused = second.post("/household/invite", "{}");
    assert_eq!(refused.status, 403, "{refused:?}");
    drop(second);
    let second = machine("second").start(Some(&database));
    assert_eq!(second.get("/peers").json()["household"], Value::Null);
    join(&second, &back);
    await_members(&[&hub, &second], &["hub*", "second*"]);

    let stranger = machine("stranger").start(None);
    let other = ticket(&stranger);
    drop(stranger);
    let third = machine("third").start(Some(&database));
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
