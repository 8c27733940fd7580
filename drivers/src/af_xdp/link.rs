//! Facts about interfaces, and the few settings a driver changes.

use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType},
};

use super::{
    XdpError,
    ethtool::{Ethtool, Feature},
};

/// Room for one netlink datagram; the kernel's are at most 32 KiB.
pub(crate) const NETLINK_DATAGRAM: usize = 1 << 16;

/// An interface as it was when asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index in its network namespace.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Ethernet address; zeros when it has none of 6 bytes.
    pub mac: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Administratively up (IFF_UP).
    pub admin_up: bool,
    /// The other end is there (IFF_LOWER_UP).
    pub carrier: bool,
    /// Receive queues in use. A socket must be bound to each.
    pub rx_queues: u32,
    /// Transmit queues in use.
    pub tx_queues: u32,
    /// One end of a veth pair.
    pub is_veth: bool,
    /// Index of the veth's other end, when that is in the same namespace.
    pub peer: Option<u32>,
    /// Id of the XDP program attached.
    pub xdp_program: Option<u32>,
}

/// Asks about the interfaces of one network namespace: that of the thread that opened it, from
/// wherever it is used later.
pub struct Links {
    netlink: Socket,
    ethtool: Ethtool,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What to look an interface up by.
enum Key<'a> {
    Name(&'a str),
    Index(u32),
}

impl Links {
    /// Opens the sockets. No privilege needed.
    ///
    /// # Errors
    ///
    /// [`XdpError::System`].
    pub fn open() -> Result<Links, XdpError> {
        let failed = |error| XdpError::system("opening a netlink socket", error);
        let mut netlink = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        netlink.bind_auto().map_err(failed)?;
        netlink.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        let ethtool =
            Ethtool::open().map_err(|errno| XdpError::system("opening a socket for ethtool", errno))?;
        Ok(Links { netlink, ethtool, sequence: 0, buffer: Vec::with_capacity(NETLINK_DATAGRAM) })
    }

    /// Looks an interface up by name.
    ///
    /// # Errors
    ///
    /// [`XdpError::NoInterface`], [`XdpError::System`].
    pub fn by_name(&mut self, name: &str) -> Result<Link, XdpError> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err(XdpError::NoInterface { interface: name.to_owned() });
        }
        self.look_up(Key::Name(name), name)
    }

    /// Looks an interface up by index.
    ///
    /// # Errors
    ///
    /// [`XdpError::NoInterface`], [`XdpError::System`].
    pub fn by_index(&mut self, ifindex: u32) -> Result<Link, XdpError> {
        self.look_up(Key::Index(ifindex), &ifindex.to_string())
    }

    fn look_up(&mut self, key: Key<'_>, called: &str) -> Result<Link, XdpError> {
        let message = self.get_link(key).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::NODEV) => XdpError::NoInterface { interface: called.to_owned() },
            _ => XdpError::system(format!("asking about interface {called}"), error),
        })?;
        let mut link = link(&message);
        // Netlink tells how many queues the device could have, not how many are in use.
        if let Ok(channels) = self.ethtool.channels(&link.name) {
            link.rx_queues = channels.rx;
            link.tx_queues = channels.tx;
        }
        Ok(link)
    }

    /// Name of an interface's driver, like `veth` or `mlx5_core`.
    ///
    /// # Errors
    ///
    /// [`XdpError::System`].
    pub fn driver(&self, interface: &str) -> Result<String, XdpError> {
        self.ethtool
            .driver(interface)
            .map_err(|errno| XdpError::system(format!("asking for the driver of {interface}"), errno))
    }

    /// Whether an offload is on.
    ///
    /// # Errors
    ///
    /// [`XdpError::System`].
    pub fn feature(&self, interface: &str, feature: Feature) -> Result<bool, XdpError> {
        self.ethtool
            .feature(interface, feature)
            .map_err(|errno| XdpError::system(format!("asking for {} of {interface}", feature.name()), errno))
    }

    /// Switches an offload.
    ///
    /// # Errors
    ///
    /// [`XdpError::Privilege`] without CAP_NET_ADMIN; [`XdpError::System`], also when the device
    /// can't.
    pub fn set_feature(&self, interface: &str, feature: Feature, on: bool) -> Result<(), XdpError> {
        self.ethtool.set_feature(interface, feature, on).map_err(|errno| match errno {
            Errno::PERM => XdpError::Privilege {
                action: "changing offloads of an interface",
                capability: "CAP_NET_ADMIN",
            },
            other => XdpError::system(format!("setting {} of {interface}", feature.name()), other),
        })
    }

    /// One RTM_GETLINK. The kernel answers before `send` returns, so nothing waits.
    fn get_link(&mut self, key: Key<'_>) -> std::io::Result<LinkMessage> {
        let mut query = LinkMessage::default();
        match key {
            Key::Name(name) => query.attributes.push(LinkAttribute::IfName(name.to_owned())),
            Key::Index(index) => query.header.index = index,
        }
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let mut request =
            NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::GetLink(query)));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.netlink.send(&bytes, 0)?;

        loop {
            self.buffer.clear();
            self.netlink.recv(&mut self.buffer, libc::MSG_DONTWAIT)?;
            let reply = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&self.buffer)
                .map_err(std::io::Error::other)?;
            if reply.header.sequence_number != self.sequence {
                continue;
            }
            return match reply.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(link),
                NetlinkPayload::Error(error) => Err(error.to_io()),
                _ => Err(Errno::PROTO.into()),
            };
        }
    }
}

