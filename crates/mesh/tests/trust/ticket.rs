use hearth_mesh::identity::Identity;
use hearth_mesh::refusal::Code;
use hearth_mesh::ticket::{Invitation, Ticket, TicketError, Use};
use hearth_protocol::household::{Address, NodeId};
use proptest::prelude::*;

fn ticket(household: NodeId) -> Ticket {
    let addresses = [
        "http://192.168.1.7:8321",
        "quic://[fd00::7]:8322",
        "relay+https://relay.example/",
    ];
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Ticket::new(
        household,
        NodeId([9; 32]),
        "küche",
        addresses,
        1_800_000_000,
    )
}

#[test]
fn a_ticket_is_one_line_that_people_and_codes_carry_well() {
    let ticket = ticket(NodeId([7; 32]));
    let text = ticket.to_string();
    assert!(text.starts_with("HEARTH1"));
    assert!(text.len() < 300, "{}", text.len());
    // The alphabet of dense QR codes (ISO/IEC 18004, alphanumeric mode).
    assert!(
        text.bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    );
    assert_eq!(text.parse::<Ticket>().unwrap(), ticket);
    let mailed = format!("  {}\r\n {}\n", text[..40].to_lowercase(), &text[40..]);
    assert_eq!(mailed.parse::<Ticket>().unwrap(), ticket);
    let said = text[7..]
        .replace('O', "0")
        .replace('I', "1")
        .replace('B', "8");
    assert_eq!(format!("hearth1-{said}").parse::<Ticket>().unwrap(), ticket);
    assert!(
        !format!("{ticket:?}").contains(&text[112..136]),
        "logs hold no secret"
    );
}

#[test]
fn what_is_no_ticket_is_told_apart() {
    let text = ticket(NodeId([7; 32])).to_string();
    let told = |text: &str| text.parse::<Ticket>().unwrap_err();
    for other in [
        "",
        "hearth",
        "hello",
        "http://192.0.2.1",
        "hearthX",
        "hé",
        "HEARTé1",
    ] {
        assert_eq!(told(other), TicketError::NotATicket, "{other}");
    }
    assert_eq!(told(&text.replacen('1', "2", 1)), TicketError::Newer);
    assert_eq!(told(&format!("{text}!")), TicketError::Letter('!'));
    assert_eq!(told(&format!("{text}9")), TicketError::Letter('9'));
    assert_eq!(told("hearth1"), TicketError::Slip);
    for end in [8, 20, text.len() - 1] {
        assert_eq!(told(&text[..end]), TicketError::Slip, "{end}");
    }
}

#[test]
fn a_ticket_lets_one_machine_in() {
    let hub = NodeId([7; 32]);
    let ticket = ticket(hub);
    let (joiner, thief) = (Identity::generate().id(), Identity::generate().id());
    let mut invitation = ticket.invitation();
    let before = 1_799_999_999;
    let proof = ticket.proof(&joiner);
    let code = |invitation: &mut Invitation, hub, who, now| {
        invitation
            .admit(&proof, &hub, &who, now)
            .map_err(|refusal| refusal.code)
    };
    // Who heard the proof cannot use it, nor can it be used at another hub.
    assert_eq!(
        code(&mut invitation, hub, thief, before),
        Err(Code::ProofWrong)
    );
    assert_eq!(
        code(&mut invitation, NodeId([8; 32]), joiner, before),
        Err(Code::ProofWrong)
    );
    assert_eq!(
        code(&mut invitation, hub, joiner, 1_800_000_000),
        Err(Code::TicketExpired)
    );
    assert_eq!(invitation, ticket.invitation(), "a refusal uses nothing up");
    assert_eq!(code(&mut invitation, hub, joiner, before), Ok(Use::First));
    let stored = serde_json::to_string(&invitation).unwrap();
    let mut invitation: Invitation = serde_json::from_str(&stored).unwrap();
    assert_eq!(
        code(&mut invitation, hub, joiner, 1_900_000_000),
        Ok(Use::Again)
    );
    let second = invitation.admit(&ticket.proof(&thief), &hub, &thief, before);
    assert_eq!(second.unwrap_err().code, Code::TicketUsed);
}

#[test]
fn what_the_hub_keeps_lets_nobody_in() {
    let hub = NodeId([7; 32]);
    let (ticket, other) = (ticket(hub), ticket(hub));
    let joiner = Identity::generate().id();
    let mut invitation = ticket.invitation();
    // All that a reader of the hub's database has is the key's public half.
    let mut forged = other.proof(&joiner);
    forged.ticket = invitation.ticket;
    assert_eq!(
        invitation
            .admit(&forged, &hub, &joiner, 0)
            .unwrap_err()
            .code,
        Code::ProofWrong
    );
}

fn addresses() -> impl Strategy<Value = Vec<Address>> {
    let socket = any::<std::net::SocketAddr>().prop_map(|mut address| {
        if let std::net::SocketAddr::V6(address) = &mut address {
            address.set_flowinfo(0);
            address.set_scope_id(0);
        }
        address
    });
    let address = prop_oneof![
        socket.clone().prop_map(Address::Http),
        socket.prop_map(Address::Quic),
        "https://[a-z]{1,20}/".prop_map(Address::Relay),
    ];
    prop::collection::vec(address, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tickets_come_through_whole_or_not_at_all(
        hub in any::<[u8; 32]>(),
        name in ".{0,30}",
        addresses in addresses(),
        expires in any::<u64>(),
        at in any::<prop::sample::Index>(),
        letter in "[A-Z2-7]",
    ) {
        let ticket = Ticket::new(NodeId(hub), NodeId(hub), &name, addresses, expires);
        let text = ticket.to_string();
        prop_assert_eq!(&text.parse::<Ticket>().unwrap(), &ticket);
        let at = 7 + at.index(text.len() - 7);
        let mut slip = text.clone();
        slip.replace_range(at..=at, &letter);
        if slip != text {
            prop_assert_eq!(slip.parse::<Ticket>(), Err(TicketError::Slip));
        }
    }

    #[test]
    fn no_text_harms(text in "(?i)(hearth1)?[a-z0-9\\PC]{0,200}") {
        let _ = text.parse::<Ticket>();
    }
}
