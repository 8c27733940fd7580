//! The gate: instructions of the hot paths, counted by callgrind, beside a committed baseline.
//!
//! An instruction count says less than a time, but it is the same on every machine and in every run of one build. So a
//! change that makes a path longer is seen at once, and by whom it was made. callgrind shows programs a processor with
//! AVX2 and without AVX-512, whatever the machine has.

mod paths;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::process::{WorkDir, output};
use paths::{Counted, SAMPLES};

/// The baseline.
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json");
/// A path may be so much longer than in the baseline.
const TOLERANCE: f64 = 0.03;
const UPDATE: &str =
    "`make gate-update` writes the baseline anew: commit it with the change that it is for, and say why";

/// What is committed.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Baseline {
    /// What the counts were made with: another compiler makes other code.
    rustc: String,
    /// Instructions per packet (lookup, checksum) by path.
    instructions: BTreeMap<String, f64>,
}

/// Runs the paths, and prints which: what callgrind is to watch.
pub(crate) fn run_paths() -> Result<()> {
    let list = paths::run()?;
    println!("{}", serde_json::to_string(&list).map_err(|e| e.to_string())?);
    Ok(())
}

/// Counts, and compares with the baseline, or writes it anew.
pub(crate) fn run(update: bool) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        return Err("the baseline of instruction counts is for x86-64".into());
    }
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let rustc = output(rustc, &["--version"])?.trim().to_string();
    let now = Baseline { rustc, instructions: count()? };
    if update {
        let json = serde_json::to_string_pretty(&now).map_err(|e| e.to_string())?;
        fs::write(BASELINE, json + "\n").map_err(|e| format!("{BASELINE}: {e}"))?;
        for (path, n) in &now.instructions {
            println!("{path:<40}{n:>9.2}");
        }
        println!("written to {BASELINE}");
        return Ok(());
    }
    let text = fs::read_to_string(BASELINE).map_err(|e| format!("{BASELINE}: {e}"))?;
    let baseline = serde_json::from_str(&text).map_err(|e| format!("{BASELINE}: {e}"))?;
    let (table, verdict) = compare(&baseline, &now);
    print!("{table}");
    verdict
}

/// Instructions per packet by path.
fn count() -> Result<BTreeMap<String, f64>> {
    let dir = WorkDir::new()?;
    let out = dir.path().join("callgrind.out");
    let own = std::env::current_exe().map_err(|e| format!("this program: {e}"))?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--quiet", "--combine-dumps=yes"]);
    valgrind.arg(format!("--callgrind-out-file={}", out.display())).args(paths::callgrind_options());
    let done = valgrind.arg(own).arg("gate-paths").output();
    let done = done.map_err(|e| format!("valgrind, of Debian's package of that name: {e}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    if !done.status.success() {
        return Err(format!("the paths failed under valgrind: {}", said.trim()));
    }
    let list: Vec<Counted> =
        serde_json::from_slice(&done.stdout).map_err(|e| format!("the list of paths: {e}; {said}"))?;
    per_packet(&list, &totals(&out)?)
}

/// The sums of the parts of a file of callgrind's, in their order.
fn totals(path: &Path) -> Result<Vec<u64>> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let lines = text.lines().filter_map(|l| l.strip_prefix("totals: "));
    lines.map(|n| n.trim().parse().map_err(|e| format!("{}: totals {n}: {e}", path.display()))).collect()
}

/// The least of the samples of each path, per packet, to two digits.
fn per_packet(list: &[Counted], totals: &[u64]) -> Result<BTreeMap<String, f64>> {
    // The last part is what came behind the last sample.
    let samples = totals.get(..list.len() * SAMPLES).unwrap_or_default().chunks_exact(SAMPLES);
    if samples.len() != list.len() || totals.len() > list.len() * SAMPLES + 1 {
        return Err(format!("callgrind counted {} samples of {} paths", totals.len(), list.len()));
    }
    let mut counts = BTreeMap::new();
    for (Counted { path, packets }, samples) in list.iter().zip(samples) {
        match samples.iter().min() {
            Some(&least) if least != 0 => {
                counts.insert(path.clone(), (least as f64 / *packets as f64 * 100.0).round() / 100.0);
            }
            _ => return Err(format!("callgrind counted nothing of {path}")),
        }
    }
    Ok(counts)
}

