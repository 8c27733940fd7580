//! The block of `packet-generator new { ... }`, in VPP's words:
//!
//! ```text
//! { name x limit 100 size 64-1500 interface pg0 node ethernet-input worker 0 rate 1e6
//!   data { IP4: 1.2.3 -> 4.5.6
//!          UDP: 192.0.2.1 - 192.0.2.9 -> 198.51.100.1 ttl 64
//!          UDP: 1234 -> 2345 + 2999
//!          incrementing 30 } }
//! { name y interface pg0 pcap /tmp/in.pcap }
//! pcap /tmp/in.pcap source pg0 name z
//! ```
//!
//! The first word of each header is what the header *before* it says follows: `IP4:` starts the Ethernet header,
//! `UDP:` the IP header, and `UDP:` once more the UDP header. A range `a - b` increments, `a + b` is random. An
//! Ethernet type may be a number (`0x88cc:`), and `vlan N` may follow the Ethernet addresses. For `node ip4-input` and
//! `node ip6-input` the data starts with the IP header. Without `size`, packets are as long as their data.

use super::interface::{PgError, PgMode};
use super::pcap::Replay;
use super::stream::{Source, StreamConfig};
use super::template::{Field, L4, Layers, Size, Step, Template};
use std::iter::Peekable;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use wharf_engine::buffer::DATA_SIZE;

const IP4_TTL: u8 = 64;
const ETHERTYPE_IP4: u16 = 0x0800;
const ETHERTYPE_IP6: u16 = 0x86dd;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// What is wrong with the block, and at which word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{word}': {why}")]
pub struct ScriptError {
    /// The word.
    pub word: String,
    /// What is wrong with it.
    pub why: String,
}

/// Where the packets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptSource {
    /// A pcap file, not read yet.
    Pcap(PathBuf),
    /// A template.
    Data(Template),
}

/// A parsed block.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamScript {
    /// Name of the stream.
    pub name: String,
    /// Name of the interface.
    pub interface: String,
    /// Node that packets go to, if it was said.
    pub node: Option<String>,
    /// Worker, if it was said.
    pub worker: Option<u16>,
    /// Packets to play, if it was said.
    pub limit: Option<u64>,
    /// Packets per second; 0 is as fast as possible.
    pub rate: f64,
    /// Packets that go into the graph together; 0 is as many as fit.
    pub max_frame: u32,
    /// What is played.
    pub source: ScriptSource,
}

impl FromStr for StreamScript {
    type Err = ScriptError;

    /// Parses a block, with or without `new` and the braces around it.
    fn from_str(text: &str) -> Result<StreamScript, ScriptError> {
        let spaced = text.replace("->", " -> ").replace('{', " { ").replace('}', " } ");
        let mut words = Words { words: spaced.split_whitespace().peekable() };
        words.accept("new");
        let braced = words.accept("{");
        let script = parse_block(&mut words, braced)?;
        match words.next() {
            Some(word) => Err(wrong(word, "nothing may follow the block")),
            None => Ok(script),
        }
    }
}

impl StreamScript {
    /// The stream for an interface in `mode`; reads the pcap file, if it is one. A file is played once unless a limit
    /// was said.
    pub fn into_config(self, mode: PgMode) -> Result<StreamConfig, PgError> {
        let goes = mode.input_node();
        if let Some(wanted) = self.node.filter(|node| node != goes) {
            return Err(PgError::Node { interface: self.interface, goes, wanted });
        }
        let (source, limit) = match self.source {
            ScriptSource::Data(template) => (Source::Template(template), 0),
            ScriptSource::Pcap(file) => {
                let replay = Replay::read(&file, mode)?;
                let packets = replay.len() as u64;
                (Source::Replay(replay), packets)
            }
        };
        let limit = self.limit.unwrap_or(limit);
        Ok(StreamConfig { name: self.name, limit, rate: self.rate, max_frame: self.max_frame, source })
    }
}

