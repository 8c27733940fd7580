//! Options, the three ways to run (one command, a script, a person), and exit codes.

mod api;
mod client;
mod config;
mod doctor;
mod interactive;
mod progress;
mod script;

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use client::{Client, Part};
use config::Line;
use progress::Progress;

/// Talk to a running wharf.
///
/// With a command, runs it. Without one, runs the commands of FILE or of standard input, or asks for them
/// when that is a terminal. `wharfctl memif doctor` needs no wharf: see its own help; nor does
/// `wharfctl api export DIR`, which writes the definitions of the binary API's messages. Exit code: 0 when all succeeded, 1 when a command failed, 2 when wharf could not
/// be reached.
#[derive(Parser)]
#[command(name = "wharfctl", version)]
struct Options {
    /// The CLI socket of wharf [default: $WHARF_CLI_SOCKET, or the first of /run/wharf/cli.sock,
    /// /run/vpp/cli.sock and ./cli.sock that answers]
    #[arg(short, long)]
    socket: Option<PathBuf>,
    /// Run the commands of this file (`-` for standard input), one a line, up to the first that fails
    #[arg(short, long, conflicts_with = "command")]
    file: Option<PathBuf>,
    /// Go on after a command of a script has failed
    #[arg(short, long)]
    keep_going: bool,
    /// The command, and everything that follows it, such as `show interface --json`
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

/// Why wharfctl ends before its work is done.
enum Failure {
    /// A command failed; the message stands on stderr already, or is given.
    Command(Option<String>),
    /// There is no wharf to talk to, or no longer.
    Unreachable(String),
    /// Our own input or output does not work.
    Io(String, io::Error),
}

pub(crate) fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Command(message)) => {
            message.iter().for_each(|message| complain(message));
            ExitCode::from(1)
        }
        Err(Failure::Unreachable(message)) => {
            complain(&message);
            ExitCode::from(2)
        }
        // The reader of a pipe has seen enough.
        Err(Failure::Io(_, error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(1),
        Err(Failure::Io(what, error)) => {
            complain(&format!("{what}: {error}"));
            ExitCode::from(1)
        }
    }
}

fn complain(message: &str) {
    // Nothing is left to tell a failure of stderr to.
    let _ = writeln!(io::stderr(), "wharfctl: {}", message.trim_end());
}

fn run(options: Options) -> Result<(), Failure> {
    if let [api, export, directory] = &options.command[..]
        && api == "api"
        && export == "export"
    {
        return api::export(directory.as_ref());
    }
    if let [memif, doctor, words @ ..] = &options.command[..]
        && memif == "memif"
        && doctor == "doctor"
    {
        return doctor::run(words);
    }
    if !options.command.is_empty() {
        let mut client = Client::connect(options.socket.as_deref())?;
        return match execute(&mut client, &join(&options.command))? {
            None => Ok(()),
            Some(message) => Err(Failure::Command(Some(message))),
        };
    }
    let from_file = options.file.filter(|file| file.as_os_str() != "-");
    let (name, text) = match from_file {
        Some(file) => {
            let name = file.display().to_string();
            let text = std::fs::read_to_string(&file).map_err(|error| Failure::Io(name.clone(), error))?;
            (name, text)
        }
        None if io::stdin().is_terminal() => {
            return interactive::run(Client::connect(options.socket.as_deref())?);
        }
        None => {
            let mut text = String::new();
            let read = io::stdin().read_to_string(&mut text);
            read.map_err(|error| Failure::Io("standard input".into(), error))?;
            ("stdin".into(), text)
        }
    };
    script::run(&mut Client::connect(options.socket.as_deref())?, &name, &text, options.keep_going)
}

/// The line that a list of arguments stands for. A whole command may come as one argument; beside others, one
/// with blanks in it was quoted on purpose and stays one word.
fn join(arguments: &[String]) -> String {
    let quoted = |argument: &String| {
        let one_word = argument.contains(char::is_whitespace) && !argument.contains(['{', '"']);
        if one_word && arguments.len() > 1 { format!("\"{argument}\"") } else { argument.clone() }
    };
    arguments.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// Runs a line with its output on stdout, or in the file of ours that it names. Returns the message of a command that failed.
fn execute(client: &mut Client, line: &str) -> Result<Option<String>, Failure> {
    match config::line(line) {
        Ok(Line::Plain) => print(client, line),
        Ok(Line::Other(line)) => print(client, &line),
        Ok(Line::Into(line, file)) => {
            let mut text = Vec::new();
            let failed = client.request(&line, &mut |part| {
                if let Part::Text(bytes) = part {
                    text.extend_from_slice(bytes);
                }
            })?;
            if failed.is_none() {
                let written = wharf_control::config::replace(&file, &text);
                written.map_err(|error| Failure::Io(file.display().to_string(), error))?;
            }
            Ok(failed)
        }
        Err(message) => Ok(Some(message)),
    }
}

fn print(client: &mut Client, line: &str) -> Result<Option<String>, Failure> {
    let mut stdout = io::stdout().lock();
    let mut progress = Progress::new();
    let mut written = Ok(());
    let reply = client.request(line, &mut |part| match part {
        Part::Progress(line) => progress.show(line),
        Part::Text(text) if written.is_ok() => {
            progress.clear();
            written = stdout.write_all(text);
        }
        Part::Text(_) => {}
    });
    progress.clear();
    written.and_then(|()| stdout.flush()).map_err(|error| Failure::Io("standard output".into(), error))?;
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_make_a_line() {
        let line = |words: &[&str]| join(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>());
        assert_eq!(line(&["show", "interface", "--json"]), "show interface --json");
        assert_eq!(line(&["show interface"]), "show interface");
        assert_eq!(line(&["set", "tag", "two words"]), "set tag \"two words\"");
        assert_eq!(line(&["pg", "new", "{ name x }"]), "pg new { name x }");
    }

    #[test]
    fn what_follows_a_command_belongs_to_it() {
        let parse = |words: &[&str]| Options::try_parse_from([&["wharfctl"], words].concat());
        let options = parse(&["-s", "/x", "show", "interface", "--json", "-s", "-h"]).unwrap();
        assert_eq!(options.socket, Some("/x".into()));
        assert_eq!(options.command, ["show", "interface", "--json", "-s", "-h"]);
        assert!(parse(&["--bogus"]).is_err());
        assert!(parse(&["-f", "x", "show"]).is_err());
    }
}
