//! Line editing for interactive sessions: keys in, echo out. It needs nothing of the terminal but `\b`.

/// The longest line, in bytes.
const MAX_LINE: usize = 4096;
/// How many lines are remembered.
const MAX_HISTORY: usize = 50;

/// What a key asks the session to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing: the echo is all.
    None,
    /// Run this line.
    Run(String),
    /// Complete the word at the cursor.
    Complete,
    /// Show what may come next.
    Help,
    /// The end of input (Ctrl-D on an empty line).
    Close,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Plain,
    /// After a carriage return: a newline or a NUL belongs to it.
    Return,
    Escape,
    /// In `ESC [ number`.
    Sequence(u8),
}

/// One line being edited; printable ASCII only, so that a byte is a column.
#[derive(Debug, Default)]
pub(crate) struct Editor {
    line: String,
    cursor: usize,
    history: Vec<String>,
    /// The line of the history that is shown, counted from its end; 0 is none.
    recalled: usize,
    state: State,
}

impl Editor {
    pub(crate) fn line(&self) -> &str {
        &self.line
    }

    pub(crate) fn cursor(&self) -> usize {
        self.cursor
    }

    /// Takes one byte of input and appends the echo to `out`.
    pub(crate) fn key(&mut self, byte: u8, out: &mut String) -> Action {
        let state = std::mem::take(&mut self.state);
        match (state, byte) {
            (State::Return, b'\n' | 0) => return Action::None,
            (State::Escape, b'[' | b'O') => {
                self.state = State::Sequence(0);
                return Action::None;
            }
            (State::Escape, _) => return Action::None,
            (State::Sequence(_), b'0'..=b'9') => {
                self.state = State::Sequence(byte);
                return Action::None;
            }
            (State::Sequence(_), b';') => {
                self.state = state;
                return Action::None;
            }
            (State::Sequence(number), _) => {
                self.sequence(byte, number, out);
                return Action::None;
            }
            _ => {}
        }
        match byte {
            b'\r' | b'\n' => {
                if byte == b'\r' {
                    self.state = State::Return;
                }
                return Action::Run(self.accept(out));
            }
            0x1b => self.state = State::Escape,
            0x01 => self.go(0, out),
            0x02 => self.go(self.cursor.saturating_sub(1), out),
            // Ctrl-C: give the line up.
            0x03 => {
                self.accept(out);
                return Action::Run(String::new());
            }
            0x04 if self.line.is_empty() => return Action::Close,
            0x04 => self.delete(self.cursor, self.cursor + 1, out),
            0x05 => self.go(self.line.len(), out),
            0x06 => self.go(self.cursor + 1, out),
            0x08 | 0x7f => self.delete(self.cursor.saturating_sub(1), self.cursor, out),
            b'\t' => return Action::Complete,
            0x0b => self.delete(self.cursor, self.line.len(), out),
            0x0e => self.recall(self.recalled.saturating_sub(1), out),
            0x10 => self.recall(self.recalled + 1, out),
            0x15 => self.delete(0, self.cursor, out),
            // Ctrl-W: the word before the cursor and the blanks behind it.
            0x17 => {
                let before = self.line.get(..self.cursor).unwrap_or_default().trim_end();
                self.delete(before.rfind(' ').map_or(0, |at| at + 1), self.cursor, out);
            }
            b'?' => return Action::Help,
            b' '..=b'~' => self.insert(char::from(byte).encode_utf8(&mut [0; 4]), out),
            _ => {}
        }
        Action::None
    }

    /// Inserts printable text at the cursor.
    pub(crate) fn insert(&mut self, text: &str, out: &mut String) {
        let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !printable || self.line.len() + text.len() > MAX_LINE {
            out.push('\x07');
            return;
        }
        self.line.insert_str(self.cursor, text);
        out.push_str(self.line.get(self.cursor..).unwrap_or_default());
        self.cursor += text.len();
        back(self.line.len() - self.cursor, out);
    }

    /// Shows prompt and line again, on a fresh line.
    pub(crate) fn redraw(&self, prompt: &str, out: &mut String) {
        out.push_str(prompt);
        out.push_str(&self.line);
        back(self.line.len() - self.cursor, out);
    }

    fn sequence(&mut self, byte: u8, number: u8, out: &mut String) {
        match (byte, number) {
            (b'A', _) => self.recall(self.recalled + 1, out),
            (b'B', _) => self.recall(self.recalled.saturating_sub(1), out),
            (b'C', _) => self.go(self.cursor + 1, out),
            (b'D', _) => self.go(self.cursor.saturating_sub(1), out),
            (b'H', _) | (b'~', b'1' | b'7') => self.go(0, out),
            (b'F', _) | (b'~', b'4' | b'8') => self.go(self.line.len(), out),
            (b'~', b'3') => self.delete(self.cursor, self.cursor + 1, out),
            _ => {}
        }
    }

