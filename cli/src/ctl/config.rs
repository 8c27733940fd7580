//! Files of `config diff`, `config apply` and `config save`: they are on our side, and wharf sees their text.

use std::io::{self, Read};
use std::path::PathBuf;

use wharf_control::cli::RAW;
use wharf_control::config;

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It goes to wharf as it is.
    Plain,
    /// This one goes to wharf.
    Other(String),
    /// This one goes to wharf, and its output into a file.
    Into(String, PathBuf),
}

/// Looks at a line for a file of ours. A message says why that can't be had.
pub(super) fn line(line: &str) -> Result<Line, String> {
    let mut words = line.split_whitespace();
    let abbreviates = |word: Option<&str>, whole: &str, least: usize| {
        word.is_some_and(|word| word.len() >= least && whole.starts_with(word))
    };
    if !abbreviates(words.next(), "config", 3) {
        return Ok(Line::Plain);
    }
    let verb = words.next();
    let Some(file) = words.next().filter(|file| !file.starts_with(['{', RAW])) else {
        return Ok(Line::Plain);
    };
    let file = file.trim_matches('"');
    let json = match words.next() {
        None => "",
        Some("--json") => "--json ",
        Some(_) => return Ok(Line::Plain),
    };
    let whole = ["diff", "apply"].into_iter().find(|whole| abbreviates(verb, whole, 1));
    if let Some(verb) = whole {
        let text = match file {
            "-" => read_stdin(),
            _ => config::read_document(file.as_ref()),
        };
        let text = text.map_err(|error| format!("{file}: {error}"))?;
        return Ok(Line::Other(format!("config {verb} {json}{RAW}{text}")));
    }
    match abbreviates(verb, "save", 2) && file != "-" {
        true => Ok(Line::Into("config save -".into(), file.into())),
        false => Ok(Line::Plain),
    }
}

fn read_stdin() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().take(config::MAX_DOCUMENT as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_a_file_of_ours() {
        for plain in [
            "show interface",
            "config show",
            "config show --json",
            "config save",
            "config save -",
            "config apply { }",
            "config",
            "con apply a b",
            "comment config apply x",
        ] {
            assert_eq!(line(plain), Ok(Line::Plain), "{plain}");
        }
        assert_eq!(line("config save \"x\""), Ok(Line::Into("config save -".into(), "x".into())));
        let error = line("config apply /nonexistent").unwrap_err();
        assert!(error.starts_with("/nonexistent: No such file"), "{error}");
        let file = std::env::temp_dir().join(format!("wharfctl-config-{}", std::process::id()));
        std::fs::write(&file, "a = \"{\"\n").unwrap();
        let sent = line(&format!("conf d {} --json", file.display()));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(sent, Ok(Line::Other("config diff --json \u{1e}a = \"{\"\n".into())));
    }
}
