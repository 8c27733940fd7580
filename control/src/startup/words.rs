//! Words and blocks of a startup.conf, and the reader that walks them.

use std::fmt;
use std::str::FromStr;

/// How deep blocks may nest.
const MAX_DEPTH: usize = 16;

/// A place in the text, both counted from 1; the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// What is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {message}")]
pub struct ConfigError {
    /// Where.
    pub at: Position,
    /// What was wrong, and what was expected.
    pub message: String,
}

impl ConfigError {
    pub(crate) fn new(at: Position, message: impl Into<String>) -> ConfigError {
        ConfigError { at, message: message.into() }
    }
}

/// Something in a configuration that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Where.
    pub at: Position,
    /// What has no effect.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) at: Position,
    pub(crate) text: String,
}

#[derive(Debug)]
pub(crate) enum Item {
    Word(Word),
    Block(Block),
}

#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) at: Position,
    pub(crate) items: Vec<Item>,
    /// Where the closing brace is, or the end of the text.
    pub(crate) end: Position,
}

/// Splits a text into nested blocks. Braces are words wherever they stand, `#` begins a comment where a word
/// could begin, and double quotes keep anything but a double quote together.
pub(crate) fn parse(text: &str) -> Result<Block, ConfigError> {
    let mut at = Position { line: 1, column: 1 };
    let mut open = vec![Block { at, items: Vec::new(), end: at }];
    let mut chars = text.chars().peekable();
    let step = |at: &mut Position, c: char| match c {
        '\n' => *at = Position { line: at.line.saturating_add(1), column: 1 },
        _ => at.column = at.column.saturating_add(1),
    };
    while let Some(c) = chars.next() {
        let start = at;
        step(&mut at, c);
        match c {
            '#' => {
                while let Some(c) = chars.next_if(|c| *c != '\n') {
                    step(&mut at, c);
                }
            }
            '{' if open.len() > MAX_DEPTH => {
                return Err(ConfigError::new(start, format!("blocks nest deeper than {MAX_DEPTH}")));
            }
            '{' => open.push(Block { at: start, items: Vec::new(), end: start }),
            '}' => {
                let block = open.pop();
                match (block, open.last_mut()) {
                    (Some(mut block), Some(parent)) => {
                        block.end = start;
                        parent.items.push(Item::Block(block));
                    }
                    _ => return Err(ConfigError::new(start, "`}' without a `{'")),
                }
            }
            c if c.is_whitespace() => {}
            _ => {
                let mut word = String::new();
                if c == '"' {
                    while let Some(c) = chars.next_if(|c| *c != '"') {
                        step(&mut at, c);
                        word.push(c);
                    }
                    match chars.next() {
                        Some(quote) => step(&mut at, quote),
                        None => return Err(ConfigError::new(start, "missing closing quote")),
                    }
                } else {
                    word.push(c);
                    while let Some(c) = chars.next_if(|c| !c.is_whitespace() && *c != '{' && *c != '}') {
                        step(&mut at, c);
                        word.push(c);
                    }
                }
                if let Some(block) = open.last_mut() {
                    block.items.push(Item::Word(Word { at: start, text: word }));
                }
            }
        }
    }
    match (open.pop(), open.is_empty()) {
        (Some(mut root), true) => {
            root.end = at;
            Ok(root)
        }
        (block, _) => {
            let opened = block.map_or(at, |block| block.at);
            Err(ConfigError::new(at, format!("expected `}}' for the `{{' at {opened}")))
        }
    }
}

/// A number with a suffix of VPP's: K, M or G, of 1024.
pub(crate) fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.chars().next_back()? {
        'K' | 'k' => (text.get(..text.len() - 1)?, 10),
        'M' | 'm' => (text.get(..text.len() - 1)?, 20),
        'G' | 'g' => (text.get(..text.len() - 1)?, 30),
        _ => (text, 0),
    };
    let number: u64 = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    number.checked_mul(1 << shift)
}

