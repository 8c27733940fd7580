//! Types that several modules use.

use super::super::ApiError;
use crate::api;
use std::net::{IpAddr, Ipv4Addr};
use wharf_engine::SwIfIndex;
use wharf_nodes::wire::ethernet;
use wharf_nodes::wire::ip4;

api! {
    /// An interface's `sw_if_index`.
    alias InterfaceIndex = interface_index: u32;

    /// An interface's state.
    enum IfStatusFlags = if_status_flags: u32 { IF_STATUS_API_FLAG_ADMIN_UP = 1, IF_STATUS_API_FLAG_LINK_UP = 2 }

    /// What an MTU is for.
    enum MtuProto = mtu_proto: u32 {
        MTU_PROTO_API_L3 = 0, MTU_PROTO_API_IP4 = 1, MTU_PROTO_API_IP6 = 2, MTU_PROTO_API_MPLS = 3,
    }

    /// Whether a link sends and receives at once.
    enum LinkDuplex = link_duplex: u32 {
        LINK_DUPLEX_API_UNKNOWN = 0, LINK_DUPLEX_API_HALF = 1, LINK_DUPLEX_API_FULL = 2,
    }

    /// What a sub-interface takes.
    enum SubIfFlags = sub_if_flags: u32 {
        SUB_IF_API_FLAG_NO_TAGS = 1, SUB_IF_API_FLAG_ONE_TAG = 2, SUB_IF_API_FLAG_TWO_TAGS = 4,
        SUB_IF_API_FLAG_DOT1AD = 8, SUB_IF_API_FLAG_EXACT_MATCH = 16, SUB_IF_API_FLAG_DEFAULT = 32,
        SUB_IF_API_FLAG_OUTER_VLAN_ID_ANY = 64, SUB_IF_API_FLAG_INNER_VLAN_ID_ANY = 128,
        SUB_IF_API_FLAG_MASK_VNET = 254, SUB_IF_API_FLAG_DOT1AH = 256,
    }

    /// When a receive queue is looked at.
    enum RxMode = rx_mode: u32 {
        RX_MODE_API_UNKNOWN = 0, RX_MODE_API_POLLING = 1, RX_MODE_API_INTERRUPT = 2,
        RX_MODE_API_ADAPTIVE = 3, RX_MODE_API_DEFAULT = 4,
    }

    /// What an interface is.
    enum IfType = if_type: u32 {
        IF_API_TYPE_HARDWARE = 0, IF_API_TYPE_SUB = 1, IF_API_TYPE_P2P = 2, IF_API_TYPE_PIPE = 3,
    }

    /// Receiving or sending.
    enum Direction = direction: u8 { RX = 0, TX = 1 }

    /// A MAC address.
    alias MacAddress = mac_address: [u8; 6];

    /// An IPv4 address.
    alias Ip4Address = ip4_address: [u8; 4];

    /// An IPv6 address.
    alias Ip6Address = ip6_address: [u8; 16];

    /// IPv4 or IPv6.
    enum AddressFamily = address_family: u8 { ADDRESS_IP4 = 0, ADDRESS_IP6 = 1 }

    /// Where a feature works.
    enum IpFeatureLocation = ip_feature_location: u8 {
        IP_API_FEATURE_INPUT = 0, IP_API_FEATURE_OUTPUT = 1, IP_API_FEATURE_LOCAL = 2,
        IP_API_FEATURE_PUNT = 3, IP_API_FEATURE_DROP = 4,
    }

    /// Congestion notification, RFC 3168.
    enum IpEcn = ip_ecn: u8 {
        IP_API_ECN_NONE = 0, IP_API_ECN_ECT0 = 1, IP_API_ECN_ECT1 = 2, IP_API_ECN_CE = 3,
    }

    /// Differentiated services, RFC 2474.
    enum IpDscp = ip_dscp: u8 {
        IP_API_DSCP_CS0 = 0, IP_API_DSCP_CS1 = 8, IP_API_DSCP_AF11 = 10, IP_API_DSCP_AF12 = 12,
        IP_API_DSCP_AF13 = 14, IP_API_DSCP_CS2 = 16, IP_API_DSCP_AF21 = 18, IP_API_DSCP_AF22 = 20,
        IP_API_DSCP_AF23 = 22, IP_API_DSCP_CS3 = 24, IP_API_DSCP_AF31 = 26, IP_API_DSCP_AF32 = 28,
        IP_API_DSCP_AF33 = 30, IP_API_DSCP_CS4 = 32, IP_API_DSCP_AF41 = 34, IP_API_DSCP_AF42 = 36,
        IP_API_DSCP_AF43 = 38, IP_API_DSCP_CS5 = 40, IP_API_DSCP_EF = 46, IP_API_DSCP_CS6 = 48,
        IP_API_DSCP_CS7 = 50,
    }

    /// A protocol over IP.
    enum IpProto = ip_proto: u8 {
        IP_API_PROTO_HOPOPT = 0, IP_API_PROTO_ICMP = 1, IP_API_PROTO_IGMP = 2, IP_API_PROTO_TCP = 6,
        IP_API_PROTO_UDP = 17, IP_API_PROTO_GRE = 47, IP_API_PROTO_ESP = 50, IP_API_PROTO_AH = 51,
        IP_API_PROTO_ICMP6 = 58, IP_API_PROTO_EIGRP = 88, IP_API_PROTO_OSPF = 89, IP_API_PROTO_SCTP = 132,
        IP_API_PROTO_RESERVED = 255,
    }

    /// An address of either family, from the first byte.
    union AddressUnion = address_union [16] { ip4: Ip4Address, ip6: Ip6Address }

    /// An address.
    record Address = address { af: AddressFamily, un: AddressUnion }

    /// A prefix.
    record Prefix = prefix { address: Address, len: u8 }

    /// An IPv6 prefix.
    record Ip6Prefix = ip6_prefix { address: Ip6Address, len: u8 }

    /// An IPv4 prefix.
    record Ip4Prefix = ip4_prefix { address: Ip4Address, len: u8 }

    /// An address and the length of its subnet.
    alias AddressWithPrefix = address_with_prefix: Prefix;

    /// An IPv4 address and the length of its subnet.
    alias Ip4AddressWithPrefix = ip4_address_with_prefix: Ip4Prefix;

    /// An IPv6 address and the length of its subnet.
    alias Ip6AddressWithPrefix = ip6_address_with_prefix: Ip6Prefix;

    /// An MPLS label.
    record FibMplsLabel = fib_mpls_label { is_uniform: u8, label: u32, ttl: u8, exp: u8 }

    /// What a path's next hop speaks.
    enum FibPathNhProto = fib_path_nh_proto: u32 {
        FIB_API_PATH_NH_PROTO_IP4 = 0, FIB_API_PATH_NH_PROTO_IP6 = 1, FIB_API_PATH_NH_PROTO_MPLS = 2,
        FIB_API_PATH_NH_PROTO_ETHERNET = 3, FIB_API_PATH_NH_PROTO_BIER = 4,
    }

    /// Properties of a path.
    enum FibPathFlags = fib_path_flags: u32 {
        FIB_API_PATH_FLAG_NONE = 0, FIB_API_PATH_FLAG_RESOLVE_VIA_ATTACHED = 1,
        FIB_API_PATH_FLAG_RESOLVE_VIA_HOST = 2, FIB_API_PATH_FLAG_POP_PW_CW = 4,
    }

    /// A path's next hop.
    record FibPathNh = fib_path_nh {
        address: AddressUnion, via_label: u32, obj_id: u32, classify_table_index: u32,
    }

    /// Where a path leads.
    enum FibPathType = fib_path_type: u32 {
        FIB_API_PATH_TYPE_NORMAL = 0, FIB_API_PATH_TYPE_LOCAL = 1, FIB_API_PATH_TYPE_DROP = 2,
        FIB_API_PATH_TYPE_UDP_ENCAP = 3, FIB_API_PATH_TYPE_BIER_IMP = 4,
        FIB_API_PATH_TYPE_ICMP_UNREACH = 5, FIB_API_PATH_TYPE_ICMP_PROHIBIT = 6,
        FIB_API_PATH_TYPE_SOURCE_LOOKUP = 7, FIB_API_PATH_TYPE_DVR = 8, FIB_API_PATH_TYPE_INTERFACE_RX = 9,
        FIB_API_PATH_TYPE_CLASSIFY = 10,
    }

    /// A path of a route.
    record FibPath = fib_path {
        sw_if_index: u32, table_id: u32, rpf_id: u32, weight: u8, preference: u8, r#type: FibPathType,
        flags: FibPathFlags, proto: FibPathNhProto, nh: FibPathNh, n_labels: u8,
        label_stack: [FibMplsLabel; 16],
    }
}

