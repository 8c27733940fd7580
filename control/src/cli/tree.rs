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
use crate::access::Rights;

/// How deep `exec` may call `exec`.
const MAX_EXEC_DEPTH: usize = 8;
/// The longest file that `exec` reads, in bytes.
const MAX_SCRIPT: u64 = 16 << 20;
/// Longer lines, in bytes, are matched without holding what they are about.
const LONG_LINE: usize = 4096;

/// Changes something, and may print.
pub type Change<C> = fn(&mut C, &Args, &mut Output<'_>) -> Result<(), CliError>;
/// Shows something: ends with [`Output::show`], the only source of a [`Shown`], so that there is no show
/// without JSON.
pub type Show<C> = fn(&C, &Args, &mut Output<'_>) -> Result<Shown, CliError>;
/// As [`Change`], in pieces: others have their turns in between, and what was true in one piece may not be in the next.
pub type LongChange<C> = fn(&mut dyn Hold<C>, &Args, &mut Output<'_>) -> Result<(), CliError>;
/// As [`Show`], in pieces.
pub type LongShow<C> = fn(&mut Looks<'_, C>, &Args, &mut Output<'_>) -> Result<Shown, CliError>;

/// Work on what commands are about.
pub type Work<'w, C> = dyn FnMut(&mut C, &mut Output<'_>) -> Result<(), CliError> + 'w;

/// What gives commands what they are about, to one at a time, and to others between two of them.
pub trait Hold<C> {
    /// What commands may do with it.
    fn rights(&self) -> Rights;

    /// Does the work of one command, or a piece of it. Work that may change something waits while another one has it to itself.
    ///
    /// # Errors
    /// The command's.
    fn with(&mut self, needs: Rights, work: &mut Work<'_, C>, out: &mut Output<'_>) -> Result<(), CliError>;

    /// From now on nobody else changes anything, but may look between two pieces.
    fn reserve(&mut self) {}

    /// The opposite of [`Hold::reserve`]. What was changed meanwhile counts as one change.
    fn release(&mut self) {}
}

/// Does a piece of work on what a command is about.
///
/// # Errors
/// Those of the work.
pub fn in_turn<C, T>(
    on: &mut dyn Hold<C>,
    work: impl FnOnce(&mut C) -> Result<T, CliError>,
) -> Result<T, CliError> {
    turn(on, Rights::ReadWrite, work)
}

fn turn<C, T>(
    on: &mut dyn Hold<C>,
    needs: Rights,
    work: impl FnOnce(&mut C) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let (mut work, mut done) = (Some(work), None);
    let mut piece = |context: &mut C, _: &mut Output<'_>| {
        done = work.take().map(|work| work(context));
        Ok(())
    };
    on.with(needs, &mut piece, &mut Output::new())?;
    done.unwrap_or_else(|| Err(CliError::new("the work was not done")))
}

/// Does work of many pieces. Others look between them, and nobody else changes anything before all is done.
///
/// # Errors
/// Those of the work.
pub fn alone<C, T>(
    on: &mut dyn Hold<C>,
    work: impl FnOnce(&mut dyn Hold<C>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    on.reserve();
    let done = work(on);
    on.release();
    done
}

/// Gives a `show` what it looks at, piece by piece.
pub struct Looks<'a, C>(&'a mut dyn Hold<C>);

impl<'a, C> Looks<'a, C> {
    /// Gives what somebody else holds.
    pub fn new(on: &'a mut dyn Hold<C>) -> Looks<'a, C> {
        Looks(on)
    }

    /// Looks.
    ///
    /// # Errors
    /// Those of the work.
    pub fn look<T>(&mut self, work: impl FnOnce(&C) -> Result<T, CliError>) -> Result<T, CliError> {
        turn(self.0, Rights::ReadOnly, |context| work(context))
    }

    /// As [`alone`]: all looks are at the same state. But who may only look keeps nobody from changing it.
    ///
    /// # Errors
    /// Those of the work.
    pub fn alone<T>(
        &mut self,
        work: impl FnOnce(&mut Looks<'_, C>) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        if self.0.rights() == Rights::ReadOnly {
            return work(&mut Looks(self.0));
        }
        alone(self.0, |on| work(&mut Looks(on)))
    }
}

/// Holds it all the time.
pub(crate) struct Held<'a, C>(pub(crate) &'a mut C);

impl<C> Hold<C> for Held<'_, C> {
    fn rights(&self) -> Rights {
        Rights::ReadWrite
    }

    fn with(&mut self, _: Rights, work: &mut Work<'_, C>, out: &mut Output<'_>) -> Result<(), CliError> {
        work(self.0, out)
    }
}

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
    LongChange(LongChange<C>),
    LongShow(LongShow<C>),
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

    /// A command that changes a lot.
    pub const fn long(
        path: &'static str,
        syntax: &'static str,
        help: &'static str,
        run: LongChange<C>,
    ) -> Self {
        Command::with(path, syntax, help, Run::LongChange(run))
    }

    /// A command that shows what may be a lot.
    pub const fn long_show(
        path: &'static str,
        syntax: &'static str,
        help: &'static str,
        run: LongShow<C>,
    ) -> Self {
        Command::with(path, syntax, help, Run::LongShow(run))
    }

    /// Whether who may only look may run it. A file that `exec` reads would be shown in its errors.
    pub(crate) fn looks(&self) -> bool {
        matches!(self.run, Run::Show(_) | Run::LongShow(_) | Run::Help | Run::Comment)
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
        let shows = matches!(command.run, Run::Show(_) | Run::LongShow(_));
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
        self.execute_on(&mut Held(context), line, out)
    }

    /// As [`Registry::execute`], holding what the command is about while it runs only.
    ///
    /// # Errors
    /// As [`Registry::execute`].
    pub fn execute_on(&self, on: &mut dyn Hold<C>, line: &str, out: &mut Output<'_>) -> Result<(), CliError> {
        self.execute_at(on, line, out, 0)
    }

    /// Runs all statements of a script up to the first failure; the error starts with `name:line: `.
    ///
    /// # Errors
    /// As [`Registry::execute`].
    pub fn run_script(
        &self,
        on: &mut dyn Hold<C>,
        name: &str,
        script: &str,
        out: &mut Output<'_>,
    ) -> Result<(), CliError> {
        self.run_script_at(on, name, script, out, 0)
    }

    fn run_script_at(
        &self,
        on: &mut dyn Hold<C>,
        name: &str,
        script: &str,
        out: &mut Output<'_>,
        depth: usize,
    ) -> Result<(), CliError> {
        for (number, statement) in statements(script) {
            out.reset_format();
            self.execute_at(on, &statement, out, depth)
                .map_err(|error| error.within(&format!("{name}:{number}")))?;
        }
        Ok(())
    }

    fn execute_at(
        &self,
        on: &mut dyn Hold<C>,
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
        if on.rights() == Rights::ReadOnly && !command.looks() {
            let error = CliError::new("not permitted: the role `read-only' may run `show' commands only");
            return Err(error.within(&walk.path));
        }
        if matches!(command.run, Run::Show(_) | Run::LongShow(_)) {
            // At the end, or before the text of a client's own that is the end.
            let behind = usize::from(tokens.last().is_some_and(|token| token.block));
            let at = tokens.len().checked_sub(behind + 1);
            let at = at.filter(|at| tokens.get(*at).is_some_and(|token| token.text == "--json"));
            out.set_json(at.map(|at| tokens.remove(at)).is_some());
        }
        let parse = |names: &dyn Names| Matcher::new(line, &tokens, walk.depth, names).run(&entry.syntax);
        // What matched, so that errors can say where.
        let mut matched: Option<Args> = None;
        if line.len() > LONG_LINE {
            // The names are enough, and nobody has to wait.
            let known = turn(on, Rights::ReadOnly, |context| Ok(context.known()))?;
            matched = Some(parse(&known).map_err(|error| error.within(&walk.path))?);
        }
        let needs = match command.run {
            Run::Change(_) => Rights::ReadWrite,
            // The pieces of a long one say what they need.
            _ => Rights::ReadOnly,
        };
        let mut file = None;
        let done = on.with(
            needs,
            &mut |context, out| {
                let args = match &matched {
                    Some(args) => args,
                    None => &*matched.insert(parse(context)?),
                };
                match command.run {
                    Run::Change(run) => run(context, args, out),
                    Run::Show(run) => run(context, args, out).map(|Shown { .. }| ()),
                    Run::Comment | Run::LongChange(_) | Run::LongShow(_) => Ok(()),
                    Run::Help => self.help(&args.rest("line"), out),
                    Run::Exec => {
                        file = Some(args.text("path")?);
                        Ok(())
                    }
                }
            },
            out,
        );
        let Some(args) = matched else {
            return done.map_err(|error| match walk.ambiguous.is_empty() {
                true => error.within(&walk.path),
                false => ambiguous(&walk, &tokens),
            });
        };
        let done = match (done, command.run) {
            (Ok(()), Run::LongChange(run)) => run(on, &args, out),
            (Ok(()), Run::LongShow(run)) => run(&mut Looks(on), &args, out).map(|Shown { .. }| ()),
            (done, _) => done,
        };
        if let (Ok(()), Some(path)) = (&done, file) {
            // The file and line in its errors say more than `exec' in front would.
            return self.exec(on, &path, out, depth).map_err(|error| error.locate(&args));
        }
        done.map_err(|error| error.locate(&args).within(&walk.path))
    }

    fn exec(
        &self,
        on: &mut dyn Hold<C>,
        path: &str,
        out: &mut Output<'_>,
        depth: usize,
    ) -> Result<(), CliError> {
        if depth >= MAX_EXEC_DEPTH {
            let error = CliError::new(format!("exec: {path}: files call each other more than 8 deep"));
            return Err(error.about("path"));
        }
        let script = read_script(path)
            .map_err(|error| CliError::new(format!("exec: {path}: {error}")).about("path"))?;
        self.run_script_at(on, path, &script, out, depth + 1)
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
