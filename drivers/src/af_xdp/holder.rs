//! Which process holds an XDP program.

use std::{fmt, fs, path::Path};

/// A process that holds a file descriptor of a BPF program, or of its attachment to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name, as /proc/PID/comm has it.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name)
    }
}

impl Holder {
    /// Looks through the processes that we may see; none is found where we may not, and where the program stays attached by
    /// itself (`ip link set dev X xdp ...`).
    pub(crate) fn of_program(program: u32) -> Option<Holder> {
        fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let process = entry.path();
            holds(&process, program).then(|| Holder {
                pid,
                name: fs::read_to_string(process.join("comm")).unwrap_or_default().trim_end().to_owned(),
            })
        })
    }
}

fn holds(process: &Path, program: u32) -> bool {
    let Ok(fds) = fs::read_dir(process.join("fd")) else { return false };
    fds.flatten().any(|fd| {
        let is_bpf = fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains("bpf"));
        let info = || fs::read_to_string(process.join("fdinfo").join(fd.file_name())).unwrap_or_default();
        is_bpf && names(&info(), program)
    })
}

/// Whether a file of /proc/PID/fdinfo has a line `prog_id: PROGRAM`.
fn names(fdinfo: &str, program: u32) -> bool {
    let mut ids = fdinfo.lines().filter_map(|line| line.strip_prefix("prog_id:"));
    ids.any(|id| id.trim().parse() == Ok(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_by_what_proc_says() {
        let link = "pos:\t0\nflags:\t02000000\nlink_type:\txdp\nlink_id:\t4\nprog_tag:\t57cd\nprog_id:\t17\nifindex:\t3\n";
        assert!(names(link, 17));
        assert!(!names(link, 1) && !names(link, 4) && !names("", 0));
        assert_eq!(Holder::of_program(u32::MAX), None);
    }
}
