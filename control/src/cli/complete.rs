//! What may come next in a line: for completion and for `?`.

use serde::{Deserialize, Serialize};

use super::parse::{Expected, Matcher};
use super::token::tokenize;
use super::tree::{Entry, Registry};
use super::value::{Names, Type};

/// The words that may stand at the cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// Where the word at the cursor begins, in bytes: a candidate replaces the line from here to the cursor.
    pub start: usize,
    /// What fits, without repetitions.
    pub candidates: Vec<Candidate>,
}

/// One possibility.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// A word to insert, or the notation of a parameter (`<mtu>`).
    pub text: String,
    /// What it means.
    pub help: String,
    /// Whether `text` can be inserted.
    pub literal: bool,
}

impl Completion {
    /// The words that can be inserted.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.candidates.iter().filter(|candidate| candidate.literal).map(|candidate| candidate.text.as_str())
    }

    fn add(&mut self, text: &str, help: &str, literal: bool) {
        if !self.candidates.iter().any(|known| known.text == text) {
            self.candidates.push(Candidate { text: text.into(), help: help.into(), literal });
        }
    }
}

impl<C: Names> Registry<C> {
    /// What may stand at byte `cursor` of `line`, given the words before it.
    pub fn complete(&self, line: &str, cursor: usize, names: &dyn Names) -> Completion {
        let mut cursor = cursor.min(line.len());
        while !line.is_char_boundary(cursor) {
            cursor -= 1;
        }
        let line = &line[..cursor];
        let Ok(mut tokens) = tokenize(line) else {
            return Completion { start: cursor, ..Completion::default() };
        };
        let partial = match line.ends_with(char::is_whitespace) {
            true => None,
            false => tokens.pop(),
        };
        let mut found = Completion {
            start: partial.as_ref().map_or(cursor, |token| token.start),
            ..Completion::default()
        };
        if partial.as_ref().is_some_and(|token| token.block) {
            return found;
        }
        let partial = partial.map_or(String::new(), |token| token.text);
        let walk = self.walk(&tokens);
        if walk.depth == tokens.len() {
            for (word, child) in &walk.branch.children {
                if word.starts_with(&partial) && !word.starts_with("__") {
                    found.add(word, &self.describe(*child), true);
                }
            }
        }
        if let Some(entry) = walk.branch.entry.and_then(|index| self.entries.get(index)) {
            let mut matcher = Matcher::new(line, &tokens, walk.depth, names);
            let complete = matcher.run(&entry.syntax).is_ok();
            if matcher.is_at_end() {
                for expected in &matcher.expected {
                    candidates(entry, expected, &partial, names, &mut found);
                }
            }
            if complete && entry.command.path.starts_with("show ") && "--json".starts_with(&partial) {
                found.add("--json", "print JSON", !partial.is_empty());
            }
            if complete && partial.is_empty() {
                found.add("<cr>", entry.command.help, false);
            }
        }
        // Once a word is begun and completes to something, what it could be instead is noise.
        if !partial.is_empty() && found.words().next().is_some() {
            found.candidates.retain(|candidate| candidate.literal);
        }
        found
    }
}

fn candidates<C>(
    entry: &Entry<C>,
    expected: &Expected<'_>,
    partial: &str,
    names: &dyn Names,
    found: &mut Completion,
) {
    let help_for =
        |name: &str| entry.command.arguments.iter().find(|(known, _)| *known == name).map(|(_, help)| *help);
    match expected {
        Expected::Keyword { word, group } => {
            if word.starts_with(partial) {
                let group = if group == word { "" } else { group };
                found.add(word, help_for(word).unwrap_or(group), true);
            }
        }
        Expected::Parameter(parameter) => {
            let known = match parameter.kind {
                Type::Interface => names.interfaces(),
                Type::Node => names.nodes(),
                _ => Vec::new(),
            };
            let what = parameter.kind.describe();
            let help = help_for(&parameter.name).map_or(what.clone(), |help| format!("{help} ({what})"));
            // Among thousands of names the notation is what helps.
            if known.is_empty() || (partial.is_empty() && known.len() > 64) {
                found.add(&format!("<{}>", parameter.name), &help, false);
            }
            known
                .iter()
                .filter(|name| name.starts_with(partial))
                .for_each(|name| found.add(name, &help, true));
        }
    }
}
