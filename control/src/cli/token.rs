//! Words of a command line, and the statements of a script.

use super::args::CliError;

/// One word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// The word without its quotes; of a block, the text between the braces.
    pub(crate) text: String,
    /// Where it begins in the line, in bytes.
    pub(crate) start: usize,
    /// A `{ ... }` block, which is one raw argument.
    pub(crate) block: bool,
}

/// Begins a word that is all of the rest of the line as it is, whatever braces and quotes are in it: for a client that sends a text
/// of its own. No text has this character.
pub const RAW: char = '\u{1e}';

/// Splits a line into words. Blanks separate words, double quotes keep them together, braces enclose a
/// block, and a comma at the end of a word is a word of its own (rules are listed that way).
pub(crate) fn tokenize(line: &str) -> Result<Vec<Token>, CliError> {
    let mut tokens = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { return Ok(tokens) };
        let start = line.len() - rest.len();
        let word = tokens.len() + 1;
        match first {
            RAW => {
                let text = rest[RAW.len_utf8()..].to_string();
                tokens.push(Token { text, start, block: true });
                return Ok(tokens);
            }
            '{' => {
                let Some(end) = block_end(rest) else {
                    return Err(CliError::new(format!("missing `}}' for the `{{' at word {word}")));
                };
                let text = rest[1..end].trim().to_string();
                tokens.push(Token { text, start, block: true });
                rest = &rest[end + 1..];
            }
            '"' => {
                let Some(len) = rest[1..].find('"') else {
                    return Err(CliError::new(format!("missing closing quote (word {word})")));
                };
                tokens.push(Token { text: rest[1..1 + len].to_string(), start, block: false });
                rest = &rest[len + 2..];
            }
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                let word = &rest[..end];
                match word.strip_suffix(',') {
                    Some(head) if !head.is_empty() => {
                        tokens.push(Token { text: head.into(), start, block: false });
                        tokens.push(Token { text: ",".into(), start: start + head.len(), block: false });
                    }
                    _ => tokens.push(Token { text: word.into(), start, block: false }),
                }
                rest = &rest[end..];
            }
        }
    }
}

/// The byte offset of the brace that closes the one at the start of `text`.
fn block_end(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// How many more braces a text opens than it closes.
pub(crate) fn open_braces(text: &[u8]) -> i64 {
    text.iter().fold(0, |depth, byte| match byte {
        b'{' => depth + 1,
        b'}' => depth - 1,
        _ => depth,
    })
}

/// Whether a line does nothing: blank, `# ...` or `comment ...`.
pub fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty()
        || line.starts_with('#')
        || line.strip_prefix("comment").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']))
}

/// The statements of a script with the number of the line where each begins. A statement is a line, and
/// goes on over the next lines while a brace is open. Blank lines and comments are left out.
pub fn statements(script: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut depth = 0;
    let mut begun: Option<(usize, String)> = None;
    for (at, line) in script.lines().enumerate() {
        match &mut begun {
            Some((_, text)) => {
                text.push('\n');
                text.push_str(line);
            }
            None if is_comment(line) => continue,
            None => begun = Some((at + 1, line.trim().to_string())),
        }
        depth += open_braces(line.as_bytes());
        if depth <= 0 {
            found.extend(begun.take());
            depth = 0;
        }
    }
    found.extend(begun);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        tokenize(line).unwrap().into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn words_quotes_blocks_commas() {
        assert_eq!(words("  show\tinterface  "), ["show", "interface"]);
        assert_eq!(
            words(r#"set interface tag a "two words""#),
            ["set", "interface", "tag", "a", "two words"]
        );
        assert_eq!(words("permit src 1.0.0.0/8, deny"), ["permit", "src", "1.0.0.0/8", ",", "deny"]);
        let block = tokenize("packet-generator new { name x data { hex 0x01 } } now").unwrap();
        assert_eq!(block[2], Token { text: "name x data { hex 0x01 }".into(), start: 21, block: true });
        assert_eq!(block[3].text, "now");
        let raw = tokenize("config apply \u{1e} \"{\n } ").unwrap();
        assert_eq!(raw[2], Token { text: " \"{\n } ".into(), start: 13, block: true });
    }

    #[test]
    fn open_ends_are_errors() {
        assert_eq!(tokenize("a {b {c}").unwrap_err().to_string(), "missing `}' for the `{' at word 2");
        assert_eq!(tokenize("a \"b").unwrap_err().to_string(), "missing closing quote (word 2)");
    }

    #[test]
    fn a_script_is_statements() {
        let script = "# x\n\ncomment { unbalanced\nshow version\npg new {\n name a\n}\n  set x\npg new {";
        assert_eq!(
            statements(script),
            [
                (4, "show version".to_string()),
                (5, "pg new {\n name a\n}".to_string()),
                (8, "set x".to_string()),
                (9, "pg new {".to_string())
            ]
        );
        assert!(is_comment("comment\tx") && !is_comment("commentary"));
    }
}