fn link(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        ifindex: message.header.index,
        name: String::new(),
        mac: [0; 6],
        mtu: 0,
        admin_up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        rx_queues: 1,
        tx_queues: 1,
        is_veth: false,
        peer: None,
        xdp_program: None,
    };
    let (mut other, mut elsewhere) = (None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(address) => {
                link.mac = address.as_slice().try_into().unwrap_or_default();
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::NumRxQueues(queues) => link.rx_queues = *queues,
            LinkAttribute::NumTxQueues(queues) => link.tx_queues = *queues,
            LinkAttribute::Link(index) => other = Some(*index),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                link.is_veth = infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Veth)));
            }
            LinkAttribute::Xdp(facts) => {
                link.xdp_program = facts.iter().find_map(|fact| match fact {
                    LinkXdp::ProgId(id) if *id != 0 => Some(*id),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link.peer = other.filter(|_| link.is_veth && !elsewhere);
    link
}

/// Makes an interface receive frames for any Ethernet address, while this value lives. The kernel
/// counts such wishes, and takes this one back even if we are killed.
pub struct Promiscuous {
    _socket: OwnedFd,
}

impl Promiscuous {
    /// Switches it on, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`XdpError::Privilege`] without CAP_NET_RAW, [`XdpError::NoInterface`].
    pub fn enter(ifindex: u32) -> Result<Promiscuous, XdpError> {
        // Protocol 0: the socket itself receives nothing.
        let socket =
            rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)
                .map_err(|errno| match errno {
                    Errno::PERM => {
                        XdpError::Privilege { action: "promiscuous mode", capability: "CAP_NET_RAW" }
                    }
                    other => XdpError::system("opening a packet socket", other),
                })?;
        for mode in [libc::PACKET_MR_PROMISC, libc::PACKET_MR_ALLMULTI] {
            let request = libc::packet_mreq {
                mr_ifindex: ifindex.cast_signed(),
                mr_type: mode as u16,
                mr_alen: 0,
                mr_address: [0; 8],
            };
            // SAFETY: the kernel reads a packet_mreq at the address of `request`.
            let result = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_PACKET,
                    libc::PACKET_ADD_MEMBERSHIP,
                    (&raw const request).cast(),
                    size_of_val(&request) as libc::socklen_t,
                )
            };
            if result != 0 {
                let error = std::io::Error::last_os_error();
                return Err(match Errno::from_io_error(&error) {
                    Some(Errno::NODEV) => XdpError::NoInterface { interface: ifindex.to_string() },
                    _ => XdpError::system("promiscuous mode", error),
                });
            }
        }
        Ok(Promiscuous { _socket: socket })
    }
}
