//! Printing of frames in traces.

use crate::ip4::trace::packet;
use crate::wire::ethernet::{EtherType, EthernetHeader};
use std::fmt;
use zerocopy::FromBytes;

/// `IP4: 02:fe:.. -> 02:fe:..`, and the IPv4 packet on lines of its own.
pub fn frame(data: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Ok((header, rest)) = EthernetHeader::ref_from_prefix(data) else {
        return write!(f, "truncated frame, {} bytes", data.len());
    };
    write!(f, "{}: {} -> {}", header.ethertype(), header.src, header.dst)?;
    if header.ethertype() == EtherType::IP4 {
        write!(f, "\n  ")?;
        packet(rest, f)?;
    }
    Ok(())
}
