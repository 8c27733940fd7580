//! `wharfctl api export DIR`: writes the definitions of the binary API's messages, for clients that load them from files.

use std::fs;
use std::io;
use std::path::Path;

use wharf_control::api::{json, modules};

use super::Failure;

/// Writes a file for each module into a directory, which is made.
pub(super) fn export(directory: &Path) -> Result<(), Failure> {
    let write = |path: &Path, text: &str| {
        fs::write(path, text).map_err(|error| Failure::Io(path.display().to_string(), error))
    };
    fs::create_dir_all(directory).map_err(|error| Failure::Io(directory.display().to_string(), error))?;
    for (module, _) in modules() {
        let text = serde_json::to_string_pretty(&json::module(module));
        let text = text.map_err(|error| Failure::Io(module.name.into(), io::Error::other(error)))?;
        write(&directory.join(format!("{}.api.json", module.name)), &text)?;
    }
    Ok(())
}
