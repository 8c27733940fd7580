//! What a session is: the flow that it is found by, what its packets change, who opened it, and when it ends.

use super::lists::Fields;
use crate::wire::ip4::IpProtocol;
use crate::wire::tcp::TcpFlags;
use wharf_engine::SwIfIndex;

/// A session's time is counted in units of 2^27 nanoseconds, about an eighth of a second.
const TICK_SHIFT: u32 = 27;

/// A moment, in the units of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Ticks(pub u32);

impl Ticks {
    /// Of nanoseconds of the engine's clock.
    #[inline(always)]
    pub fn of(nanoseconds: u64) -> Ticks {
        Ticks((nanoseconds >> TICK_SHIFT) as u32)
    }

    /// So many seconds, rounded up.
    pub fn seconds(seconds: u32) -> Ticks {
        Ticks((u64::from(seconds) * 1_000_000_000).div_ceil(1 << TICK_SHIFT).min(u32::MAX.into()) as u32)
    }

    /// As seconds.
    pub fn as_seconds(self) -> f64 {
        f64::from(self.0) * (1u64 << TICK_SHIFT) as f64 / 1e9
    }
}

/// How long sessions live without a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Of UDP and everything that is not TCP.
    pub udp_idle: Ticks,
    /// TCP that is being opened or closed.
    pub tcp_transient: Ticks,
    /// TCP that both sides have opened.
    pub tcp_idle: Ticks,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            udp_idle: Ticks::seconds(60),
            tcp_transient: Ticks::seconds(30),
            tcp_idle: Ticks::seconds(3600),
        }
    }
}

/// What a session is found by: the flow as the interface receives it, and the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey(pub(super) [u64; 6]);

impl SessionKey {
    /// The key of a packet received on an interface, or sent on it when `output`. `None` for what belongs to no flow: later fragments, and ICMP
    /// other than echo.
    #[inline(always)]
    pub fn new(f: &Fields, interface: SwIfIndex, output: bool) -> Option<SessionKey> {
        if f.is_later_fragment {
            return None;
        }
        let (mut a, mut b) = (u64::from(f.sport), u64::from(f.dport));
        if f.is_icmp() {
            if !f.is_echo() {
                return None;
            }
            (a, b) = (f.icmp_id.into(), f.icmp_id.into());
        }
        let (mut src, mut dst) = (f.src, f.dst);
        if output {
            (src, dst, a, b) = (dst, src, b, a);
        }
        let flow = a << 48 | b << 32 | u64::from(f.protocol) << 8 | u64::from(f.is_v6);
        let owner = u64::from(interface.0);
        Some(SessionKey(match f.is_v6 {
            true => [src as u64, (src >> 64) as u64, dst as u64, (dst >> 64) as u64, flow, owner],
            false => [(src as u64) << 32 | dst as u64 & 0xffff_ffff, 0, 0, 0, flow, owner],
        }))
    }

    /// The interface.
    pub fn interface(&self) -> SwIfIndex {
        SwIfIndex(self.0[5] as u32)
    }

    /// The flow's first packet, as rules saw it: of an echo the request, of TCP the SYN.
    pub fn opening(&self, output: bool) -> Fields {
        let [a0, a1, b0, b1, flow, _] = self.0;
        let is_v6 = flow & 1 != 0;
        let wide = |low: u64, high: u64| u128::from(high) << 64 | u128::from(low);
        let (mut src, mut dst) = match is_v6 {
            true => (wide(a0, a1), wide(b0, b1)),
            false => (u128::from(a0 >> 32), u128::from(a0 as u32)),
        };
        let (mut sport, mut dport) = ((flow >> 48) as u16, (flow >> 32) as u16);
        if output {
            (src, dst, sport, dport) = (dst, src, dport, sport);
        }
        let protocol = (flow >> 8) as u8;
        let mut f = Fields { src, dst, sport, dport, protocol, is_v6, ..Fields::default() };
        f.has_ports = Fields::protocol_has_ports(protocol, is_v6);
        if protocol == IpProtocol::TCP.0 {
            f.flags = TcpFlags::SYN.0;
        }
        if f.is_icmp() {
            (f.icmp_id, f.sport, f.dport) = (sport, if is_v6 { 128 } else { 8 }, 0);
        }
        f
    }

