//! The firewall doctor: on Linux, VPN clients drop the mesh's packets with nftables, and this puts back what the mesh
//! needs, and no more.
//!
//! Two traps are common. Tailscale drops packets of 100.64.0.0/10 that arrive on another interface than its own. The
//! killswitch of a privacy VPN drops everything that does not go through its tunnel. Both are right from where they stand;
//! the owner wants a narrow exception.
//!
//! `nft -j list ruleset` (`ruleset`) is read as the kernel would run it for each kind of packet that the mesh sends
//! (`traffic`). What a VPN client's own chain would drop is owed a rule (`plan`): scoped by interface, protocol, port
//! and, where the client is after carrier-grade NAT addresses, by these. Nothing is flushed, no policy is changed, and
//! chains of the owner's own firewall are left alone: for those the plan only says what is blocked and what the owner may
//! run. [`Nft`] does the reading and the writing, in one transaction; [`Watch`] does it again when a VPN client has
//! rewritten its rules.
//!
//! A rule in a client's base chain accepts. Verdicts there end that chain only, so that other tables still decide. A rule
//! in a client's chain that hangs in a shared table (`ts-input` in `ip filter`) returns: the packet goes on to the
//! owner's rules behind it, which an `accept` would have skipped.

mod nft;
mod plan;
mod ruleset;
mod traffic;
mod watch;

use std::fmt;
use std::str::FromStr;

pub use nft::{Nft, mesh_interfaces};
pub use plan::{Finding, Held, Plan, Rule, Verdict};
pub use ruleset::{Family, Hook, Place, Ruleset, RulesetError};
pub use traffic::{Protocol, Side};
pub use watch::{Event, Stop, Watch};

/// Comment of every rule that Hearth inserts; by it they are found again and removed.
pub const MARK: &str = "hearth firewall";

/// Longest name of an interface, in bytes: IFNAMSIZ without its end (linux/if.h).
const LONGEST_NAME: usize = 15;

/// What is to pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The interfaces that carry the mesh.
    pub interfaces: Vec<Interface>,
    /// Hearth's port, here and on the other machines.
    pub port: u16,
}

/// Name of a network interface, such as `wg0`. Names that nft would read as a pattern or not at all are refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface(String);

impl Interface {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Interface {
    type Err = FirewallError;

    fn from_str(name: &str) -> Result<Self, FirewallError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@:+".contains(&byte);
        let named = !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(plain);
        match named && name != "." && name != ".." {
            true => Ok(Self(name.to_owned())),
            false => Err(FirewallError::Interface(name.to_owned())),
        }
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Why the firewall could not be read or changed. [`FirewallError::fix`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// Another system than Linux.
    #[error("nftables is the firewall of Linux, and this is another system")]
    NotLinux,
    /// No `nft` in `PATH` or where systems keep it.
    #[error("the program nft is not here")]
    Missing,
    /// The kernel lets only who administers the network look.
    #[error("nft may not read or change the firewall")]
    NotAllowed,
    /// `nft` refused.
    #[error("`{command}` failed: {said}")]
    Failed {
        /// What was run.
        command: String,
        /// What it said.
        said: String,
    },
    /// What `nft` printed is not what nftables documents (libnftables-json(5)).
    #[error(transparent)]
    Unreadable(#[from] RulesetError),
    /// Not the name of an interface.
    #[error("`{0}` is not the name of a network interface")]
    Interface(String),
    /// Nothing says which interface carries the mesh.
    #[error("no interface looks like one that carries a mesh")]
    NoInterface,
    /// Somebody else changed the firewall between each look and the change that followed.
    #[error("the firewall changes faster than rules can be put in: {0}")]
    Restless(String),
}

impl FirewallError {
    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::NotLinux => {
                "allow Hearth's port in the settings of this system's firewall and of the VPN"
            }
            Self::Missing => {
                "without nftables nothing of it is in the way; otherwise install it, on Debian: sudo apt-get install nftables"
            }
            Self::NotAllowed => "run it as root: sudo hearth firewall ...",
            Self::Failed { .. } => {
                "see whether `sudo nft list ruleset` works, and whether the kernel has nf_tables"
            }
            Self::Unreadable(_) => {
                "see whether `sudo nft -j -t list ruleset` prints JSON; nft of 0.9.3 and newer does"
            }
            Self::Interface(_) => {
                "name one as `ip link` lists them, such as --interface wg0; patterns are not taken"
            }
            Self::NoInterface => {
                "name the one that leads to your other machines, such as --interface wg0; `ip link` lists them"
            }
            Self::Restless(_) => "wait until the VPN client has settled, and run it again",
        }
    }
}

/// What this machine's firewall owes the mesh, and what of ours is in it already. Changes nothing.
///
/// # Errors
/// When `nft` is absent, not allowed, or not understood.
pub fn owed(settings: &Settings) -> Result<Plan, FirewallError> {
    Nft::new().plan(settings)
}
