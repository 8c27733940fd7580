//! Packets made from a template: bytes, fields that change from packet to packet, lengths and checksums.

use wharf_engine::buffer::DATA_SIZE;

/// How a value changes from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Step {
    /// One more each time, from the least to the greatest and again.
    #[default]
    Increment,
    /// Anything from the least to the greatest, by the template's seed.
    Random,
}

/// A number in the packet, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Where it starts, in bytes from the start of the packet.
    pub offset: u16,
    /// Its bytes, 1 to 4.
    pub width: u8,
    /// Its least value.
    pub min: u32,
    /// Its greatest value.
    pub max: u32,
    /// How it changes.
    pub step: Step,
}

/// Length of the packets, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The least.
    pub min: u16,
    /// The greatest.
    pub max: u16,
    /// How it changes.
    pub step: Step,
}

/// A protocol over IP whose length and checksum are filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    /// RFC 768.
    Udp,
    /// RFC 9293.
    Tcp,
}

/// Headers whose lengths and checksums are filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layers {
    /// Where the IPv4 or IPv6 header starts; its first nibble says which.
    pub ip: u16,
    /// The protocol over it, and where its header starts.
    pub l4: Option<(L4, u16)>,
}

/// A kind of packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The packet's first bytes; cut at the packet's length, zeros follow.
    pub bytes: Vec<u8>,
    /// What changes. All incrementing fields advance together.
    pub fields: Vec<Field>,
    /// Length of the packets.
    pub size: Size,
    /// What is filled in.
    pub layers: Option<Layers>,
    /// Of random fields: the same seed makes the same packets.
    pub seed: u64,
}

/// Why a template can't be played.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Lengths out of range.
    #[error("packet size {min}-{max}: sizes are 1 to {DATA_SIZE} bytes, the least first")]
    Size {
        /// The least.
        min: u16,
        /// The greatest.
        max: u16,
    },
    /// Headers don't fit.
    #[error("packet size {size} is less than the {headers} bytes of headers")]
    Headers {
        /// The least size.
        size: u16,
        /// Bytes of headers.
        headers: usize,
    },
    /// A field is not in each packet, or its values are not in the field.
    #[error("field of {width} byte(s) at offset {offset}: {why}")]
    Field {
        /// Where.
        offset: u16,
        /// Bytes.
        width: u8,
        /// What is wrong.
        why: &'static str,
    },
}

impl Template {
    /// Packets that are all alike.
    pub fn constant(bytes: Vec<u8>) -> Template {
        let len = bytes.len().min(usize::from(u16::MAX)) as u16;
        let size = Size { min: len, max: len, step: Step::Increment };
        Template { bytes, fields: Vec::new(), size, layers: None, seed: 0 }
    }

    /// Whether it can be played.
    pub fn check(&self) -> Result<(), TemplateError> {
        let Size { min, max, .. } = self.size;
        if min == 0 || min > max || usize::from(max) > DATA_SIZE {
            return Err(TemplateError::Size { min, max });
        }
        if let Some(layers) = self.layers {
            let headers = self.header_end(layers);
            if headers > usize::from(min) || headers > self.bytes.len() {
                return Err(TemplateError::Headers { size: min, headers });
            }
        }
        for field in &self.fields {
            let Field { offset, width, .. } = *field;
            let fail = |why| Err(TemplateError::Field { offset, width, why });
            if !(1..=4).contains(&width) {
                return fail("1 to 4 bytes are possible");
            }
            if u32::from(offset) + u32::from(width) > u32::from(min) {
                return fail("it does not lie in every packet");
            }
            if field.min > field.max {
                return fail("the least value is above the greatest");
            }
            if u64::from(field.max) >> (8 * width) != 0 {
                return fail("the greatest value does not fit");
            }
        }
        Ok(())
    }

    fn header_end(&self, layers: Layers) -> usize {
        let ip = usize::from(layers.ip);
        let v6 = self.bytes.get(ip).is_some_and(|first| first >> 4 == 6);
        match layers.l4 {
            Some((L4::Udp, at)) => usize::from(at) + 8,
            Some((L4::Tcp, at)) => usize::from(at) + 20,
            None => ip + if v6 { 40 } else { 20 },
        }
    }

