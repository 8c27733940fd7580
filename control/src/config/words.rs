//! Values that a document has as text: in the words of the CLI, or as they are usually written.

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use wharf_nodes::acl::rule::ANY_PORT;
use wharf_nodes::acl::{AclPrefix, Action, MacIpRule, Rule};
use wharf_nodes::ethernet::{SubMatch, VlanId};
use wharf_nodes::wire::Ip4Prefix;
use wharf_nodes::wire::ethernet::{EtherType, MacAddress, VlanTag};
use wharf_nodes::wire::ip4::IpProtocol;
use wharf_nodes::wire::tcp::TcpFlags;

use crate::l2::{TagOperation, VlanOperation};
use crate::span::Directions;

/// A value with a textual form that is read back to the same value.
pub trait Words: Sized {
    /// What it is, for errors: `a MAC address`.
    const WHAT: &'static str;
    /// Reads it; `None` when the text is not one.
    fn read(text: &str) -> Option<Self>;
    /// Writes it.
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// A value that stands in a document as text, also as a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<T>(pub T);

impl<T: Words> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f)
    }
}

impl<T: Words> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, T: Words> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(std::marker::PhantomData<T>);
        impl<T: Words> Visitor<'_> for Reader<T> {
            type Value = Text<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::WHAT)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<T>, E> {
                T::read(text).map(Text).ok_or_else(|| E::custom(format!("`{text}' is not {}", T::WHAT)))
            }
        }
        deserializer.deserialize_str(Reader(std::marker::PhantomData))
    }
}

/// Types whose own text is the right one.
macro_rules! plain {
    ($($type:ty: $what:literal),* $(,)?) => {$(
        impl Words for $type {
            const WHAT: &'static str = $what;
            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }
            fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Display::fmt(self, f)
            }
        }
    )*};
}

impl Words for Directions {
    const WHAT: &'static str = "rx, tx or both";
    fn read(text: &str) -> Option<Self> {
        let all = [(true, false), (false, true), (true, true)].map(|(rx, tx)| Directions { rx, tx });
        all.into_iter().find(|directions| directions.word() == text)
    }
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

plain! {
    Ipv4Addr: "an IPv4 address",
    MacAddress: "a MAC address such as 02:00:00:00:00:01",
}

impl Words for Ip4Prefix {
    const WHAT: &'static str = "an IPv4 prefix such as 10.0.0.0/8, without host bits";

    fn read(text: &str) -> Option<Self> {
        let prefix: Ip4Prefix = text.parse().ok()?;
        // One prefix is one key.
        (prefix.to_string() == text).then_some(prefix)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl Words for u32 {
    const WHAT: &'static str = "a number from 0 to 4294967295";

    fn read(text: &str) -> Option<u32> {
        let number: u32 = text.parse().ok()?;
        // One number is one key.
        (number.to_string() == text).then_some(number)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

/// An interface's address with the length of its subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceAddress(pub Ipv4Addr, pub u8);

impl Words for InterfaceAddress {
    const WHAT: &'static str = "an address with a length such as 10.0.0.1/24";

    fn read(text: &str) -> Option<Self> {
        let (address, len) = text.split_once('/')?;
        Some(InterfaceAddress(address.parse().ok()?, number(len)?)).filter(|a| a.1 <= 32)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.1)
    }
}

/// Where a route leads: `via 192.0.2.1 memif0/0`, `via memif0/0` (into the subnet there), `drop`, `punt`, `local`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteWords {
    /// To a neighbour on an interface.
    NextHop(Ipv4Addr, String),
    /// Into the subnet on an interface.
    Attached(String),
    /// Nowhere.
    Drop,
    /// To the host.
    Punt,
    /// To us.
    Local,
}

impl RouteWords {
    /// The interface that it needs.
    pub fn interface(&self) -> Option<&str> {
        match self {
            RouteWords::NextHop(_, name) | RouteWords::Attached(name) => Some(name),
            RouteWords::Drop | RouteWords::Punt | RouteWords::Local => None,
        }
    }
}

impl Words for RouteWords {
    const WHAT: &'static str = "`via NEXT-HOP INTERFACE', `via INTERFACE', `drop', `punt' or `local'";

    fn read(text: &str) -> Option<Self> {
        Some(match text {
            "drop" => RouteWords::Drop,
            "punt" => RouteWords::Punt,
            "local" => RouteWords::Local,
            _ => {
                let rest = text.strip_prefix("via ").filter(|rest| !rest.is_empty())?;
                let next_hop = rest.split_once(' ').and_then(|(a, name)| Some((a.parse().ok()?, name)));
                match next_hop {
                    Some((next_hop, name)) => RouteWords::NextHop(next_hop, name.to_owned()),
                    None => RouteWords::Attached(rest.to_owned()),
                }
            }
        })
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteWords::NextHop(next_hop, name) => write!(f, "via {next_hop} {name}"),
            RouteWords::Attached(name) => write!(f, "via {name}"),
            RouteWords::Drop => f.write_str("drop"),
            RouteWords::Punt => f.write_str("punt"),
            RouteWords::Local => f.write_str("local"),
        }
    }
}

/// A neighbour's MAC address, with `no-fib-entry` behind it when it gets no host route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourWords {
    /// Where it is.
    pub mac: MacAddress,
    /// Whether it gets a host route.
    pub in_fib: bool,
}

impl Words for NeighbourWords {
    const WHAT: &'static str = "a MAC address, with or without `no-fib-entry' behind it";

    fn read(text: &str) -> Option<Self> {
        let (mac, in_fib) = match text.strip_suffix(" no-fib-entry") {
            Some(mac) => (mac, false),
            None => (text, true),
        };
        Some(NeighbourWords { mac: mac.parse().ok()?, in_fib })
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.mac, if self.in_fib { "" } else { " no-fib-entry" })
    }
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn vlan(text: &str) -> Option<VlanId> {
    match text {
        "any" => Some(VlanId::Any),
        _ => number(text).filter(|id| *id <= VlanTag::MAX_ID).map(VlanId::Id),
    }
}

fn tag_type(text: &str) -> Option<EtherType> {
    match text {
        "dot1q" => Some(EtherType::VLAN),
        "dot1ad" => Some(EtherType::QINQ),
        _ => None,
    }
}

fn tag_name(kind: EtherType) -> &'static str {
    if kind == EtherType::QINQ { "dot1ad" } else { "dot1q" }
}

impl Words for SubMatch {
    const WHAT: &'static str =
        "`default', `untagged' or `{dot1q|dot1ad} VLAN [inner-dot1q VLAN] [exact-match]'";

