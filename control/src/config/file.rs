//! Files that hold a configuration: whole or not there, and for their owner only, as secrets are in them.

use super::text::MAX_DOCUMENT;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Reads the text of a document.
///
/// # Errors
/// Of the system; or it is no regular file, too long, or not UTF-8.
pub fn read_document(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    // A pipe or a device would block the control plane.
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = String::new();
    file.take(MAX_DOCUMENT as u64 + 1).read_to_string(&mut text)?;
    if text.len() > MAX_DOCUMENT {
        return Err(io::Error::other(format!("longer than {} MiB", MAX_DOCUMENT >> 20)));
    }
    Ok(text)
}

/// A file that is to replace another.
#[derive(Debug)]
pub(super) struct New {
    pub(super) file: File,
    path: PathBuf,
}

impl New {
    /// Writes it beside the one of this name, with mode 0600, and has the disk take it.
    pub(super) fn create(path: &Path, bytes: &[u8]) -> io::Result<New> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let path = PathBuf::from(name);
        // What a process that was killed left is not ours to write into.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
        let mut new = New { file, path };
        new.file.write_all(bytes)?;
        new.file.sync_all()?;
        Ok(new)
    }

    /// Puts it in the place of the other.
    pub(super) fn rename(self, path: &Path) -> io::Result<File> {
        // First: once it has the name, nothing may fail.
        let file = self.file.try_clone()?;
        fs::rename(&self.path, path)?;
        Ok(file)
    }
}

impl Drop for New {
    fn drop(&mut self) {
        // Gone, if it has its name.
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes a file with mode 0600 that replaces the one of this name once it is on the disk.
///
/// # Errors
/// Of the system; the old file is there then.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let file = New::create(path, bytes)?.rename(path)?;
    sync_directory(path);
    Ok(file)
}

/// The names in the directory of a file, on the disk. Where that can't be had, the file is there nonetheless.
pub(super) fn sync_directory(path: &Path) {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Ok(directory) = File::open(directory.unwrap_or(Path::new("."))) {
        let _ = directory.sync_all();
    }
}
