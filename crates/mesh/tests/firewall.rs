//! The firewall doctor: what it reckons from rulesets, and what it does to real ones in network namespaces.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;

use hearth_mesh::firewall::{FirewallError, Interface, MARK, Plan, Ruleset, Settings};
use proptest::prelude::*;
use serde_json::{Value, json};

#[path = "firewall/namespaces.rs"]
mod namespaces;

fn settings(interfaces: &[&str]) -> Settings {
    let interfaces = interfaces.iter().map(|name| name.parse().unwrap());
    Settings {
        interfaces: interfaces.collect(),
        port: 8321,
    }
}

fn ruleset(objects: &[Value]) -> Ruleset {
    let listing = json!({"nftables": objects});
    Ruleset::parse(listing.to_string().as_bytes()).unwrap()
}

fn base(family: &str, table: &str, name: &str, hook: &str, policy: &str) -> Value {
    json!({"chain": {
        "family": family, "table": table, "name": name, "handle": 1,
        "type": "filter", "hook": hook, "prio": 0, "policy": policy,
    }})
}

fn chain(family: &str, table: &str, name: &str) -> Value {
    json!({"chain": {"family": family, "table": table, "name": name, "handle": 1}})
}

fn rule(family: &str, table: &str, chain: &str, handle: u64, expr: Value) -> Value {
    json!({"rule": {"family": family, "table": table, "chain": chain, "handle": handle, "expr": expr}})
}

fn is(op: &str, left: Value, right: Value) -> Value {
    json!({"match": {"op": op, "left": left, "right": right}})
}

fn meta(key: &str) -> Value {
    json!({"meta": {"key": key}})
}

