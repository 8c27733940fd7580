//! Everything that can go wrong below the graph, in words an operator can act on.

use std::io;

use rustix::io::Errno;

use super::Holder;

/// Why an AF_XDP interface could not be set up.
///
/// What happens to a running socket is not an error but an outcome: see
/// [`TxKick`](super::TxKick) and [`RxKick`](super::RxKick).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XdpError {
    /// For a reason that the text says.
    #[error("{0}")]
    Refused(String),
    /// The process lacks a capability (capabilities(7)).
    #[error("{action} needs {capability}")]
    Privilege {
        /// What was attempted.
        action: &'static str,
        /// The capabilities that permit it.
        capability: &'static str,
    },
    /// The kernel was built without something this driver needs.
    #[error("this kernel has no {feature}")]
    KernelLacks {
        /// The missing feature, with its configuration option.
        feature: &'static str,
    },
    /// The locked-memory limit is too small for the packet buffers. Only a process without
    /// CAP_IPC_LOCK is held to it, and all its AF_XDP sockets count.
    #[error(
        "registering {bytes} bytes of packet buffers exceeds RLIMIT_MEMLOCK, which counts for every AF_XDP \
         socket: raise it (LimitMEMLOCK=infinity) or grant CAP_IPC_LOCK"
    )]
    LockedMemory {
        /// Size of the area.
        bytes: u64,
    },
    /// No such network namespace, or it can't be entered.
    #[error("network namespace {name}: {source}")]
    NoNamespace {
        /// What it was opened by.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No interface of that name or index in this network namespace.
    #[error("there is no interface {interface} in this network namespace")]
    NoInterface {
        /// Name, or index where only that is known.
        interface: String,
    },
    /// The interface is administratively down.
    #[error("{interface} is down: set it up first")]
    InterfaceDown {
        /// Name of the interface.
        interface: String,
    },
    /// The interface has fewer queues than that.
    #[error("{interface} has no queue {queue}, or does not accept this combination of options on it")]
    NoQueue {
        /// Name of the interface.
        interface: String,
        /// Queue index.
        queue: u32,
    },
    /// Another socket holds the queue, and kept it for as long as we retried.
    #[error("queue {queue} of {interface} is in use by another AF_XDP socket")]
    QueueBusy {
        /// Name of the interface.
        interface: String,
        /// Queue index.
        queue: u32,
    },
    /// Zero-copy (or multi-buffer) was demanded and the device can't.
    #[error("{interface} does not support {feature}")]
    Unsupported {
        /// Name of the interface.
        interface: String,
        /// The mode that was asked for.
        feature: &'static str,
    },
    /// An XDP program of somebody else is attached.
    #[error("{}", taken(interface, *program, holder.as_ref()))]
    ProgramAttached {
        /// Name of the interface.
        interface: String,
        /// Program id as `bpftool prog` shows it, 0 when unknown.
        program: u32,
        /// Who holds it, if that can be seen.
        holder: Option<Holder>,
    },
    /// Native XDP limits the frame size to what fits in a page.
    #[error(
        "the MTU of {interface}{} is too large for native XDP: lower it or enable multi-buffer",
        if *peer { "'s veth peer" } else { "" }
    )]
    MtuTooLarge {
        /// Name of the interface.
        interface: String,
        /// Whether it is a veth, whose *peer's* MTU is the one checked.
        peer: bool,
    },
    /// Native XDP on veth needs at least as many receive queues as the peer has transmit queues.
    #[error(
        "{interface} has fewer receive queues than its veth peer has transmit queues: even them out (ethtool -L)"
    )]
    TooFewQueues {
        /// Name of the interface.
        interface: String,
    },
    /// Generic mode was asked for while segmentation offload makes frames larger than a buffer.
    #[error("generic XDP on {interface} needs segmentation offload off: ethtool -K {interface} {features}")]
    SegmentationOffload {
        /// Name of the interface.
        interface: String,
        /// Arguments that switch the culprits off, like `tso off gso off`.
        features: String,
    },
    /// A value of the configuration can't be used.
    #[error("{0}")]
    Config(String),
    /// The committed program was refused, which means that it does not suit this kernel.
    #[error("the kernel refused the XDP program: {0}")]
    Program(String),
    /// Any other answer of the kernel.
    #[error("{action}: {source}")]
    System {
        /// What was attempted.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Who has the interface, and what to do about that.
fn taken(interface: &str, program: u32, holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) => format!(
            "{interface} is in use by {holder}: its XDP program (id {program}) is attached; end it, or let it give \
             {interface} back"
        ),
        None => format!(
            "{interface} is in use: an XDP program (id {program}) is attached, of a process that can't be seen or of none; \
             end that, or detach the program (ip link set dev {interface} xdp off)"
        ),
    }
}

impl XdpError {
    /// An answer of the kernel that has no better words than its own.
    pub(crate) fn system(action: impl Into<String>, source: impl Into<io::Error>) -> XdpError {
        XdpError::System { action: action.into(), source: source.into() }
    }
}

/// Translates the answer to `socket(AF_XDP, SOCK_RAW)`.
pub(crate) fn opening(errno: Errno) -> XdpError {
    match errno {
        Errno::PERM | Errno::ACCESS => {
            XdpError::Privilege { action: "opening an AF_XDP socket", capability: "CAP_NET_RAW" }
        }
        Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT => {
            XdpError::KernelLacks { feature: "AF_XDP (CONFIG_XDP_SOCKETS)" }
        }
        other => XdpError::system("opening an AF_XDP socket", other),
    }
}

/// Translates the answer to XDP_UMEM_REG.
pub(crate) fn registering(errno: Errno, bytes: u64) -> XdpError {
    match errno {
        Errno::NOBUFS => XdpError::LockedMemory { bytes },
        Errno::NOMEM => XdpError::system(format!("pinning {bytes} bytes of packet buffers"), errno),
        other => XdpError::system(format!("registering {bytes} bytes of packet buffers (UMEM)"), other),
    }
}

/// Translates the answer to `bind` on `interface` and `queue`.
pub(crate) fn binding(errno: Errno, interface: &str, queue: u32, feature: &'static str) -> XdpError {
    let interface = interface.to_owned();
    match errno {
        Errno::BUSY => XdpError::QueueBusy { interface, queue },
        Errno::INVAL => XdpError::NoQueue { interface, queue },
        Errno::NODEV | Errno::NXIO => XdpError::NoInterface { interface },
        Errno::NETDOWN => XdpError::InterfaceDown { interface },
        Errno::OPNOTSUPP => XdpError::Unsupported { interface, feature },
        Errno::PERM | Errno::ACCESS => {
            XdpError::Privilege { action: "binding an AF_XDP socket", capability: "CAP_NET_RAW" }
        }
        other => XdpError::system(format!("binding to queue {queue} of {interface}"), other),
    }
}
