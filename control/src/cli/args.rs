//! What a command's function receives: its arguments; and what it returns when it can't: an error.

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::refusal::Refusal;

use super::value::{FromValue, Prefix, Value, read};

/// Why a command failed, in words for the operator.
///
/// Every `std::error::Error` converts into it, so that `?` works on the operations; for that reason it is
/// not one itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    message: String,
    /// The arguments that it is about; of these, the first that was given.
    about: Vec<&'static str>,
    /// The word that it is about, from 1.
    word: Option<usize>,
}

impl CliError {
    /// An error with this message. No trailing newline, no leading path, no position: the tree adds the path, and the word
    /// of the argument that [`CliError::about`] names.
    pub fn new(message: impl Into<String>) -> CliError {
        CliError { message: message.into(), about: Vec::new(), word: None }
    }

    /// The argument that the error is about, by its name in the syntax. More than one where a command calls it
    /// differently than the operation does: the first that was given counts.
    pub fn about(mut self, argument: &'static str) -> CliError {
        self.about.push(argument);
        self
    }

    /// The word that it is about, counted from 1.
    pub(crate) fn at(mut self, word: usize) -> CliError {
        self.word = Some(word);
        self
    }

    /// Finds the word of the argument that it is about.
    pub(crate) fn locate(mut self, args: &Args) -> CliError {
        self.word = self.word.or_else(|| self.about.iter().find_map(|argument| args.word(argument)));
        self
    }

    /// The same error with `prefix: ` in front, and the position behind.
    pub(crate) fn within(self, prefix: &str) -> CliError {
        CliError::new(format!("{prefix}: {self}"))
    }
}

/// Says which argument an error is about.
pub trait About<T> {
    /// As [`CliError::about`].
    ///
    /// # Errors
    /// The error that there was.
    fn about(self, argument: &'static str) -> Result<T, CliError>;
}

impl<T, E: Into<CliError>> About<T> for Result<T, E> {
    fn about(self, argument: &'static str) -> Result<T, CliError> {
        self.map_err(|error| error.into().about(argument))
    }
}

impl Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.word.map_or(Ok(()), |word| write!(f, " (word {word})"))
    }
}

impl<E: std::error::Error + 'static> From<E> for CliError {
    fn from(error: E) -> CliError {
        let about = Refusal::find(&error).map(|refusal| refusal.parameter);
        CliError { message: error.to_string(), about: about.into_iter().collect(), word: None }
    }
}

/// One matched keyword or parameter.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Arc<str>,
    pub(crate) value: Value,
    /// Its place in the line, counted from 1.
    pub(crate) word: usize,
    /// Which turn of the repeated group it belongs to, from 1; 0 outside.
    pub(crate) turn: u32,
}

/// The arguments of one run of a command, by the names that its syntax gives them.
#[derive(Clone, Debug)]
pub struct Args {
    pub(crate) entries: Vec<Entry>,
    /// Every name of the syntax: asking for another one is a mistake in the command.
    pub(crate) declared: Arc<[Arc<str>]>,
}

impl Args {
    fn check(&self, name: &str) -> Result<(), CliError> {
        let declared = self.declared.iter().any(|known| &**known == name);
        debug_assert!(declared, "`{name}' is not in the syntax of this command");
        match declared {
            true => Ok(()),
            false => Err(CliError::new(format!("`{name}' is not in the syntax of this command"))),
        }
    }

    /// All that was given under this name.
    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| &*entry.name == name)
    }

    /// The values of a parameter, not the keyword that it is called as.
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.named(name).filter(|entry| entry.value != Value::Flag)
    }

    /// The word that holds an argument, counted from 1.
    fn word(&self, name: &str) -> Option<usize> {
        self.values(name).chain(self.named(name)).next().map(|entry| entry.word)
    }

    /// Whether the keyword or parameter was given.
    pub fn flag(&self, name: &str) -> bool {
        let _ = self.check(name);
        self.named(name).next().is_some()
    }

    /// The value of an optional parameter, `None` when it was not given.
    pub fn opt<T: FromValue>(&self, name: &str) -> Result<Option<T>, CliError> {
        self.check(name)?;
        self.values(name).next().map(read).transpose()
    }

    /// The value of a parameter that this command can't do without.
    pub fn get<T: FromValue>(&self, name: &str) -> Result<T, CliError> {
        self.opt(name)?.ok_or_else(|| CliError::new(format!("missing <{name}>")))
    }

    /// All values of a parameter that a repeated group holds.
    pub fn all<T: FromValue>(&self, name: &str) -> Result<Vec<T>, CliError> {
        self.check(name)?;
        self.values(name).map(read).collect()
    }

    /// A required number.
    pub fn u32(&self, name: &str) -> Result<u32, CliError> {
        self.get(name)
    }

    /// A required number of at most 65535.
    pub fn u16(&self, name: &str) -> Result<u16, CliError> {
        self.get(name)
    }

    /// A required address of either family.
    pub fn ip(&self, name: &str) -> Result<IpAddr, CliError> {
        self.get(name)
    }

    /// A required IPv4 address.
    pub fn ip4(&self, name: &str) -> Result<Ipv4Addr, CliError> {
        self.get(name)
    }

    /// A required prefix, host bits as written.
    pub fn prefix(&self, name: &str) -> Result<Prefix, CliError> {
        self.get(name)
    }

    /// A required MAC address.
    pub fn mac(&self, name: &str) -> Result<[u8; 6], CliError> {
        self.get(name)
    }

    /// A required text: of a `<word>`, `<path>`, `<node>`, `<block>`, or the name of an `<interface>`.
    pub fn text(&self, name: &str) -> Result<String, CliError> {
        self.get(name)
    }

    /// The software interface index of a required `<interface>`.
    pub fn interface(&self, name: &str) -> Result<u32, CliError> {
        self.opt_interface(name)?.ok_or_else(|| CliError::new(format!("missing <{name}>")))
    }

    /// The software interface index of an optional `<interface>`.
    pub fn opt_interface(&self, name: &str) -> Result<Option<u32>, CliError> {
        self.check(name)?;
        match self.values(name).next().map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Interface { index, .. }) => Ok(Some(*index)),
            Some(_) => Err(CliError::new(format!("<{name}> is not declared as an interface"))),
        }
    }

    /// The text that a `<line>` parameter took, empty when there was none.
    pub fn rest(&self, name: &str) -> String {
        self.opt(name).ok().flatten().unwrap_or_default()
    }

    /// The arguments of each turn of the repeated group (`{via <ip4> [weight <n>]}...`), in order.
    pub fn turns(&self) -> Vec<Args> {
        let count = self.entries.iter().map(|entry| entry.turn).max().unwrap_or(0);
        let mut turns = vec![Args { entries: Vec::new(), declared: self.declared.clone() }; count as usize];
        for entry in &self.entries {
            if let Some(turn) = (entry.turn as usize).checked_sub(1).and_then(|turn| turns.get_mut(turn)) {
                turn.entries.push(entry.clone());
            }
        }
        turns
    }
}