fn wrong(word: &str, why: impl Into<String>) -> ScriptError {
    ScriptError { word: word.into(), why: why.into() }
}

struct Words<'a, I: Iterator<Item = &'a str>> {
    words: Peekable<I>,
}

impl<'a, I: Iterator<Item = &'a str>> Words<'a, I> {
    fn next(&mut self) -> Option<&'a str> {
        self.words.next()
    }

    fn peek(&mut self) -> Option<&'a str> {
        self.words.peek().copied()
    }

    fn accept(&mut self, word: &str) -> bool {
        self.words.next_if(|w| w.eq_ignore_ascii_case(word)).is_some()
    }

    /// The word that must follow `after`.
    fn value(&mut self, after: &str, what: &str) -> Result<&'a str, ScriptError> {
        match self.words.next() {
            Some(word) if word != "{" && word != "}" && word != "->" => Ok(word),
            _ => Err(wrong(after, format!("{what} must follow"))),
        }
    }

    fn number<T: FromStr>(&mut self, after: &str, what: &str) -> Result<T, ScriptError> {
        let word = self.value(after, what)?;
        word.parse().map_err(|_| wrong(word, format!("not {what}")))
    }

    fn expect(&mut self, word: &str, after: &str) -> Result<(), ScriptError> {
        match self.words.next() {
            Some(found) if found == word => Ok(()),
            Some(found) => Err(wrong(found, format!("`{word}' expected"))),
            None => Err(wrong(after, format!("`{word}' must follow"))),
        }
    }

    /// `a`, `a - b` or `a + b`, with or without spaces.
    fn range<T: Copy>(
        &mut self,
        after: &str,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<(T, T, Step), ScriptError> {
        let word = self.value(after, what)?;
        let value = |text: &str| parse(text).ok_or_else(|| wrong(text, format!("not {what}")));
        for (sign, step) in [('-', Step::Increment), ('+', Step::Random)] {
            if let Some((low, high)) = word.split_once(sign) {
                let high = if high.is_empty() { self.value(word, what)? } else { high };
                return Ok((value(low)?, value(high)?, step));
            }
        }
        let low = value(word)?;
        for (sign, step) in [('-', Step::Increment), ('+', Step::Random)] {
            if let Some(next) = self.words.next_if(|w| w.starts_with(sign) && *w != "->") {
                let high = next.get(1..).unwrap_or_default();
                let high = if high.is_empty() { self.value(next, what)? } else { high };
                return Ok((low, value(high)?, step));
            }
        }
        Ok((low, low, Step::Increment))
    }
}

