//! Matching the words of a line against a command's syntax.

use std::sync::Arc;

use super::args::{Args, CliError, Entry};
use super::syntax::{Body, Group, Parameter, Sequence, Syntax, Then};
use super::token::Token;
use super::value::{Names, Type, Value};

/// What could stand at the place where matching stopped.
#[derive(Debug)]
pub(crate) enum Expected<'a> {
    /// A keyword, with the whole group that it begins.
    Keyword {
        word: &'a str,
        group: &'a str,
    },
    Parameter(&'a Parameter),
}

/// A walk over a line's words.
pub(crate) struct Matcher<'a> {
    tokens: &'a [Token],
    names: &'a dyn Names,
    line: &'a str,
    at: usize,
    entries: Vec<Entry>,
    turn: u32,
    in_turn: bool,
    /// Filled where matching stopped, for completion and messages.
    pub(crate) expected: Vec<Expected<'a>>,
}

/// How well a word begins a group; the first is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Keyword,
    Typed,
    KeywordPrefix,
    Free,
}

impl<'a> Matcher<'a> {
    /// `tokens` are all words of `line`, of which the first `at` are the command's path.
    pub(crate) fn new(line: &'a str, tokens: &'a [Token], at: usize, names: &'a dyn Names) -> Matcher<'a> {
        Matcher { tokens, names, line, at, entries: vec![], turn: 0, in_turn: false, expected: vec![] }
    }

    /// Whether every word was consumed.
    pub(crate) fn is_at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// Matches the whole rest of the line. Errors are without the command's path.
    pub(crate) fn run(&mut self, syntax: &'a Syntax) -> Result<Args, CliError> {
        self.sequence(&syntax.root, false)?;
        if let Some(token) = self.peek() {
            let only = match self.expected.as_slice() {
                [Expected::Parameter(parameter)] => Some(*parameter),
                _ => None,
            };
            return Err(match only {
                Some(parameter) => self.mismatch(parameter, token),
                None => self.unknown(token),
            });
        }
        Ok(Args { entries: std::mem::take(&mut self.entries), declared: syntax.names.clone() })
    }

    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    fn advance(&mut self) {
        self.at += 1;
        self.expected.clear();
    }

    fn push(&mut self, name: &Arc<str>, value: Value) {
        let turn = if self.in_turn { self.turn } else { 0 };
        self.entries.push(Entry { name: name.clone(), value, word: self.at + 1, turn });
    }

    /// Matches groups in any order until none fits. A nested sequence is entered by its first groups up
    /// to the first required one, so that alternatives stay apart.
    fn sequence(&mut self, sequence: &'a Sequence, nested: bool) -> Result<(), CliError> {
        let mut used = vec![false; sequence.groups.len()];
        let mut entering = nested;
        while let Some(token) = self.peek() {
            let candidates = if entering { entry_groups(sequence) } else { &sequence.groups };
            let is_open = |index: usize| candidates.get(index).is_some_and(|g| g.repeat) || !used[index];
            let open: Vec<(usize, &'a Group)> =
                candidates.iter().enumerate().filter(|(index, _)| is_open(*index)).collect();
            let fits = open.iter().filter_map(|&(index, group)| Some((self.fit(group, token)?, index)));
            let best = fits.min();
            if let Some((Fit::KeywordPrefix, _)) = best {
                self.check_unique(open.iter().map(|(_, group)| *group), token)?;
            }
            let Some((_, index)) = best else { break };
            let Some(group) = candidates.get(index) else { break };
            if let Some(used) = used.get_mut(index) {
                *used = true;
            }
            entering = false;
            self.group(group)?;
        }
        self.finish(sequence, &used)
    }

    /// Notes what could have followed, and requires what has to be there.
    fn finish(&mut self, sequence: &'a Sequence, used: &[bool]) -> Result<(), CliError> {
        let open = |index: usize| !used.get(index).copied().unwrap_or(false);
        for (index, group) in sequence.groups.iter().enumerate() {
            if open(index) || group.repeat {
                expect(group, &mut self.expected);
            }
        }
        let mut missing = sequence.groups.iter().enumerate();
        let Some((_, group)) = missing.find(|(index, group)| open(*index) && !group.optional) else {
            return Ok(());
        };
        let Some(token) = self.peek() else {
            return Err(self.missing(&group.text));
        };
        Err(match &group.body {
            Body::Parameter(parameter) => self.mismatch(parameter, token),
            _ => CliError::new(format!("{}, expected {}", self.unknown(token), group.text)),
        })
    }

    /// Matches a group that the next token is known to begin.
    fn group(&mut self, group: &'a Group) -> Result<(), CliError> {
        if group.repeat {
            self.turn += 1;
            self.in_turn = true;
        }
        match &group.body {
            Body::Keyword { word, then } => {
                self.push(word, Value::Flag);
                self.advance();
                for then in then {
                    match then {
                        Then::Parameter(parameter) => self.parameter(parameter)?,
                        Then::Choice { alternatives, text } => self.choice(alternatives, text)?,
                    }
                }
            }
            Body::Parameter(parameter) => self.parameter(parameter)?,
            Body::Choice(alternatives) => self.choice(alternatives, &group.text)?,
        }
        if group.repeat {
            self.in_turn = false;
        }
        Ok(())
    }

    fn choice(&mut self, alternatives: &'a [Sequence], text: &str) -> Result<(), CliError> {
        let expect_all = |expected: &mut Vec<Expected<'a>>| {
            alternatives.iter().flat_map(entry_groups).for_each(|group| expect(group, expected));
        };
        let Some(token) = self.peek() else {
            expect_all(&mut self.expected);
            return Err(self.missing(text));
        };
        let fits = alternatives.iter().filter_map(|a| self.fit_sequence(a, token).map(|fit| (fit, a)));
        let Some((fit, best)) = fits.min_by_key(|(fit, _)| *fit) else {
            expect_all(&mut self.expected);
            let only = match self.expected.as_slice() {
                [Expected::Parameter(parameter)] => Some(*parameter),
                _ => None,
            };
            return Err(match only {
                Some(parameter) => self.mismatch(parameter, token),
                None => CliError::new(format!("{}, expected {text}", self.unknown(token))),
            });
        };
        if fit == Fit::KeywordPrefix {
            self.check_unique(alternatives.iter().flat_map(entry_groups), token)?;
        }
        self.sequence(best, true)
    }

    fn parameter(&mut self, parameter: &'a Parameter) -> Result<(), CliError> {
        let Some(token) = self.peek() else {
            self.expected.push(Expected::Parameter(parameter));
            return Err(self.missing(&format!(
                "<{}>, which must be {}",
                parameter.name,
                parameter.kind.describe()
            )));
        };
        if parameter.kind == Type::Line {
            let rest = self.line.get(token.start..).unwrap_or_default().trim_end();
            self.push(&parameter.name, Value::Text(rest.into()));
            self.at = self.tokens.len();
            self.expected.clear();
            return Ok(());
        }
        match parameter.kind.parse(token, self.names) {
            Some(value) => {
                self.push(&parameter.name, value);
                self.advance();
                Ok(())
            }
            None => {
                self.expected.push(Expected::Parameter(parameter));
                Err(self.mismatch(parameter, token))
            }
        }
    }

    fn fit(&self, group: &Group, token: &Token) -> Option<Fit> {
        match &group.body {
            Body::Keyword { .. } if token.block => None,
            Body::Keyword { word, .. } if **word == *token.text => Some(Fit::Keyword),
            Body::Keyword { word, .. } => {
                (!token.text.is_empty() && word.starts_with(&token.text)).then_some(Fit::KeywordPrefix)
            }
            Body::Parameter(parameter) if parameter.kind == Type::Line => Some(Fit::Free),
            Body::Parameter(parameter) => parameter
                .kind
                .parse(token, self.names)
                .map(|_| if parameter.kind.is_free() { Fit::Free } else { Fit::Typed }),
            Body::Choice(alternatives) => {
                alternatives.iter().filter_map(|sequence| self.fit_sequence(sequence, token)).min()
            }
        }
    }

    fn fit_sequence(&self, sequence: &Sequence, token: &Token) -> Option<Fit> {
        entry_groups(sequence).iter().filter_map(|group| self.fit(group, token)).min()
    }

    /// Something that should be the next word, where there is none.
    fn missing(&self, what: &str) -> CliError {
        CliError::new(format!("missing {what}")).at(self.at + 1)
    }

    fn unknown(&self, token: &Token) -> CliError {
        let repeated =
            self.entries.iter().any(|entry| entry.value == Value::Flag && *entry.name == *token.text);
        let (got, word) = (shown(token), self.at + 1);
        CliError::new(match repeated {
            true => format!("`{got}' given twice (word {word})"),
            false => format!("unknown input `{got}' (word {word})"),
        })
    }

    fn mismatch(&self, parameter: &Parameter, token: &Token) -> CliError {
        let (got, word) = (shown(token), self.at + 1);
        CliError::new(match parameter.kind {
            Type::Interface => format!("unknown interface `{got}' (word {word})"),
            Type::Node => format!("unknown node `{got}' (word {word})"),
            _ => {
                let what = parameter.kind.describe();
                format!("<{}> must be {what}, got `{got}' (word {word})", parameter.name)
            }
        })
    }

    /// Refuses an abbreviation that several of these groups' keywords begin with.
    fn check_unique(&self, groups: impl Iterator<Item = &'a Group>, token: &Token) -> Result<(), CliError> {
        let mut possible = Vec::new();
        groups.for_each(|group| expect(group, &mut possible));
        let mut words: Vec<&str> = possible
            .iter()
            .filter_map(|expected| match expected {
                Expected::Keyword { word, .. } if word.starts_with(&token.text) => Some(*word),
                _ => None,
            })
            .collect();
        words.sort_unstable();
        words.dedup();
        match words.len() {
            0 | 1 => Ok(()),
            _ => Err(CliError::new(format!(
                "`{}' is ambiguous (word {}): {}",
                token.text,
                self.at + 1,
                words.join(", ")
            ))),
        }
    }
}

/// The groups by which a nested sequence can be entered: up to the first required one.
fn entry_groups(sequence: &Sequence) -> &[Group] {
    let end = sequence.groups.iter().position(|group| !group.optional).map_or(usize::MAX, |at| at + 1);
    sequence.groups.get(..end).unwrap_or(&sequence.groups)
}

fn expect<'a>(group: &'a Group, expected: &mut Vec<Expected<'a>>) {
    match &group.body {
        Body::Keyword { word, .. } => expected.push(Expected::Keyword { word, group: &group.text }),
        Body::Parameter(parameter) => expected.push(Expected::Parameter(parameter)),
        Body::Choice(alternatives) => {
            alternatives.iter().flat_map(entry_groups).for_each(|group| expect(group, expected));
        }
    }
}

/// A word as messages show it: short, and without control characters.
fn shown(token: &Token) -> String {
    let text = if token.block { format!("{{ {} }}", token.text) } else { token.text.clone() };
    display_word(&text)
}

/// Cuts a word to 64 characters and replaces its control characters.
pub(crate) fn display_word(text: &str) -> String {
    let mut shown: String =
        text.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(64).is_some() {
        shown.push_str("...");
    }
    shown
}
