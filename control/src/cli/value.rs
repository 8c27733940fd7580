//! The types a command's parameter can have, and the values that they yield.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::args::{CliError, Entry};
use super::token::Token;

/// The names that a context knows: a word is an `<interface>` only when it is in here.
pub trait Names {
    /// The software interface index behind an exact interface name.
    fn interface(&self, name: &str) -> Option<u32>;
    /// All interface names, in the order in which completion should offer them.
    fn interfaces(&self) -> Vec<String>;
    /// Whether the graph has a node of this name.
    fn has_node(&self, name: &str) -> bool {
        self.nodes().iter().any(|node| node == name)
    }
    /// All graph node names.
    fn nodes(&self) -> Vec<String>;

    /// A copy of all names.
    fn known(&self) -> Known {
        let pair = |name: String| self.interface(&name).map(|index| (name, index));
        Known { interfaces: self.interfaces().into_iter().filter_map(pair).collect(), nodes: self.nodes() }
    }
}

/// Names as they were at some time.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The software interface indices by name.
    pub interfaces: BTreeMap<String, u32>,
    /// The graph's nodes.
    pub nodes: Vec<String>,
}

impl Names for Known {
    fn interface(&self, name: &str) -> Option<u32> {
        self.interfaces.get(name).copied()
    }

    fn interfaces(&self) -> Vec<String> {
        self.interfaces.keys().cloned().collect()
    }

    fn nodes(&self) -> Vec<String> {
        self.nodes.clone()
    }
}

/// The type of a `<parameter>` in a command's syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Number { min: u64, max: u64 },
    Float,
    Ip,
    Ip4,
    Ip6,
    Prefix,
    Prefix4,
    Prefix6,
    Mac,
    Interface,
    Node,
    Word,
    Path,
    Range,
    List,
    Block,
    Line,
}

/// The longest list that a `<list>` such as `0-3,8` may expand to.
const MAX_LIST: usize = 4096;

impl Type {
    /// The type behind a word of the syntax string; `64-9000` is a number with bounds.
    pub(crate) fn named(text: &str) -> Option<Type> {
        let number = |max: u64| Type::Number { min: 0, max };
        Some(match text {
            "n" | "u32" => number(u64::from(u32::MAX)),
            "u8" => number(u64::from(u8::MAX)),
            "u16" => number(u64::from(u16::MAX)),
            "u64" => number(u64::MAX),
            "float" => Type::Float,
            "ip" => Type::Ip,
            "ip4" => Type::Ip4,
            "ip6" => Type::Ip6,
            "prefix" => Type::Prefix,
            "prefix4" => Type::Prefix4,
            "prefix6" => Type::Prefix6,
            "mac" => Type::Mac,
            "interface" => Type::Interface,
            "node" => Type::Node,
            "word" | "string" => Type::Word,
            "path" => Type::Path,
            "range" => Type::Range,
            "list" => Type::List,
            "block" => Type::Block,
            "line" => Type::Line,
            bounds => {
                let (min, max) = bounds.split_once('-')?;
                let (min, max) = (min.parse().ok()?, max.parse().ok()?);
                (min <= max).then_some(Type::Number { min, max })?
            }
        })
    }

    /// What a value has to be, as the end of "must be ...".
    pub(crate) fn describe(&self) -> String {
        match self {
            Type::Number { min: 0, max: u64::MAX } => "a number".into(),
            Type::Number { min, max } => format!("a number from {min} to {max}"),
            Type::Float => "a number, with or without a fraction".into(),
            Type::Ip => "an IPv4 or IPv6 address".into(),
            Type::Ip4 => "an IPv4 address".into(),
            Type::Ip6 => "an IPv6 address".into(),
            Type::Prefix => "an address and prefix length such as 10.0.0.0/8 or fd00::/64".into(),
            Type::Prefix4 => "an IPv4 address and prefix length such as 10.0.0.0/8".into(),
            Type::Prefix6 => "an IPv6 address and prefix length such as fd00::/64".into(),
            Type::Mac => "a MAC address such as 02:fe:00:00:00:01".into(),
            Type::Interface => "the name of an interface".into(),
            Type::Node => "the name of a graph node".into(),
            Type::Word => "a word, or text in double quotes".into(),
            Type::Path => "a path".into(),
            Type::Range => "a number or a range such as 80-90".into(),
            Type::List => "a list of numbers such as 1-3,5".into(),
            Type::Block => "a block in braces".into(),
            Type::Line => "the rest of the line".into(),
        }
    }