fn payload(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

fn verdict(name: &str) -> Value {
    json!({ name: null })
}

fn prefix(address: &str, length: u8) -> Value {
    json!({"prefix": {"addr": address, "len": length}})
}

/// As Tailscale keeps it: addresses of its range come over its interface or not at all.
fn tailscale() -> Vec<Value> {
    let counter = json!({"counter": {"packets": 3, "bytes": 180}});
    vec![
        chain("ip", "filter", "ts-input"),
        base("ip", "filter", "INPUT", "input", "accept"),
        rule(
            "ip",
            "filter",
            "ts-input",
            3,
            json!([
                is("==", payload("ip", "saddr"), prefix("100.115.92.0", 23)),
                is("!=", meta("iifname"), json!("tailscale0")),
                counter,
                verdict("return"),
            ]),
        ),
        rule(
            "ip",
            "filter",
            "ts-input",
            4,
            json!([
                is("==", payload("ip", "saddr"), prefix("100.64.0.0", 10)),
                is("!=", meta("iifname"), json!("tailscale0")),
                counter,
                verdict("drop"),
            ]),
        ),
        rule(
            "ip",
            "filter",
            "INPUT",
            5,
            json!([counter, {"jump": {"target": "ts-input"}}]),
        ),
    ]
}

/// A killswitch: everything is dropped but what goes through the tunnel.
fn killswitch(table: &str) -> Vec<Value> {
    let tunnel = |key: &str| json!([is("==", meta(key), json!("wg0-mullvad")), verdict("accept")]);
    vec![
        base("inet", table, "input", "input", "drop"),
        base("inet", table, "output", "output", "drop"),
        rule("inet", table, "input", 3, tunnel("iifname")),
        rule("inet", table, "output", 4, tunnel("oifname")),
    ]
}

#[test]
fn tailscale_owes_a_way_back_to_the_owners_rules_for_its_range_alone() {
    let ruleset = ruleset(&tailscale());
    let plan = Plan::of(&ruleset, &settings(&["wg0"]));
    assert_eq!(
        plan.script(),
        "\
insert rule ip filter ts-input iifname \"wg0\" ip saddr 100.64.0.0/10 udp dport 8321 return comment \"hearth firewall\"
insert rule ip filter ts-input iifname \"wg0\" ip saddr 100.64.0.0/10 tcp sport 8321 tcp flags & (fin | syn | rst | ack) != syn return comment \"hearth firewall\"
insert rule ip filter ts-input iifname \"wg0\" ip saddr 100.64.0.0/10 tcp dport 8321 return comment \"hearth firewall\"
"
    );
    assert!(plan.blocked_by_owner.is_empty());
    // Over its own interface Tailscale lets everything in.
    let own = Plan::of(&ruleset, &settings(&["tailscale0"]));
    assert!(own.is_settled(), "{own:?}");
}

#[test]
fn a_killswitch_owes_the_port_on_the_interface_in_both_directions() {
    let ruleset = ruleset(&killswitch("mullvad"));
    let plan = Plan::of(&ruleset, &settings(&["wg0"]));
    assert_eq!(
        plan.script(),
        "\
insert rule inet mullvad output oifname \"wg0\" udp sport 8321 accept comment \"hearth firewall\"
insert rule inet mullvad output oifname \"wg0\" udp dport 8321 accept comment \"hearth firewall\"
insert rule inet mullvad output oifname \"wg0\" tcp sport 8321 tcp flags & (fin | syn | rst | ack) != syn accept comment \"hearth firewall\"
insert rule inet mullvad output oifname \"wg0\" tcp dport 8321 accept comment \"hearth firewall\"
insert rule inet mullvad input iifname \"wg0\" udp dport 8321 accept comment \"hearth firewall\"
insert rule inet mullvad input iifname \"wg0\" tcp sport 8321 tcp flags & (fin | syn | rst | ack) != syn accept comment \"hearth firewall\"
insert rule inet mullvad input iifname \"wg0\" tcp dport 8321 accept comment \"hearth firewall\"
"
    );
    // Without an interface there is nothing to let through, and what is there already owes nothing.
    assert!(Plan::of(&ruleset, &settings(&[])).is_settled());
    assert!(Plan::of(&ruleset, &settings(&["wg0-mullvad"])).is_settled());
}

#[test]
fn other_clients_are_known_by_their_tables_and_their_chains() {
    for table in [
        "mullvad",
        "Proton-killswitch",
        "protonvpn_killswitch",
        "nordvpn",
        "ivpn",
        "cloudflare-warp",
    ] {
        let plan = Plan::of(&ruleset(&killswitch(table)), &settings(&["wg0"]));
        assert_eq!(plan.owed.len(), 7, "{table}");
        assert!(plan.blocked_by_owner.is_empty(), "{table}");
    }
    // A chain of a client in a table that it shares gives the packet back, whatever the address.
    let shared = [
        chain("ip", "filter", "IVPN-OUT"),
        base("ip", "filter", "OUTPUT", "output", "accept"),
        rule("ip", "filter", "IVPN-OUT", 7, json!([verdict("drop")])),
        rule(
            "ip",
            "filter",
            "OUTPUT",
            8,
            json!([{"jump": {"target": "IVPN-OUT"}}]),
        ),
    ];
    let plan = Plan::of(&ruleset(&shared), &settings(&["wg0"]));
    let first = plan.owed[0].command();
    assert_eq!(
        first,
        "insert rule ip filter IVPN-OUT oifname \"wg0\" tcp dport 8321 return comment \"hearth firewall\""
    );
    assert_eq!(plan.owed.len(), 4);
    // Without the jump no packet comes there.
    let loose = Plan::of(&ruleset(&shared[..3]), &settings(&["wg0"]));
    assert!(loose.is_settled(), "{loose:?}");
}

#[test]
fn the_owners_firewall_is_told_about_and_left_alone() {
    let own = |table: &str, more: Vec<Value>| {
        let mut objects = vec![
            base("inet", table, "input", "input", "drop"),
            rule(
                "inet",
                table,
                "input",
                3,
                json!([
                    is(
                        "in",
                        json!({"ct": {"key": "state"}}),
                        json!(["established", "related"])
                    ),
                    verdict("accept"),
                ]),
            ),
        ];
        objects.extend(more);
        Plan::of(&ruleset(&objects), &settings(&["wg0"]))
    };
    let plan = own("filter", vec![]);
    assert!(plan.is_settled());
    let finding = &plan.blocked_by_owner[0];
    assert_eq!(
        finding.blocked,
        ["TCP to port 8321 from wg0", "UDP to port 8321 from wg0"]
    );
    assert_eq!(
        finding.commands,
        [
            "sudo nft insert rule inet filter input 'iifname \"wg0\" tcp dport 8321 accept'",
            "sudo nft insert rule inet filter input 'iifname \"wg0\" udp dport 8321 accept'",
        ]
    );
    let plan = own("firewalld", vec![]);
    assert_eq!(
        plan.blocked_by_owner[0].commands,
        [
            "sudo firewall-cmd --add-port=8321/tcp",
            "sudo firewall-cmd --add-port=8321/udp",
            "sudo firewall-cmd --runtime-to-permanent",
        ]
    );
    let plan = own("filter", vec![chain("inet", "filter", "ufw-user-input")]);
    assert_eq!(
        plan.blocked_by_owner[0].commands[0],
        "sudo ufw allow in on wg0 to any port 8321 proto tcp"
    );
    // What lets some through is no finding: it may be just what the owner meant.
    for (left, op, right) in [
        (
            payload("tcp", "dport"),
            "==",
            json!({"range": [8000, 9000]}),
        ),
        (payload("th", "dport"), "==", json!({"set": [22, 8321]})),
        (meta("iifname"), "==", json!("wg*")),
        (payload("ip", "saddr"), "==", prefix("100.64.0.0", 16)),
    ] {
        let open = json!([is(op, left.clone(), right.clone()), verdict("accept")]);
        let plan = own("filter", vec![rule("inet", "filter", "input", 4, open)]);
        let told: Vec<_> = plan
            .blocked_by_owner
            .iter()
            .flat_map(|finding| &finding.blocked)
            .collect();
        assert!(
            !told.iter().any(|told| told.starts_with("TCP")),
            "{left} {right}: {told:?}"
        );
    }
}

#[test]
fn our_rules_are_replaced_when_the_settings_change_or_a_drop_comes_before_them() {
    let bare = ruleset(&killswitch("mullvad"));
    let installed = Plan::of(&bare, &settings(&["wg0"])).after(&bare);
    assert!(Plan::of(&installed, &settings(&["wg0"])).is_settled());

    // Another port: the old rules go in the same script.
    let other = Settings {
        port: 9000,
        ..settings(&["wg0"])
    };
    let moved = Plan::of(&installed, &other);
    assert_eq!(
        (moved.owed.len(), moved.surplus.len(), moved.kept.len()),
        (7, 7, 0)
    );
    // Rules on an interface that nobody speaks of stay.
    let apart = Plan::of(&installed, &settings(&["wg1"]));
    assert_eq!(
        (apart.owed.len(), apart.surplus.len(), apart.kept.len()),
        (7, 0, 0)
    );
    let both = Plan::of(&installed, &settings(&["wg0", "wg1"]));
    assert_eq!(
        (both.owed.len(), both.surplus.len(), both.kept.len()),
        (7, 0, 7)
    );
    let script = moved.script();
    assert!(script.starts_with("delete rule inet mullvad "), "{script}");

    // A rule of ours behind a drop is of no use.
    let mut objects = killswitch("mullvad");
    objects.truncate(2);
    objects.push(rule(
        "inet",
        "mullvad",
        "input",
        8,
        json!([verdict("drop")]),
    ));
    objects.push(json!({"rule": {
        "family": "inet", "table": "mullvad", "chain": "input", "handle": 9, "comment": MARK,
        "expr": [
            is("==", meta("iifname"), json!("wg0")),
            is("==", payload("tcp", "dport"), json!(8321)),
            verdict("accept"),
        ],
    }}));
    let plan = Plan::of(&ruleset(&objects), &settings(&["wg0"]));
    assert_eq!(plan.owed.len(), 7);
    assert_eq!(
        plan.surplus[0].command(),
        "delete rule inet mullvad input handle 9"
    );

    // When the client is gone, so is the use of what is left of ours.
    objects[0]["chain"]["table"] = "own".into();
    objects[2]["rule"]["table"] = "own".into();
    objects[3]["rule"]["table"] = "own".into();
    objects.remove(1);
    let plan = Plan::of(&ruleset(&objects), &settings(&["wg0"]));
    assert!(plan.owed.is_empty());
    assert_eq!(plan.surplus.len(), 1);
    assert_eq!(plan.blocked_by_owner.len(), 1);
}

#[test]
fn what_is_no_name_and_no_ruleset_is_refused() {
    for name in [
        "",
        "wg*",
        "wg0 accept",
        "a\"b",
        "a/b",
        "sixteen-letters-",
        "..",
        "eth0;",
    ] {
        let told = name.parse::<Interface>().unwrap_err();
        assert!(matches!(told, FirewallError::Interface(_)), "{name}");
        assert!(told.fix().contains("--interface"), "{name}");
    }
    for name in ["wg0", "eth0.5", "br-1", "potluck0", "enx00e04c680001"] {
        assert!(name.parse::<Interface>().is_ok(), "{name}");
    }
    for text in ["", "[]", "{}", r#"{"nftables": [{"rule": {}}]}"#] {
        assert!(Ruleset::parse(text.as_bytes()).is_err(), "{text}");
    }
    // Of a table whose name cannot be written nothing is touched.
    let plan = Plan::of(
        &ruleset(&killswitch("mullvad; flush ruleset")),
        &settings(&["wg0"]),
    );
    assert!(plan.is_settled());
}

// Rulesets of every sort: tables of clients and of owners, jumps, maps, sets, and statements that nobody knows.

fn matches() -> impl Strategy<Value = Value> {
    let left = prop::sample::select(vec![
        meta("iifname"),
        meta("oifname"),
        meta("iif"),
        meta("l4proto"),
        meta("nfproto"),
        meta("mark"),
        payload("tcp", "dport"),
        payload("udp", "sport"),
        payload("th", "dport"),
        payload("ip", "saddr"),
        payload("ip", "daddr"),
        payload("ip", "protocol"),
        payload("ip6", "saddr"),
        payload("icmp", "type"),
        json!({"ct": {"key": "state"}}),
        json!({"&": [payload("tcp", "flags"), ["fin", "syn", "rst", "ack"]]}),
        json!({"fib": {"result": "type", "flags": "daddr"}}),
    ]);
    let one = prop::sample::select(vec![
        json!("wg0"),
        json!("lo"),
        json!("w*"),
        json!("tcp"),
        json!("udp"),
        json!("ipv4"),
        json!("syn"),
        json!("new"),
        json!("established"),
        json!("@set"),
        json!("100.64.0.7"),
        json!(8321),
        json!(22),
        json!({"range": [8000, 9000]}),
        prefix("100.64.0.0", 10),
        prefix("0.0.0.0", 0),
        prefix("10.0.0.0", 8),
    ]);
    let many =
        prop::collection::vec(one.clone(), 1..3).prop_map(|elements| json!({"set": elements}));
    let right = prop_oneof![3 => one, 1 => many];
    let op = prop::sample::select(vec!["==", "==", "!=", "in", ">="]);
    (op, left, right).prop_map(|(op, left, right)| is(op, left, right))
}

fn verdicts() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        verdict("accept"),
        verdict("drop"),
        verdict("return"),
        json!({"reject": {"type": "icmpx", "expr": "admin-prohibited"}}),
        json!({"jump": {"target": "ts-input"}}),
        json!({"jump": {"target": "own"}}),
        json!({"goto": {"target": "ivpn-in"}}),
        json!({"counter": {"packets": 0, "bytes": 0}}),
        json!({"xt": null}),
        json!({"queue": {"num": 1}}),
        json!({"limit": {"rate": 1, "per": "second"}}),
        json!({"vmap": {
            "key": meta("iifname"),
            "data": {"set": [["wg0", {"jump": {"target": "own"}}], ["lo", {"accept": null}]]},
        }}),
    ])
}

