//! The syntax string of a command, compiled once when the registry is built.
//!
//! ```text
//! sequence  = { group }
//! group     = keyword { parameter } [ braces ]     the keyword owns what follows it directly
//!           | parameter
//!           | "[" alternatives "]"                 optional
//!           | "{" alternatives "}"                 required
//! each group may be followed by "...", which lets it occur again
//! alternatives = sequence { "|" sequence }
//! parameter = "<" [ name ":" ] type ">"
//! ```
//!
//! The groups of a sequence are matched in any order, as VPP's commands do; parameters are told apart by
//! their types, and two of one type by their order. A parameter without a name of its own is called as its
//! keyword when it is the first behind one, and as its type otherwise.

use std::sync::Arc;

use super::value::Type;

/// Groups to be matched in any order.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    pub(crate) groups: Vec<Group>,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) body: Body,
    pub(crate) optional: bool,
    pub(crate) repeat: bool,
    /// As written, for messages: `id <n>`.
    pub(crate) text: String,
}

#[derive(Debug)]
pub(crate) enum Body {
    Keyword { word: Arc<str>, then: Vec<Then> },
    Parameter(Parameter),
    Choice(Vec<Sequence>),
}

/// What a keyword owns.
#[derive(Debug)]
pub(crate) enum Then {
    Parameter(Parameter),
    Choice { alternatives: Vec<Sequence>, text: String },
}

#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) name: Arc<str>,
    pub(crate) kind: Type,
}

/// A compiled syntax string.
#[derive(Debug)]
pub(crate) struct Syntax {
    pub(crate) root: Sequence,
    /// Every name that the arguments can be asked for.
    pub(crate) names: Arc<[Arc<str>]>,
}

impl Syntax {
    pub(crate) fn compile(text: &str) -> Result<Syntax, String> {
        let mut compiler = Compiler { words: split(text)?, at: 0, names: Vec::new(), repeats: 0 };
        let root = compiler.sequence(false)?;
        match compiler.peek() {
            Some(word) => Err(format!("unexpected `{word}'")),
            None if compiler.repeats > 1 => Err("more than one repeated group".into()),
            None => Ok(Syntax { root, names: compiler.names.into() }),
        }
    }
}

/// Words, `<...>` parameters, and the marks `[ ] { } | ...`.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '[' | ']' | '{' | '}' | '|' => 1,
            '<' => rest.find('>').ok_or("missing `>'")? + 1,
            _ if rest.starts_with("...") => 3,
            _ => rest.find(|c: char| c.is_whitespace() || "[]{}|<".contains(c)).unwrap_or(rest.len()),
        };
        words.push(rest[..len].to_string());
        rest = rest[len..].trim_start();
    }
    Ok(words)
}

struct Compiler {
    words: Vec<String>,
    at: usize,
    names: Vec<Arc<str>>,
    repeats: usize,
}

