use hearth_mesh::identity::Identity;
use hearth_mesh::refusal::Code;
use hearth_mesh::roster::{ChangeError, FindError, LONGEST_NAME, RecordError, Roster};
use hearth_protocol::household::{Address, Capabilities, Member, NodeId, PeerModel, Sealed};
use proptest::prelude::*;

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn join(roster: &mut Roster, hub: &Identity, number: u8, name: &str) -> Member {
    let member = roster.join(node(number), name, Vec::new(), Capabilities::default());
    assert!(roster.insert(hub.seal(&member).unwrap()).unwrap());
    member
}

#[test]
fn members_pass_until_they_are_removed() {
    let hub = Identity::generate();
    let mut roster = Roster::new(hub.id());
    assert_eq!(
        roster.may_pass(&node(1)).unwrap_err().code,
        Code::NotInRoster
    );
    join(&mut roster, &hub, 1, "attic");
    assert_eq!(roster.may_pass(&node(1)).unwrap().name, "attic");
    let joined: Vec<Sealed> = roster.records().cloned().collect();
    let removal = hub.seal(&roster.remove(&node(1)).unwrap()).unwrap();
    assert!(roster.insert(removal.clone()).unwrap());
    assert_eq!(roster.may_pass(&node(1)).unwrap_err().code, Code::Removed);
    assert_eq!(roster.members().count(), 0);
    // Whoever sends the old record again changes nothing.
    for sealed in joined {
        assert!(!roster.insert(sealed).unwrap());
    }
    assert!(!roster.insert(removal).unwrap());
    assert_eq!(roster.may_pass(&node(1)).unwrap_err().code, Code::Removed);
    assert_eq!(roster.remove(&node(1)), Err(ChangeError::Unknown(node(1))));
    let back = join(&mut roster, &hub, 1, "attic");
    assert_eq!((back.version, back.removed), (3, false));
    assert!(roster.may_pass(&node(1)).is_ok());
}

#[test]
fn only_the_hub_says_who_belongs() {
    let (hub, other) = (Identity::generate(), Identity::generate());
    let mut roster = Roster::new(hub.id());
    let member = roster.join(other.id(), "mine", Vec::new(), Capabilities::default());
    let forged = other.seal(&member).unwrap();
    assert!(matches!(roster.insert(forged), Err(RecordError::Open(_))));
    let mut changed = hub.seal(&member).unwrap();
    changed.text = changed.text.replace("mine", "ours");
    assert!(matches!(roster.insert(changed), Err(RecordError::Open(_))));
    let elsewhere = Roster::new(other.id()).join(node(1), "x", Vec::new(), Capabilities::default());
    let elsewhere = hub.seal(&elsewhere).unwrap();
    assert!(matches!(
        roster.insert(elsewhere),
        Err(RecordError::Household(_))
    ));
    assert_eq!(roster.records().count(), 0);
}

#[test]
fn names_are_unique_and_can_stand_before_a_model() {
    let hub = Identity::generate();
    let mut roster = Roster::new(hub.id());
    let mut name = |number, wanted: &str| join(&mut roster, &hub, number, wanted).name;
    assert_eq!(name(1, "Attic"), "attic");
    assert_eq!(name(2, "attic"), "attic-2");
    assert_eq!(name(3, "ATTIC "), "attic-3");
    assert_eq!(name(4, "Rob's Mac/Studio"), "rob-s-mac-studio");
    assert_eq!(name(5, "../€"), "node");
    let long = "x".repeat(100);
    assert_eq!(name(6, &long), "x".repeat(LONGEST_NAME));
    assert_eq!(
        name(7, &long),
        format!("{}-2", "x".repeat(LONGEST_NAME - 2))
    );
    assert_eq!(
        name(2, "another"),
        "attic-2",
        "who joins again keeps its name"
    );
    assert_eq!(
        roster.rename(&node(2), "attic"),
        Err(ChangeError::Taken("attic".to_owned()))
    );
    for wrong in ["", "a/b", "Attic", "a b", "-a", &long] {
        assert_eq!(
            roster.rename(&node(2), wrong),
            Err(ChangeError::Name(wrong.to_owned()))
        );
    }
    assert_eq!(roster.rename(&node(2), "attic-2"), Ok(None));
    let renamed = roster.rename(&node(2), "cellar").unwrap().unwrap();
    assert_eq!((renamed.name.as_str(), renamed.version), ("cellar", 3));
}