    fn accept(&mut self, out: &mut String) -> String {
        out.push('\n');
        self.cursor = 0;
        self.recalled = 0;
        let line = std::mem::take(&mut self.line);
        if !line.trim().is_empty() && self.history.last() != Some(&line) {
            if self.history.len() >= MAX_HISTORY {
                self.history.remove(0);
            }
            self.history.push(line.clone());
        }
        line
    }

    fn go(&mut self, to: usize, out: &mut String) {
        let to = to.min(self.line.len());
        match self.line.get(self.cursor..to) {
            Some(passed) => out.push_str(passed),
            None => back(self.cursor - to, out),
        }
        self.cursor = to;
    }

    fn delete(&mut self, from: usize, to: usize, out: &mut String) {
        let to = to.min(self.line.len());
        if from >= to {
            return;
        }
        self.go(from, out);
        self.line.replace_range(from..to, "");
        out.push_str(self.line.get(from..).unwrap_or_default());
        out.extend(std::iter::repeat_n(' ', to - from));
        back(self.line.len() - from + (to - from), out);
    }

    fn recall(&mut self, number: usize, out: &mut String) {
        let text = match number {
            0 => String::new(),
            _ => match self.history.iter().rev().nth(number - 1) {
                Some(line) => line.clone(),
                None => return,
            },
        };
        self.recalled = number;
        self.delete(0, self.line.len(), out);
        self.insert(&text, out);
    }
}

fn back(columns: usize, out: &mut String) {
    out.extend(std::iter::repeat_n('\x08', columns));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal of one endless line, without anything but `\b`.
    fn screen(echo: &str) -> String {
        let (mut cells, mut at) = (Vec::new(), 0usize);
        for c in echo.chars() {
            match c {
                '\x08' => at = at.checked_sub(1).expect("left of the prompt"),
                '\x07' => {}
                c => {
                    if at == cells.len() {
                        cells.push(c);
                    }
                    cells[at] = c;
                    at += 1;
                }
            }
        }
        cells.into_iter().collect::<String>().trim_end().to_string()
    }

    fn type_in(editor: &mut Editor, keys: &[u8]) -> (Vec<Action>, String) {
        let mut echo = String::new();
        let actions = keys.iter().map(|key| editor.key(*key, &mut echo)).filter(|a| *a != Action::None);
        (actions.collect(), echo)
    }

    #[test]
    fn editing() {
        for (keys, line) in [
            (&b"show ver"[..], "show ver"),
            (b"shw\x02o", "show"),
            (b"shxow\x1b[D\x1b[D\x7f", "show"),
            (b"how\x01s", "show"),
            (b"show\x01\x1b[3~\x05!", "how!"),
            (b"show version\x17", "show"),
            (b"show version  \x17x", "show x"),
            (b"show\x15ping", "ping"),
            (b"show\x1b[H\x1b[C\x0b", "s"),
            (b"a\xc3\xa9\x1b[1;5Cb", "ab"),
        ] {
            let mut editor = Editor::default();
            let (actions, echo) = type_in(&mut editor, keys);
            assert_eq!(actions, []);
            assert_eq!(editor.line().trim_end(), line, "{keys:?}");
            assert_eq!(screen(&echo), line, "{keys:?}");
        }
    }

    #[test]
    fn lines_and_history() {
        let mut editor = Editor::default();
        let (actions, _) = type_in(&mut editor, b"one\r\ntwo\r\0three\n\n");
        let run = |line: &str| Action::Run(line.into());
        assert_eq!(actions, [run("one"), run("two"), run("three"), run("")]);
        let (actions, _) = type_in(&mut editor, b"\x1b[A\x1b[A\x1bOA\x1b[A\x1b[B!\r");
        assert_eq!(actions, [run("two!")]);
        assert_eq!(type_in(&mut editor, b"x\x04\x08\x04").0, [Action::Close]);
        assert_eq!(type_in(&mut editor, b"abc\x03?\t").0, [run(""), Action::Help, Action::Complete]);
    }

    #[test]
    fn a_line_has_an_end() {
        let mut editor = Editor::default();
        type_in(&mut editor, &vec![b'x'; 3 * MAX_LINE]);
        assert_eq!(editor.line().len(), MAX_LINE);
    }

    proptest::proptest! {
        #[test]
        fn the_screen_shows_the_line(keys: Vec<u8>) {
            let mut editor = Editor::default();
            let mut echo = String::new();
            for key in keys {
                if !matches!(editor.key(key, &mut echo), Action::None) {
                    editor.line.clear();
                    editor.cursor = 0;
                    echo.clear();
                }
                proptest::prop_assert!(editor.cursor <= editor.line.len());
            }
            proptest::prop_assert_eq!(screen(&echo), editor.line.trim_end());
        }
    }
}