    fn read(text: &str) -> Option<Self> {
        let mut words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["default"] => return Some(SubMatch::Default),
            ["untagged"] => return Some(SubMatch::Untagged),
            _ => {}
        }
        let exact = words.pop_if(|last| *last == "exact-match").is_some();
        let (kind, outer, inner) = match words[..] {
            [kind, outer] => (kind, outer, None),
            [kind, outer, "inner-dot1q", inner] => (kind, outer, Some(vlan(inner)?)),
            _ => return None,
        };
        Some(SubMatch::Tags { outer_type: tag_type(kind)?, outer: vlan(outer)?, inner, exact })
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = |id: VlanId| match id {
            VlanId::Id(id) => id.to_string(),
            VlanId::Any => "any".to_owned(),
        };
        match *self {
            SubMatch::Default => f.write_str("default"),
            SubMatch::Untagged => f.write_str("untagged"),
            SubMatch::Tags { outer_type, outer, inner, exact } => {
                write!(f, "{} {}", tag_name(outer_type), id(outer))?;
                if let Some(inner) = inner {
                    write!(f, " inner-dot1q {}", id(inner))?;
                }
                f.write_str(if exact { " exact-match" } else { "" })
            }
        }
    }
}

impl Words for TagOperation {
    const WHAT: &'static str = "a tag rewrite such as `pop-1', `push-2 dot1ad 5 7' or `trans-1-1 dot1q 9'";

    fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (operation, pop, push) = match words.next()? {
            "pop-1" => (VlanOperation::Pop, 1, 0),
            "pop-2" => (VlanOperation::Pop, 2, 0),
            "push-1" => (VlanOperation::Push, 0, 1),
            "push-2" => (VlanOperation::Push, 0, 2),
            "trans-1-1" => (VlanOperation::Translate, 1, 1),
            "trans-1-2" => (VlanOperation::Translate, 1, 2),
            "trans-2-1" => (VlanOperation::Translate, 2, 1),
            "trans-2-2" => (VlanOperation::Translate, 2, 2),
            _ => return None,
        };
        let outer_type = if push == 0 { EtherType::VLAN } else { tag_type(words.next()?)? };
        let mut tags = [0; 2];
        for tag in tags.iter_mut().take(push.into()) {
            *tag = number(words.next()?)?;
        }
        let end = words.next().is_none();
        end.then_some(TagOperation { operation, pop, push, outer_type, tags })
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

fn acl_prefix(text: &str) -> Option<AclPrefix> {
    let (address, len) = text.split_once('/')?;
    let (address, len): (IpAddr, u8) = (address.parse().ok()?, number(len)?);
    Some(AclPrefix::new(address, len)).filter(|prefix| prefix.len() == len)
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((number(first)?, number(last)?))
}

impl Words for Rule {
    const WHAT: &'static str =
        "a rule such as `ipv4 permit src 10.0.0.0/8 dst 0.0.0.0/0 proto 6 dport 80-81'";

    fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let v6 = family(words.next()?)?;
        let action = match words.next()? {
            "permit" => Action::Permit,
            "deny" => Action::Deny,
            "permit+reflect" => Action::Reflect,
            _ => return None,
        };
        let mut rule = Rule::all(action, v6);
        while let Some(word) = words.next() {
            let value = words.next()?;
            match word {
                "src" => rule.src = acl_prefix(value)?,
                "dst" => rule.dst = acl_prefix(value)?,
                "proto" => rule.protocol = IpProtocol(number(value)?),
                "sport" => rule.sport = range(value)?,
                "dport" => rule.dport = range(value)?,
                "tcpflags" => rule.tcp_value = TcpFlags(number(value)?),
                "mask" => rule.tcp_mask = TcpFlags(number(value)?),
                _ => return None,
            }
        }
        (rule.src.is_v6() == v6 && rule.dst.is_v6() == v6).then_some(rule)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.is_v6() { "ipv6" } else { "ipv4" };
        write!(f, "{family} {}", self.action)?;
        for (word, prefix) in [("src", self.src), ("dst", self.dst)] {
            if prefix.len() != 0 {
                write!(f, " {word} {prefix}")?;
            }
        }
        if self.protocol.0 != 0 {
            write!(f, " proto {}", self.protocol.0)?;
        }
        for (word, (first, last)) in [("sport", self.sport), ("dport", self.dport)] {
            match (first, last) {
                ANY_PORT => {}
                _ if first == last => write!(f, " {word} {first}")?,
                _ => write!(f, " {word} {first}-{last}")?,
            }
        }
        if (self.tcp_value.0, self.tcp_mask.0) != (0, 0) {
            write!(f, " tcpflags {} mask {}", self.tcp_value.0, self.tcp_mask.0)?;
        }
        Ok(())
    }
}

impl Words for MacIpRule {
    const WHAT: &'static str =
        "a rule such as `ipv4 permit ip 10.0.0.2/32 mac 02:00:00:00:00:02 mask ff:ff:ff:ff:ff:ff'";

    fn read(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let [v6, action, "ip", prefix, "mac", mac, "mask", mask] = words[..] else { return None };
        let rule = MacIpRule {
            permit: match action {
                "permit" => true,
                "deny" => false,
                _ => return None,
            },
            mac: mac.parse().ok()?,
            mask: mask.parse().ok()?,
            prefix: acl_prefix(prefix)?,
        };
        (rule.prefix.is_v6() == family(v6)?).then_some(rule)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

fn family(word: &str) -> Option<bool> {
    match word {
        "ipv4" => Some(false),
        "ipv6" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same<T: Words>(texts: &[&str]) {
        for text in texts {
            let read = T::read(text).unwrap_or_else(|| panic!("`{text}' is not {}", T::WHAT));
            assert_eq!(Text(read).to_string(), *text);
        }
    }

    fn not<T: Words>(texts: &[&str]) {
        texts.iter().for_each(|text| assert!(T::read(text).is_none(), "`{text}' is {}", T::WHAT));
    }

    #[test]
    fn what_is_written_is_read_back() {
        same::<u32>(&["0", "4294967295"]);
        not::<u32>(&["", "01", "+1", "-1", "4294967296"]);
        same::<InterfaceAddress>(&["10.0.0.1/24"]);
        not::<InterfaceAddress>(&["10.0.0.1", "10.0.0.1/33", "10.0.0.1/+4"]);
        same::<RouteWords>(&["via 10.0.0.1 memif0/0", "via memif0/0", "via a b", "drop", "punt", "local"]);
        not::<RouteWords>(&["", "via ", "10.0.0.1", "Drop"]);
        same::<NeighbourWords>(&["02:00:00:00:00:01", "02:00:00:00:00:01 no-fib-entry"]);
        same::<SubMatch>(&[
            "default",
            "untagged",
            "dot1q 5",
            "dot1q any exact-match",
            "dot1ad 5 inner-dot1q any",
            "dot1q 5 inner-dot1q 7 exact-match",
        ]);
        not::<SubMatch>(&["", "dot1q", "dot1q 4096", "exact-match", "dot1q 5 inner-dot1q", "dot1q 5  6"]);
        same::<TagOperation>(&["pop-1", "pop-2", "push-1 dot1q 5", "push-2 dot1ad 5 7", "trans-2-1 dot1q 9"]);
        not::<TagOperation>(&["pop-3", "push-1 dot1q", "push-1 5", "pop-1 dot1q 5", "trans-1-1 dot1q 5 6"]);
        same::<Rule>(&[
            "ipv4 deny",
            "ipv6 permit src 2001:db8::/32",
            "ipv4 permit+reflect src 10.0.0.0/8 dst 192.0.2.1/32 proto 6 sport 1-2 dport 80 tcpflags 2 mask 18",
        ]);
        not::<Rule>(&[
            "",
            "ipv4",
            "ipv4 drop",
            "ipv4 permit src",
            "ipv4 permit src 2001:db8::/32",
            "ipv4 permit proto 256",
        ]);
        same::<MacIpRule>(&["ipv4 permit ip 10.0.0.2/32 mac 02:00:00:00:00:02 mask ff:ff:ff:ff:ff:ff"]);
    }
}