    /// Writes packet number `n` to the start of `out`, and returns its length.
    pub fn build(&self, n: u64, out: &mut [u8]) -> usize {
        let Size { min, max, step } = self.size;
        let len = pick(min.into(), max.into(), step, self.seed, n) as usize;
        let len = len.min(out.len());
        let Some(packet) = out.get_mut(..len) else { return 0 };
        let (head, tail) = packet.split_at_mut(self.bytes.len().min(len));
        head.copy_from_slice(&self.bytes[..head.len()]);
        tail.fill(0);
        for (seed, field) in (self.seed.wrapping_add(1)..).zip(&self.fields) {
            let value = pick(field.min, field.max, field.step, seed, n).to_be_bytes();
            let (at, width) = (usize::from(field.offset), usize::from(field.width.clamp(1, 4)));
            if let Some(to) = packet.get_mut(at..at + width) {
                to.copy_from_slice(&value[4 - width..]);
            }
        }
        if let Some(layers) = self.layers {
            // A packet without room for its headers was refused by `check`.
            let _ = complete(packet, layers);
        }
        len
    }
}

fn pick(min: u32, max: u32, step: Step, seed: u64, n: u64) -> u32 {
    let span = u64::from(max.saturating_sub(min)) + 1;
    if span == 1 {
        return min;
    }
    let n = match step {
        Step::Increment => n,
        Step::Random => mix(seed ^ mix(n)),
    };
    min + (n % span) as u32
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014): spreads a counter over 64 bits.
fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fills in lengths and checksums. `None`: a header lies outside the packet.
fn complete(packet: &mut [u8], layers: Layers) -> Option<()> {
    let ip = packet.get_mut(usize::from(layers.ip)..)?;
    let total = u16::try_from(ip.len()).ok()?;
    let v6 = ip.first()? >> 4 == 6;
    if v6 {
        ip.get_mut(4..6)?.copy_from_slice(&total.checked_sub(40)?.to_be_bytes());
    } else {
        let header_len = usize::from(ip.first()? & 0xf) * 4;
        ip.get_mut(2..4)?.copy_from_slice(&total.to_be_bytes());
        ip.get_mut(10..12)?.fill(0);
        let checksum = !fold(sum(ip.get(..header_len)?));
        ip.get_mut(10..12)?.copy_from_slice(&checksum.to_be_bytes());
    }
    let (l4, at) = layers.l4?;
    let (addresses, protocol) = if v6 { (8..40, *ip.get(6)?) } else { (12..20, *ip.get(9)?) };
    let pseudo = sum(ip.get(addresses)?) + u64::from(protocol);
    let segment = packet.get_mut(usize::from(at)..)?;
    let len = u16::try_from(segment.len()).ok()?;
    let field = match l4 {
        L4::Udp => {
            segment.get_mut(4..6)?.copy_from_slice(&len.to_be_bytes());
            6..8
        }
        L4::Tcp => 16..18,
    };
    segment.get_mut(field.clone())?.fill(0);
    let checksum = match !fold(pseudo + u64::from(len) + sum(segment)) {
        // RFC 768: "If the computed checksum is zero, it is transmitted as all ones".
        0 if l4 == L4::Udp => 0xffff,
        other => other,
    };
    segment.get_mut(field)?.copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

/// Sum of big-endian 16-bit words, to be folded (RFC 1071).
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let odd = rest.first().map_or(0, |last| u64::from(*last) << 8);
    words.iter().map(|w| u64::from(u16::from_be_bytes(*w))).sum::<u64>() + odd
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(offset: u16, width: u8, min: u32, max: u32, step: Step) -> Field {
        Field { offset, width, min, max, step }
    }

    fn udp() -> Template {
        let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2];
        bytes.extend([0x12, 0x34, 0, 53, 0, 0, 0, 0, 0xab]);
        let layers = Some(Layers { ip: 0, l4: Some((L4::Udp, 20)) });
        Template { layers, ..Template::constant(bytes) }
    }

    #[test]
    fn lengths_and_checksums_are_right() {
        let mut out = [0xee; 64];
        assert_eq!(udp().build(0, &mut out), 29);
        assert_eq!(out[2..4], [0, 29]);
        assert_eq!(out[24..26], [0, 9]);
        assert_eq!(fold(sum(&out[..20])), 0xffff, "the header sums up");
        let pseudo = sum(&out[12..20]) + 17 + 9;
        assert_eq!(fold(pseudo + sum(&out[20..29])), 0xffff, "and so does the datagram");
        assert_ne!(out[26..28], [0, 0]);
        assert_eq!(out[29], 0xee, "nothing is written behind the packet");
    }

    #[test]
    fn tcp_over_ip6_is_completed() {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
        bytes.extend([0x20; 16]);
        bytes.extend([0x30; 16]);
        bytes.extend([0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 2, 1, 0, 0, 0, 0, 0]);
        let mut template = Template::constant(bytes);
        template.layers = Some(Layers { ip: 0, l4: Some((L4::Tcp, 40)) });
        template.size = Size { min: 61, max: 61, step: Step::Increment };
        template.check().unwrap();
        let mut out = [0; 61];
        assert_eq!(template.build(3, &mut out), 61);
        assert_eq!(out[4..6], [0, 21]);
        assert_eq!(fold(sum(&out[8..40]) + 6 + 21 + sum(&out[40..])), 0xffff);
    }

    #[test]
    fn fields_and_sizes_go_round() {
        let mut template = Template::constant(vec![9; 8]);
        template.fields =
            vec![field(0, 2, 0xfffe, 0xffff, Step::Increment), field(4, 1, 1, 3, Step::Increment)];
        template.size = Size { min: 6, max: 9, step: Step::Increment };
        template.check().unwrap();
        let made: Vec<Vec<u8>> = (0..5)
            .map(|n| {
                let mut out = [7; 16];
                let len = template.build(n, &mut out);
                out[..len].to_vec()
            })
            .collect();
        assert_eq!(made[0], [0xff, 0xfe, 9, 9, 1, 9]);
        assert_eq!(made[1], [0xff, 0xff, 9, 9, 2, 9, 9]);
        assert_eq!(made[2], [0xff, 0xfe, 9, 9, 3, 9, 9, 9]);
        assert_eq!(made[3], [0xff, 0xff, 9, 9, 1, 9, 9, 9, 0]);
        assert_eq!(made[4], [0xff, 0xfe, 9, 9, 2, 9]);
    }

    #[test]
    fn random_values_repeat_with_the_seed_and_stay_in_range() {
        let mut template = Template::constant(vec![0; 8]);
        template.fields = vec![field(0, 4, 10, 1000, Step::Random), field(4, 4, 10, 1000, Step::Random)];
        let values = |t: &Template| -> Vec<[u32; 2]> {
            (0..500)
                .map(|n| {
                    let mut out = [0; 8];
                    t.build(n, &mut out);
                    [&out[..4], &out[4..]].map(|b| u32::from_be_bytes(b.try_into().unwrap()))
                })
                .collect()
        };
        let first = values(&template);
        assert_eq!(first, values(&template));
        assert!(first.iter().flatten().all(|v| (10..=1000).contains(v)));
        assert!(first.iter().filter(|v| v[0] == v[1]).count() < 20, "fields are independent");
        let low = first.iter().filter(|v| v[0] < 505).count();
        assert!((150..350).contains(&low), "{low} of 500 in the lower half");
        template.seed = 1;
        assert_ne!(first, values(&template));
    }

    #[test]
    fn what_can_not_be_played_is_refused() {
        let says = |change: fn(&mut Template)| {
            let mut template = udp();
            change(&mut template);
            template.check().unwrap_err().to_string()
        };
        assert_eq!(
            says(|t| t.size.max = 2049),
            "packet size 29-2049: sizes are 1 to 2048 bytes, the least first"
        );
        assert_eq!(
            says(|t| t.size.min = 30),
            "packet size 30-29: sizes are 1 to 2048 bytes, the least first"
        );
        assert_eq!(says(|t| t.size.min = 27), "packet size 27 is less than the 28 bytes of headers");
        assert!(says(|t| t.fields = vec![field(26, 4, 0, 1, Step::Increment)]).contains("every packet"));
        assert!(says(|t| t.fields = vec![field(0, 5, 0, 1, Step::Increment)]).contains("1 to 4 bytes"));
        assert!(says(|t| t.fields = vec![field(0, 1, 0, 256, Step::Increment)]).contains("does not fit"));
        assert!(says(|t| t.fields = vec![field(0, 1, 2, 1, Step::Increment)]).contains("above the greatest"));
    }
}
