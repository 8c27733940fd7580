//! What the server hands a line to, and what a command may know of the client that sent it.

use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::complete::Completion;
use super::telnet::{PROGRESS_END, PROGRESS_START};
use crate::access::Rights;

/// The longest request that a client may send unless the operator says otherwise, in bytes.
pub const MAX_REQUEST: usize = 1 << 20;
/// The longest request of wharfctl that carries a document.
pub const MAX_DOCUMENT_REQUEST: usize = crate::config::MAX_DOCUMENT + 64;
/// The longest progress line, in bytes.
const MAX_PROGRESS: usize = 256;

/// Runs lines for the server, on the thread of the client that sent them.
pub trait Executor: Send + Sync {
    /// Runs one line, or one statement that spans lines.
    fn execute(&self, line: &str, session: &Session<'_>) -> Outcome;
    /// What may stand at byte `cursor` of `line`.
    fn complete(&self, line: &str, cursor: usize) -> Completion;
}

/// What became of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What the command printed, also before it failed.
    pub text: String,
    /// Why it failed.
    pub error: Option<String>,
}

/// The kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// A person, with prompt and echo.
    Interactive,
    /// vppctl with a command or a script.
    Vppctl,
    /// wharfctl, which also understands failures and progress.
    Wharfctl,
}

/// The client behind a line.
pub struct Session<'a> {
    terminal: Terminal,
    client: Option<&'a UnixStream>,
    rights: Rights,
    /// The rest of a progress line that the socket took only in part.
    owed: Mutex<Vec<u8>>,
}

impl<'a> Session<'a> {
    /// A session without a client, for lines that come from elsewhere.
    pub fn detached(rights: Rights) -> Session<'static> {
        Session { terminal: Terminal::Vppctl, client: None, rights, owed: Mutex::default() }
    }

    pub(crate) fn new(terminal: Terminal, client: &'a UnixStream, rights: Rights) -> Session<'a> {
        Session { terminal, client: Some(client), rights, owed: Mutex::default() }
    }

    /// What its lines may do.
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// The kind of client.
    pub fn terminal(&self) -> Terminal {
        self.terminal
    }

    /// Shows one line of progress, where the client can. Never waits: a client that does not read misses it.
    pub fn progress(&self, line: &str) {
        let (Terminal::Wharfctl, Some(client)) = (self.terminal, self.client) else { return };
        let Ok(mut owed) = self.owed.lock() else { return };
        if !owed.is_empty() {
            return;
        }
        let mut frame = vec![PROGRESS_START];
        frame.extend(line.bytes().filter(|byte| *byte >= 0x20).take(MAX_PROGRESS));
        frame.push(PROGRESS_END);
        match send(client, &frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => *owed = frame.split_off(sent.min(frame.len())),
            Err(_) => tracing::trace!("progress line dropped"),
        }
    }

    /// Whether the client has gone, so that a long command can stop.
    pub fn is_closed(&self) -> bool {
        let Some(client) = self.client else { return false };
        let mut byte = [0u8; 1];
        matches!(recv(client, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((_, 0)))
    }

    /// What has to go out before anything else.
    pub(crate) fn take_owed(&self) -> Vec<u8> {
        self.owed.lock().map(|mut owed| std::mem::take(&mut *owed)).unwrap_or_default()
    }
}
