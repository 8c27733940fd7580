//! A hostile client, for tests of a memif server: `adversary --socket PATH --id N --case NAME`. Cases `serve-*` are a hostile server.
//!
//! It attaches to an interface and does what no honest client does; then it says on standard output what it did, and
//! exits with 1 if the server let it (a message that must be refused was not), and with 3 if it found the bytes of
//! `--canary` in memory that it shares with the server: somebody else's packet. Everything that is random comes from
//! `--seed`.

mod attach;
mod cases;
mod handshake;
mod memory;
mod rings;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use memif::wire::SECRET_SIZE;

/// The command line.
#[derive(Debug, Clone)]
struct Options {
    socket: PathBuf,
    id: u32,
    case: String,
    seed: u64,
    /// How long a case without an end of its own lasts.
    time: Duration,
    /// As it goes over the wire.
    secret: [u8; SECRET_SIZE],
    /// Bytes of other people's packets.
    canary: Vec<u8>,
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut options = Self {
            socket: PathBuf::new(),
            id: 0,
            case: String::new(),
            seed: 1,
            time: Duration::from_secs(2),
            secret: [0; SECRET_SIZE],
            canary: Vec::new(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|e| format!("{word} {value}: {e}"));
            match word.as_str() {
                "--socket" => options.socket = value.into(),
                "--id" => options.id = number()? as u32,
                "--case" => options.case = value,
                "--seed" => options.seed = number()?,
                "--milliseconds" => options.time = Duration::from_millis(number()?),
                "--secret" => options.secret.iter_mut().zip(value.bytes()).for_each(|(to, from)| *to = from),
                "--canary" => options.canary = value.into_bytes(),
                _ => return Err(format!("unknown option {word}")),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let done = Options::parse().and_then(|options| cases::run(&options));
    match done {
        Ok(did) => {
            println!("{did}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::from(if failure.starts_with(memory::LEAK) { 3 } else { 1 })
        }
    }
}
