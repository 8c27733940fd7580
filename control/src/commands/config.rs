//! Commands about the configuration as a whole.

use crate::cli::{About, Args, CliError, Command, Hold, Looks, Output, Shown, alone, in_turn};
use crate::config::{self, Capture, Document, Step, plan, read_document, replace};
use crate::dataplane::Dataplane;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) const COMMANDS: &[Command<Dataplane>] = &[
    Command::long_show("config show", "", "Show all of the configuration, as TOML; secrets are hidden", show),
    // Who may only look names no file of ours.
    Command::long_show("config diff", "<document:block>", "Show what `config apply' would do", diff)
        .arguments(&[("document", "the configuration itself; wharfctl takes a file")]),
    Command::long(
        "config apply",
        "{<document:block>|<path>}",
        "Change the configuration into this one, wholly or not at all",
        apply,
    )
    .arguments(&[("document", "the configuration itself"), ("path", "a file; of its own side for wharfctl")]),
    Command::long(
        "config save",
        "[<path>]",
        "Write the configuration, with secrets, into a file, or out with `-'",
        save,
    ),
];

/// What a turn takes of the others' time.
const SLICE: Duration = Duration::from_millis(1);

/// The document of what there is.
fn captured(looks: &mut Looks<'_, Dataplane>) -> Result<Document, CliError> {
    let mut capture = Capture::default();
    looks.alone(|looks| {
        let mut piece = |dp: &Dataplane| {
            let until = Instant::now() + SLICE;
            while !capture.piece(dp) {
                if Instant::now() >= until {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        while !looks.look(&mut piece)? {}
        Ok(())
    })?;
    Ok(capture.finish())
}

fn show(looks: &mut Looks<'_, Dataplane>, _: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let document = captured(looks)?.without_secrets();
    let toml = document.to_toml()?;
    out.show(&document, |_, text| text.push_str(&toml))
}

/// The document of a command, and how its errors begin.
fn document(args: &Args) -> Result<Document, CliError> {
    if let Some(text) = args.opt::<String>("document")? {
        return Ok(Document::parse(&text)?);
    }
    let path: PathBuf = args.text("path")?.into();
    let within =
        |error: &dyn std::fmt::Display| CliError::new(format!("{}: {error}", path.display())).about("path");
    let text = read_document(&path).map_err(|error| within(&error))?;
    Document::parse(&text).map_err(|error| within(&error))
}

#[derive(Serialize)]
struct Row {
    sign: String,
    change: String,
}

fn render(rows: &[Row], text: &mut String) {
    for row in rows {
        let _ = writeln!(text, "{} {}", row.sign, row.change);
    }
}

fn diff(looks: &mut Looks<'_, Dataplane>, args: &Args, out: &mut Output<'_>) -> Result<Shown, CliError> {
    let mut document = Document::parse(&args.text("document")?)?;
    let now = captured(looks)?;
    let secrets = looks.look(|dp| {
        // Or guesses could be tried.
        let secrets = dp.without_known_secrets(&mut document);
        dp.complete_config(&mut document, &now)?;
        Ok(secrets)
    })?;
    document.check()?;
    let steps = plan(&now, &document);
    let row = |step: &Step| Row { sign: step.sign().to_string(), change: step.to_string() };
    let mut rows: Vec<Row> = steps.iter().map(row).collect();
    let not_compared = |name| Row { sign: "?".into(), change: format!("secret of {name}: not compared") };
    rows.extend(secrets.into_iter().map(not_compared));
    out.show(&rows, |rows, text| render(rows, text))
}

fn apply(on: &mut dyn Hold<Dataplane>, args: &Args, out: &mut Output<'_>) -> Result<(), CliError> {
    let document = document(args)?;
    let done = alone(on, |on| Ok(config::apply(on, document)?))?;
    out.line(match done.len() {
        0 => "no change".to_owned(),
        1 => "1 change".to_owned(),
        count => format!("{count} changes"),
    });
    Ok(())
}

fn save(on: &mut dyn Hold<Dataplane>, args: &Args, out: &mut Output<'_>) -> Result<(), CliError> {
    let toml = captured(&mut Looks::new(on))?.to_toml()?;
    let usual = in_turn(on, |dp| Ok(dp.config_file.clone()))?;
    let given = args.opt::<String>("path")?.map(PathBuf::from);
    if given.as_deref() == Some(Path::new("-")) {
        out.text(toml);
        return Ok(());
    }
    let Some(path) = given.or(usual) else {
        return Err(CliError::new("name a file: wharf was not started with one"));
    };
    let written = replace(&path, toml.as_bytes());
    written.map_err(|error| CliError::new(format!("{}: {error}", path.display()))).about("path")?;
    out.line(path.display());
    Ok(())
}
