//! The document: all that an operator can configure, as one value that TOML and JSON can hold.
//!
//! All that operators and controllers set is in it. What is not: packet streams and captures, traces, what is learned, and what
//! counters count. Its keys are the words of the CLI. What is left out has the value that it has after creation; but `mac`, `mtu` and
//! `rx-mode` stay as they are when they are left out. An example:
//!
//! ```toml
//! tables = [10]
//!
//! [memif-socket.1]
//! filename = "/run/wharf/pods.sock"
//! allow-uid = [1000]
//!
//! [interface."memif1/0"]                # <socket>/<id>
//! type.memif = { role = "server", rx-queues = 2 }
//! up = true
//! mtu = 1500
//! addresses = ["192.0.2.1/24"]
//! acl-input = [0]
//! span."pg0" = "rx"                      # l2-span: where frames are bridged
//! rx-queue.1 = { worker = 0, mode = "polling" }
//!
//! [interface.loop0]
//! type = "loopback"
//! bridge = { domain = 5, port = "bvi" }
//!
//! [interface.pg0]
//! type.pg = {}
//!
//! [interface."pg0.7"]                   # <parent>.<id>
//! type.sub = "dot1q 7 exact-match"
//! bridge = { domain = 5, shg = 1 }
//! tag-rewrite = "pop-1"
//!
//! [interface.vxlan_tunnel3]             # the instance
//! type.vxlan = { src = "192.0.2.1", dst = "192.0.2.2", vni = 42 }
//! up = true
//!
//! [interface."eth0/0"]
//! type.af-xdp = { host-if = "eth0", keep-tcp = [22] }
//!
//! [bridge-domain.5]
//! arp-term = true
//!
//! [acl.0]
//! rules = ["ipv4 permit+reflect src 10.0.0.0/8 proto 6 dport 80", "ipv4 deny"]
//!
//! [route.0]                             # by table
//! "10.0.0.0/8" = "via 192.0.2.2 memif1/0"
//! "10.1.0.0/16" = "drop"
//!
//! [neighbor."memif1/0"]
//! "192.0.2.2" = "02:00:00:00:00:02"
//!
//! [l2fib.5]                             # by bridge domain
//! "02:00:00:00:00:07" = "pg0.7"
//! "02:00:00:00:00:66" = "filter"
//!
//! [arp-entry.5]
//! "10.9.0.7" = "02:00:00:00:00:07"
//! ```

mod interface;

pub use interface::*;

use super::words::{NeighbourWords, RouteWords, Text};
use crate::l2::BridgeDomainConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use wharf_nodes::acl::{MacIpRule, Rule};
use wharf_nodes::l2::DEFAULT_DOMAIN_LIMIT;
use wharf_nodes::wire::{Ip4Prefix, MacAddress};

/// Stands for a secret in what is shown to those who may not know it, and for the secret that there is in what is applied.
pub const HIDDEN: &str = "***";

/// Things of one kind by their number.
pub type Numbered<T> = BTreeMap<Text<u32>, T>;

/// All of the configuration. See the module for what it looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Document {
    /// IPv4 tables besides table 0.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<u32>,
    /// What is said once for the whole daemon.
    #[serde(skip_serializing_if = "is_default")]
    pub settings: Settings,
    /// Sockets of memif, by id; socket 0 in the runtime directory is always there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub memif_socket: Numbered<MemifSocket>,
    /// Interfaces by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub interface: BTreeMap<String, InterfaceConfig>,
    /// Bridge domains by number.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bridge_domain: Numbered<BridgeDomain>,
    /// Access lists by index.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub acl: Numbered<Acl>,
    /// MAC-IP lists by index.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub macip_acl: Numbered<MacIpAcl>,
    /// Static neighbours, by interface.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub neighbor: BTreeMap<String, BTreeMap<Ipv4Addr, Text<NeighbourWords>>>,
    /// Static MAC addresses, by bridge domain: the interface that each is behind, or `filter`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub l2fib: Numbered<BTreeMap<Text<MacAddress>, String>>,
    /// Addresses that ARP is answered for, by bridge domain.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub arp_entry: Numbered<BTreeMap<Ipv4Addr, Text<MacAddress>>>,
    /// Routes that the operator asked for, by table.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub route: Numbered<BTreeMap<Text<Ip4Prefix>, Text<RouteWords>>>,
}

/// What is said once for the whole daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Settings {
    /// Seconds after which a learned neighbour is asked whether it is still there; 0 is never.
    pub neighbor_age: u32,
    /// Seconds of silence after which sessions of UDP end.
    pub session_udp_idle: u32,
    /// As above, of established TCP.
    pub session_tcp_idle: u32,
    /// As above, of TCP that is being opened or closed.
    pub session_tcp_transient: u32,
    /// Sessions that there may be; so many per worker if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_max_entries: Option<u32>,
    /// The mode of receive queues of interfaces that come; as startup.conf has it if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_rx_mode: Option<RxMode>,
}

impl Default for Settings {
    fn default() -> Settings {
        let timeouts = wharf_nodes::acl::sessions::Timeouts::default();
        let seconds = |ticks: wharf_nodes::acl::sessions::Ticks| ticks.as_seconds().round() as u32;
        Settings {
            neighbor_age: crate::ip4::DEFAULT_AGE.as_secs() as u32,
            session_udp_idle: seconds(timeouts.udp_idle),
            session_tcp_idle: seconds(timeouts.tcp_idle),
            session_tcp_transient: seconds(timeouts.tcp_transient),
            session_max_entries: None,
            default_rx_mode: None,
        }
    }
}

/// A socket of memif.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MemifSocket {
    /// A path, `@NAME` or `abstract:NAME[,netns_name=...]`; a bare name is in the runtime directory.
    pub filename: String,
    /// Users that may connect; everybody if no user and no group is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_uid: Vec<u32>,
    /// Groups that may connect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_gid: Vec<u32>,
}

/// A bridge domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct BridgeDomain {
    /// Addresses are learned.
    #[serde(skip_serializing_if = "is_true")]
    pub learn: bool,
    /// Frames to known addresses go there alone.
    #[serde(skip_serializing_if = "is_true")]
    pub forward: bool,
    /// Frames to unknown addresses are flooded.
    #[serde(skip_serializing_if = "is_true")]
    pub uu_flood: bool,
    /// Frames to groups are flooded.
    #[serde(skip_serializing_if = "is_true")]
    pub flood: bool,
    /// ARP requests are answered from `arp-entry`.
    #[serde(skip_serializing_if = "is_default")]
    pub arp_term: bool,
    /// Minutes after which an address that was not seen is forgotten; 0 is never.
    #[serde(skip_serializing_if = "is_default")]
    pub mac_age: u8,
    /// Addresses that may be learned.
    #[serde(skip_serializing_if = "is_domain_limit")]
    pub learn_limit: u32,
    /// A text of the controller's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tag: String,
}

impl Default for BridgeDomain {
    fn default() -> BridgeDomain {
        BridgeDomain::from(&BridgeDomainConfig::new(0))
    }
}

/// An access list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Acl {
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
    /// The rules, in order.
    pub rules: Vec<Text<Rule>>,
}

/// A list of the stations that may send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MacIpAcl {
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
    /// The rules, in order.
    pub rules: Vec<Text<MacIpRule>>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_true(value: &bool) -> bool {
    *value
}

fn is_domain_limit(limit: &u32) -> bool {
    *limit == DEFAULT_DOMAIN_LIMIT
}
