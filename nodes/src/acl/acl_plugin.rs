//! `acl-plugin-in-ip4-fa` and its kin: packets are judged by the access lists of the interface that receives or sends them.
//!
//! One node in eight places, with VPP's names: routed IPv4 (`-fa`), and bridged or cross-connected IPv4, IPv6 and everything else (`-l2`), each on the way
//! in and out. Only interfaces with lists come by.
//!
//! Expects: on arcs `ip4-unicast` and `ip4-output` a valid IPv4 packet; on the arcs of `l2-input` and `l2-output` a whole frame with up to two tags.
//! Hands on: to the next feature: packets of a session, and those whose first matching rule permits them. A permit+reflect rule opens a session.
//! Drops: what a rule denies; what matches no rule of an interface that has lists; packets whose headers can't be read (see [`packet`]); on a side with
//! an EtherType whitelist, other protocols.
//! Reads: [`AclTables`]. Writes: the [`SessionTable`](super::sessions::SessionTable).
//! CLI: `set acl-plugin acl`, `set acl-plugin interface`, `show acl-plugin acl`, `show acl-plugin sessions`, `acl explain`.
//!
//! Which packets belong to a session: those of its flow in both directions, on the interface whose list opened it. A later fragment has no ports,
//! so it belongs to none, and rules judge it by addresses and protocol. An ICMP error (destination unreachable, time exceeded, parameter problem; in IPv6
//! packet too big too) belongs to the session of the packet that it quotes, if it goes to that packet's sender; it does not keep the session alive. VPP leaves
//! errors to the rules. One that quotes no packet of a session, or too little of it, is left to them here too.

use super::lists::{Fields, Lists};
use super::packet::{self, Malformed};
use super::rule::Action;
use super::sessions::{Ahead, Found, Miss, Opened, Opener, SessionKey, SessionTable, Ticks};
use super::tables::{AclTables, Direction, InterfaceAcl};
use super::verdicts::{Verdict, Verdicts};
use crate::event::{Event, EventSender};
use crate::ip4::{Ip4OutputArc, Ip4UnicastArc};
use crate::l2::{
    L2InputIp4Arc, L2InputIp6Arc, L2InputNonIpArc, L2OutputIp4Arc, L2OutputIp6Arc, L2OutputNonIpArc,
};
use std::fmt;
use std::marker::PhantomData;
use wharf_engine::{
    Cx, Disposition, FeatureArc, Meta, NoNext, Node, PacketRef, SwIfIndex, TraceView, error_counters, flags,
};

/// Nanoseconds between two packets that a node reports as denied.
const LOG_INTERVAL: u64 = 100_000_000;
/// Sessions of an interface from which on the processor's cache won't hold them.
const MANY: u32 = 8192;

/// One of the eight places.
pub trait Place: Send + 'static {
    /// The node's name.
    const NAME: &'static str;
    /// Whose lists judge: of the interface that received the packet, or of the one that sends it.
    const DIRECTION: Direction;
    /// The arc.
    type Arc: FeatureArc<Meta = Self::Meta>;
    /// Its metadata.
    type Meta: Meta;

    /// The interface.
    fn interface(p: &PacketRef<'_>, meta: Self::Meta) -> SwIfIndex;
    /// Writes what rules look at into `f`, which is still as its default.
    fn fields(p: &PacketRef<'_>, acl: &InterfaceAcl, f: &mut Fields) -> Kind;
    /// The packet from its IP header on.
    fn packet<'a>(p: &'a PacketRef<'_>, acl: &InterfaceAcl) -> &'a [u8];
}

/// What a packet is to the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// They judge it.
    Ip,
    /// It is not IP.
    Other,
    /// It can't be judged.
    Malformed,
}

impl Kind {
    #[inline(always)]
    fn of(read: Result<(), Malformed>) -> Kind {
        match read {
            Ok(()) => Kind::Ip,
            Err(Malformed) => Kind::Malformed,
        }
    }

    fn whole(read: Result<Fields, Malformed>, f: &mut Fields) -> Kind {
        Kind::of(read.map(|fields| *f = fields))
    }
}

/// See the module.
#[derive(Debug)]
pub struct AclPlugin<P: Place> {
    events: EventSender,
    next_log: u64,
    verdicts: Verdicts,
    ahead: Ahead,
    place: PhantomData<fn() -> P>,
}

error_counters! {
    /// What is counted, and why packets are dropped.
    pub enum Error {
        Denied => "ACL deny packets",
        NoMatch => "ACL deny packets, no rule matched",
        Malformed => "ACL deny packets, malformed",
        Etype => "ACL deny packets, ethertype not in whitelist",
        TooMany => "ACL deny packets, too many sessions of the interface",
        NewSession => "new sessions added",
        Recycled => "sessions recycled",
        Expired => "sessions expired",
        Rechecked => "sessions checked again after a change of lists",
        Killed => "sessions ended by a change of lists",
    }
}