/// A table, and an error if a path is too long or nothing is known of it.
fn compare(baseline: &Baseline, now: &Baseline) -> (String, Result<()>) {
    let mut table =
        format!("{:<40}{:>9}{:>10}{:>9}\n", "instructions per packet", "now", "baseline", "change");
    let (mut longer, mut shorter, mut unknown) = (0, 0, Vec::new());
    for (path, n) in &now.instructions {
        let Some(before) = baseline.instructions.get(path) else {
            unknown.push(path.as_str());
            continue;
        };
        let change = n / before - 1.0;
        let too_long = *n > before * (1.0 + TOLERANCE);
        let verdict = if too_long { "  TOO LONG" } else { "" };
        longer += usize::from(too_long);
        shorter += usize::from(change < -TOLERANCE);
        table += &format!("{path:<40}{n:>9.2}{before:>10.2}{:>+8.1}%{verdict}\n", change * 100.0);
    }
    unknown.extend(
        baseline.instructions.keys().filter(|p| !now.instructions.contains_key(*p)).map(String::as_str),
    );
    let compiler = if baseline.rustc == now.rustc {
        String::new()
    } else {
        format!(
            "; the baseline was made with {}, this is {}, so the compiler may be the reason",
            baseline.rustc, now.rustc
        )
    };
    let problem = match (longer, unknown.as_slice()) {
        (0, []) => {
            if shorter != 0 {
                table += &format!("{shorter} paths are shorter than in the baseline{compiler}: {UPDATE}\n");
            }
            return (table, Ok(()));
        }
        (0, _) => format!("only now or only in the baseline: {}", unknown.join(", ")),
        _ => format!(
            "{longer} paths take over {:.0} % more instructions than in the baseline",
            TOLERANCE * 100.0
        ),
    };
    (table, Err(format!("{problem}{compiler}. {UPDATE}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(list: &[(&str, f64)]) -> Baseline {
        let instructions = list.iter().map(|(path, n)| ((*path).to_string(), *n)).collect();
        Baseline { rustc: "rustc 1.95.0".into(), instructions }
    }

    #[test]
    fn three_percent_pass_and_more_do_not() {
        let baseline = counts(&[("a", 100.0), ("b", 50.0)]);
        assert_eq!(compare(&baseline, &counts(&[("a", 103.0), ("b", 40.0)])).1, Ok(()));
        let (table, verdict) = compare(&baseline, &counts(&[("a", 103.1), ("b", 50.0)]));
        assert!(table.contains("TOO LONG"), "{table}");
        let error = verdict.unwrap_err();
        assert!(
            error.starts_with("1 paths take over 3 % more") && error.contains("make gate-update"),
            "{error}"
        );
        assert!(!error.contains("compiler"), "{error}");
    }

    #[test]
    fn another_compiler_is_named() {
        let (baseline, mut now) = (counts(&[("a", 1.0)]), counts(&[("a", 2.0)]));
        now.rustc = "rustc 1.96.0".into();
        let error = compare(&baseline, &now).1.unwrap_err();
        assert!(error.contains("made with rustc 1.95.0, this is rustc 1.96.0"), "{error}");
    }

    #[test]
    fn a_path_that_one_side_does_not_know_is_an_error() {
        let baseline = counts(&[("a", 1.0)]);
        for other in [counts(&[]), counts(&[("a", 1.0), ("b", 1.0)])] {
            assert!(compare(&baseline, &other).1.is_err());
        }
    }

    #[test]
    fn the_least_of_the_samples_counts() {
        let list = [Counted { path: "a".into(), packets: 10 }];
        let mut totals = vec![500; SAMPLES];
        totals[3] = 400;
        assert_eq!(per_packet(&list, &totals).unwrap()["a"], 40.0);
        totals.pop();
        assert!(per_packet(&list, &totals).is_err());
        assert!(per_packet(&list, &[0; SAMPLES]).is_err());
    }
}
