//! The bytes between a client and the server: telnet options as VPP and vppctl use them, and the marks
//! that end an output.
//!
//! The server opens with [`OPTIONS`], which ask for the terminal type. A client of type [`VPPCTL`] or
//! [`WHARFCTL`] is served line by line, without prompt and echo, and gets [`ACK`] after the output of each
//! line; any other type gets an interactive session. vppctl ends a line with a newline, wharfctl with a NUL
//! (so that a statement may span lines). Only wharfctl sees the other marks:
//!
//! ```text
//! reply = { text | PROGRESS_START line PROGRESS_END } [ FAILED message ] ACK
//! ```

/// Interpret as command (RFC 854).
pub const IAC: u8 = 255;
const SE: u8 = 240;
const AYT: u8 = 246;
const SB: u8 = 250;
const WILL: u8 = 251;
const WONT: u8 = 252;
const DO: u8 = 253;
const DONT: u8 = 254;
/// RFC 857.
const ECHO: u8 = 1;
/// Suppress go ahead, RFC 858.
const SGA: u8 = 3;
/// Terminal type, RFC 1091.
const TTYPE: u8 = 24;
/// Window size, RFC 1073.
const NAWS: u8 = 31;
/// RFC 1184.
const LINEMODE: u8 = 34;
const IS: u8 = 0;
const SEND: u8 = 1;

/// What the server sends first, in one write: vppctl reads 100 bytes at a time and does not expect a
/// command to be split.
pub const OPTIONS: [u8; 36] = [
    IAC, WONT, LINEMODE, IAC, DONT, LINEMODE, IAC, WILL, SGA, IAC, DO, SGA, IAC, WILL, ECHO, IAC, DONT, ECHO,
    IAC, DO, TTYPE, IAC, SB, TTYPE, SEND, IAC, SE, IAC, DO, NAWS, IAC, SB, NAWS, SEND, IAC, SE,
];

/// The terminal type of vppctl when it runs one command.
pub const VPPCTL: &str = "vppctl";
/// The terminal type of wharfctl.
pub const WHARFCTL: &str = "wharfctl";

/// Ends the output of one line.
pub const ACK: u8 = 0;
/// Between the output and the message of a command that failed.
pub const FAILED: u8 = 1;
/// Begins a progress line, which may stand anywhere in an output.
pub const PROGRESS_START: u8 = 2;
/// Ends a progress line.
pub const PROGRESS_END: u8 = 3;

/// The hidden command by which wharfctl asks for a [`super::Completion`], as JSON:
/// `__complete <cursor in bytes> <line>`.
pub const COMPLETE: &str = "__complete";

/// The longest option that is kept; longer ones are cut.
const MAX_OPTION: usize = 128;

/// What a byte completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A byte of text.
    Byte(u8),
    /// The peer's terminal type.
    TerminalType(String),
    /// The peer asks for ours.
    AskTerminalType,
    /// The peer wants a sign of life.
    AreYouThere,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Text,
    Command,
    /// After WILL, WONT, DO, DONT: the option follows.
    Negotiation,
    Option,
    /// After an IAC inside an option.
    OptionCommand,
}

/// Separates telnet commands from text, byte by byte. Takes any input.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    option: Vec<u8>,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Takes one byte.
    pub fn push(&mut self, byte: u8) -> Option<Event> {
        let (next, event) = match (self.state, byte) {
            (State::Text, IAC) => (State::Command, None),
            (State::Text, _) => (State::Text, Some(Event::Byte(byte))),
            (State::Command, WILL | WONT | DO | DONT) => (State::Negotiation, None),
            (State::Command, SB) => {
                self.option.clear();
                (State::Option, None)
            }
            (State::Command, AYT) => (State::Text, Some(Event::AreYouThere)),
            // An escaped 0xff is no character of a command line; nor is another command.
            (State::Command | State::Negotiation, _) => (State::Text, None),
            (State::Option, IAC) => (State::OptionCommand, None),
            (State::Option, _) | (State::OptionCommand, IAC) => {
                if self.option.len() < MAX_OPTION {
                    self.option.push(byte);
                }
                (State::Option, None)
            }
            (State::OptionCommand, _) => (State::Text, self.option_event()),
        };
        self.state = next;
        event
    }

    fn option_event(&self) -> Option<Event> {
        match self.option.as_slice() {
            [TTYPE, IS, name @ ..] => Some(Event::TerminalType(String::from_utf8_lossy(name).into_owned())),
            [TTYPE, SEND] => Some(Event::AskTerminalType),
            _ => None,
        }
    }
}

/// The answer to [`Event::AskTerminalType`].
pub fn terminal_type(name: &str) -> Vec<u8> {
    [&[IAC, SB, TTYPE, IS], name.as_bytes(), &[IAC, SE]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Vec<Event> {
        let mut decoder = Decoder::new();
        bytes.iter().filter_map(|byte| decoder.push(*byte)).collect()
    }

    #[test]
    fn the_options_ask_for_the_terminal_type_and_hold_no_text() {
        assert_eq!(decode(&OPTIONS), [Event::AskTerminalType]);
    }

    #[test]
    fn text_around_commands() {
        let mut stream = b"a".to_vec();
        stream.extend(terminal_type("xterm"));
        stream.extend([IAC, IAC, b'b', IAC, AYT, IAC, WILL, ECHO, b'c']);
        assert_eq!(
            decode(&stream),
            [
                Event::Byte(b'a'),
                Event::TerminalType("xterm".into()),
                Event::Byte(b'b'),
                Event::AreYouThere,
                Event::Byte(b'c')
            ]
        );
    }

    #[test]
    fn an_endless_option_is_cut() {
        let mut decoder = Decoder::new();
        for byte in [IAC, SB, TTYPE, IS].into_iter().chain(std::iter::repeat_n(b'x', 1 << 20)) {
            assert_eq!(decoder.push(byte), None);
        }
        assert!(decoder.option.len() <= MAX_OPTION && decoder.option.capacity() <= 2 * MAX_OPTION);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken(bytes: Vec<u8>) {
            let text = decode(&bytes).iter().filter(|event| matches!(event, Event::Byte(_))).count();
            proptest::prop_assert!(text <= bytes.len());
        }
    }
}