    /// Whether any word at all would do, so that keywords have to be tried first.
    pub(crate) fn is_free(&self) -> bool {
        matches!(self, Type::Word | Type::Path | Type::Line)
    }

    /// The value of a token, or `None` when it is not of this type. `<line>` is the caller's business.
    pub(crate) fn parse(&self, token: &Token, names: &dyn Names) -> Option<Value> {
        let text = token.text.as_str();
        if token.block != matches!(self, Type::Block) {
            return None;
        }
        let ip = |addr: IpAddr| Some(Value::Ip(addr));
        match self {
            Type::Number { min, max } => {
                number(text).filter(|n| (*min..=*max).contains(n)).map(Value::Number)
            }
            Type::Float => text.parse().ok().filter(|f: &f64| f.is_finite()).map(Value::Float),
            Type::Ip => ip(text.parse().ok()?),
            Type::Ip4 => ip(IpAddr::V4(text.parse().ok()?)),
            Type::Ip6 => ip(IpAddr::V6(text.parse().ok()?)),
            Type::Prefix => Prefix::parse(text).map(Value::Prefix),
            Type::Prefix4 => Prefix::parse(text).filter(|p| p.addr.is_ipv4()).map(Value::Prefix),
            Type::Prefix6 => Prefix::parse(text).filter(|p| p.addr.is_ipv6()).map(Value::Prefix),
            Type::Mac => mac(text).map(Value::Mac),
            Type::Interface => {
                names.interface(text).map(|index| Value::Interface { name: text.into(), index })
            }
            Type::Node => names.has_node(text).then(|| Value::Text(text.into())),
            Type::Word | Type::Path | Type::Line | Type::Block => Some(Value::Text(text.into())),
            Type::Range => range(text).map(|(first, last)| Value::Range(first, last)),
            Type::List => list(text).map(Value::List),
        }
    }
}

/// An address and a prefix length, as written: the host bits are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The address, host bits included.
    pub addr: IpAddr,
    /// The prefix length in bits, at most 32 or 128.
    pub len: u8,
}

impl Prefix {
    fn parse(text: &str) -> Option<Prefix> {
        let (addr, len) = text.split_once('/')?;
        let addr: IpAddr = addr.parse().ok()?;
        let max = if addr.is_ipv4() { 32 } else { 128 };
        let len = len.bytes().all(|b| b.is_ascii_digit()).then(|| len.parse().ok())??;
        (len <= max).then_some(Prefix { addr, len })
    }
}

/// One parsed value.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A keyword that was given.
    Flag,
    /// Any whole number, within the bounds that the syntax declares.
    Number(u64),
    /// A finite number.
    Float(f64),
    /// An address.
    Ip(IpAddr),
    /// An address with a prefix length.
    Prefix(Prefix),
    /// A MAC address.
    Mac([u8; 6]),
    /// An interface that exists.
    Interface {
        /// Its name.
        name: String,
        /// Its software interface index.
        index: u32,
    },
    /// A word, path, node name, line, or the inside of a block.
    Text(String),
    /// First and last, in order.
    Range(u64, u64),
    /// Numbers in the order written.
    List(Vec<u32>),
}

/// A decimal number, or a hexadecimal one after `0x`.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok(),
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

/// `02:fe:00:00:00:01`, or the `02fe.0000.0001` that switches print.
fn mac(text: &str) -> Option<[u8; 6]> {
    let colons = text.contains(':');
    let (separator, parts, digits) = if colons { (':', 6, 1..=2) } else { ('.', 3, 4..=4) };
    let mut octets = [0; 6];
    let mut count = 0;
    for part in text.split(separator) {
        let valid = digits.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
        let value = u16::from_str_radix(part, 16).ok().filter(|_| valid)?;
        let [high, low] = value.to_be_bytes();
        if colons {
            *octets.get_mut(count)? = low;
        } else {
            *octets.get_mut(2 * count)? = high;
            *octets.get_mut(2 * count + 1)? = low;
        }
        count += 1;
    }
    (count == parts).then_some(octets)
}

/// `80` or `80-90`.
fn range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// `1-3,5`, in the order written.
pub(crate) fn list(text: &str) -> Option<Vec<u32>> {
    let mut values = Vec::new();
    for part in text.split(',') {
        let (first, last) = range(part)?;
        let (first, last) = (u32::try_from(first).ok()?, u32::try_from(last).ok()?);
        if (last - first) as usize >= MAX_LIST - values.len().min(MAX_LIST) {
            return None;
        }
        values.extend(first..=last);
    }
    Some(values)
}

