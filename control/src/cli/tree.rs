//! Commands, and the registry that finds the command of a line and runs it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use super::args::{Args, CliError};
use super::output::{Output, Shown};
use super::parse::{Matcher, display_word};
use super::syntax::Syntax;
use super::token::{Token, is_comment, statements, tokenize};
use super::value::Names;

/// How deep `exec` may call `exec`.
const MAX_EXEC_DEPTH: usize = 8;
/// The longest file that `exec` reads, in bytes.
const MAX_SCRIPT: u64 = 16 << 20;

/// Changes something, and may print.
pub type Change<C> = fn(&mut C, &Args, &mut Output<'_>) -> Result<(), CliError>;
/// Shows something: ends with [`Output::show`], the only source of a [`Shown`], so that there is no show
/// without JSON.
pub type Show<C> = fn(&C, &Args, &mut Output<'_>) -> Result<Shown, CliError>;

/// One entry of a list of commands.
pub struct Command<C> {
    /// The words that name it: `create interface memif`.
    pub path: &'static str,
    /// What follows, in the notation of [`super`].
    pub syntax: &'static str,
    /// One line of help, without a full stop.
    pub help: &'static str,
    /// Help for names of the syntax: `("ring-size", "descriptors in a ring, a power of two")`.
    pub arguments: &'static [(&'static str, &'static str)],
    run: Run<C>,
}

enum Run<C> {
    Change(Change<C>),
    Show(Show<C>),
    /// `exec <file>`, `help`, `comment`: the registry's own.
    Exec,
    Help,
    Comment,
}

impl<C> Clone for Command<C> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<C> Copy for Command<C> {}
impl<C> Clone for Run<C> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<C> Copy for Run<C> {}

impl<C> Command<C> {
    const fn with(path: &'static str, syntax: &'static str, help: &'static str, run: Run<C>) -> Self {
        Command { path, syntax, help, arguments: &[], run }
    }

    /// A command that changes something or acts.
    pub const fn new(path: &'static str, syntax: &'static str, help: &'static str, run: Change<C>) -> Self {
        Command::with(path, syntax, help, Run::Change(run))
    }

    /// A command that shows something, as text or with `--json`.
    pub const fn show(path: &'static str, syntax: &'static str, help: &'static str, run: Show<C>) -> Self {
        Command::with(path, syntax, help, Run::Show(run))
    }

    /// Adds help for names of the syntax.
    pub const fn arguments(mut self, arguments: &'static [(&'static str, &'static str)]) -> Self {
        self.arguments = arguments;
        self
    }
}

/// A command with its compiled syntax.
pub(crate) struct Entry<C> {
    pub(crate) command: Command<C>,
    pub(crate) syntax: Syntax,
}

/// A word of the paths.
#[derive(Default)]
pub(crate) struct Branch {
    pub(crate) children: BTreeMap<&'static str, usize>,
    pub(crate) entry: Option<usize>,
}

/// All commands of a process.
pub struct Registry<C> {
    pub(crate) entries: Vec<Entry<C>>,
    /// The tree of path words; the first is the root.
    pub(crate) branches: Vec<Branch>,
}

/// Why a list of commands is not usable: a mistake in the program, found at start.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("command `{path}': {message}")]
pub struct RegistryError {
    /// The path of the command.
    pub path: &'static str,
    /// What is wrong with it.
    pub message: String,
}

/// Where the words of a line led in the tree of paths.
pub(crate) struct Walk<'a> {
    pub(crate) branch: &'a Branch,
    /// How many words the path took.
    pub(crate) depth: usize,
    /// The full words of the path.
    pub(crate) path: String,
    /// The words that the next one abbreviates, when there are several.
    pub(crate) ambiguous: Vec<&'static str>,
}

impl<C: Names> Registry<C> {
    /// Compiles a list of commands, and adds `exec`, `help` and `comment`.
    ///
    /// # Errors
    /// The first command with a bad syntax string, a path that is taken, a `show` that is not declared
    /// with [`Command::show`], or help for a name that its syntax does not have.
    pub fn new(commands: impl IntoIterator<Item = Command<C>>) -> Result<Registry<C>, RegistryError> {
        let own = [
            Command::with("exec", "<path>", "Run the commands of a file, up to the first failure", Run::Exec),
            Command::with("help", "[<line>]", "Show commands, or the syntax of one", Run::Help),
            Command::with("comment", "[<line>]", "Do nothing", Run::Comment),
        ];
        let mut registry = Registry { entries: Vec::new(), branches: vec![Branch::default()] };
        for command in own.into_iter().chain(commands) {
            let path = command.path;
            registry.add(command).map_err(|message| RegistryError { path, message })?;
        }
        Ok(registry)
    }

    fn add(&mut self, command: Command<C>) -> Result<(), String> {
        let syntax = Syntax::compile(command.syntax)?;
        for (name, _) in command.arguments {
            if !syntax.names.iter().any(|known| &**known == *name) {
                return Err(format!("help for `{name}', which the syntax does not have"));
            }
        }
        let mut at = 0;
        for word in command.path.split(' ') {
            if word.is_empty() || word.contains(char::is_whitespace) {
                return Err("a path is words with one blank between them".into());
            }
            let next = self.branches.len();
            let branch = self.branches.get_mut(at).ok_or("no branch")?;
            at = *branch.children.entry(word).or_insert(next);
            if at == next {
                self.branches.push(Branch::default());
            }
        }
        let shows = matches!(command.run, Run::Show(_));
        if !shows && command.path.split(' ').next() == Some("show") {
            return Err("commands under `show' are declared with Command::show".into());
        }
        let branch = self.branches.get_mut(at).ok_or("no branch")?;
        if branch.entry.is_some() {
            return Err("declared twice".into());
        }
        branch.entry = Some(self.entries.len());
        self.entries.push(Entry { command, syntax });
        Ok(())
    }

    /// Runs one line (or one statement that spans lines).
    ///
    /// # Errors
    /// What was wrong and at which word, in which case nothing ran; or the command's own error. Both start
    /// with the path of the command.
    pub fn execute(&self, context: &mut C, line: &str, out: &mut Output<'_>) -> Result<(), CliError> {
        self.execute_at(context, line, out, 0)
    }

    /// Runs all statements of a script up to the first failure; the error starts with `name:line: `.
    ///
    /// # Errors
    /// As [`Registry::execute`].
    pub fn run_script(
        &self,
        context: &mut C,
        name: &str,
        script: &str,
        out: &mut Output<'_>,
    ) -> Result<(), CliError> {
        self.run_script_at(context, name, script, out, 0)
    }

    fn run_script_at(
        &self,
        context: &mut C,
        name: &str,
        script: &str,
        out: &mut Output<'_>,
        depth: usize,
    ) -> Result<(), CliError> {
        for (number, statement) in statements(script) {
            out.reset_format();
            self.execute_at(context, &statement, out, depth)
                .map_err(|error| error.within(&format!("{name}:{number}")))?;
        }
        Ok(())
    }

    fn execute_at(
        &self,
        context: &mut C,
        line: &str,
        out: &mut Output<'_>,
        depth: usize,
    ) -> Result<(), CliError> {
        if is_comment(line) {
            return Ok(());
        }
        let mut tokens = tokenize(line)?;
        let walk = self.walk(&tokens);
        let Some(entry) = walk.branch.entry.and_then(|index| self.entries.get(index)) else {
            return Err(no_command(&walk, &tokens));
        };
        let command = &entry.command;
        if matches!(command.run, Run::Show(_)) {
            out.set_json(tokens.pop_if(|token| token.text == "--json").is_some());
        }
        let args =
            Matcher::new(line, &tokens, walk.depth, context).run(&entry.syntax).map_err(
                |error| match walk.ambiguous.is_empty() {
                    true => error.within(&walk.path),
                    false => ambiguous(&walk, &tokens),
                },
            )?;
        let done = match command.run {
            Run::Change(run) => run(context, &args, out),
            Run::Show(run) => run(context, &args, out).map(|Shown { .. }| ()),
            Run::Comment => Ok(()),
            Run::Help => self.help(&args.rest("line"), out),
            // The file and line in its errors say more than `exec' in front would.
            Run::Exec => {
                let result = self.exec(context, &args.text("path")?, out, depth);
                return result.map_err(|error| error.locate(&args));
            }
        };
        done.map_err(|error| error.locate(&args).within(&walk.path))
    }

    fn exec(&self, context: &mut C, path: &str, out: &mut Output<'_>, depth: usize) -> Result<(), CliError> {
        if depth >= MAX_EXEC_DEPTH {
            let error = CliError::new(format!("exec: {path}: files call each other more than 8 deep"));
            return Err(error.about("path"));
        }
        let script = read_script(path)
            .map_err(|error| CliError::new(format!("exec: {path}: {error}")).about("path"))?;
        self.run_script_at(context, path, &script, out, depth + 1)
    }

    fn help(&self, line: &str, out: &mut Output<'_>) -> Result<(), CliError> {
        let tokens = tokenize(line)?;
        let walk = self.walk(&tokens);
        if let Some(token) = tokens.get(walk.depth) {
            return Err(match walk.ambiguous.is_empty() {
                true => {
                    // Word 1 is `help'.
                    CliError::new(format!("no command `{}'", display_word(&token.text))).at(walk.depth + 2)
                }
                false => ambiguous(&walk, &tokens),
            });
        }
        if let Some(entry) = walk.branch.entry.and_then(|index| self.entries.get(index)) {
            let command = &entry.command;
            out.line(format!("{} {}", command.path, command.syntax).trim_end());
            out.line(format!("  {}", command.help));
            for (name, help) in command.arguments {
                out.line(format!("  {name:<20} {help}"));
            }
        }
        for (word, child) in &walk.branch.children {
            if !word.starts_with("__") {
                out.line(format!("  {:<20} {}", word, self.describe(*child)).trim_end());
            }
        }
        Ok(())
    }

    /// The help line of a branch: of its command, or which words follow.
    pub(crate) fn describe(&self, branch: usize) -> String {
        let Some(branch) = self.branches.get(branch) else { return String::new() };
        match branch.entry.and_then(|index| self.entries.get(index)) {
            Some(entry) => entry.command.help.to_string(),
            None => branch.children.keys().copied().collect::<Vec<_>>().join(", "),
        }
    }

    /// Follows the path words as far as they go: an exact word, or the only one that it abbreviates.
    pub(crate) fn walk(&self, tokens: &[Token]) -> Walk<'_> {
        let mut branch = &self.branches[0];
        let mut path = String::new();
        let mut depth = 0;
        let mut ambiguous = Vec::new();
        while let Some(token) = tokens.get(depth).filter(|token| !token.block && !token.text.is_empty()) {
            let mut matching =
                branch.children.iter().filter(|(word, _)| word.starts_with(&token.text)).peekable();
            let Some((word, child)) = matching.next() else { break };
            if **word != *token.text && matching.peek().is_some() {
                ambiguous = std::iter::once(*word).chain(matching.map(|(word, _)| *word)).collect();
                break;
            }
            let Some(next) = self.branches.get(*child) else { break };
            branch = next;
            depth += 1;
            if !path.is_empty() {
                path.push(' ');
            }
            path.push_str(word);
        }
        Walk { branch, depth, path, ambiguous }
    }
}

