//! Captures into pcap files.

use crate::dataplane::{Dataplane, OpError};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use wharf_drivers::pg::write_pcap;
use wharf_engine::SwIfIndex;
use wharf_engine::capture::CaptureSetup;
use wharf_nodes::wire::ethernet::{EtherType, EthernetHeader, VlanTag};
use wharf_nodes::wire::ip4::{Ip4Header, IpProtocol};
use zerocopy::FromBytes;

/// Packets that a capture keeps unless told otherwise.
const DEFAULT_MAX: usize = 1000;

/// Which packets to capture; what is not given does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketFilter {
    /// EtherType behind VLAN tags.
    pub ethertype: Option<u16>,
    /// Source or destination of an IPv4 packet.
    pub host: Option<Ipv4Addr>,
    /// Protocol of an IPv4 packet.
    pub protocol: Option<u8>,
    /// Source or destination port of a TCP or UDP packet.
    pub port: Option<u16>,
}

impl PacketFilter {
    fn is_empty(&self) -> bool {
        *self == PacketFilter::default()
    }

    /// Whether a frame is wanted.
    pub fn wants(&self, frame: &[u8]) -> bool {
        self.is_empty() || self.looks_right(frame).unwrap_or(false)
    }

    fn looks_right(&self, frame: &[u8]) -> Option<bool> {
        let (header, mut rest) = EthernetHeader::ref_from_prefix(frame).ok()?;
        let mut ethertype = header.ethertype();
        for _ in 0..2 {
            if ethertype.is_vlan() {
                let (tag, behind) = VlanTag::ref_from_prefix(rest).ok()?;
                (ethertype, rest) = (tag.ethertype(), behind);
            }
        }
        if self.ethertype.is_some_and(|wanted| wanted != ethertype.0) {
            return Some(false);
        }
        if self.host.is_none() && self.protocol.is_none() && self.port.is_none() {
            return Some(true);
        }
        let (ip, _) = Ip4Header::ref_from_prefix(rest).ok().filter(|_| ethertype == EtherType::IP4)?;
        let host = |host: Ipv4Addr| [ip.src.get(), ip.dst.get()].contains(&host.to_bits());
        let port = |port: u16| {
            let has = matches!(ip.protocol, IpProtocol::TCP | IpProtocol::UDP) && !ip.is_fragment();
            let ports = rest.get(ip.header_len()..ip.header_len() + 4).filter(|_| has);
            ports.is_some_and(|p| [[p[0], p[1]], [p[2], p[3]]].contains(&port.to_be_bytes()))
        };
        Some(
            self.host.is_none_or(host)
                && self.protocol.is_none_or(|wanted| wanted == ip.protocol.0)
                && self.port.is_none_or(port),
        )
    }
}

/// A capture.
#[derive(Clone, Debug)]
pub struct CaptureConfig {
    /// See [`wharf_engine::capture::points`].
    pub points: u8,
    /// Packets to keep.
    pub max: usize,
    /// Where to write them.
    pub file: PathBuf,
    /// Of one interface only.
    pub interface: Option<SwIfIndex>,
    /// Bytes of each to keep.
    pub snaplen: usize,
    /// Which.
    pub filter: PacketFilter,
}

impl Default for CaptureConfig {
    fn default() -> Self {
        CaptureConfig {
            points: 0,
            max: DEFAULT_MAX,
            file: "/tmp/pcap.pcap".into(),
            interface: None,
            snaplen: 2048,
            filter: PacketFilter::default(),
        }
    }
}

impl Dataplane {
    /// Begins to capture.
    pub fn start_capture(&mut self, config: CaptureConfig) -> Result<(), OpError> {
        if config.points == 0 {
            return OpError::refused("say what to capture: rx, tx or drop");
        }
        if config.max == 0 {
            return OpError::refused("max must be at least 1");
        }
        if self.capture.is_some() {
            return OpError::refused("a capture is active: `pcap trace off' first");
        }
        // What can't be written is better known before than after.
        write_pcap(&config.file, config.snaplen as u32, std::iter::empty())
            .map_err(|e| OpError::System(config.file.display().to_string(), e))?;
        let filter = config.filter;
        self.engine.capture().start(CaptureSetup {
            points: config.points,
            interface: config.interface,
            filter: (!filter.is_empty()).then(|| Box::new(move |frame: &[u8]| filter.wants(frame)) as _),
            max: config.max,
            snaplen: config.snaplen,
        });
        self.capture = Some(config);
        Ok(())
    }

    /// Ends the capture and writes its file; how many packets that has.
    pub fn stop_capture(&mut self) -> Result<(usize, PathBuf), OpError> {
        let Some(config) = self.capture.take() else {
            return OpError::refused("no capture is active");
        };
        let packets = self.engine.capture().stop().unwrap_or_default();
        let rows = packets.iter().map(|p| (p.time.as_nanos() as u64, u32::from(p.len), &*p.bytes));
        write_pcap(&config.file, config.snaplen as u32, rows)
            .map_err(|e| OpError::System(config.file.display().to_string(), e))?;
        Ok((packets.len(), config.file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_look_behind_tags() {
        let mut frame = vec![0; 12];
        frame.extend([0x81, 0, 0, 5, 8, 0]);
        frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([0x12, 0xb5, 0, 53, 0, 8, 0, 0]);
        let none = PacketFilter::default();
        let wants = |filter: PacketFilter| filter.wants(&frame);
        assert!(wants(none) && none.wants(&[]));
        assert!(wants(PacketFilter { ethertype: Some(0x800), ..none }));
        assert!(!wants(PacketFilter { ethertype: Some(0x806), ..none }));
        let host = |host: &str| PacketFilter { host: host.parse().ok(), ..none };
        assert!(wants(host("10.0.0.1")) && wants(host("10.0.0.2")) && !wants(host("10.0.0.3")));
        let port = |port| PacketFilter { port: Some(port), ..none };
        assert!(wants(port(53)) && wants(port(4789)) && !wants(port(54)));
        assert!(wants(PacketFilter { protocol: Some(17), ..host("10.0.0.1") }));
        assert!(!wants(PacketFilter { protocol: Some(6), ..host("10.0.0.1") }));
        assert!((0..frame.len()).all(|len| !port(53).wants(&frame[..len.min(41)])));
    }
}
