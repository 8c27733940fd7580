//! The numbers that replies carry when a request fails: VPP's.

use crate::dataplane::OpError;
use wharf_drivers::memif::MemifError;
use wharf_drivers::pg::PgError;
use wharf_engine::EngineError;

/// Why a request failed, as its reply's `retval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiError(pub i32);

macro_rules! errors {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl ApiError {
            $(#[doc = concat!($text, ".")] pub const $name: ApiError = ApiError($number);)*

            /// What it means.
            pub fn text(self) -> &'static str {
                match self.0 {
                    $($number => $text,)*
                    _ => "unknown error",
                }
            }
        }
    };
}

errors! {
    UNSPECIFIED = -1, "unspecified error";
    INVALID_SW_IF_INDEX = -2, "invalid sw_if_index";
    NO_SUCH_FIB = -3, "no such FIB";
    NO_SUCH_ENTRY = -6, "no such entry";
    INVALID_VALUE = -7, "invalid value";
    INVALID_VALUE_2 = -8, "invalid second value";
    UNIMPLEMENTED = -9, "not implemented";
    INVALID_SW_IF_INDEX_2 = -10, "invalid second sw_if_index";
    SYSCALL_ERROR_1 = -11, "system call failed";
    FEATURE_DISABLED = -30, "disabled by configuration";
    INVALID_REGISTRATION = -31, "no such registration";
    NO_PATHS_IN_ROUTE = -52, "a route without paths";
    INVALID_SRC_ADDRESS = -57, "invalid source address";
    INVALID_DST_ADDRESS = -58, "invalid destination address";
    ADDRESS_NOT_FOUND_FOR_INTERFACE = -60, "the interface has no such address";
    NO_SUCH_NODE = -63, "no such graph node";
    NO_SUCH_NODE2 = -64, "no such second graph node";
    INVALID_VLAN = -55, "invalid VLAN";
    VLAN_ALREADY_EXISTS = -56, "the VLAN has a sub-interface already";
    SUBIF_ALREADY_EXISTS = -68, "such an interface exists already";
    INVALID_INTERFACE = -71, "invalid interface";
    INVALID_VLAN_TAG_COUNT = -72, "too few VLAN tags for this rewrite";
    INVALID_ARGUMENT = -73, "invalid argument";
    UNEXPECTED_INTF_STATE = -74, "unexpected state of the interface";
    TUNNEL_EXIST = -75, "the tunnel exists already";
    INVALID_DECAP_NEXT = -76, "invalid node after decapsulation";
    IF_ALREADY_EXISTS = -79, "an interface of that name exists already";
    VALUE_EXIST = -81, "the value exists already";
    SAME_SRC_DST = -82, "source and destination are the same";
    INVALID_WORKER = -89, "invalid worker";
    CANNOT_CREATE_PCAP_FILE = -93, "the pcap file cannot be made";
    INVALID_ADDRESS_FAMILY = -97, "invalid address family";
    ADDRESS_IN_USE = -105, "the address is in use";
    ENTRY_ALREADY_EXISTS = -116, "the entry exists already";
    BD_ALREADY_EXISTS = -119, "the bridge domain exists already";
    BD_IN_USE = -120, "the bridge domain has ports";
    BD_NOT_MODIFIABLE = -121, "bridge domain 0 cannot be changed";
    BD_ID_EXCEED_MAX = -122, "the bridge domain's number is too large";
    UNSUPPORTED = -126, "not supported";
    INVALID_QUEUE = -125, "invalid queue";
    DUPLICATE_IF_ADDRESS = -127, "the address is in conflict with another interface's";
    ACL_IN_USE_INBOUND = -142, "the ACL is applied to received packets";
    ACL_IN_USE_OUTBOUND = -143, "the ACL is applied to packets to be sent";
    INSTANCE_IN_USE = -147, "the instance is in use";
    BD_ALREADY_HAS_BVI = -152, "the bridge domain has a BVI already";
    RSRC_IN_USE = -155, "in use";
    LIMIT_EXCEEDED = -162, "a limit is reached";
    EAGAIN = -165, "call again with the cursor";
    BUSY = -167, "busy";
    INVALID_PREFIX_LENGTH = -171, "invalid prefix length";
}

impl From<OpError> for ApiError {
    /// The number has no room for the text, which goes to the log.
    fn from(error: OpError) -> ApiError {
        tracing::info!("API request refused: {error}");
        match error {
            OpError::Refused(_) | OpError::Parameter(_) => ApiError::INVALID_VALUE,
            OpError::Engine(EngineError::NoWorker { .. }) => ApiError::INVALID_WORKER,
            OpError::Engine(EngineError::UnknownNode(_) | EngineError::UnknownInput(_)) => {
                ApiError::NO_SUCH_NODE
            }
            OpError::Engine(EngineError::NoAnswer(_) | EngineError::Busy(_)) => ApiError::BUSY,
            OpError::Engine(_) => ApiError::INVALID_VALUE,
            OpError::Memif(MemifError::NoInterface(_)) => ApiError::INVALID_SW_IF_INDEX,
            OpError::Memif(MemifError::DuplicateId { .. }) => ApiError::SUBIF_ALREADY_EXISTS,
            OpError::Memif(MemifError::SocketExists { .. }) => ApiError::ENTRY_ALREADY_EXISTS,
            OpError::Memif(MemifError::SocketInUse { .. }) => ApiError::UNEXPECTED_INTF_STATE,
            OpError::Memif(MemifError::Memif(_) | MemifError::Epoll(_)) => ApiError::SYSCALL_ERROR_1,
            OpError::Memif(_) => ApiError::INVALID_ARGUMENT,
            OpError::Pg(PgError::Capture { .. }) => ApiError::CANNOT_CREATE_PCAP_FILE,
            OpError::Pg(_) => ApiError::INVALID_VALUE,
            OpError::Xdp(_) | OpError::System(..) => ApiError::SYSCALL_ERROR_1,
        }
    }
}
