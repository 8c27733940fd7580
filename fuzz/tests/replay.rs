//! Runs every target on its seeds, and on all that was ever found.

use std::path::Path;

#[test]
fn seeds_and_finds() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (target, run) in wharf_fuzz::TARGETS {
        run(b"");
        let mut seeds = 0;
        for folder in ["corpus", "regressions"] {
            // There may be no finds yet.
            let Ok(files) = std::fs::read_dir(here.join(folder).join(target)) else { continue };
            for file in files {
                let path = file.unwrap().path();
                println!("{}", path.display());
                run(&std::fs::read(&path).unwrap());
                seeds += 1;
            }
        }
        assert!(seeds > 0, "{target} has no seeds");
    }
}

#[test]
fn the_example_configuration_is_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/startup.conf");
    let text = std::fs::read_to_string(path).unwrap();
    let (config, warnings) = wharf_control::startup::StartupConfig::parse(&text, &(0..4).collect()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(config.unix.nodaemon && config.unix.exec.is_some());
}
