//! Steps in words.

use super::super::document::*;
use super::super::words::Text;
use super::{Mode, Setting, Step};
use crate::span::SpanLayer;
use std::fmt;

/// In the words of the CLI, without the sign.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let del = |there: bool| if there { "" } else { " del" };
        match self {
            Step::Settings(s) => {
                write!(f, "set ip neighbor-config ip4 age {}; set acl-plugin session", s.neighbor_age)?;
                write!(f, " timeout udp idle {} tcp idle {}", s.session_udp_idle, s.session_tcp_idle)?;
                write!(f, " tcp transient {}", s.session_tcp_transient)?;
                s.session_max_entries.map_or(Ok(()), |max| write!(f, " table max-entries {max}"))?;
                s.default_rx_mode.map_or(Ok(()), |mode| write!(f, "; default rx-mode {}", mode_word(mode)))
            }
            Step::Socket(id, None) => write!(f, "delete memif socket id {id}"),
            Step::Socket(id, Some(socket)) => {
                write!(f, "create memif socket id {id} filename {}", socket.filename)?;
                socket.allow_uid.iter().try_for_each(|uid| write!(f, " allow-uid {uid}"))?;
                socket.allow_gid.iter().try_for_each(|gid| write!(f, " allow-gid {gid}"))
            }
            Step::Table(id, there) => write!(f, "ip table {} {id}", if *there { "add" } else { "del" }),
            Step::NewDomain(id, d) | Step::Domain(id, d) => {
                write!(f, "create bridge-domain {id}")?;
                for (word, on, usual) in [
                    ("learn", d.learn, true),
                    ("forward", d.forward, true),
                    ("uu-flood", d.uu_flood, true),
                    ("flood", d.flood, true),
                    ("arp-term", d.arp_term, false),
                ] {
                    if on != usual {
                        write!(f, " {word} {}", u8::from(on))?;
                    }
                }
                write!(f, " mac-age {} learn-limit {}", d.mac_age, d.learn_limit)?;
                if d.tag.is_empty() { Ok(()) } else { write!(f, " tag {}", d.tag) }
            }
            Step::NoDomain(id) => write!(f, "create bridge-domain {id} del"),
            Step::NewAcl(index, acl) | Step::Acl(index, acl) => {
                write!(f, "set acl-plugin acl index {index} ({} rules) tag \"{}\"", acl.rules.len(), acl.tag)
            }
            Step::NoAcl(index) => write!(f, "delete acl-plugin acl index {index}"),
            Step::NewMacIp(index, acl) | Step::MacIp(index, acl) => {
                let rules = acl.rules.len();
                write!(f, "set acl-plugin macip acl index {index} ({rules} rules) tag \"{}\"", acl.tag)
            }
            Step::NoMacIp(index) => write!(f, "delete acl-plugin macip acl index {index}"),
            Step::Create(name, kind) => match kind {
                InterfaceType::Loopback => write!(f, "create loopback interface {name}"),
                InterfaceType::Memif(_) => write!(f, "create interface memif {name}"),
                InterfaceType::Pg(_) => write!(f, "create packet-generator interface {name}"),
                InterfaceType::AfXdp(xdp) => {
                    write!(f, "create interface af_xdp host-if {} name {name}", xdp.host_if)
                }
                InterfaceType::Sub(which) => write!(f, "create sub-interfaces {name} {which}"),
                InterfaceType::Vxlan(v) => {
                    write!(f, "create vxlan tunnel {name} src {} dst {} vni {}", v.src, v.dst, v.vni)
                }
            },
            Step::Delete(name) => write!(f, "delete interface {name}"),
            Step::Set(name, setting) => setting.write(name, f),
            Step::Address(name, address, there) => {
                write!(f, "set interface ip address{} {name} {}", del(*there), Text(*address))
            }
            Step::Span(from, to, layer, span) => {
                let l2 = if *layer == SpanLayer::L2 { " l2" } else { "" };
                let what = span.value().map_or("disable", |directions| directions.word());
                write!(f, "set interface span {from}{l2} destination {to} {what}")
            }
            Step::Neighbour(name, address, entry) => match entry.value() {
                None => write!(f, "ip neighbor del {name} {address}"),
                Some(entry) => write!(f, "ip neighbor {name} {address} {} static", Text(*entry)),
            },
            Step::L2Fib(domain, mac, entry) => match entry.value() {
                None => write!(f, "l2fib del {mac} {domain}"),
                Some(name) => write!(f, "l2fib add {mac} {domain} {name}"),
            },
            Step::ArpEntry(domain, address, entry) => {
                write!(f, "set bridge-domain arp entry {domain} {address}")?;
                entry.value().map_or(f.write_str(" del"), |mac| write!(f, " {mac}"))
            }
            Step::Route(table, prefix, entry) => {
                let route = entry.value();
                write!(f, "ip route {} {prefix}", if route.is_some() { "add" } else { "del" })?;
                if *table != 0 {
                    write!(f, " table {table}")?;
                }
                match route {
                    None => Ok(()),
                    Some(route) if route.interface().is_some() => write!(f, " {}", Text(route.clone())),
                    Some(route) => write!(f, " via {}", Text(route.clone())),
                }
            }
        }
    }
}

