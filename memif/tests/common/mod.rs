//! What the tests share.

use std::path::PathBuf;
use std::process::Command;

/// An example's program. `cargo test` builds it only if no target is chosen, so make sure.
pub(crate) fn example(name: &str) -> PathBuf {
    // target/debug/deps/this-test
    let profile = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_path_buf();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "-p", "memif", "--example", name, "--target-dir"]);
    cargo.arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success());
    profile.join("examples").join(name)
}
