//! The daemon under test.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Background, Netns, PATIENCE, TempDir, dies_with_us, run, try_run};

/// How long the daemon may take to end after SIGTERM: a second, and one for a busy machine.
const STOP: Duration = Duration::from_secs(2);

/// A wharf with a runtime directory of its own; killed when dropped. When the test fails, it shows its log.
#[derive(Debug)]
pub(crate) struct Daemon {
    dir: TempDir,
    netns: Option<String>,
    words: Vec<String>,
    child: Option<Background>,
}

impl Daemon {
    /// Starts wharf in `netns`, or where the tests run, with `words` (startup.conf's grammar) after a `unix` stanza,
    /// and waits until its command line answers.
    #[track_caller]
    pub(crate) fn start(netns: Option<&Netns>, words: &str) -> Self {
        let dir = TempDir::new();
        let path = dir.path().display();
        let unix =
            format!("unix {{ nodaemon nosyslog runtime-dir {path} cli-listen {path}/cli.sock }} {words}");
        let mut daemon = Self {
            netns: netns.map(|n| n.name().to_owned()),
            words: unix.split_whitespace().map(str::to_owned).collect(),
            dir,
            child: None,
        };
        daemon.restart();
        daemon
    }

    /// Kills the daemon if it runs, and starts it as it was started before: without what commands have set.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.child = None;
        let log = File::options().append(true).create(true).open(self.log_path()).unwrap();
        let mut command = dies_with_us(self.netns.as_deref(), env!("CARGO_BIN_EXE_wharf"));
        command.args(&self.words).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(Background(command.spawn().unwrap()));
        let start = Instant::now();
        while self.ctl("show version").is_err() {
            let ended = self.child.as_mut().and_then(|c| c.0.try_wait().unwrap());
            assert!(ended.is_none(), "wharf ended: {ended:?}");
            assert!(start.elapsed() < PATIENCE, "wharf's command line does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The runtime directory: sockets of memif go here.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in the runtime directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log_path(&self) -> PathBuf {
        self.file("log")
    }

    /// What the daemon has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The number of the running process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("wharf does not run").0.id()
    }

    fn wharfctl(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wharfctl"));
        command.arg("-s").arg(self.file("cli.sock")).stdin(Stdio::null());
        command
    }

    /// Runs one command; the message when it failed.
    pub(crate) fn ctl(&self, line: &str) -> Result<String, String> {
        try_run(self.wharfctl().arg(line))
    }

    /// Runs commands, one a line; panics at the first that fails. What they printed.
    #[track_caller]
    pub(crate) fn script(&self, lines: &str) -> String {
        let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(|line| run(self.wharfctl().arg(line))).collect()
    }

    /// A `show` command as JSON.
    #[track_caller]
    pub(crate) fn json(&self, show: &str) -> serde_json::Value {
        let text = run(self.wharfctl().arg(format!("{show} --json")));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{show}: {e}\n{text}"))
    }

    /// SIGKILL.
    pub(crate) fn kill9(&mut self) {
        self.child = None;
    }

    /// SIGTERM; panics unless the daemon then ends well, and soon.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().expect("wharf does not run");
        kill_process(Pid::from_child(&child.0), Signal::TERM).unwrap();
        let start = Instant::now();
        let status = loop {
            match child.0.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(start.elapsed() < STOP, "wharf still runs {STOP:?} after SIGTERM"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "wharf ended with {status} (signal {:?})", status.signal());
        assert!(!self.file("cli.sock").exists(), "wharf left its CLI socket behind");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child = None;
        if std::thread::panicking() {
            eprintln!("--- log of wharf {}\n{}---", self.words.join(" "), self.log());
        }
    }
}