impl InterfaceIndex {
    /// What stands for no interface, or for all.
    pub const NONE: InterfaceIndex = InterfaceIndex(u32::MAX);
}

impl From<SwIfIndex> for InterfaceIndex {
    fn from(index: SwIfIndex) -> InterfaceIndex {
        InterfaceIndex(index.0)
    }
}

impl MacAddress {
    /// The address, or `None` if it is all zero, which asks for one to be chosen.
    pub fn chosen(&self) -> Option<[u8; 6]> {
        Some(self.0).filter(|mac| *mac != [0; 6])
    }
}

impl From<ethernet::MacAddress> for MacAddress {
    fn from(mac: ethernet::MacAddress) -> MacAddress {
        MacAddress(mac.0)
    }
}

impl AddressUnion {
    /// As IPv4 address.
    pub fn ip4(&self) -> Ipv4Addr {
        let [a, b, c, d, ..] = self.0;
        Ipv4Addr::new(a, b, c, d)
    }
}

impl From<Ipv4Addr> for AddressUnion {
    fn from(address: Ipv4Addr) -> AddressUnion {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&address.octets());
        AddressUnion(bytes)
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Address {
        Address { af: AddressFamily::ADDRESS_IP4, un: address.into() }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Address {
        match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                Address { af: AddressFamily::ADDRESS_IP6, un: AddressUnion(address.octets()) }
            }
        }
    }
}

impl Address {
    /// As address of either family; `None` if it is of neither.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.af {
            AddressFamily::ADDRESS_IP4 => Some(self.un.ip4().into()),
            AddressFamily::ADDRESS_IP6 => Some(IpAddr::from(self.un.0)),
            _ => None,
        }
    }

    /// As IPv4 address; others are not there yet.
    pub fn ip4(&self) -> Result<Ipv4Addr, ApiError> {
        match self.af {
            AddressFamily::ADDRESS_IP4 => Ok(self.un.ip4()),
            AddressFamily::ADDRESS_IP6 => Err(ApiError::UNIMPLEMENTED),
            _ => Err(ApiError::INVALID_ADDRESS_FAMILY),
        }
    }
}

impl From<ip4::Ip4Prefix> for Prefix {
    fn from(prefix: ip4::Ip4Prefix) -> Prefix {
        Prefix { address: prefix.address().into(), len: prefix.len() }
    }
}

impl Prefix {
    /// As IPv4 address and length.
    pub fn ip4(&self) -> Result<(Ipv4Addr, u8), ApiError> {
        match (self.address.ip4()?, self.len) {
            (address, len @ 0..=32) => Ok((address, len)),
            _ => Err(ApiError::INVALID_PREFIX_LENGTH),
        }
    }
}
