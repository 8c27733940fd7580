//! `startup.conf`, which an operator writes.

use wharf_control::startup::StartupConfig;

/// Reads the input as a configuration, from a file and as arguments.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let cores = 1 + data.len() as u16 % 8;
    let parsed = StartupConfig::parse(&text, cores);
    match &parsed {
        Ok((config, warnings)) => {
            assert!(config.cpu.corelist_workers.iter().all(|core| *core < cores));
            warnings.iter().for_each(|warning| assert!(!warning.to_string().is_empty()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    assert_eq!(parsed, StartupConfig::parse(&text, cores));
    let _ = StartupConfig::from_args(text.split(' '), cores);
}