/// A Rust type that a parameter's value can be read as.
pub trait FromValue: Sized {
    /// What the type holds, for the message when the declared type does not fit.
    const WHAT: &'static str;
    /// Reads the value; `None` when the parameter was declared as another type, an error when it does not fit.
    fn from_value(value: &Value) -> Option<Result<Self, String>>;
}

macro_rules! from_number {
    ($($int:ty),*) => {$(
        impl FromValue for $int {
            const WHAT: &'static str = "a number";
            fn from_value(value: &Value) -> Option<Result<Self, String>> {
                let Value::Number(n) = value else { return None };
                Some(<$int>::try_from(*n).map_err(|_| format!("must be at most {}, got {n}", <$int>::MAX)))
            }
        }
    )*};
}
from_number!(u8, u16, u32, u64, usize);

macro_rules! from_variant {
    ($($target:ty, $what:literal, $pattern:pat => $value:expr;)*) => {$(
        impl FromValue for $target {
            const WHAT: &'static str = $what;
            fn from_value(value: &Value) -> Option<Result<Self, String>> {
                match value { $pattern => Some($value), _ => None }
            }
        }
    )*};
}
from_variant! {
    f64, "a number", Value::Float(f) => Ok(*f);
    IpAddr, "an address", Value::Ip(addr) => Ok(*addr);
    Ipv4Addr, "an IPv4 address", Value::Ip(addr) => match addr {
        IpAddr::V4(addr) => Ok(*addr),
        IpAddr::V6(addr) => Err(format!("must be an IPv4 address, got {addr}")),
    };
    Ipv6Addr, "an IPv6 address", Value::Ip(addr) => match addr {
        IpAddr::V6(addr) => Ok(*addr),
        IpAddr::V4(addr) => Err(format!("must be an IPv6 address, got {addr}")),
    };
    Prefix, "a prefix", Value::Prefix(prefix) => Ok(*prefix);
    [u8; 6], "a MAC address", Value::Mac(mac) => Ok(*mac);
    String, "text", Value::Text(text) | Value::Interface { name: text, .. } => Ok(text.clone());
    (u64, u64), "a range", Value::Range(first, last) => Ok((*first, *last));
    Vec<u32>, "a list", Value::List(list) => Ok(list.clone());
}

/// Reads an argument as a `T`, naming the parameter and its word in the error.
pub(crate) fn read<T: FromValue>(entry: &Entry) -> Result<T, CliError> {
    let name = &entry.name;
    match T::from_value(&entry.value) {
        Some(Ok(value)) => Ok(value),
        Some(Err(message)) => Err(CliError::new(format!("<{name}> {message}")).at(entry.word)),
        None => Err(CliError::new(format!("<{name}> is not declared as {}", T::WHAT))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs() {
        assert_eq!(mac("02:fe:0:0:00:1"), Some([2, 0xfe, 0, 0, 0, 1]));
        assert_eq!(mac("02fe.0a00.0001"), Some([2, 0xfe, 0x0a, 0, 0, 1]));
        for bad in ["", "02:fe:00:00:00", "02:fe:00:00:00:01:02", "2fe.0000.0001", "+2:fe:00:00:00:01", "1"] {
            assert_eq!(mac(bad), None, "{bad}");
        }
    }

    #[test]
    fn lists_and_ranges() {
        assert_eq!(list("1-3,5"), Some(vec![1, 2, 3, 5]));
        assert_eq!(list("7"), Some(vec![7]));
        for bad in ["", "1,", "3-1", "0-4294967295", "0-4095,1", "a-b", "-1"] {
            assert_eq!(list(bad), None, "{bad}");
        }
        assert_eq!(list("0-4095").map(|l| l.len()), Some(4096));
    }

    #[test]
    fn prefixes() {
        assert_eq!(
            Prefix::parse("10.1.2.3/8"),
            Some(Prefix { addr: Ipv4Addr::new(10, 1, 2, 3).into(), len: 8 })
        );
        for bad in ["10.0.0.0", "10.0.0.0/33", "fd00::/129", "10.0.0.0/+8", "10.0.0.0/", "/8"] {
            assert_eq!(Prefix::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(number("0x1F"), Some(31));
        assert_eq!(number("18446744073709551616"), None);
        for bad in ["", "0x", "-1", "+1", "1k", "0x+1"] {
            assert_eq!(number(bad), None, "{bad}");
        }
        assert_eq!(Type::named("64-9000"), Some(Type::Number { min: 64, max: 9000 }));
        assert_eq!(Type::named("9000-64"), None);
        assert_eq!(Type::named("id"), None);
    }
}
