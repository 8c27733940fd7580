//! A C program against the header and both libraries; the header against the source.

use std::path::{Path, PathBuf};
use std::process::Command;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// The directory with the libraries, which `cargo test` does not put in place.
fn libraries() -> PathBuf {
    let profile = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_path_buf();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "-p", "memif-capi", "--lib", "--target-dir"]);
    cargo.arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    run(&mut cargo);
    profile
}

#[test]
fn a_c_program() {
    let libraries = libraries();
    let dir = std::env::temp_dir().join(format!("memif-capi-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for (name, library) in [("static", "libwharf_memif.a"), ("shared", "libwharf_memif.so")] {
        let program = dir.join(name);
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-I"]).arg(here().join("include"));
        cc.arg(here().join("tests/echo.c")).arg(libraries.join(library));
        run(cc.args(["-lpthread", "-ldl", "-lm", "-o"]).arg(&program));
        let mut echo = Command::new(&program);
        echo.env("LD_LIBRARY_PATH", &libraries).arg(dir.join("socket"));
        let said = run(&mut echo);
        assert!(said.starts_with("1000 packets"), "{said}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Also where there is no cbindgen.
#[test]
fn the_header_is_complete() {
    let header = std::fs::read_to_string(here().join("include/wharf_memif.h")).unwrap();
    let source = std::fs::read_to_string(here().join("src/lib.rs")).unwrap();
    let functions: Vec<&str> =
        source.split("extern \"C\" fn ").skip(1).filter_map(|rest| rest.split('(').next()).collect();
    assert!(functions.len() > 10);
    for function in functions {
        assert!(header.contains(&format!("{function}(")), "{function} is not in the header: run header.sh");
    }
}

/// Where cbindgen is, the header must be what it makes.
#[test]
fn the_header_is_what_the_source_says() {
    if Command::new("cbindgen").arg("--version").output().is_err() {
        eprintln!("cbindgen is not installed: nothing tested");
        return;
    }
    let made = std::env::temp_dir().join(format!("wharf_memif-{}.h", std::process::id()));
    run(Command::new(here().join("header.sh")).arg(&made));
    let same = std::fs::read(&made).unwrap() == std::fs::read(here().join("include/wharf_memif.h")).unwrap();
    std::fs::remove_file(&made).unwrap();
    assert!(same, "the header is not what the source says: run header.sh");
}