/// Walks the keys and values of one block.
pub(crate) struct Reader<'a> {
    block: &'a Block,
    next: usize,
    /// The name for messages: `cpu`.
    stanza: &'a str,
    /// The keys that this stanza has: where an unknown key's values end.
    keys: &'a [&'a str],
    pub(crate) warnings: Vec<Warning>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(block: &'a Block, stanza: &'a str, keys: &'a [&'a str]) -> Reader<'a> {
        Reader { block, next: 0, stanza, keys, warnings: Vec::new() }
    }

    /// The next key.
    pub(crate) fn key(&mut self) -> Result<Option<&'a Word>, ConfigError> {
        match self.block.items.get(self.next) {
            None => Ok(None),
            Some(Item::Word(word)) => {
                self.next += 1;
                Ok(Some(word))
            }
            Some(Item::Block(block)) => {
                Err(ConfigError::new(block.at, format!("expected a key of `{}', got `{{'", self.stanza)))
            }
        }
    }

    /// The value of a key; `what` says what it has to be.
    pub(crate) fn value(&mut self, key: &Word, what: &str) -> Result<&'a Word, ConfigError> {
        let at = match self.block.items.get(self.next) {
            Some(Item::Word(word)) => {
                self.next += 1;
                return Ok(word);
            }
            Some(Item::Block(block)) => block.at,
            None => self.block.end,
        };
        Err(ConfigError::new(at, format!("expected {what} after `{}'", key.text)))
    }

    /// A text value.
    pub(crate) fn text(&mut self, key: &Word, what: &str) -> Result<String, ConfigError> {
        Ok(self.value(key, what)?.text.clone())
    }

    /// A number with bounds.
    pub(crate) fn number<T>(&mut self, key: &Word, min: T, max: T) -> Result<T, ConfigError>
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let what = format!("a number from {min} to {max}");
        let word = self.value(key, &what)?;
        let digits = word.text.bytes().all(|byte| byte.is_ascii_digit());
        word.text.parse().ok().filter(|number| digits && (min..=max).contains(number)).ok_or_else(|| {
            ConfigError::new(word.at, format!("`{}' must be {what}, got `{}'", key.text, word.text))
        })
    }

    /// A number or a size with bounds: 4096, 64K, 2M, 1G.
    pub(crate) fn size(&mut self, key: &Word, min: u64, max: u64) -> Result<u64, ConfigError> {
        let most = if max == u64::MAX { String::new() } else { format!(" and at most {max}") };
        let what = format!("a number such as 4096, 64K, 2M or 1G, at least {min}{most}");
        let word = self.value(key, &what)?;
        size(&word.text).filter(|number| (min..=max).contains(number)).ok_or_else(|| {
            ConfigError::new(word.at, format!("`{}' must be {what}, got `{}'", key.text, word.text))
        })
    }

    /// The block of a key.
    pub(crate) fn block(&mut self, key: &Word) -> Result<&'a Block, ConfigError> {
        let at = match self.block.items.get(self.next) {
            Some(Item::Block(block)) => {
                self.next += 1;
                return Ok(block);
            }
            Some(Item::Word(word)) => word.at,
            None => self.block.end,
        };
        Err(ConfigError::new(at, format!("expected `{{' after `{}'", key.text)))
    }

    pub(crate) fn is_block_next(&self) -> bool {
        matches!(self.block.items.get(self.next), Some(Item::Block(_)))
    }

    pub(crate) fn warn(&mut self, at: Position, message: impl Into<String>) {
        self.warnings.push(Warning { at, message: message.into() });
    }

    /// Passes over a key that means nothing here, and over what looks like its values: the words of its
    /// line that are no keys, and a block.
    pub(crate) fn skip(&mut self, key: &Word) {
        while let Some(item) = self.block.items.get(self.next) {
            match item {
                Item::Word(word)
                    if word.at.line != key.at.line || self.keys.contains(&word.text.as_str()) =>
                {
                    break;
                }
                Item::Word(_) => self.next += 1,
                Item::Block(_) => {
                    self.next += 1;
                    break;
                }
            }
        }
    }

    /// As [`Reader::skip`], with a warning.
    pub(crate) fn unknown(&mut self, key: &Word) {
        self.warn(key.at, format!("`{}' has no key `{}': ignored", self.stanza, key.text));
        self.skip(key);
    }
}
