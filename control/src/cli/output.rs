//! What a command prints: text, or JSON when `--json` asked for it.

use std::fmt::Display;

use serde::Serialize;

use super::args::CliError;

/// Proof that a `show` gave its value; only [`Output::show`] makes one.
#[derive(Debug)]
pub struct Shown(());

/// Collects a command's output.
#[derive(Default)]
pub struct Output<'a> {
    text: String,
    json: bool,
    progress: Option<&'a dyn Fn(&str)>,
}

impl<'a> Output<'a> {
    /// An empty output.
    pub fn new() -> Output<'a> {
        Output::default()
    }

    /// An empty output whose progress lines go to `sink`.
    pub fn with_progress(sink: &'a dyn Fn(&str)) -> Output<'a> {
        Output { progress: Some(sink), ..Output::default() }
    }

    /// Adds text as it is.
    pub fn text(&mut self, text: impl Display) {
        use std::fmt::Write;
        // Writing to a string fails only when the value's own Display does; its part is then left out.
        let _ = write!(self.text, "{text}");
    }

    /// Adds text and a newline.
    pub fn line(&mut self, text: impl Display) {
        self.text(text);
        self.text.push('\n');
    }

    /// Shows one value: as JSON when that was asked for, otherwise as the text that `render` makes of it.
    ///
    /// # Errors
    /// When the value has no JSON form (a map whose keys are not strings, for example).
    pub fn show<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        render: impl FnOnce(&T, &mut String),
    ) -> Result<Shown, CliError> {
        if self.json {
            self.text.push_str(&serde_json::to_string_pretty(value)?);
            self.text.push('\n');
        } else {
            render(value, &mut self.text);
        }
        Ok(Shown(()))
    }

    /// Tells how far a long command is: a short line, with a percentage such as `40%` where there is one.
    /// Shown at once by a client that can, and dropped otherwise.
    pub fn progress(&self, line: &str) {
        if let Some(sink) = self.progress {
            sink(line);
        }
    }

    /// What was printed so far.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The whole text.
    pub fn into_text(self) -> String {
        self.text
    }

    pub(crate) fn set_json(&mut self, json: bool) {
        self.json = json;
    }

    pub(crate) fn reset_format(&mut self) {
        self.json = false;
    }
}