/// What a traced packet met, as it is kept in its trace.
#[derive(Clone, Copy)]
enum Met {
    Rule { acl: u32, rule: u32 },
    NoRule,
    Session,
}

impl Met {
    fn of(lists: &Lists, verdict: Verdict) -> Met {
        let rule = lists.rules().get(verdict.number());
        rule.map_or(Met::NoRule, |rule| Met::Rule { acl: rule.acl, rule: rule.number })
    }

    fn note(self) -> u64 {
        match self {
            Met::Rule { acl, rule } => 1 << 60 | u64::from(acl & 0xfff_ffff) << 32 | u64::from(rule),
            Met::NoRule => 2 << 60,
            Met::Session => 3 << 60,
        }
    }
}

impl<P: Place> AclPlugin<P> {
    /// A node that reports through `events`.
    pub fn new(events: EventSender) -> AclPlugin<P> {
        AclPlugin {
            events,
            next_log: 0,
            verdicts: Verdicts::new(),
            ahead: Ahead::default(),
            place: PhantomData,
        }
    }

    const OUTPUT: bool = matches!(P::DIRECTION, Direction::Output);

    /// Tells of a denied packet, now and then.
    #[cold]
    fn log(&mut self, now: u64, interface: SwIfIndex, f: &Fields, rule: Option<(u32, u32)>) {
        self.next_log = now + LOG_INTERVAL;
        self.events.send(Event::AclDenied { interface, direction: P::DIRECTION, tuple: f.into(), rule });
    }

    /// The session of a key, unless that has expired or is ended by what the lists say now.
    #[inline(always)]
    fn session(
        cx: &Cx<'_, Self>,
        acl: &InterfaceAcl,
        sessions: &SessionTable,
        key: &SessionKey,
        now: Ticks,
    ) -> Result<Found, Miss> {
        let found = sessions.look(key)?;
        if sessions.is_expired(key, &found, now, &cx.tables().timeouts) {
            cx.count(Error::Expired);
            sessions.close(key);
            return Err(sessions.missed(key));
        }
        let opened = if found.opener.output { Direction::Output } else { Direction::Input };
        let stands =
            found.opener.epoch == acl.side(opened).epoch || Self::recheck(cx, acl, sessions, key, &found);
        if stands { Ok(found) } else { Err(sessions.missed(key)) }
    }

    /// Whether a packet belongs to a session, which it then keeps alive.
    #[inline(always)]
    fn in_session(
        cx: &Cx<'_, Self>,
        acl: &InterfaceAcl,
        sessions: &SessionTable,
        key: &SessionKey,
        f: &Fields,
    ) -> Result<(), Miss> {
        let now = Ticks::of(cx.now());
        let found = Self::session(cx, acl, sessions, key, now)?;
        sessions.touch(&found, now, f.flags, Self::OUTPUT);
        Ok(())
    }

    /// Whether an ICMP error quotes a packet of a session, which went the other way.
    #[cold]
    #[inline(never)]
    fn is_about_session(
        cx: &Cx<'_, Self>,
        p: &PacketRef<'_>,
        interface: SwIfIndex,
        acl: &InterfaceAcl,
        f: &Fields,
    ) -> bool {
        let Some(sessions) = &cx.tables().sessions else { return false };
        let quoted = packet::quoted(P::packet(p, acl), f);
        let key = quoted.and_then(|quoted| SessionKey::new(&quoted, interface, !Self::OUTPUT));
        let now = Ticks::of(cx.now());
        key.is_some_and(|key| Self::session(cx, acl, sessions, &key, now).is_ok())
    }

    /// Whether the lists of today would open a session of yesterday.
    #[cold]
    #[inline(never)]
    fn recheck(
        cx: &Cx<'_, Self>,
        acl: &InterfaceAcl,
        sessions: &SessionTable,
        key: &SessionKey,
        found: &Found,
    ) -> bool {
        cx.count(Error::Rechecked);
        let output = found.opener.output;
        let side = acl.side(if output { Direction::Output } else { Direction::Input });
        let rule = side.lists.as_ref().and_then(|lists| lists.lookup(&key.opening(output)));
        match rule.filter(|rule| rule.rule.action == Action::Reflect) {
            Some(rule) => {
                sessions.confirm(found, Opener { counter: rule.counter, epoch: side.epoch, output });
                true
            }
            None => {
                cx.count(Error::Killed);
                sessions.close(key);
                false
            }
        }
    }

