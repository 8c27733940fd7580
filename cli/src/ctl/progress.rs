//! The progress of a long command, as a bar on stderr while stdout is a terminal.

use std::io::{self, IsTerminal, Write};

const WIDTH: usize = 24;

pub(crate) struct Progress {
    enabled: bool,
    shown: bool,
}

impl Progress {
    pub(crate) fn new() -> Progress {
        Progress { enabled: io::stdout().is_terminal() && io::stderr().is_terminal(), shown: false }
    }

    pub(crate) fn show(&mut self, line: &str) {
        if self.enabled {
            self.shown = true;
            self.print(&format!("\r\x1b[K{}", bar(line)));
        }
    }

    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            self.print("\r\x1b[K");
        }
    }

    fn print(&mut self, text: &str) {
        let mut stderr = io::stderr();
        if stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).is_err() {
            self.enabled = false;
        }
    }
}

/// The line, with a bar in front when it holds a percentage.
fn bar(line: &str) -> String {
    let line: String = line.chars().filter(|c| !c.is_control()).take(80).collect();
    let percent = line.split_whitespace().find_map(|word| word.strip_suffix('%')?.parse::<f64>().ok());
    match percent.filter(|percent| (0.0..=100.0).contains(percent)) {
        // In 0..=WIDTH by the check above.
        Some(percent) => {
            let full = (percent / 100.0 * WIDTH as f64) as usize;
            format!("[{}{}] {line}", "#".repeat(full), " ".repeat(WIDTH.saturating_sub(full)))
        }
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        assert_eq!(bar("50% 3 of 6"), "[############            ] 50% 3 of 6");
        assert_eq!(bar("waiting\x1b[2J"), "waiting[2J");
        assert_eq!(bar("120%"), "120%");
    }
}
