//! Programs under test: where they are, starting them, and making sure that they end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::Result;

/// How long a program may take to end by itself.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Ticks per second in /proc/PID/stat: the same on all Linux architectures that wharf runs on.
const USER_HZ: f64 = 100.0;

/// Pins the calling thread.
pub(crate) fn pin(core: usize) -> Result<()> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        Ok(())
    } else {
        Err(format!("core {core} is not there or not allowed"))
    }
}

/// Whether somebody wants us to end. Ending early, we still end the programs that we started.
#[derive(Debug, Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Takes the signals over.
    pub(crate) fn new() -> Result<Self> {
        let stop = Stop(Arc::default());
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop.0)).map_err(|e| format!("signals: {e}"))?;
        }
        Ok(stop)
    }

    /// It is time to end already.
    #[cfg(test)]
    pub(crate) fn soon() -> Self {
        Stop(Arc::new(AtomicBool::new(true)))
    }

    /// An error if it is time to end.
    pub(crate) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err("interrupted".into()) } else { Ok(()) }
    }
}

/// A directory for sockets and logs, gone when dropped.
#[derive(Debug)]
pub(crate) struct WorkDir(PathBuf);

impl WorkDir {
    /// A new one.
    pub(crate) fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("wharf-bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(WorkDir(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The memif sockets of a program under test: to send to, to receive from.
    pub(crate) fn sockets(&self) -> [PathBuf; 2] {
        [self.0.join("m1.sock"), self.0.join("m2.sock")]
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it, with its output in a file of `dir`. Its input is open, and ends with us.
    pub(crate) fn start(name: &str, command: &mut Command, dir: &WorkDir) -> Result<Self> {
        let log = dir.path().join("log");
        let fail = |e: std::io::Error| format!("{}: {e}", command.get_program().display());
        let out = File::create(&log).map_err(fail)?;
        let err = out.try_clone().map_err(fail)?;
        match command.stdin(Stdio::piped()).stdout(out).stderr(err).spawn() {
            Ok(child) => Ok(Self { name: name.into(), child, log }),
            Err(e) => Err(format!("{}: {e}", command.get_program().display())),
        }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error, with the end of its log, if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.explain(&format!("it ended, {status}"))),
            Err(e) => Err(self.explain(&e.to_string())),
        }
    }

    /// `error`, and the last it had to say.
    pub(crate) fn explain(&self, error: &str) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n    ");
        format!("{}: {error}\n    {last}", self.name)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // Its own clean-up, if it has one. The process is our child and not waited for, so it is still this one.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let asked = Instant::now();
        while asked.elapsed() < LAST_WORDS && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds of processor time that a process has used, all threads together.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    // The name, in parentheses, may hold anything; state is the first field behind it, utime the twelfth.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / USER_HZ)
}

/// Resident memory of a process in MiB, now and at most so far.
pub(crate) fn memory(pid: u32) -> Result<(f64, f64)> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        let kib = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<f64>().ok());
        kib.map(|kib| kib / 1024.0).ok_or_else(|| format!("{path} has no {name}"))
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// The directory of all that was built: the `target` that this program lies in.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    let up = own.ancestors().nth(2).ok_or("this program lies nowhere")?;
    Ok(up.to_path_buf())
}

/// A program that was built beside this one.
pub(crate) fn sibling(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    let path = own.with_file_name(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("there is no {}: `make build` makes it", path.display()))
    }
}

/// A program in one of `directories`, or in PATH.
pub(crate) fn find(name: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH");
    let path = path.iter().flat_map(std::env::split_paths);
    directories.iter().cloned().chain(path).map(|d| d.join(name)).find(|p| p.is_file())
}

/// Runs a command to its end, and returns its output; an error with what it says if it fails.
pub(crate) fn output(program: impl AsRef<OsStr>, arguments: &[impl AsRef<OsStr>]) -> Result<String> {
    let program = program.as_ref();
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let done = done.map_err(|e| format!("{}: {e}", program.display()))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let all: Vec<_> = arguments.iter().map(|a| a.as_ref().to_string_lossy()).collect();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    Err(format!("{} {}: {} {}", program.display(), all.join(" "), out.trim(), err.trim()))
}