    /// Opens a session; false when the interface has too many.
    #[inline(always)]
    fn open(cx: &Cx<'_, Self>, key: Option<(&SessionKey, Miss)>, f: &Fields, opener: Opener) -> bool {
        let tables = cx.tables();
        // An echo reply that nobody asked for opens nothing.
        let opens = !f.is_icmp() || f.is_echo_request();
        let (Some((key, miss)), Some(sessions)) = (key.filter(|_| opens), &tables.sessions) else {
            return true;
        };
        let now = Ticks::of(cx.now());
        match sessions.open_missed(key, miss, f.flags, opener, now, &tables.timeouts, tables.share) {
            Opened::New => cx.count(Error::NewSession),
            Opened::Recycled => {
                cx.count(Error::NewSession);
                cx.count(Error::Recycled);
            }
            Opened::Known | Opened::Busy => {}
            Opened::Full => return false,
        }
        true
    }

    #[inline(always)]
    fn judge(
        &mut self,
        cx: &Cx<'_, Self>,
        p: &mut PacketRef<'_>,
        interface: SwIfIndex,
        acl: &InterfaceAcl,
        f: &Fields,
    ) -> Disposition<Self> {
        if acl.reflects
            && let Some(sessions) = &cx.tables().sessions
        {
            let key = SessionKey::new(f, interface, Self::OUTPUT);
            let missed = match &key {
                Some(key) => Self::in_session(cx, acl, sessions, key, f).err().map(|miss| Some((key, miss))),
                None if f.is_icmp_error() && Self::is_about_session(cx, p, interface, acl, f) => None,
                None => Some(None),
            };
            let Some(key) = missed else {
                p.note(Met::Session.note());
                return Disposition::NextFeature;
            };
            // Not together with the call below: compiled for each, it takes 3 % less instructions.
            return self.by_rules(cx, p, interface, acl, f, key);
        }
        self.by_rules(cx, p, interface, acl, f, None)
    }

    /// What the first rule that matches does with a packet, which belongs to no session yet.
    #[inline(always)]
    fn by_rules(
        &mut self,
        cx: &Cx<'_, Self>,
        p: &mut PacketRef<'_>,
        interface: SwIfIndex,
        acl: &InterfaceAcl,
        f: &Fields,
        key: Option<(&SessionKey, Miss)>,
    ) -> Disposition<Self> {
        let tables = cx.tables();
        let side = acl.side(P::DIRECTION);
        let Some(lists) = &side.lists else { return Disposition::NextFeature };
        let verdict = self.verdicts.lookup(lists, f);
        let Some(action) = verdict.action() else {
            p.note(Met::NoRule.note());
            if cx.now() >= self.next_log {
                self.log(cx.now(), interface, f, None);
            }
            return Disposition::Drop(Error::NoMatch);
        };
        tables.counters.add(cx.worker(), verdict.counter(), 1, p.len().into());
        if p.flags() & flags::TRACED != 0 {
            p.note(Met::of(lists, verdict).note());
        }
        match action {
            Action::Permit => Disposition::NextFeature,
            Action::Reflect => {
                let opener = Opener { counter: verdict.counter(), epoch: side.epoch, output: Self::OUTPUT };
                match Self::open(cx, key, f, opener) {
                    true => Disposition::NextFeature,
                    false => Disposition::Drop(Error::TooMany),
                }
            }
            Action::Deny => {
                if cx.now() >= self.next_log {
                    let rule = lists.rules().get(verdict.number()).map(|rule| (rule.acl, rule.number));
                    self.log(cx.now(), interface, f, rule);
                }
                Disposition::Drop(Error::Denied)
            }
        }
    }
}

impl<P: Place> Node for AclPlugin<P> {
    const NAME: &'static str = P::NAME;
    type Meta = P::Meta;
    type Next = NoNext;
    type Error = Error;
    type Tables = AclTables;

    #[inline(always)]
    fn prefetch(&self, cx: &Cx<'_, Self>, p: &PacketRef<'_>) {
        let tables = cx.tables();
        let interface = P::interface(p, p.meta());
        // As long as the cache holds the sessions, to hash each key twice is the greater cost.
        if let Some(sessions) = &tables.sessions
            && sessions.count(interface) > MANY
            && let Some(acl) = tables.interface(interface)
        {
            let mut f = Fields::default();
            if P::fields(p, acl, &mut f) == Kind::Ip
                && let Some(key) = SessionKey::new(&f, interface, Self::OUTPUT)
            {
                self.ahead.ask(sessions, &key, Ticks::of(cx.now()));
            }
        }
    }

    #[inline(always)]
    fn process(&mut self, cx: &Cx<'_, Self>, p: &mut PacketRef<'_>, meta: P::Meta) -> Disposition<Self> {
        let interface = P::interface(p, meta);
        let Some(acl) = cx.tables().interface(interface) else { return Disposition::NextFeature };
        let mut f = Fields::default();
        match P::fields(p, acl, &mut f) {
            Kind::Ip => self.judge(cx, p, interface, acl, &f),
            Kind::Other => other(p, acl, P::DIRECTION),
            Kind::Malformed => Disposition::Drop(Error::Malformed),
        }
    }