    pub(super) fn is_tcp(&self) -> bool {
        (self.0[4] >> 8) as u8 == IpProtocol::TCP.0
    }
}

/// What changes with a session's packets: when the last came, and the TCP flags seen in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(pub(super) u64);

/// The TCP flags that say something of a connection's state.
const STATE_FLAGS: u8 = 0x01 | 0x02 | 0x04 | 0x10;
/// Ticks by which the time of the last packet may be too early, about a second.
pub(super) const GRAIN: u32 = 8;
const OPEN: u64 = (TcpFlags::SYN.0 | TcpFlags::ACK.0) as u64;

impl State {
    pub(super) fn new(now: Ticks, flags: u8, output: bool) -> State {
        State(u64::from(now.0) << 32).seen(now, flags, output)
    }

    /// When the last packet came.
    pub fn last(self) -> Ticks {
        Ticks((self.0 >> 32) as u32)
    }

    /// TCP flags seen in packets received on the interface, and sent on it.
    pub fn tcp_flags(self) -> [u8; 2] {
        [self.0 as u8, (self.0 >> 8) as u8]
    }

    /// Whether both sides have opened the connection, and neither has ended it.
    #[inline(always)]
    pub fn is_established(self) -> bool {
        let ended = self.0 & 0x0404 != 0 || self.0 & 0x0101 == 0x0101;
        self.0 & (OPEN << 8 | OPEN) == OPEN << 8 | OPEN && !ended
    }

    /// With a packet that has come. When little has changed, nothing has: who writes to each session with each packet carries each line to
    /// memory and back.
    #[inline(always)]
    pub(super) fn seen(self, now: Ticks, flags: u8, output: bool) -> State {
        let mut flags_seen = self.0 & 0xffff;
        let ended = flags_seen & 0x0404 != 0 || flags_seen & 0x0101 == 0x0101;
        // A new connection between the same ports.
        if ended && flags & 0x12 == TcpFlags::SYN.0 {
            flags_seen = 0;
        }
        flags_seen |= u64::from(flags & STATE_FLAGS) << if output { 8 } else { 0 };
        if flags_seen == self.0 & 0xffff && now.0.wrapping_sub(self.last().0) < GRAIN {
            return self;
        }
        State(u64::from(now.0) << 32 | flags_seen)
    }

    #[inline(always)]
    pub(super) fn is_expired(self, is_tcp: bool, now: Ticks, timeouts: &Timeouts) -> bool {
        let limit = match is_tcp {
            false => timeouts.udp_idle,
            true if self.is_established() => timeouts.tcp_idle,
            true => timeouts.tcp_transient,
        };
        // A stamp of another worker may be ahead of ours.
        (now.0.wrapping_sub(self.last().0) as i32) > 0
            && now.0.wrapping_sub(self.last().0) > limit.0.saturating_add(GRAIN)
    }
}

/// Who opened a session: the rule, as of which version of the interface's lists, and in which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opener {
    /// The rule's counter.
    pub counter: u32,
    /// Version of the lists.
    pub epoch: u32,
    /// Whether the packet was sent on the interface, not received.
    pub output: bool,
}

impl Opener {
    pub(super) fn bits(self) -> u64 {
        u64::from(self.counter) << 32 | u64::from(self.epoch << 1) | u64::from(self.output)
    }

    #[inline(always)]
    pub(super) fn of(bits: u64) -> Opener {
        Opener { counter: (bits >> 32) as u32, epoch: bits as u32 >> 1, output: bits & 1 != 0 }
    }
}

/// Versions count modulo this.
pub const EPOCHS: u32 = 1 << 31;
