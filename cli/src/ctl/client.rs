//! The connection to wharf: finds the socket, speaks the protocol of [`wharf_control::cli::telnet`].

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wharf_control::cli::telnet::{
    self, ACK, COMPLETE, Decoder, Event, FAILED, PROGRESS_END, PROGRESS_START, WHARFCTL,
};
use wharf_control::cli::{Completion, MAX_DOCUMENT_REQUEST};

use super::Failure;

/// Where wharf listens when nobody says otherwise.
const USUAL: [&str; 3] = ["/run/wharf/cli.sock", "/run/vpp/cli.sock", "./cli.sock"];
/// How long the server may take to greet.
const GREETING: Duration = Duration::from_secs(5);
/// The longest message of a failure that is kept, in bytes.
const MAX_MESSAGE: usize = 1 << 20;

/// A piece of a reply.
pub(crate) enum Part<'a> {
    /// Output.
    Text(&'a [u8]),
    /// How far a long command is.
    Progress(&'a str),
}

pub(crate) struct Client {
    stream: UnixStream,
    path: PathBuf,
}

impl Client {
    /// Connects to this socket; else to the one of the environment; else to the first usual one that answers.
    pub(crate) fn connect(socket: Option<&Path>) -> Result<Client, Failure> {
        let given = socket.map(Path::to_path_buf);
        let given = given.or_else(|| std::env::var_os("WHARF_CLI_SOCKET").map(PathBuf::from));
        let paths = given.map_or_else(|| USUAL.map(PathBuf::from).to_vec(), |path| vec![path]);
        let mut tried = Vec::new();
        for path in paths {
            match UnixStream::connect(&path) {
                Ok(stream) => {
                    let mut client = Client { stream, path };
                    client.greet()?;
                    return Ok(client);
                }
                Err(error) => {
                    let hint = match error.kind() {
                        ErrorKind::NotFound => "no such file",
                        ErrorKind::ConnectionRefused => "nobody listens",
                        ErrorKind::PermissionDenied => "permission denied",
                        _ => "",
                    };
                    let why = if hint.is_empty() { error.to_string() } else { hint.into() };
                    tried.push(format!("{} ({why})", path.display()));
                }
            }
        }
        let message = format!("can't reach wharf: is it running? Tried {}", tried.join(", "));
        Err(Failure::Unreachable(message))
    }

    fn unreachable(&self, why: impl std::fmt::Display) -> Failure {
        Failure::Unreachable(format!("{}: {why}", self.path.display()))
    }

    fn lost(&self, error: &io::Error) -> Failure {
        match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                self.unreachable("wharf closed the connection")
            }
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.unreachable("wharf does not answer"),
            _ => self.unreachable(error),
        }
    }

    /// Names the terminal type, and asks for nothing once: only a wharf acknowledges that with nothing.
    fn greet(&mut self) -> Result<(), Failure> {
        self.exchange_types().map_err(|error| match error.kind() {
            ErrorKind::Other => self.unreachable(error),
            _ => self.lost(&error),
        })
    }

    fn exchange_types(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(GREETING))?;
        let mut decoder = Decoder::new();
        let mut refusal = Vec::new();
        let mut answered = false;
        let mut byte = [0];
        loop {
            if self.read(&mut byte)? == 0 {
                return Err(match String::from_utf8_lossy(&refusal).trim() {
                    "" => ErrorKind::UnexpectedEof.into(),
                    words => io::Error::other(words),
                });
            }
            match decoder.push(byte[0]) {
                Some(Event::AskTerminalType) => {
                    let answer = [&telnet::terminal_type(WHARFCTL)[..], &[ACK]].concat();
                    self.stream.write_all(&answer)?;
                    answered = true;
                }
                Some(Event::Byte(ACK)) if answered => break,
                Some(Event::Byte(_)) if answered => {
                    return Err(io::Error::other("this is not wharf; if it is VPP, use vppctl"));
                }
                Some(Event::Byte(byte)) if refusal.len() < 1000 => refusal.push(byte),
                _ => {}
            }
        }
        self.stream.set_read_timeout(None)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// Runs one line. The parts go to `sink` as they come; returned is the message of a command that failed.
    pub(crate) fn request(
        &mut self,
        line: &str,
        sink: &mut dyn FnMut(Part<'_>),
    ) -> Result<Option<String>, Failure> {
        // What is less wharf may still refuse: how much it takes, its operator says.
        if line.len() >= MAX_DOCUMENT_REQUEST {
            return Ok(Some(format!("command longer than {MAX_DOCUMENT_REQUEST} bytes")));
        }
        self.exchange(line, sink).map_err(|error| self.lost(&error))
    }

    fn exchange(&mut self, line: &str, sink: &mut dyn FnMut(Part<'_>)) -> io::Result<Option<String>> {
        let request = [line.replace('\0', " ").as_bytes(), &[ACK]].concat();
        match self.stream.write_all(&request) {
            // Why it takes no more is there to be read.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            sent => sent?,
        }
        let mut buffer = vec![0; 64 << 10];
        let mut reply = Reply::default();
        loop {
            let len = self.read(&mut buffer)?;
            if len == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if reply.take(buffer.get(..len).unwrap_or_default(), sink) {
                return Ok(reply.message.map(|message| String::from_utf8_lossy(&message).into_owned()));
            }
        }
    }

    /// What may stand at byte `cursor` of `line`.
    pub(crate) fn complete(&mut self, line: &str, cursor: usize) -> Result<Completion, Failure> {
        let mut json = Vec::new();
        self.request(&format!("{COMPLETE} {cursor} {line}"), &mut |part| {
            if let Part::Text(text) = part {
                json.extend_from_slice(text);
            }
        })?;
        Ok(serde_json::from_slice(&json).unwrap_or_default())
    }
}

/// Takes a reply apart, in whatever pieces it comes.
#[derive(Default)]
struct Reply {
    message: Option<Vec<u8>>,
    progress: Option<Vec<u8>>,
}

impl Reply {
    /// Returns whether the reply is complete.
    fn take(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(Part<'_>)) -> bool {
        while let Some(mark) = bytes.iter().position(|byte| *byte <= PROGRESS_END) {
            let (text, rest) = bytes.split_at(mark);
            self.text(text, sink);
            match rest.first() {
                Some(&ACK) => return true,
                Some(&FAILED) => self.message = Some(Vec::new()),
                Some(&PROGRESS_START) => self.progress = Some(Vec::new()),
                _ => {
                    if let Some(line) = self.progress.take() {
                        sink(Part::Progress(&String::from_utf8_lossy(&line)));
                    }
                }
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.text(bytes, sink);
        false
    }

    fn text(&mut self, text: &[u8], sink: &mut dyn FnMut(Part<'_>)) {
        match (&mut self.progress, &mut self.message) {
            _ if text.is_empty() => {}
            (Some(kept), _) | (None, Some(kept)) => {
                let room = MAX_MESSAGE.saturating_sub(kept.len());
                kept.extend(text.iter().take(room));
            }
            (None, None) => sink(Part::Text(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_in_any_pieces() {
        let bytes = b"one\x0210%\x03two\n\x01no luck\n\0";
        for size in 1..=bytes.len() {
            let (mut reply, mut text, mut progress) = (Reply::default(), Vec::new(), Vec::new());
            let mut complete = false;
            for piece in bytes.chunks(size) {
                assert!(!complete);
                complete = reply.take(piece, &mut |part| match part {
                    Part::Text(bytes) => text.extend_from_slice(bytes),
                    Part::Progress(line) => progress.push(line.to_string()),
                });
            }
            assert!(complete);
            assert_eq!((&text[..], &progress[..]), (&b"onetwo\n"[..], &["10%".to_string()][..]));
            assert_eq!(reply.message.as_deref(), Some(&b"no luck\n"[..]));
        }
    }
}
