//! One client of the server, on its own thread.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::editor::{Action, Editor};
use super::server::ServerConfig;
use super::session::{Executor, MAX_DOCUMENT_REQUEST, Outcome, Session, Terminal};
use super::telnet::{self, ACK, Decoder, Event, FAILED};
use super::token::is_comment;
use crate::access::{Place, Rights, TokenBucket};

/// How long a client may take to name its terminal before it gets an interactive session.
const WELCOME_AFTER: Duration = Duration::from_secs(1);
/// vppctl passes on its input as it comes; what has no newline after this time is a line nonetheless.
const LINE_AFTER: Duration = Duration::from_millis(250);
/// At the first acknowledgement after the end of its input vppctl quits, and one that comes before that end
/// leaves it waiting for ever. So an acknowledgement waits this long for more input.
const ACK_AFTER: Duration = Duration::from_millis(2);
/// How long a client may leave its output unread.
const UNREAD_FOR: Duration = Duration::from_secs(30);

/// Serves a client until it leaves or misbehaves. The error is of interest to a log only.
pub(crate) fn serve(
    stream: &UnixStream,
    executor: &dyn Executor,
    config: &ServerConfig,
    (place, rights): (&Place, Rights),
) -> io::Result<()> {
    stream.set_write_timeout(Some(UNREAD_FOR))?;
    let mut connection = Connection {
        stream,
        executor,
        config,
        place,
        rights,
        bucket: TokenBucket::new(config.access.limits.cli_rate, Instant::now()),
        terminal: None,
        decoder: Decoder::new(),
        request: Vec::new(),
        open_braces: 0,
        acks: 0,
        editor: Editor::default(),
    };
    connection.send(&telnet::OPTIONS)?;
    let mut buffer = [0; 4096];
    loop {
        let wait = match connection.terminal {
            None => Some(WELCOME_AFTER),
            Some(Terminal::Vppctl) if !connection.request.is_empty() => Some(LINE_AFTER),
            Some(Terminal::Vppctl) if connection.acks > 0 => Some(ACK_AFTER),
            Some(_) => None,
        };
        stream.set_read_timeout(wait)?;
        let mut reader = stream;
        let read = match reader.read(&mut buffer) {
            Ok(0) => return connection.idle().map(|_| ()),
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if !connection.idle()? {
                    return Ok(());
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        for byte in buffer.iter().take(read) {
            if !connection.byte(*byte)? {
                return Ok(());
            }
        }
    }
}

struct Connection<'a> {
    stream: &'a UnixStream,
    executor: &'a dyn Executor,
    config: &'a ServerConfig,
    place: &'a Place,
    rights: Rights,
    bucket: TokenBucket,
    /// Unknown until the client names it or time is up.
    terminal: Option<Terminal>,
    decoder: Decoder,
    /// Line mode: what came so far.
    request: Vec<u8>,
    open_braces: i64,
    /// How many acknowledgements vppctl is owed.
    acks: usize,
    editor: Editor,
}

impl Connection<'_> {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Text for a person's terminal, which needs carriage returns.
    fn print(&mut self, text: &str) -> io::Result<()> {
        let text = text.replace('\0', "").replace('\n', "\r\n");
        self.send(text.as_bytes())
    }

    /// Nothing comes, for now or for ever. This function and those below return whether the session goes on.
    fn idle(&mut self) -> io::Result<bool> {
        match self.terminal {
            None => self.welcome().map(|()| true),
            Some(Terminal::Vppctl) => {
                let goes_on = self.request.is_empty() || self.request()?;
                self.acknowledge()?;
                Ok(goes_on)
            }
            Some(_) => Ok(true),
        }
    }

    fn acknowledge(&mut self) -> io::Result<()> {
        let acks = vec![ACK; std::mem::take(&mut self.acks)];
        self.send(&acks)
    }

    fn byte(&mut self, byte: u8) -> io::Result<bool> {
        match self.decoder.push(byte) {
            None => Ok(true),
            Some(Event::TerminalType(name)) => self.identify(&name).map(|()| true),
            Some(Event::AskTerminalType) => Ok(true),
            Some(Event::AreYouThere) => self.print("wharf\n").map(|()| true),
            Some(Event::Byte(byte)) => match self.terminal {
                Some(Terminal::Vppctl | Terminal::Wharfctl) => self.line_byte(byte),
                Some(Terminal::Interactive) => self.key(byte),
                // One that types at once does not speak telnet.
                None => {
                    self.welcome()?;
                    self.key(byte)
                }
            },
        }
    }

    fn identify(&mut self, name: &str) -> io::Result<()> {
        match name {
            telnet::VPPCTL => self.terminal = Some(Terminal::Vppctl),
            telnet::WHARFCTL => self.terminal = Some(Terminal::Wharfctl),
            _ if self.terminal.is_none() => self.welcome()?,
            _ => {}
        }
        self.place.update(|record| record.name = name.chars().take(32).collect());
        Ok(())
    }

    fn welcome(&mut self) -> io::Result<()> {
        self.terminal = Some(Terminal::Interactive);
        let banner = self.config.banner.clone().unwrap_or_default();
        self.print(&format!("{banner}{}", self.config.prompt))
    }

    fn line_byte(&mut self, byte: u8) -> io::Result<bool> {
        let max = match self.terminal {
            Some(Terminal::Wharfctl) if self.request.starts_with(b"config ") => MAX_DOCUMENT_REQUEST,
            _ => self.config.access.limits.cli_request,
        };
        if self.request.len() >= max {
            let error = format!("request longer than {max} bytes");
            self.reply(Outcome { text: String::new(), error: Some(error) }, Vec::new())?;
            return self.acknowledge().map(|()| false);
        }
        let ends = match (self.terminal, byte) {
            (Some(Terminal::Wharfctl), 0) => true,
            // vppctl sends a NUL behind the newline of its one command, and after that waits for us.
            (_, 0) if self.request.is_empty() => return self.acknowledge().map(|()| true),
            // Also when that left a block open.
            (_, 0) => true,
            (Some(Terminal::Vppctl), b'\n') => {
                self.open_braces <= 0 || std::str::from_utf8(&self.request).is_ok_and(is_comment)
            }
            _ => false,
        };
        if ends {
            return self.request();
        }
        match byte {
            b'{' => self.open_braces += 1,
            b'}' => self.open_braces -= 1,
            _ => {}
        }
        self.request.push(byte);
        Ok(true)
    }

    /// Runs what line mode has collected.
    fn request(&mut self) -> io::Result<bool> {
        let request = std::mem::take(&mut self.request);
        self.open_braces = 0;
        let text = String::from_utf8_lossy(&request);
        let terminal = self.terminal.unwrap_or(Terminal::Vppctl);
        // Untrimmed: a blank before the cursor says that the word is complete.
        if let (Terminal::Wharfctl, Some(rest)) = (terminal, text.strip_prefix(telnet::COMPLETE)) {
            let outcome = self.complete_request(rest);
            return self.reply(outcome, Vec::new()).map(|()| true);
        }
        let line = text.trim();
        if is_quit(line) {
            return Ok(false);
        }
        let (outcome, owed) = self.execute(line, terminal);
        self.reply(outcome, owed).map(|()| true)
    }

    fn execute(&mut self, line: &str, terminal: Terminal) -> (Outcome, Vec<u8>) {
        if line.is_empty() {
            return (Outcome::default(), Vec::new());
        }
        while let Err(at) = self.bucket.take(Instant::now()) {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
        }
        self.place.update(|record| record.requests += 1);
        let session = Session::new(terminal, self.stream, self.rights);
        let outcome = self.executor.execute(line, &session);
        (outcome, session.take_owed())
    }

    fn complete_request(&self, rest: &str) -> Outcome {
        let rest = rest.trim_start();
        let (cursor, line) = rest.split_once(' ').unwrap_or((rest, ""));
        let found = match cursor.parse() {
            Ok(cursor) => self.executor.complete(line, cursor),
            Err(_) => return Outcome { text: String::new(), error: Some("no cursor".into()) },
        };
        match serde_json::to_string(&found) {
            Ok(text) => Outcome { text, error: None },
            Err(error) => Outcome { text: String::new(), error: Some(error.to_string()) },
        }
    }

    /// The reply of line mode. The marks of the protocol can't come from a command's own text.
    fn reply(&mut self, outcome: Outcome, owed: Vec<u8>) -> io::Result<()> {
        let marks = self.terminal == Some(Terminal::Wharfctl);
        let is_mark = |byte: u8| byte == ACK || (marks && byte <= telnet::PROGRESS_END);
        let mut reply = owed;
        push_lines(&mut reply, outcome.text.bytes().filter(|byte| !is_mark(*byte)));
        if let Some(error) = outcome.error {
            if marks {
                reply.push(FAILED);
            }
            push_lines(&mut reply, error.bytes().filter(|byte| !is_mark(*byte)));
        }
        if marks {
            reply.push(ACK);
        } else {
            self.acks += 1;
        }
        self.send(&reply)
    }

    fn key(&mut self, byte: u8) -> io::Result<bool> {
        let mut echo = String::new();
        let action = self.editor.key(byte, &mut echo);
        match action {
            Action::None => {}
            Action::Close => return self.print("quit\n").map(|()| false),
            Action::Run(line) => {
                self.print(&echo)?;
                let line = line.trim();
                if is_quit(line) {
                    return Ok(false);
                }
                let (outcome, _) = self.execute(line, Terminal::Interactive);
                let mut text = Vec::new();
                push_lines(&mut text, outcome.text.bytes());
                push_lines(&mut text, outcome.error.unwrap_or_default().bytes());
                text.extend(self.config.prompt.bytes());
                echo = String::from_utf8_lossy(&text).into_owned();
            }
            Action::Complete => self.tab(&mut echo),
            Action::Help => {
                let found = self.executor.complete(self.editor.line(), self.editor.cursor());
                echo.push_str("?\n");
                for candidate in &found.candidates {
                    let line = format!("  {:<24} {}", candidate.text, candidate.help);
                    echo.push_str(line.trim_end());
                    echo.push('\n');
                }
                self.editor.redraw(&self.config.prompt, &mut echo);
            }
        }
        self.print(&echo).map(|()| true)
    }

    /// Inserts what all candidates share, and lists them when that is nothing.
    fn tab(&mut self, echo: &mut String) {
        let found = self.executor.complete(self.editor.line(), self.editor.cursor());
        let words: Vec<&str> = found.words().collect();
        let Some(first) = words.first() else { return echo.push('\x07') };
        let shared = words.iter().fold(first.len(), |shared, word| {
            let same = first.bytes().zip(word.bytes()).take_while(|(a, b)| a == b).count();
            shared.min(same)
        });
        let typed = self.editor.cursor().saturating_sub(found.start);
        let mut more = first.get(typed..shared).unwrap_or_default().to_string();
        if words.len() == 1 {
            more.push(' ');
        }
        if !more.is_empty() {
            return self.editor.insert(&more, echo);
        }
        echo.push('\n');
        echo.push_str(&words.join("  "));
        echo.push('\n');
        self.editor.redraw(&self.config.prompt, echo);
    }
}

fn is_quit(line: &str) -> bool {
    matches!(line, "quit" | "q" | "exit")
}

/// Appends text, and the newline that it may lack.
fn push_lines(to: &mut Vec<u8>, text: impl Iterator<Item = u8>) {
    let before = to.len();
    to.extend(text);
    if to.len() > before && to.last() != Some(&b'\n') {
        to.push(b'\n');
    }
}
