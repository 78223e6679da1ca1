//! What lies in the inbox, and where it goes.

use std::fs;
use std::path::{Path, PathBuf};

use super::WatchError;

/// The folder, and its `done` and `failed`.
#[derive(Clone, Debug)]
pub struct Inbox {
    path: PathBuf,
    done: PathBuf,
    failed: PathBuf,
}

/// An entry that may be a delivery.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its name; where it is not UTF-8, as near as can be.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
}

impl Inbox {
    /// Makes the folders that are not there.
    ///
    /// # Errors
    /// [`WatchError::Io`].
    pub fn open(path: &Path) -> Result<Inbox, WatchError> {
        // Tables name files: the name must hold wherever they are read.
        let path = std::path::absolute(path).map_err(WatchError::io("find", path))?;
        let inbox = Inbox {
            done: path.join("done"),
            failed: path.join("failed"),
            path,
        };
        for folder in [&inbox.done, &inbox.failed] {
            fs::create_dir_all(folder).map_err(WatchError::io("make", folder))?;
        }
        Ok(inbox)
    }

    /// What lies there, by name. Names that begin with a dot or end in `.tmp` or `.part` are not there yet.
    ///
    /// # Errors
    /// [`WatchError::Io`].
    pub fn list(&self) -> Result<Vec<Entry>, WatchError> {
        let failed = || WatchError::io("list", &self.path);
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            let path = self.path.join(&name);
            let text = name.to_string_lossy();
            let hidden = text.starts_with('.') || text.ends_with(".tmp") || text.ends_with(".part");
            if !hidden && path != self.done && path != self.failed {
                let name = text.into_owned();
                entries.push(Entry { name, path });
            }
        }
        entries.sort();
        Ok(entries)
    }

    /// Moves what is done, durably.
    ///
    /// # Errors
    /// [`WatchError::Io`].
    pub fn done<'a>(&self, paths: impl IntoIterator<Item = &'a Path>) -> Result<(), WatchError> {
        for path in paths {
            put(path, &self.done)?;
        }
        self.sync(&self.done)
    }

    /// Moves what cannot be used, and writes the reason beside it.
    ///
    /// # Errors
    /// [`WatchError::Io`].
    pub fn fail(&self, path: &Path, reason: &str) -> Result<(), WatchError> {
        let Some(to) = put(path, &self.failed)? else {
            return Ok(());
        };
        let mut name = to.into_os_string();
        name.push(".reason");
        let name = PathBuf::from(name);
        fs::write(&name, format!("{reason}\n")).map_err(WatchError::io("write", &name))?;
        self.sync(&self.failed)
    }

    fn sync(&self, other: &Path) -> Result<(), WatchError> {
        for folder in [other, &self.path] {
            let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(WatchError::io("sync", folder))?;
        }
        Ok(())
    }
}

/// Renames into a folder, by a name that is free there; none: it is not there any more.
fn put(path: &Path, folder: &Path) -> Result<Option<PathBuf>, WatchError> {
    let name = path.file_name().unwrap_or_default();
    let mut to = folder.join(name);
    let mut again = 1;
    // Only this process writes there.
    while to.symlink_metadata().is_ok() {
        again += 1;
        let mut next = name.to_owned();
        next.push(format!("~{again}"));
        to = folder.join(next);
    }
    match fs::rename(path, &to) {
        Ok(()) => Ok(Some(to)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(WatchError::io("move", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_is_not_listed_and_what_is_moved_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = Inbox::open(folder.path()).unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in [
            ".hidden",
            "a.user.csv.tmp",
            "a.user.csv.part",
            "b.user.csv",
            "a.user.csv",
        ] {
            fs::write(at(name), name).unwrap();
        }
        let names = |inbox: &Inbox| -> Vec<String> {
            let entries = inbox.list().unwrap().into_iter();
            entries.map(|entry| entry.name).collect()
        };
        assert_eq!(names(&inbox), ["a.user.csv", "b.user.csv"]);
        inbox.done([&*at("a.user.csv")]).unwrap();
        fs::write(at("a.user.csv"), "again").unwrap();
        inbox.done([&*at("a.user.csv"), &*at("gone")]).unwrap();
        assert_eq!(fs::read_to_string(at("done/a.user.csv")).unwrap(), "a.user.csv");
        assert_eq!(fs::read_to_string(at("done/a.user.csv~2")).unwrap(), "again");
        inbox.fail(&at("b.user.csv"), "because").unwrap();
        assert_eq!(
            fs::read_to_string(at("failed/b.user.csv.reason")).unwrap(),
            "because\n"
        );
        assert_eq!(names(&inbox), [""; 0]);
    }
}
