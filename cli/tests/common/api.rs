//! A client of the binary API that can send anything.

use super::{Daemon, PATIENCE};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

/// A client that can send anything.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
}

/// A message in its frame.
pub(crate) fn frame(message: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 16];
    frame[8..12].copy_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// A request with client_index 0.
pub(crate) fn message(id: u16, context: u32, rest: &[u8]) -> Vec<u8> {
    [&id.to_be_bytes()[..], &[0; 4], &context.to_be_bytes(), rest].concat()
}

impl Client {
    pub(crate) fn new(daemon: &Daemon) -> Client {
        Client::over(UnixStream::connect(daemon.file("api.sock")).unwrap())
    }

    /// On a connected stream.
    pub(crate) fn over(stream: UnixStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream }
    }

    /// A client that has introduced itself.
    pub(crate) fn connect(daemon: &Daemon) -> Client {
        Client::new(daemon).introduced()
    }

    /// Introduces itself.
    pub(crate) fn introduced(mut self) -> Client {
        let mut create = vec![0; 2 + 4 + 64];
        create[1] = 15;
        create[6..10].copy_from_slice(b"test");
        self.send(&frame(&create));
        let reply = self.reply();
        assert_eq!(u16::from_be_bytes([reply[0], reply[1]]), 16);
        self
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn request(&mut self, id: u16, rest: &[u8]) {
        self.send(&frame(&message(id, 7, rest)));
    }

    pub(crate) fn try_reply(&mut self) -> std::io::Result<Vec<u8>> {
        let mut header = [0; 16];
        self.stream.read_exact(&mut header)?;
        let mut message = vec![0; u32::from_be_bytes(header[8..12].try_into().unwrap()) as usize];
        self.stream.read_exact(&mut message)?;
        Ok(message)
    }

    pub(crate) fn reply(&mut self) -> Vec<u8> {
        self.try_reply().unwrap()
    }

    /// Whether the daemon has closed the connection.
    pub(crate) fn is_closed(&mut self) -> bool {
        match self.try_reply() {
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            Ok(_) => false,
        }
    }
}

/// The number of a message, by its name.
pub(crate) fn number(daemon: &Daemon, name: &str) -> u16 {
    let all = daemon.json("show api messages");
    let all = all.as_array().unwrap();
    all.iter().find(|m| m["name"] == name).unwrap()["id"].as_u64().unwrap() as u16
}