/// Why the words of a line name no command.
fn no_command(walk: &Walk<'_>, tokens: &[Token]) -> CliError {
    if !walk.ambiguous.is_empty() {
        return ambiguous(walk, tokens);
    }
    let error = match tokens.get(walk.depth) {
        Some(token) => {
            CliError::new(format!("unknown input `{}' (word {})", display_word(&token.text), walk.depth + 1))
        }
        None => {
            let next: Vec<&str> = walk.branch.children.keys().copied().collect();
            CliError::new(format!("incomplete (word {}), next: {}", walk.depth + 1, next.join(", ")))
        }
    };
    if walk.path.is_empty() { error } else { error.within(&walk.path) }
}

fn ambiguous(walk: &Walk<'_>, tokens: &[Token]) -> CliError {
    let word = tokens.get(walk.depth).map_or("", |token| token.text.as_str());
    let path = if walk.path.is_empty() { String::new() } else { format!("{} ", walk.path) };
    CliError::new(format!(
        "`{path}{}' is ambiguous (word {}): {}",
        display_word(word),
        walk.depth + 1,
        walk.ambiguous.join(", ")
    ))
}

fn read_script(path: &str) -> std::io::Result<String> {
    let file = File::open(path)?;
    // A pipe or a device would block the control plane.
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut script = String::new();
    file.take(MAX_SCRIPT + 1).read_to_string(&mut script)?;
    if script.len() as u64 > MAX_SCRIPT {
        return Err(std::io::Error::other("longer than 16 MiB"));
    }
    Ok(script)
}
