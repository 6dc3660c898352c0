//! The table of codes: what each means in words, and what mends it.

use hearth_protocol::diagnosis::Code;
use hearth_protocol::household::Address;

/// Whom and what the words are about.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// The peer's name.
    pub name: &'a str,
    /// Where it is reached; of the hub, where the words are about the hub.
    pub address: Option<&'a Address>,
    /// The model asked about.
    pub model: Option<&'a str>,
    /// Further facts, without a full stop.
    pub detail: Option<String>,
    /// Whether the peer said it of this machine, and not this machine of the peer.
    pub there: bool,
}

/// What is to be done where the hub does not come back.
pub(crate) const HUB_GONE: &str = "if the hub is gone for good, begin a new household: `hearth leave` on every machine, then \
     `hearth invite` on one that stays, whose tickets the others join with";

/// What is wrong, and what mends it.
pub fn words(code: Code, subject: &Subject<'_>) -> (String, Option<String>) {
    let name = subject.name;
    let model = subject.model.unwrap_or("the model");
    let at = match subject.address {
        Some(address) => format!(" at {address}"),
        None => String::new(),
    };
    let port = match subject.address {
        Some(Address::Http(address) | Address::Quic(address)) => address.port(),
        _ => 8321,
    };
    let (words, fix) = match code {
        Code::NotRunning => (
            "no node runs on this machine".to_owned(),
            "start it: `hearth serve`, or `hearth service install` to have it run always".to_owned(),
        ),
        Code::NoHousehold => (
            "this machine belongs to no household".to_owned(),
            "run `hearth invite` on the machine that is to be the hub, and `hearth join TICKET` here".to_owned(),
        ),
        Code::HubUnreachable => (
            format!("the hub does not answer{at}; what the roster said last still holds, and peers that answer are used"),
            "start the hub's machine, or its node: `hearth serve`; until then nobody joins or is removed".to_owned(),
        ),
        Code::NotInRoster if subject.there => (
            format!("{name} does not know this machine as a member of its household"),
            format!(
                "if this machine joined just now, wait until {name} has heard it from the hub (`hearth peers` on {name}); \
                 else run `hearth invite` on the hub and `hearth join TICKET` here"
            ),
        ),
        Code::NotInRoster => (
            format!("{name} is not in this household's roster"),
            format!("run `hearth invite` on the hub, and `hearth join TICKET` on {name}"),
        ),
        Code::Removed if subject.there => (
            "this machine was removed from the household, or the household ended".to_owned(),
            "run `hearth invite` on the hub and `hearth join TICKET` here; if there is no hub any more, `hearth leave` here".to_owned(),
        ),
        Code::Removed => (
            format!("{name} was removed from the household"),
            format!("if that was a mistake, run `hearth invite` on the hub and `hearth join TICKET` on {name}"),
        ),
        Code::KeyMismatch if subject.there => (
            format!("the node{at} refuses what this machine signs for {name}: it has another key, or takes this machine for another"),
            format!("see whether the address is {name}'s; if {name} was set up anew, run `hearth invite` on the hub and `hearth join TICKET` on {name}"),
        ),
        Code::KeyMismatch => (
            format!("who answers{at} is not {name}"),
            format!(
                "see whether the address now belongs to another machine; if {name} was set up anew, run `hearth invite` on the \
                 hub and `hearth join TICKET` on {name}"
            ),
        ),
        // A node that runs tells its hub where it is reached.
        Code::NoPath if subject.address.is_none() => (
            format!("{name} was never seen since it joined: its node has told nobody yet where it is reached"),
            format!("on {name}, start it: `hearth serve`, or `hearth service install` to have it run always"),
        ),
        Code::NoPath => (
            format!("nothing comes back from {name}{at}"),
            format!("see whether {name} is switched on and in the same network or VPN; on {name}, `hearth peers` shows its addresses"),
        ),
        Code::Relayed => (
            format!("{name} is reached through a relay, which takes longer"),
            format!("for a direct path, let UDP to {name} through the routers and firewalls between, or put both into one network or VPN"),
        ),
        Code::FirewallSuspected => (
            format!("{name} is alive, but nothing comes back from it{at}: a firewall drops the packets, here or there"),
            format!("run `hearth doctor --fix` on both machines; on a system without nftables let port {port} of {name} through its firewall"),
        ),
        Code::PeerProcessDown => (
            format!("{name} answers, but no node runs there{at}"),
            format!("on {name}: `hearth serve`, or `hearth service install` to have it run always"),
        ),
        Code::PeerNotAnswering => (
            format!("{name} takes connections{at}, but its node answers nothing: it is frozen or far too busy"),
            format!("on {name}, continue or end its process (`hearth stop`), and run `hearth serve`"),
        ),
        Code::ClockSkew => (
            format!("the clocks of {name} and this machine differ too much for signed requests"),
            format!("set the clocks: `timedatectl set-ntp true` on Linux, here and on {name}"),
        ),
        Code::MtuSuspected => (
            format!("small requests to {name} are answered and large ones vanish: the path drops large packets"),
            "lower the MTU of the interface between the two, for example `ip link set dev INTERFACE mtu 1280`, on both machines".to_owned(),
        ),
        Code::UnexpectedAnswer => (
            format!("what answers{at} does not answer as a Hearth node of this version does"),
            format!("see what listens on that port of {name}, and whether both run the same version: `hearth --version`"),
        ),
        Code::ModelMissing => (
            format!("{name} does not have {model}"),
            format!("on {name}: `hearth pull {}`", subject.model.unwrap_or("MODEL")),
        ),
        Code::ModelNotLoaded => (
            format!("{name} has {model} on its disk; the first request loads it"),
            String::new(),
        ),
        Code::ModelLoading => (
            format!("{name} is loading {model}"),
            "wait until it is loaded; requests go elsewhere meanwhile, if another machine has it".to_owned(),
        ),
        Code::RuntimeNotReady => (
            format!("the engine of {name} cannot run {model}"),
            format!("see why in the log of {name}, or with `hearth status` there"),
        ),
        Code::Busy => (
            format!("all slots of {name} are taken; a request waits or goes elsewhere"),
            String::new(),
        ),
        Code::TokenTimeout => (
            format!("{name} answers, but no token of {model} came in time"),
            format!("see with `hearth status` on {name} whether {model} is stuck or only slow; loading it again or a smaller model may help"),
        ),
    };
    let words = match &subject.detail {
        Some(detail) => format!("{words} ({detail})"),
        None => words,
    };
    (words, (!fix.is_empty()).then_some(fix))
}