impl Compiler {
    fn peek(&self) -> Option<&str> {
        self.words.get(self.at).map(String::as_str)
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.iter().find(|known| &***known == name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.names.push(name.clone());
        name
    }

    fn sequence(&mut self, inside: bool) -> Result<Sequence, String> {
        let mut sequence = Sequence::default();
        while let Some(word) = self.peek().map(str::to_string) {
            match word.as_str() {
                "]" | "}" | "|" if inside => break,
                "]" | "}" | "|" => return Err(format!("unexpected `{word}'")),
                "..." => {
                    let group = sequence.groups.last_mut().ok_or("`...' follows nothing")?;
                    group.repeat = true;
                    self.repeats += 1;
                    self.at += 1;
                }
                _ => sequence.groups.push(self.group(&word)?),
            }
        }
        match sequence.groups.is_empty() && inside {
            true => Err("empty alternative".into()),
            false => Ok(sequence),
        }
    }

    fn group(&mut self, word: &str) -> Result<Group, String> {
        let from = self.at;
        let body = match word {
            "[" | "{" => Body::Choice(self.alternatives()?),
            _ if word.starts_with('<') => {
                self.at += 1;
                Body::Parameter(self.parameter(word, None)?)
            }
            _ => {
                self.at += 1;
                self.keyword(word)?
            }
        };
        let text = render(self.words.get(from..self.at).unwrap_or_default());
        Ok(Group { body, optional: word == "[", repeat: false, text })
    }

    fn keyword(&mut self, word: &str) -> Result<Body, String> {
        let name = self.name(word);
        let mut then = Vec::new();
        while let Some(next) = self.peek().map(str::to_string) {
            if next.starts_with('<') {
                self.at += 1;
                let keyword = then.is_empty().then_some(word);
                then.push(Then::Parameter(self.parameter(&next, keyword)?));
            } else if next == "{" && then.is_empty() {
                let from = self.at;
                let alternatives = self.alternatives()?;
                let text = render(self.words.get(from..self.at).unwrap_or_default());
                then.push(Then::Choice { alternatives, text });
                break;
            } else {
                break;
            }
        }
        Ok(Body::Keyword { word: name, then })
    }

    /// From the opening mark to behind the closing one.
    fn alternatives(&mut self) -> Result<Vec<Sequence>, String> {
        let close = if self.peek() == Some("[") { "]" } else { "}" };
        self.at += 1;
        let mut found = vec![self.sequence(true)?];
        while self.peek() == Some("|") {
            self.at += 1;
            found.push(self.sequence(true)?);
        }
        if self.peek() != Some(close) {
            return Err(format!("missing `{close}'"));
        }
        self.at += 1;
        Ok(found)
    }

    fn parameter(&mut self, word: &str, keyword: Option<&str>) -> Result<Parameter, String> {
        let inner = word.trim_start_matches('<').trim_end_matches('>');
        let (name, kind) = match inner.split_once(':') {
            Some((name, kind)) => (Some(name), kind),
            None => (None, inner),
        };
        let kind_of = Type::named(kind).ok_or(format!("unknown type `{kind}'"))?;
        Ok(Parameter { name: self.name(name.or(keyword).unwrap_or(kind)), kind: kind_of })
    }
}

/// Puts words together as people write them.
fn render(words: &[String]) -> String {
    let mut text = String::new();
    for word in words {
        let glued = text.is_empty()
            || text.ends_with(['[', '{', '|'])
            || matches!(word.as_str(), "]" | "}" | "|" | "...");
        if !glued {
            text.push(' ');
        }
        text.push_str(word);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_rendering() {
        let syntax = Syntax::compile(
            "id <n> [socket-id <n>] [master|slave] [rx-queues <1-255>] via {<next-hop:ip4> [<interface>] | drop}",
        )
        .unwrap();
        let names: Vec<&str> = syntax.names.iter().map(|name| &**name).collect();
        assert_eq!(
            names,
            ["id", "socket-id", "master", "slave", "rx-queues", "via", "next-hop", "interface", "drop"]
        );
        let texts: Vec<&str> = syntax.root.groups.iter().map(|group| group.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "id <n>",
                "[socket-id <n>]",
                "[master|slave]",
                "[rx-queues <1-255>]",
                "via {<next-hop:ip4> [<interface>]|drop}"
            ]
        );
    }

    #[test]
    fn a_second_parameter_is_called_as_its_type() {
        let syntax = Syntax::compile("group <ip> <interface>").unwrap();
        let names: Vec<&str> = syntax.names.iter().map(|name| &**name).collect();
        assert_eq!(names, ["group", "interface"]);
    }

    #[test]
    fn bad_syntax_says_what_is_wrong() {
        for (text, error) in [
            ("id <number>", "unknown type `number'"),
            ("[a|b", "missing `]'"),
            ("{a]", "missing `}'"),
            ("a ]", "unexpected `]'"),
            ("[]", "empty alternative"),
            ("[a|]", "empty alternative"),
            ("<n", "missing `>'"),
            ("... a", "`...' follows nothing"),
            ("[a]... [b]...", "more than one repeated group"),
        ] {
            assert_eq!(Syntax::compile(text).unwrap_err(), error, "{text}");
        }
    }
}