fn parse_block<'a>(
    words: &mut Words<'a, impl Iterator<Item = &'a str>>,
    braced: bool,
) -> Result<StreamScript, ScriptError> {
    let (mut name, mut interface, mut node, mut worker) = (None, None, None, None);
    let (mut limit, mut rate, mut max_frame, mut size, mut pcap) = (None, 0.0, 0, None, None);
    let mut data: Option<Data> = None;
    // The data's first header depends on the node, which may come later.
    let mut data_words: Option<Vec<&str>> = None;
    loop {
        let Some(word) = words.next() else {
            if braced {
                return Err(wrong("{", "not closed"));
            }
            break;
        };
        match word.to_ascii_lowercase().as_str() {
            "}" if braced => break,
            "name" => name = Some(words.value(word, "a name")?.to_owned()),
            // VPP says the one in blocks, the other on lines.
            "interface" | "source" => interface = Some(words.value(word, "an interface")?.to_owned()),
            "node" => node = Some(words.value(word, "a node")?.to_owned()),
            "worker" => worker = Some(words.number(word, "a worker's number")?),
            "limit" => limit = Some(words.number(word, "a number of packets")?),
            "maxframe" => max_frame = words.number(word, "a number of packets")?,
            "pcap" => pcap = Some(PathBuf::from(words.value(word, "a file")?)),
            "rate" => {
                let text = words.value(word, "packets per second")?;
                let parsed = text.parse().ok().filter(|r: &f64| r.is_finite() && *r >= 0.0);
                rate = parsed.ok_or_else(|| wrong(text, "not a number of packets per second"))?;
            }
            "size" => {
                let (min, max, step) = words.range(word, "a number of bytes", |w| w.parse::<u16>().ok())?;
                if min == 0 || min > max || usize::from(max) > DATA_SIZE {
                    return Err(wrong(
                        word,
                        format!("{min}-{max} is not within 1 to {DATA_SIZE}, the least first"),
                    ));
                }
                size = Some(Size { min, max, step });
            }
            "data" => {
                words.expect("{", word)?;
                let mut inner = Vec::new();
                loop {
                    match words.next() {
                        Some("}") => break,
                        Some("{") => return Err(wrong("{", "unexpected in data")),
                        Some(other) => inner.push(other),
                        None => return Err(wrong(word, "its block is not closed")),
                    }
                }
                data_words = Some(inner);
            }
            _ => return Err(wrong(word, "unknown word")),
        }
    }
    if let Some(inner) = data_words {
        let mut words = Words { words: inner.into_iter().peekable() };
        data = Some(parse_data(&mut words, node.as_deref())?);
    }
    let source = match (pcap, data) {
        (Some(_), Some(_)) => return Err(wrong("pcap", "a stream has either data or a file")),
        (None, None) => return Err(wrong("data", "a stream needs data or a pcap file")),
        (Some(_), None) if size.is_some() => return Err(wrong("size", "the packets of a file have theirs")),
        (Some(file), None) => ScriptSource::Pcap(file),
        (None, Some(data)) => ScriptSource::Data(data.into_template(size)?),
    };
    Ok(StreamScript {
        name: name.ok_or_else(|| wrong("name", "a stream needs one"))?,
        interface: interface.ok_or_else(|| wrong("interface", "a stream needs one"))?,
        node,
        worker,
        limit,
        rate,
        max_frame,
        source,
    })
}

/// The packet as far as it was read.
#[derive(Default)]
struct Data {
    bytes: Vec<u8>,
    fields: Vec<Field>,
    layers: Option<Layers>,
}

impl Data {
    fn into_template(self, size: Option<Size>) -> Result<Template, ScriptError> {
        let mut template = Template::constant(self.bytes);
        template.fields = self.fields;
        template.layers = self.layers;
        template.size = size.unwrap_or(template.size);
        let word = if size.is_some() { "size" } else { "data" };
        template.check().map_err(|e| wrong(word, e.to_string()))?;
        Ok(template)
    }

    fn here(&self) -> u16 {
        // `parse_data` keeps it below DATA_SIZE.
        self.bytes.len().min(DATA_SIZE) as u16
    }

    /// Appends a big-endian number of `width` bytes that may change.
    fn number(&mut self, width: u8, (min, max, step): (u32, u32, Step)) {
        if min != max {
            self.fields.push(Field { offset: self.here(), width, min, max, step });
        }
        self.bytes.extend_from_slice(&min.to_be_bytes()[4 - usize::from(width)..]);
    }
}

fn parse_data<'a>(
    words: &mut Words<'a, impl Iterator<Item = &'a str>>,
    node: Option<&str>,
) -> Result<Data, ScriptError> {
    let mut data = Data::default();
    let ethertype = match node {
        Some("ip4-input") => Some(ETHERTYPE_IP4),
        Some("ip6-input") => Some(ETHERTYPE_IP6),
        _ if is_payload(words.peek()) => None,
        _ => Some(parse_ethernet(words, &mut data)?),
    };
    if let Some(ethertype @ (ETHERTYPE_IP4 | ETHERTYPE_IP6)) = ethertype
        && !is_payload(words.peek())
        && words.peek().is_some()
    {
        parse_ip(words, &mut data, ethertype == ETHERTYPE_IP6)?;
    }
    while let Some(word) = words.next() {
        match word.to_ascii_lowercase().as_str() {
            "incrementing" => {
                let n: usize = words.number(word, "a number of bytes")?;
                if data.bytes.len() + n > DATA_SIZE {
                    return Err(wrong(word, format!("a packet has at most {DATA_SIZE} bytes")));
                }
                data.bytes.extend((0..n).map(|i| i as u8));
            }
            "hex" => {
                let digits = words.value(word, "bytes as 0x...")?;
                let bytes = hex(digits).ok_or_else(|| wrong(digits, "not bytes as 0x..."))?;
                if data.bytes.len() + bytes.len() > DATA_SIZE {
                    return Err(wrong(word, format!("a packet has at most {DATA_SIZE} bytes")));
                }
                data.bytes.extend(bytes);
            }
            _ => return Err(wrong(word, "unknown word in data")),
        }
    }
    Ok(data)
}