fn mode_word(mode: RxMode) -> &'static str {
    match mode {
        RxMode::Polling => "polling",
        RxMode::Interrupt => "interrupt",
        RxMode::Adaptive => "adaptive",
    }
}

impl Setting {
    fn write(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disable = |on: bool| if on { "" } else { " disable" };
        match self {
            Setting::Up(up) => write!(f, "set interface state {name} {}", if *up { "up" } else { "down" }),
            Setting::Mac(mac) => write!(f, "set interface mac address {name} {mac}"),
            Setting::Mtu(mtu) => write!(f, "set interface mtu {mtu} {name}"),
            Setting::Tag(tag) => write!(f, "set interface tag {name} \"{tag}\""),
            Setting::RxMode(mode) => write!(f, "set interface rx-mode {name} {}", mode_word(*mode)),
            Setting::RxQueue(queue, RxQueue { mode, worker }) => {
                let mode = mode.map_or("as the others", mode_word);
                write!(f, "set interface rx-mode {name} queue {queue} {mode}")?;
                let placed =
                    |worker| write!(f, "; set interface rx-placement {name} queue {queue} worker {worker}");
                worker.map_or(Ok(()), placed)
            }
            Setting::Feature(arc, feature, on) => {
                write!(f, "set interface feature {name} {feature} arc {arc}{}", disable(*on))
            }
            Setting::Table(table) => write!(f, "set interface ip table {name} {table}"),
            Setting::Mode(Mode::L3) => write!(f, "set interface l3 {name}"),
            Setting::Mode(Mode::Xconnect(peer)) => write!(f, "set interface l2 xconnect {name} {peer}"),
            Setting::Mode(Mode::Bridge(bridge)) => {
                let port = match bridge.port {
                    Port::Normal => "",
                    Port::Bvi => " bvi",
                    Port::UuFwd => " uu-fwd",
                };
                write!(f, "set interface l2 bridge {name} {}{port} {}", bridge.domain, bridge.shg)
            }
            Setting::Learn(on) => write!(f, "set interface l2 learn {name}{}", disable(*on)),
            Setting::Forward(on) => write!(f, "set interface l2 forward {name}{}", disable(*on)),
            Setting::Flood(on) => write!(f, "set interface l2 flood {name}{}", disable(*on)),
            Setting::LearnLimit(limit) => write!(f, "set interface l2 learn-limit {name} {limit}"),
            Setting::TagRewrite(None) => write!(f, "set interface l2 tag-rewrite {name} disable"),
            Setting::TagRewrite(Some(operation)) => {
                write!(f, "set interface l2 tag-rewrite {name} {operation}")
            }
            Setting::Acls(direction, acls) => {
                write!(f, "set acl-plugin interface {name} {direction} acl {acls:?}")
            }
            Setting::Etypes(direction, etypes) => {
                write!(f, "set acl-plugin etype-whitelist {name} {direction}")?;
                etypes.as_ref().map_or(f.write_str(" del"), |etypes| write!(f, " {etypes:?}"))
            }
            Setting::MacIp(acl) => {
                write!(f, "set acl-plugin macip interface {name}")?;
                acl.map_or(f.write_str(" del"), |acl| write!(f, " {acl}"))
            }
        }
    }
}