#[test]
fn members_are_found_by_name_or_by_the_beginning_of_their_id() {
    let hub = Identity::generate();
    let mut roster = Roster::new(hub.id());
    assert!(
        roster
            .find("attic")
            .unwrap_err()
            .to_string()
            .contains("no machines yet")
    );
    join(&mut roster, &hub, 0xab, "attic");
    join(&mut roster, &hub, 0xac, "abab");
    assert_eq!(roster.find("ATTIC").unwrap().node, node(0xab));
    assert_eq!(
        roster.find("abab").unwrap().node,
        node(0xac),
        "a name comes before an id"
    );
    assert_eq!(roster.find("ABABA").unwrap().node, node(0xab));
    assert!(matches!(roster.find("aba"), Err(FindError::None { .. })));
    let told = roster.find("cellar").unwrap_err().to_string();
    assert!(
        told.contains("`cellar`") && told.contains("attic"),
        "{told}"
    );
    let mut close = [0xab; 32];
    close[31] = 0;
    let twin = roster.join(NodeId(close), "twin", Vec::new(), Capabilities::default());
    roster.insert(hub.seal(&twin).unwrap()).unwrap();
    let told = roster.find("ababa").unwrap_err();
    assert!(matches!(&told, FindError::Several { names, .. } if names.len() == 2));
}

#[test]
fn a_record_is_made_when_there_is_something_new_to_say() {
    let hub = Identity::generate();
    let mut roster = Roster::new(hub.id());
    join(&mut roster, &hub, 1, "attic");
    let here: Vec<Address> = vec!["http://192.0.2.7:8321".parse().unwrap()];
    let mut able = Capabilities::default();
    able.models.push(PeerModel {
        name: "m".to_owned(),
        decode_tokens_per_second: f32::INFINITY,
        ..PeerModel::default()
    });
    let moved = roster
        .update(&node(1), here.clone(), able.clone(), true)
        .unwrap()
        .unwrap();
    assert_eq!(moved.capabilities.models[0].decode_tokens_per_second, 0.0);
    roster.insert(hub.seal(&moved).unwrap()).unwrap();
    assert_eq!(roster.may_pass(&node(1)).unwrap().addresses, here);
    assert!(!moved.hub, "nobody is a hub by saying so");
    let said = |roster: &Roster, hub| roster.update(&node(1), here.clone(), able.clone(), hub);
    assert_eq!(said(&roster, true), Ok(None));
    let mut raised = moved;
    (raised.hub, raised.version) = (true, raised.version + 1);
    roster.insert(hub.seal(&raised).unwrap()).unwrap();
    assert_eq!(roster.hubs().count(), 1);
    assert_eq!(said(&roster, true), Ok(None));
    assert!(!said(&roster, false).unwrap().unwrap().hub);
    let again = roster.join(node(1), "attic", Vec::new(), Capabilities::default());
    assert!(again.hub, "who joins again stays one");
    let stranger = roster.update(&node(9), Vec::new(), Capabilities::default(), false);
    assert_eq!(stranger, Err(ChangeError::Unknown(node(9))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// In whatever order and how often records come: all that have seen the same ones hold the same roster, and who was
    /// removed by the highest version passes nowhere.
    #[test]
    fn rosters_converge(
        said in prop::collection::vec((0_u8..4, 1_u64..5, any::<bool>(), "[ab]"), 1..12),
        seed in any::<u64>(),
    ) {
        let hub = Identity::from_secret(&[1; 32]);
        let mut records: Vec<(Member, Sealed)> = said
            .iter()
            .map(|(number, version, removed, name)| {
                let empty = Roster::new(hub.id());
                let mut member = empty.join(node(*number), name, Vec::new(), Capabilities::default());
                (member.version, member.removed) = (*version, *removed);
                let sealed = hub.seal(&member).unwrap();
                (member, sealed)
            })
            .collect();
        let take = |records: &[(Member, Sealed)]| {
            let mut roster = Roster::new(hub.id());
            for (_, sealed) in records {
                roster.insert(sealed.clone()).unwrap();
            }
            roster
        };
        let first = take(&records);
        let mut turn = seed;
        records.sort_by_cached_key(|_| {
            turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            turn >> 33
        });
        let repeated = [records.clone(), records.clone()].concat();
        let second = take(&repeated);
        prop_assert!(first.records().eq(second.records()));
        for (member, _) in &records {
            let highest = records.iter().filter(|(other, _)| other.node == member.node);
            let highest = highest.map(|(other, _)| other.version).max().unwrap();
            let says_removed = |(other, _): &&(Member, Sealed)| {
                other.node == member.node && other.version == highest && other.removed
            };
            let says = records.iter().filter(|(other, _)| other.node == member.node && other.version == highest);
            if says.clone().count() == records.iter().filter(says_removed).count() {
                prop_assert_eq!(second.may_pass(&member.node).unwrap_err().code, Code::Removed);
            }
        }
    }
}