fn is_payload(word: Option<&str>) -> bool {
    word.is_some_and(|w| w.eq_ignore_ascii_case("incrementing") || w.eq_ignore_ascii_case("hex"))
}

/// `IP4: <mac> -> <mac> [vlan N]`. Returns the Ethernet type.
fn parse_ethernet<'a>(
    words: &mut Words<'a, impl Iterator<Item = &'a str>>,
    data: &mut Data,
) -> Result<u16, ScriptError> {
    let word = words.next().ok_or_else(|| wrong("data", "it is empty"))?;
    let ethertype = match word.to_ascii_uppercase().as_str() {
        "IP4:" => ETHERTYPE_IP4,
        "IP6:" => ETHERTYPE_IP6,
        "ARP:" => ETHERTYPE_ARP,
        other => {
            let digits = other.strip_suffix(':').and_then(|t| t.strip_prefix("0X"));
            let number = digits.and_then(|d| u16::from_str_radix(d, 16).ok());
            number.ok_or_else(|| wrong(word, "not an Ethernet type (IP4:, IP6:, ARP: or 0x...:)"))?
        }
    };
    let source = mac(words.value(word, "the source address")?)?;
    words.expect("->", word)?;
    let destination = mac(words.value("->", "the destination address")?)?;
    data.bytes.extend(destination);
    data.bytes.extend(source);
    if words.accept("vlan") {
        let id = words.range("vlan", "a VLAN id", |w| w.parse().ok().filter(|id| *id < 4096u32))?;
        check_order("vlan", id.0, id.1)?;
        data.bytes.extend(ETHERTYPE_VLAN.to_be_bytes());
        data.number(2, id);
    }
    data.bytes.extend(ethertype.to_be_bytes());
    Ok(ethertype)
}

/// `UDP: <address> -> <address> [ttl N] [tos N]`, and the header of the protocol.
fn parse_ip<'a>(
    words: &mut Words<'a, impl Iterator<Item = &'a str>>,
    data: &mut Data,
    v6: bool,
) -> Result<(), ScriptError> {
    let word = words.next().ok_or_else(|| wrong("data", "an IP header must follow"))?;
    let protocol = match word.to_ascii_uppercase().as_str() {
        "UDP:" => UDP,
        "TCP:" => TCP,
        "ICMP:" if v6 => ICMP6,
        "ICMP:" => ICMP,
        "ICMP6:" if v6 => ICMP6,
        other => (other.strip_suffix(':').and_then(|n| n.parse().ok()))
            .ok_or_else(|| wrong(word, "not an IP protocol (UDP:, TCP:, ICMP: or a number:)"))?,
    };
    let source = addresses(words, word, v6)?;
    words.expect("->", word)?;
    let destination = addresses(words, "->", v6)?;
    let (mut ttl, mut tos) = (IP4_TTL, 0);
    loop {
        if words.accept("ttl") {
            ttl = words.number("ttl", "a number up to 255")?;
        } else if words.accept("tos") {
            tos = words.number("tos", "a number up to 255")?;
        } else {
            break;
        }
    }
    let ip = data.here();
    if v6 {
        data.bytes.extend([0x60 | tos >> 4, tos << 4, 0, 0, 0, 0, protocol, ttl]);
    } else {
        data.bytes.extend([0x45, tos, 0, 0, 0, 0, 0, 0, ttl, protocol, 0, 0]);
    }
    for (prefix, last) in [source, destination] {
        data.bytes.extend(prefix);
        data.number(4, last);
    }
    let mut layers = Layers { ip, l4: None };
    let l4 = match protocol {
        UDP => Some(L4::Udp),
        TCP => Some(L4::Tcp),
        _ => None,
    };
    if let Some(l4) = l4
        && words.accept(word)
    {
        layers.l4 = Some((l4, data.here()));
        parse_ports(words, data, word, l4)?;
    }
    data.layers = Some(layers);
    Ok(())
}