    fn trace(view: &TraceView<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let note = view.note();
        match note >> 60 {
            1 => write!(f, "acl {} rule {}", note >> 32 & 0xfff_ffff, note as u32)?,
            2 => write!(f, "no rule matched")?,
            3 => write!(f, "in a session")?,
            _ => write!(f, "not judged by a rule")?,
        }
        write!(f, ", {}", view.next())
    }
}

/// What is not IP: by the EtherType alone.
fn other<P: Place>(p: &PacketRef<'_>, acl: &InterfaceAcl, direction: Direction) -> Disposition<AclPlugin<P>> {
    let (ethertype, _) = packet::payload(p);
    match &acl.side(direction).etypes {
        Some(etypes) if !etypes.contains(&ethertype.0) => Disposition::Drop(Error::Etype),
        _ => Disposition::NextFeature,
    }
}

/// The packet in a frame, behind its tags.
fn behind_tags<'a>(p: &'a PacketRef<'_>) -> &'a [u8] {
    p.data().get(packet::payload(p).1..).unwrap_or_default()
}

macro_rules! places {
    ($($(#[$doc:meta])* $place:ident, $name:literal, $direction:ident, $arc:ty, $meta:ty,
       $interface:expr, $fields:expr, $packet:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $place {}
        impl Place for $place {
            const NAME: &'static str = $name;
            const DIRECTION: Direction = Direction::$direction;
            type Arc = $arc;
            type Meta = $meta;
            #[inline(always)]
            fn interface(p: &PacketRef<'_>, meta: $meta) -> SwIfIndex {
                let interface: fn(&PacketRef<'_>, $meta) -> SwIfIndex = $interface;
                interface(p, meta)
            }
            #[inline(always)]
            fn fields(p: &PacketRef<'_>, acl: &InterfaceAcl, f: &mut Fields) -> Kind {
                let fields: fn(&PacketRef<'_>, &InterfaceAcl, &mut Fields) -> Kind = $fields;
                fields(p, acl, f)
            }
            fn packet<'a>(p: &'a PacketRef<'_>, acl: &InterfaceAcl) -> &'a [u8] {
                let packet: for<'b> fn(&'b PacketRef<'_>, &InterfaceAcl) -> &'b [u8] = $packet;
                packet(p, acl)
            }
        }
    )*};
}

places! {
    /// Routed IPv4 packets that the interface received.
    InIp4Fa, "acl-plugin-in-ip4-fa", Input, Ip4UnicastArc, (),
        |p, ()| p.rx(), |p, _, f| Kind::of(packet::ip4(p, false, f)), |p, _| p.data();
    /// Routed IPv4 packets that the interface is to send.
    OutIp4Fa, "acl-plugin-out-ip4-fa", Output, Ip4OutputArc, SwIfIndex,
        |_, tx| tx, |p, acl, f| Kind::of(packet::ip4(p, !acl.ip_mode, f)),
        |p, acl| packet::behind_ethernet(p, !acl.ip_mode);
    /// Bridged IPv4 packets that the interface received.
    InIp4L2, "acl-plugin-in-ip4-l2", Input, L2InputIp4Arc, (),
        |p, ()| p.rx(), |p, _, f| Kind::whole(packet::ip4_any(behind_tags(p)), f), |p, _| behind_tags(p);
    /// Bridged IPv4 packets that the interface is to send.
    OutIp4L2, "acl-plugin-out-ip4-l2", Output, L2OutputIp4Arc, SwIfIndex,
        |_, tx| tx, |p, _, f| Kind::whole(packet::ip4_any(behind_tags(p)), f), |p, _| behind_tags(p);
    /// Bridged IPv6 packets that the interface received.
    InIp6L2, "acl-plugin-in-ip6-l2", Input, L2InputIp6Arc, (),
        |p, ()| p.rx(), |p, _, f| Kind::whole(packet::ip6(behind_tags(p)), f), |p, _| behind_tags(p);
    /// Bridged IPv6 packets that the interface is to send.
    OutIp6L2, "acl-plugin-out-ip6-l2", Output, L2OutputIp6Arc, SwIfIndex,
        |_, tx| tx, |p, _, f| Kind::whole(packet::ip6(behind_tags(p)), f), |p, _| behind_tags(p);
    /// Bridged frames of other protocols that the interface received.
    InNonIpL2, "acl-plugin-in-nonip-l2", Input, L2InputNonIpArc, (),
        |p, ()| p.rx(), |_, _, _| Kind::Other, |p, _| p.data();
    /// Bridged frames of other protocols that the interface is to send.
    OutNonIpL2, "acl-plugin-out-nonip-l2", Output, L2OutputNonIpArc, SwIfIndex,
        |_, tx| tx, |_, _, _| Kind::Other, |p, _| p.data();
}
