//! A VPN client's killswitch between two members, and `hearth firewall` against it.

use hearth_protocol::diagnosis::{Code, Verdict};

use super::lan::{Lan, join};

/// Written from Mullvad's description of its killswitch, with a way for one neighbour: the hub still hears this machine.
const KILLSWITCH: &str = "
table inet mullvad {
    chain input {
        type filter hook input priority filter; policy drop;
        iif \"lo\" accept
        ip saddr 10.44.0.1 accept
        iifname \"wg0-mullvad\" accept
    }
    chain output {
        type filter hook output priority filter; policy drop;
        oif \"lo\" accept
        ip daddr 10.44.0.1 accept
        oifname \"wg0-mullvad\" accept
        reject
    }
}
";

#[test]
fn the_rules_of_hearth_open_a_killswitch() {
    let Some(lan) = Lan::new() else { return };
    let mut hosts = lan.three();
    join(&mut hosts);
    let [hub, one, two] = hosts;
    two.nft(KILLSWITCH);
    let found = one.doctor("two", None);
    assert_eq!(found.code(), Some(Code::FirewallSuspected), "{found:#?}");
    assert_eq!(hub.doctor("two", None).verdict, Verdict::Usable);

    let install = ["firewall", "install", "--yes", "--interface", "eth0"];
    two.hearth(&install).ok();
    let found = one.doctor("two", None);
    assert_eq!(found.verdict, Verdict::Usable, "{found:#?}");
    two.reaches("one");
    let answer = one.chat("two/ember");
    assert_eq!((answer.status, &*answer.node), (200, "two"), "{answer:?}");
    two.hearth(&["firewall", "uninstall"]).ok();
    one.says("two", Code::FirewallSuspected);
}
