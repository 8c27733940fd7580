//! The few ethtool(8) questions a driver has, by ioctl (SIOCETHTOOL of linux/ethtool.h).

use std::{
    ffi::{c_char, c_void},
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType},
};

const SIOCETHTOOL: libc::Ioctl = 0x8946;

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// Longest interface name, without the terminating zero.
const MAX_NAME: usize = libc::IFNAMSIZ - 1;

/// An offload of a device that changes what frames look like to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// `tx`: senders leave checksums to the device.
    TxChecksum,
    /// `tso`: senders leave TCP segmentation to the device.
    Tso,
    /// `gso`: the kernel segments as late as it can.
    Gso,
    /// `gro`: received segments are merged.
    Gro,
    /// `lro`: received segments are merged by the device.
    Lro,
    /// `txvlan`: senders leave VLAN tags beside the frame.
    TxVlan,
    /// `rxvlan`: the device takes VLAN tags out of frames.
    RxVlan,
}

/// How a feature is read and written.
enum Access {
    /// A command each.
    Commands(u32, u32),
    /// A bit of ETHTOOL_GFLAGS.
    Flag(u32),
}

impl Feature {
    /// As `ethtool -K` abbreviates it.
    pub fn name(self) -> &'static str {
        match self {
            Feature::TxChecksum => "tx",
            Feature::Tso => "tso",
            Feature::Gso => "gso",
            Feature::Gro => "gro",
            Feature::Lro => "lro",
            Feature::TxVlan => "txvlan",
            Feature::RxVlan => "rxvlan",
        }
    }

    fn access(self) -> Access {
        match self {
            Feature::TxChecksum => Access::Commands(0x16, 0x17),
            Feature::Tso => Access::Commands(0x1e, 0x1f),
            Feature::Gso => Access::Commands(0x23, 0x24),
            Feature::Gro => Access::Commands(0x2b, 0x2c),
            Feature::TxVlan => Access::Flag(1 << 7),
            Feature::RxVlan => Access::Flag(1 << 8),
            Feature::Lro => Access::Flag(1 << 15),
        }
    }
}

/// A device's queues: those in use, which `ethtool -L` changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Channels {
    pub(crate) rx: u32,
    pub(crate) tx: u32,
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct RawChannels {
    command: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// An ioctl argument as SIOCETHTOOL wants it: a plain structure that begins with its command and
/// is as long as the kernel takes it to be.
///
/// # Safety
///
/// The layout must be that of the structure behind each command it is used with, and any bytes
/// that the kernel stores must make a valid value.
unsafe trait Argument {}
// SAFETY: integers only, laid out as ethtool_value.
unsafe impl Argument for Value {}
// SAFETY: integers only, laid out as ethtool_channels: nine u32.
unsafe impl Argument for RawChannels {}
// SAFETY: integers only, laid out as ethtool_drvinfo: 196 bytes.
unsafe impl Argument for DriverInfo {}
const _: () = assert!(size_of::<RawChannels>() == 36 && size_of::<DriverInfo>() == 196);

/// `struct ifreq`, as far as SIOCETHTOOL reads it.
#[repr(C)]
struct Request {
    name: [c_char; libc::IFNAMSIZ],
    data: *mut c_void,
    rest: [u8; 16],
}

/// A socket to ask through, in the network namespace of the thread that opened it.
pub(crate) struct Ethtool(OwnedFd);

impl Ethtool {
    pub(crate) fn open() -> Result<Ethtool, Errno> {
        rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map(Ethtool)
    }

    /// Queues in use. EOPNOTSUPP when the device does not tell.
    pub(crate) fn channels(&self, interface: &str) -> Result<Channels, Errno> {
        let mut channels = RawChannels { command: ETHTOOL_GCHANNELS, ..RawChannels::default() };
        self.ask(interface, &mut channels)?;
        Ok(Channels {
            rx: channels.rx.saturating_add(channels.combined),
            tx: channels.tx.saturating_add(channels.combined),
        })
    }

    /// Name of the device's driver.
    pub(crate) fn driver(&self, interface: &str) -> Result<String, Errno> {
        let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
        self.ask(interface, &mut info)?;
        let name = info.driver.split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    pub(crate) fn feature(&self, interface: &str, feature: Feature) -> Result<bool, Errno> {
        match feature.access() {
            Access::Commands(get, _) => Ok(self.value(interface, get, 0)? != 0),
            Access::Flag(bit) => Ok(self.value(interface, ETHTOOL_GFLAGS, 0)? & bit != 0),
        }
    }

    pub(crate) fn set_feature(&self, interface: &str, feature: Feature, on: bool) -> Result<(), Errno> {
        match feature.access() {
            Access::Commands(_, set) => self.value(interface, set, u32::from(on))?,
            Access::Flag(bit) => {
                let flags = self.value(interface, ETHTOOL_GFLAGS, 0)?;
                let flags = if on { flags | bit } else { flags & !bit };
                self.value(interface, ETHTOOL_SFLAGS, flags)?
            }
        };
        Ok(())
    }

    fn value(&self, interface: &str, command: u32, data: u32) -> Result<u32, Errno> {
        let mut value = Value { command, data };
        self.ask(interface, &mut value)?;
        Ok(value.data)
    }

    fn ask<T: Argument>(&self, interface: &str, argument: &mut T) -> Result<(), Errno> {
        let mut request =
            Request { name: [0; libc::IFNAMSIZ], data: (argument as *mut T).cast(), rest: [0; 16] };
        if interface.is_empty() || interface.len() > MAX_NAME {
            return Err(Errno::NODEV);
        }
        for (to, from) in request.name.iter_mut().zip(interface.bytes()) {
            *to = from.cast_signed();
        }
        // SAFETY: the kernel reads an ifreq, 40 bytes, and through `data` reads and writes the
        // structure of the command, whose layout `Argument` promises.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        if result < 0 {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
        }
        Ok(())
    }
}
