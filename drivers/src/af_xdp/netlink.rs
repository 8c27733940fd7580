//! Tells when an interface changes under a running socket, which the socket itself does not.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::fd::{AsFd, BorrowedFd},
};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage, link::LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::io::Errno;

use super::{
    XdpError,
    link::{Link, Links, NETLINK_DATAGRAM},
};

/// Multicast group of link messages (linux/rtnetlink.h).
const RTNLGRP_LINK: u32 = 1;

/// Datagrams read in one go before the caller gets to do something else.
const MAX_DATAGRAMS: usize = 64;

/// A change of a watched interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkEvent {
    /// Which.
    pub ifindex: u32,
    /// What.
    pub change: LinkChange,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// Administratively up.
    Up,
    /// Administratively down: stop sending, or stale frames go out when it comes up again.
    Down,
    /// The other end came or went.
    Carrier(bool),
    /// Deleted, or moved to another namespace: drop the socket and take the buffers back. Nothing
    /// else will be told about it.
    Removed,
    /// The number of receive queues in use: sockets must be added, or frames go to the kernel.
    Queues(u32),
    /// The MTU in bytes.
    Mtu(u32),
}

/// Watches interfaces of one network namespace, that of the thread that opened it.
pub struct Monitor {
    socket: Socket,
    links: Links,
    watched: BTreeMap<u32, Link>,
    events: VecDeque<LinkEvent>,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Opens the sockets. No privilege needed.
    ///
    /// # Errors
    ///
    /// [`XdpError::System`].
    pub fn open() -> Result<Monitor, XdpError> {
        let failed = |error| XdpError::system("opening a netlink socket", error);
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        socket.add_membership(RTNLGRP_LINK).map_err(failed)?;
        socket.set_non_blocking(true).map_err(failed)?;
        Ok(Monitor {
            socket,
            links: Links::open()?,
            watched: BTreeMap::new(),
            events: VecDeque::new(),
            buffer: Vec::with_capacity(NETLINK_DATAGRAM),
        })
    }

    /// Watches an interface from now on: changes are told against its present state, returned.
    ///
    /// # Errors
    ///
    /// [`XdpError::NoInterface`], [`XdpError::System`].
    pub fn watch(&mut self, ifindex: u32) -> Result<Link, XdpError> {
        let link = self.links.by_index(ifindex)?;
        self.watched.insert(ifindex, link.clone());
        Ok(link)
    }

    /// Stops watching an interface.
    pub fn unwatch(&mut self, ifindex: u32) {
        self.watched.remove(&ifindex);
        self.events.retain(|event| event.ifindex != ifindex);
    }

    /// The next change, `None` when there is none now. Never waits. To be called, until `None`,
    /// when the file descriptor is readable.
    ///
    /// # Errors
    ///
    /// When the netlink socket is broken. A message missed or not understood is no error: all
    /// watched interfaces are looked at afresh.
    pub fn poll(&mut self) -> Result<Option<LinkEvent>, XdpError> {
        for _ in 0..MAX_DATAGRAMS {
            if !self.events.is_empty() {
                break;
            }
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => self.datagram()?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INTR) => {}
                // The kernel had no room for a message: some are missing.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => self.recheck()?,
                Err(error) => return Err(XdpError::system("reading from a netlink socket", error)),
            }
        }
        Ok(self.events.pop_front())
    }

    /// Looks at all watched interfaces afresh, for [`Monitor::poll`] to tell. To be called from
    /// time to time too: not every driver announces a change of queues.
    ///
    /// # Errors
    ///
    /// [`XdpError::System`].
    pub fn recheck(&mut self) -> Result<(), XdpError> {
        let all: Vec<u32> = self.watched.keys().copied().collect();
        all.into_iter().try_for_each(|ifindex| self.look(ifindex))
    }

    /// Messages of one datagram.
    fn datagram(&mut self) -> Result<(), XdpError> {
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = buffer.as_slice();
        let mut result = Ok(());
        while !rest.is_empty() && result.is_ok() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest);
            let len = rest
                .first_chunk::<4>()
                .map_or(0, |bytes| u32::from_ne_bytes(*bytes) as usize)
                .next_multiple_of(4);
            result = match message.map(|message| message.payload) {
                Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link))) => self.changed(&link),
                Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link))) => {
                    self.removed(&link);
                    Ok(())
                }
                Ok(_) => Ok(()),
                Err(_) => self.recheck(),
            };
            // A length of zero would not get on.
            rest = rest.get(len.max(16)..).unwrap_or_default();
        }
        self.buffer = buffer;
        result
    }

    fn changed(&mut self, message: &LinkMessage) -> Result<(), XdpError> {
        if !is_about_itself(message) || !self.watched.contains_key(&message.header.index) {
            return Ok(());
        }
        self.look(message.header.index)
    }

    fn removed(&mut self, message: &LinkMessage) {
        let ifindex = message.header.index;
        if is_about_itself(message) && self.watched.remove(&ifindex).is_some() {
            self.events.push_back(LinkEvent { ifindex, change: LinkChange::Removed });
        }
    }

    /// Compares a watched interface with what was known of it.
    fn look(&mut self, ifindex: u32) -> Result<(), XdpError> {
        let now = match self.links.by_index(ifindex) {
            Ok(link) => Some(link),
            Err(XdpError::NoInterface { .. }) => None,
            Err(error) => return Err(error),
        };
        let Some(before) = self.watched.remove(&ifindex) else {
            return Ok(());
        };
        let events = &mut self.events;
        let mut tell = |change| events.push_back(LinkEvent { ifindex, change });
        let Some(now) = now else {
            tell(LinkChange::Removed);
            return Ok(());
        };
        if now.admin_up != before.admin_up {
            tell(if now.admin_up { LinkChange::Up } else { LinkChange::Down });
        }
        if now.carrier != before.carrier {
            tell(LinkChange::Carrier(now.carrier));
        }
        if now.rx_queues != before.rx_queues {
            tell(LinkChange::Queues(now.rx_queues));
        }
        if now.mtu != before.mtu {
            tell(LinkChange::Mtu(now.mtu));
        }
        self.watched.insert(ifindex, now);
        Ok(())
    }
}

/// Bridges announce their ports with link messages too, of their own family.
fn is_about_itself(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

impl AsFd for Monitor {
    /// Readable when [`Monitor::poll`] may have something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
