//! What the examples share.

// Each example uses a part of this.
#![allow(dead_code)]

use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use memif::{Address, ClientConfig, InterfaceConfig, ListenerConfig, Port, Secret};

/// One end of a memif.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) server: bool,
    pub(crate) id: u32,
    pub(crate) socket: Address,
    pub(crate) queues: u16,
    pub(crate) secret: Option<Secret>,
}

impl End {
    /// Reads `client:0:/run/wharf/memif.sock`: role, id, socket.
    pub(crate) fn parse(text: &str) -> Result<Self, Box<dyn Error>> {
        let mut words = text.splitn(3, ':');
        let (Some(role), Some(id), Some(socket)) = (words.next(), words.next(), words.next()) else {
            return Err(format!("{text:?} is not like client:0:/run/wharf/memif.sock").into());
        };
        let server = match role {
            "client" => false,
            "server" => true,
            _ => return Err(format!("{role:?} is neither client nor server").into()),
        };
        Ok(Self { server, id: id.parse()?, socket: Address::parse(socket)?, queues: 1, secret: None })
    }

    /// Makes it; `name` is told to the peer.
    pub(crate) fn open(&self, name: &str) -> Result<Port, memif::Error> {
        let Self { socket, id, queues, secret, .. } = self.clone();
        if !self.server {
            let mut config = ClientConfig::new(socket, id);
            (config.app_name, config.secret) = (name.into(), secret);
            (config.rx_queues, config.tx_queues) = (queues, queues);
            return Port::client(config);
        }
        let interface = InterfaceConfig { secret, max_queues: queues, ..InterfaceConfig::new(id, name) };
        let mut config = ListenerConfig { app_name: name.into(), ..ListenerConfig::new(socket) };
        if matches!(config.address, Address::Abstract { .. }) && secret.is_none() {
            // Such a socket has no permissions: only clients of our own user.
            config.allowed_uids = vec![rustix::process::geteuid().as_raw()];
        }
        Port::server(config, interface)
    }
}

/// Becomes readable at SIGTERM and SIGINT.
#[derive(Debug)]
pub(crate) struct Stop(UnixStream);

impl Stop {
    pub(crate) fn new() -> std::io::Result<Self> {
        let (stop, writer) = UnixStream::pair()?;
        stop.set_nonblocking(true)?;
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(Self(stop))
    }

    /// Whether such a signal has come.
    pub(crate) fn asked(&mut self) -> bool {
        use std::io::Read;
        self.0.read(&mut [0]).is_ok()
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
