//! `startup.conf`, which an operator writes.

use wharf_control::startup::{Cores, StartupConfig};

/// Reads the input as a configuration, from a file and as arguments.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // Not from 0 on: as in a container that is pinned.
    let first = data.len() as u16 % 3;
    let cores: Cores = (first..first + 1 + data.len() as u16 % 8).collect();
    let parsed = StartupConfig::parse(&text, &cores);
    match &parsed {
        Ok((config, warnings)) => {
            assert!(config.cpu.corelist_workers.iter().all(|core| cores.contains(*core)));
            warnings.iter().for_each(|warning| assert!(!warning.to_string().is_empty()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    assert_eq!(parsed, StartupConfig::parse(&text, &cores));
    let _ = StartupConfig::from_args(text.split(' '), &cores);
}