fn rulesets() -> impl Strategy<Value = Ruleset> {
    let expr = (prop::collection::vec(matches(), 0..3), verdicts()).prop_map(|(mut expr, last)| {
        expr.push(last);
        expr
    });
    let line = (0..5_usize, expr, prop::bool::weighted(0.1));
    let table = (
        prop::sample::select(vec!["ip", "ip6", "inet"]),
        prop::sample::select(vec!["mullvad", "proton0", "filter", "firewalld"]),
        prop::sample::select(vec!["accept", "drop"]),
        prop::collection::vec(line, 0..10),
    );
    prop::collection::vec(table, 0..4).prop_map(|tables| {
        let mut objects = Vec::new();
        let mut seen = BTreeSet::new();
        let mut handle = 100;
        for (family, table, policy, lines) in tables {
            if !seen.insert((family, table)) {
                continue;
            }
            objects.push(base(family, table, "input", "input", policy));
            objects.push(base(family, table, "output", "output", policy));
            for name in ["ts-input", "ivpn-in", "own"] {
                objects.push(chain(family, table, name));
            }
            for (at, expr, ours) in lines {
                handle += 1;
                let name = ["input", "output", "own", "ts-input", "ivpn-in"][at];
                let mut line = rule(family, table, name, handle, json!(expr));
                if ours {
                    line["rule"]["comment"] = MARK.into();
                }
                objects.push(line);
            }
        }
        ruleset(&objects)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// What was put in owes nothing more; what is taken out again leaves what was there before, but for older rules of ours.
    #[test]
    fn applying_what_is_owed_settles_it(ruleset in rulesets()) {
        let settings = settings(&["wg0", "wg1"]);
        let plan = Plan::of(&ruleset, &settings);
        let after = plan.after(&ruleset);
        let next = Plan::of(&after, &settings);
        prop_assert!(next.is_settled(), "{}\nthen\n{}", plan.script(), next.script());
        prop_assert_eq!(&next.blocked_by_owner, &plan.blocked_by_owner);

        let bare = Plan::removal(&ruleset).after(&ruleset);
        let removed = Plan::removal(&after).after(&after);
        prop_assert_eq!(removed, bare);
    }

    /// Nothing is put anywhere but in clients' chains, and every command is one of two.
    #[test]
    fn only_clients_chains_are_written_to(ruleset in rulesets()) {
        let plan = Plan::of(&ruleset, &settings(&["wg0"]));
        for rule in &plan.owed {
            let place = &rule.place;
            let clients = place.table == "mullvad" || place.table == "proton0";
            let theirs = place.chain == "ts-input" || place.chain == "ivpn-in";
            prop_assert!(clients || theirs, "{}", rule.command());
        }
        for line in plan.script().lines() {
            let ours = line.starts_with("insert rule ") && line.ends_with("comment \"hearth firewall\"");
            prop_assert!(ours || line.starts_with("delete rule "), "{line}");
        }
    }
}
