//! A session with a person: line editing, history, completion and `?` help.

use std::cell::RefCell;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{
    Cmd, CompletionType, ConditionalEventHandler, Config, Context, Editor, Event, EventContext, EventHandler,
    Helper, KeyEvent, RepeatCount,
};
use wharf_control::cli::is_comment;

use super::client::Client;
use super::{Failure, complain, execute};

const PROMPT: &str = "wharf# ";

/// Asks the server what fits.
struct Asker(Rc<RefCell<Client>>);

impl Completer for Asker {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        // A server that has gone is reported by the next command.
        let Ok(found) = self.0.borrow_mut().complete(line, cursor) else { return Ok((cursor, Vec::new())) };
        let mut words: Vec<String> = found.words().map(str::to_string).collect();
        if let [only] = words.as_mut_slice() {
            only.push(' ');
        }
        Ok((found.start, words))
    }
}
impl Hinter for Asker {
    type Hint = String;
}
impl Highlighter for Asker {}
impl Validator for Asker {}
impl Helper for Asker {}

/// The line and cursor for which `?` was pressed.
type Question = Arc<Mutex<Option<(String, usize)>>>;

/// Ends the editing of a line at `?`; the loop below prints the help and edits on.
struct AskHelp(Question);

impl ConditionalEventHandler for AskHelp {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        let question = (context.line().to_string(), context.pos());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(question);
        Some(Cmd::AcceptLine)
    }
}

pub(crate) fn run(client: Client) -> Result<(), Failure> {
    let client = Rc::new(RefCell::new(client));
    let question = Question::default();
    let config = Config::builder().completion_type(CompletionType::List).build();
    let mut editor: Editor<Asker, DefaultHistory> = Editor::with_config(config).map_err(terminal)?;
    editor.set_helper(Some(Asker(client.clone())));
    editor.bind_sequence(KeyEvent::from('?'), EventHandler::Conditional(Box::new(AskHelp(question.clone()))));
    let history = history();
    if let Some(path) = &history {
        // There is none the first time.
        let _ = editor.load_history(path);
    }
    let result = converse(&client, &mut editor, &question);
    if let Some(path) = &history
        && let Err(error) = editor.append_history(path)
    {
        complain(&format!("history not kept in {}: {error}", path.display()));
    }
    result
}

fn converse(
    client: &RefCell<Client>,
    editor: &mut Editor<Asker, DefaultHistory>,
    question: &Question,
) -> Result<(), Failure> {
    let mut kept = (String::new(), String::new());
    loop {
        let read = editor.readline_with_initial(PROMPT, (&kept.0, &kept.1));
        kept = Default::default();
        let line = match read {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(terminal(error)),
        };
        let asked = question.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((line, cursor)) = asked {
            help(&mut client.borrow_mut(), &line, cursor)?;
            let (before, after) = line.split_at_checked(cursor).unwrap_or((&line, ""));
            kept = (before.to_string(), after.to_string());
            continue;
        }
        if is_comment(&line) {
            continue;
        }
        editor.add_history_entry(line.as_str()).map_err(terminal)?;
        if matches!(line.trim(), "quit" | "q" | "exit") {
            return Ok(());
        }
        if let Some(message) = execute(&mut client.borrow_mut(), &line)? {
            println!("{}", message.trim_end());
        }
    }
}

fn help(client: &mut Client, line: &str, cursor: usize) -> Result<(), Failure> {
    let found = client.complete(line, cursor)?;
    if found.candidates.is_empty() {
        println!("  nothing fits here");
    }
    for candidate in found.candidates {
        println!("{}", format!("  {:<24} {}", candidate.text, candidate.help).trim_end());
    }
    Ok(())
}

fn terminal(error: ReadlineError) -> Failure {
    Failure::Io("terminal".into(), io::Error::other(error.to_string()))
}

/// `$XDG_STATE_HOME/wharf/history`, in a directory that is made when it is missing.
fn history() -> Option<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).and_then(absolute);
    let home =
        || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state")).and_then(absolute);
    let directory = state.or_else(home)?.join("wharf");
    DirBuilder::new().recursive(true).mode(0o700).create(&directory).ok()?;
    Some(directory.join("history"))
}
