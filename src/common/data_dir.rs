//! The data folder: made if absent, owned by one process at a time. Knows nothing of what lies in it.
//!
//! Layout: `LOCK` (held with `flock` for the owner's life, holds the owner's process id) beside the folders of the parts, and `ID`, a random name that tells
//! this folder from all others, made when something outside needs to know.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::common::error::{Error, Result};

/// The folder, locked until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the folder if need be and takes it.
    pub fn create(path: &Path) -> Result<Self> {
        // What is in it may be secret: nobody but the owner needs to read it.
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|e| fault(path, "cannot be made", e))?;
        Self::lock(path, true)
    }

    /// Takes a folder that must be there already.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            let message = format!(
                "there is no data folder at {}; name it with --data-dir",
                path.display()
            );
            return Err(Error::invalid("no_data_dir", message));
        }
        Self::lock(path, false)
    }

    fn lock(path: &Path, create: bool) -> Result<Self> {
        let lock_path = path.join("LOCK");
        if !create && !lock_path.exists() {
            let message = format!(
                "{} is not a data folder of Logyard: it has no LOCK file; name the right one with --data-dir",
                path.display()
            );
            return Err(Error::invalid("no_data_dir", message));
        }
        let mut options = OpenOptions::new();
        let opened = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path);
        let mut file = opened.map_err(|e| fault(path, "cannot be written", e))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut owner = String::new();
            let _ = file.read_to_string(&mut owner);
            let owner = match owner.trim() {
                "" => "another process".to_owned(),
                pid => format!("the process {pid}"),
            };
            let message = format!(
                "the data folder {} is in use by {owner}; stop it, or choose another folder with --data-dir",
                path.display()
            );
            return Err(Error::invalid("data_dir_in_use", message));
        }
        let mut write_owner = || {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write_owner().map_err(|e| fault(path, "cannot be written", e))?;
        Ok(Self {
            path: path.to_owned(),
            _lock: file,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The folder's random name; made, durably, the first time. Only for the owner of the folder.
pub fn own_id(folder: &Path) -> Result<String> {
    let path = folder.join("ID");
    match std::fs::read_to_string(&path) {
        Ok(id) if id.trim().len() == 32 => return Ok(id.trim().to_owned()),
        Ok(_) => {
            let message = format!(
                "{} does not hold the name that tells this data folder from others; restore it from a backup",
                path.display()
            );
            return Err(Error::invalid("data_dir_unusable", message));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(fault(folder, "has an ID that cannot be read", e)),
    }
    let id = format!("{:032x}", rand::random::<u128>());
    write_durably(folder, "ID", &format!("{id}\n"))?;
    Ok(id)
}

/// Puts a small file into the folder, whole or not at all, and onto the disk. Only for the owner of the folder; blocks.
pub fn write_durably(folder: &Path, name: &str, text: &str) -> Result<()> {
    let write = || {
        let part = folder.join(format!("{name}.part"));
        let mut file = File::create(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&part, folder.join(name))?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|e| fault(folder, "cannot be written", e))
}

fn fault(path: &Path, what: &str, error: std::io::Error) -> Error {
    let message = format!(
        "the data folder {} {what}: {error}; choose another with --data-dir",
        path.display()
    );
    Error::invalid("data_dir_unusable", message).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_and_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        assert!(
            DataDir::open(&path)
                .unwrap_err()
                .message
                .contains("there is no data folder")
        );
        let first = DataDir::create(&path).unwrap();
        let refused = DataDir::create(&path).unwrap_err();
        assert!(
            refused
                .message
                .contains(&format!("in use by the process {}", std::process::id())),
            "{refused}"
        );
        drop(first);
        assert_eq!(DataDir::open(&path).unwrap().path(), path);
    }

    #[test]
    fn a_folder_keeps_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let id = own_id(folder.path()).unwrap();
        assert_eq!(own_id(folder.path()).unwrap(), id);
        std::fs::write(folder.path().join("ID"), "short").unwrap();
        assert!(own_id(folder.path()).is_err());
    }

    #[test]
    fn a_folder_of_something_else_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            DataDir::open(folder.path())
                .unwrap_err()
                .message
                .contains("is not a data folder")
        );
        assert!(!folder.path().join("LOCK").exists());
    }
}