/// `1234 -> 2345`, the rest of `UDP:` or `TCP:`.
fn parse_ports<'a>(
    words: &mut Words<'a, impl Iterator<Item = &'a str>>,
    data: &mut Data,
    word: &str,
    l4: L4,
) -> Result<(), ScriptError> {
    let port = |w: &str| w.parse::<u16>().ok().map(u32::from);
    let source = words.range(word, "a port", port)?;
    check_order(word, source.0, source.1)?;
    words.expect("->", word)?;
    let destination = words.range("->", "a port", port)?;
    check_order(word, destination.0, destination.1)?;
    data.number(2, source);
    data.number(2, destination);
    match l4 {
        L4::Udp => data.bytes.extend([0; 4]),
        // Sequence numbers 0, no options, SYN, the greatest window.
        L4::Tcp => data.bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]),
    }
    Ok(())
}

type Addresses = (Vec<u8>, (u32, u32, Step));

/// An address or a range of them: the bytes that stay, and the last four.
fn addresses<'a>(
    words: &mut Words<'a, impl Iterator<Item = &'a str>>,
    after: &str,
    v6: bool,
) -> Result<Addresses, ScriptError> {
    let what = if v6 { "an IPv6 address" } else { "an IPv4 address" };
    let (low, high, step) =
        words.range(after, what, |w| w.parse::<IpAddr>().ok().filter(|a| a.is_ipv6() == v6))?;
    let split = |address: IpAddr| -> (Vec<u8>, u32) {
        match address {
            IpAddr::V4(a) => (Vec::new(), a.to_bits()),
            IpAddr::V6(a) => (a.octets()[..12].to_vec(), a.to_bits() as u32),
        }
    };
    let ((prefix, min), (other, max)) = (split(low), split(high));
    if prefix != other {
        return Err(wrong(&high.to_string(), "a range may differ in the last 32 bits only"));
    }
    check_order(&high.to_string(), min, max)?;
    Ok((prefix, (min, max, step)))
}

fn check_order(word: &str, min: u32, max: u32) -> Result<(), ScriptError> {
    if min > max { Err(wrong(word, "the end of the range is below its start")) } else { Ok(()) }
}

/// `1.2.3` (groups of 16 bits, hexadecimal, as VPP writes them) or `00:01:00:02:00:03`.
fn mac(word: &str) -> Result<Vec<u8>, ScriptError> {
    let fail = || wrong(word, "not an Ethernet address (1.2.3 or 00:01:00:02:00:03)");
    let mut bytes = Vec::new();
    if word.contains(':') {
        for part in word.split(':') {
            bytes.push(u8::from_str_radix(part, 16).map_err(|_| fail())?);
        }
    } else {
        for part in word.split('.') {
            bytes.extend(u16::from_str_radix(part, 16).map_err(|_| fail())?.to_be_bytes());
        }
    }
    if bytes.len() == 6 { Ok(bytes) } else { Err(fail()) }
}

fn hex(word: &str) -> Option<Vec<u8>> {
    let digits = word.strip_prefix("0x").unwrap_or(word).as_bytes();
    let digit = |d: &u8| (*d as char).to_digit(16);
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() || pairs.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some((digit(high)? << 4 | digit(low)?) as u8)).collect()
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
