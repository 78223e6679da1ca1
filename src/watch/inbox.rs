//! Lists the inbox, and moves its entries to `done` and `failed`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::WatchError;
use super::delivery::DeliveryKind;
use crate::ingest::seen::FileIdentity;

/// The inbox with its folders `done` and `failed`.
#[derive(Clone, Debug)]
pub struct Inbox {
    path: PathBuf,
    done: PathBuf,
    failed: PathBuf,
}

/// An entry of the inbox that may be a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxEntry {
    /// Name of the entry. Bytes that are not UTF-8 are replaced.
    pub name: String,
    /// Path of the entry.
    pub path: PathBuf,
    /// Identity of the file or folder that had this path when the inbox was listed.
    pub(super) identity: FileIdentity,
}

impl InboxEntry {
    /// Returns whether the path still has the listed file. It does not if the file was moved or deleted, or if another
    /// file was renamed over it.
    pub fn lies(&self) -> bool {
        FileIdentity::of_entry(&self.path).is_ok_and(|now| now.is_same_file(&self.identity))
    }

    /// Returns the kind of the delivery, which its name states. `None` if the entry is not there any more.
    ///
    /// # Errors
    /// Returns a message with what was expected, if the name states no kind or the entry cannot be read.
    pub fn kind(&self) -> Result<Option<DeliveryKind>, String> {
        if self.path.to_str().is_none() {
            return Err("its name is not UTF-8, expected one that tables can hold".to_owned());
        }
        match self.path.metadata() {
            Ok(meta) => DeliveryKind::of(&self.name, meta.is_dir()).map(Some),
            Err(_) if !self.lies() => Ok(None),
            Err(error) => Err(format!("leads nowhere: {error}")),
        }
    }
}

impl Inbox {
    /// Opens an inbox. Folders that do not exist are created.
    ///
    /// # Errors
    /// Returns [`WatchError::Io`] if a folder cannot be created.
    pub fn open(path: &Path) -> Result<Inbox, WatchError> {
        // Tables record the paths of deliveries. The paths are absolute, so that they hold in every working directory.
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

    /// Returns the entries of the inbox, in order of name. Names that begin with a dot or end in `.tmp` or `.part` are
    /// left out, because their files are not complete yet.
    ///
    /// # Errors
    /// Returns [`WatchError::Io`] if the folder cannot be listed.
    pub fn list(&self) -> Result<Vec<InboxEntry>, WatchError> {
        let failed = || WatchError::io("list", &self.path);
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            let path = self.path.join(&name);
            let text = name.to_string_lossy();
            let hidden = text.starts_with('.') || text.ends_with(".tmp") || text.ends_with(".part");
            if hidden || path == self.done || path == self.failed {
                continue;
            }
            // Leave out an entry that was removed since the folder was listed.
            if let Ok(identity) = FileIdentity::of_entry(&path) {
                entries.push(InboxEntry {
                    name: text.into_owned(),
                    path,
                    identity,
                });
            }
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    /// Moves committed deliveries to `done`, and syncs both folders. A file that was renamed over a delivery stays in
    /// the inbox, because it is still to be read.
    ///
    /// # Errors
    /// Returns [`WatchError::Io`] if a file cannot be moved or a folder cannot be synced.
    pub fn done<'a>(&self, entries: impl IntoIterator<Item = &'a InboxEntry>) -> Result<(), WatchError> {
        for entry in entries {
            put(entry, &self.done)?;
        }
        self.sync(&self.done)
    }

    /// Moves a delivery that cannot be used to `failed`, and writes the reason beside it. Returns false if the delivery
    /// is not there any more, or if another file was renamed over it.
    ///
    /// # Errors
    /// Returns [`WatchError::Io`] if the file cannot be moved, the reason cannot be written, or a folder cannot be
    /// synced.
    pub fn fail(&self, entry: &InboxEntry, reason: &str) -> Result<bool, WatchError> {
        let Some(to) = put(entry, &self.failed)? else {
            return Ok(false);
        };
        let name = with(&to, REASON);
        fs::write(&name, format!("{reason}\n")).map_err(WatchError::io("write", &name))?;
        self.sync(&self.failed)?;
        Ok(true)
    }

    fn sync(&self, other: &Path) -> Result<(), WatchError> {
        for folder in [other, &self.path] {
            let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(WatchError::io("sync", folder))?;
        }
        Ok(())
    }
}

const REASON: &str = ".reason";
/// Number of bytes of a name that are kept in `done` and `failed`. File systems allow 255 bytes, and suffixes are
/// appended.
const KEPT: usize = 200;

/// Moves an entry into a folder, under a name that is free there. Returns the new path, or `None` if the entry is not
/// there any more.
fn put(entry: &InboxEntry, folder: &Path) -> Result<Option<PathBuf>, WatchError> {
    // Check the identity before the move as well. A file that is not moved does not have to be moved back.
    if !entry.lies() {
        return Ok(None);
    }
    let to = free(folder, entry.path.file_name().unwrap_or_default());
    let moved = take(entry, &to).map_err(WatchError::io("move", &entry.path))?;
    Ok(moved.then_some(to))
}

/// Returns a path in `folder` that is free, and whose path for the reason is free as well. Only this process writes to
/// the folder, so the path stays free.
fn free(folder: &Path, name: &OsStr) -> PathBuf {
    let bytes = name.as_bytes();
    let is_inside = |at: &usize| {
        bytes
            .get(*at)
            .is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000)
    };
    let mut end = KEPT.min(bytes.len());
    // Do not cut inside a UTF-8 character.
    while is_inside(&end) && end > 0 {
        end -= 1;
    }
    let stem = folder.join(OsStr::from_bytes(&bytes[..end]));
    let is_free = |path: &Path| path.symlink_metadata().is_err();
    let mut to = stem.clone();
    let mut again = 1;
    while !(is_free(&to) && is_free(&with(&to, REASON))) {
        again += 1;
        to = with(&stem, &format!("~{again}"));
    }
    to
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Moves an entry. Returns false if the entry is not there any more, or if another file has its path. Such a file is
/// moved back.
fn take(entry: &InboxEntry, to: &Path) -> io::Result<bool> {
    match fs::rename(&entry.path, to) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    if FileIdentity::of_entry(to)?.is_same_file(&entry.identity) {
        return Ok(true);
    }
    // A file that came since must not be overwritten when the other file is moved back. A rename replaces an existing
    // file, so files are linked back instead; a rename of a folder fails if the target is not empty.
    let back = match to.symlink_metadata()?.is_dir() {
        true => fs::rename(to, &entry.path),
        false => fs::hard_link(to, &entry.path).and_then(|()| fs::remove_file(to)),
    };
    match back {
        // A third file has the path now. It would have replaced the second file, so the second file need not be read.
        Err(error) if is_taken(error.kind()) => Ok(false),
        back => back.map(|()| false),
    }
}

fn is_taken(kind: ErrorKind) -> bool {
    use ErrorKind::{AlreadyExists, DirectoryNotEmpty, NotADirectory};
    matches!(kind, AlreadyExists | DirectoryNotEmpty | NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        folder: tempfile::TempDir,
        inbox: Inbox,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let inbox = Inbox::open(folder.path()).unwrap();
        Place { folder, inbox }
    }

    impl Place {
        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn text(&self, name: &str) -> String {
            fs::read_to_string(self.at(name)).unwrap()
        }

        /// Delivers a file as users should: writes it under another name, then renames it.
        fn deliver(&self, name: &str, content: &str) {
            fs::write(self.at(".unfinished"), content).unwrap();
            fs::rename(self.at(".unfinished"), self.at(name)).unwrap();
        }

        fn entry(&self, name: &str) -> InboxEntry {
            let mut entries = self.inbox.list().unwrap().into_iter();
            entries.find(|entry| entry.name == name).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let entries = self.inbox.list().unwrap().into_iter();
            entries.map(|entry| entry.name).collect()
        }
    }

    #[test]
    fn what_is_on_its_way_is_not_listed_and_what_is_moved_overwrites_nothing() {
        let place = place();
        for name in [
            ".hidden",
            "a.user.csv.tmp",
            "a.user.csv.part",
            "b.user.csv",
            "a.user.csv",
        ] {
            place.deliver(name, name);
        }
        assert_eq!(place.names(), ["a.user.csv", "b.user.csv"]);
        place.inbox.done([&place.entry("a.user.csv")]).unwrap();
        place.deliver("a.user.csv", "again");
        let again = place.entry("a.user.csv");
        // The second time, the entry is not there any more.
        place.inbox.done([&again, &again]).unwrap();
        assert_eq!(place.text("done/a.user.csv"), "a.user.csv");
        assert_eq!(place.text("done/a.user.csv~2"), "again");
        assert!(place.inbox.fail(&place.entry("b.user.csv"), "because").unwrap());
        assert_eq!(place.text("failed/b.user.csv.reason"), "because\n");
        assert_eq!(place.names(), [""; 0]);
        // A reason does not overwrite a delivery either, nor a delivery a reason.
        for name in ["b.user.csv.reason", "b.user.csv"] {
            place.deliver(name, name);
            assert!(place.inbox.fail(&place.entry(name), "why").unwrap());
        }
        assert_eq!(place.text("failed/b.user.csv.reason"), "because\n");
        assert_eq!(place.text("failed/b.user.csv.reason~2"), "b.user.csv.reason");
        assert_eq!(place.text("failed/b.user.csv~2.reason"), "why\n");
    }

    #[test]
    fn what_took_the_name_of_a_delivery_that_was_read_stays_in_the_inbox() {
        let place = place();
        place.deliver("a.user.csv", "one");
        let first = place.entry("a.user.csv");
        fs::hard_link(&first.path, place.at("done/linked")).unwrap();
        assert!(first.lies(), "a link to it changes nothing");
        place.deliver("a.user.csv", "two");
        assert!(!first.lies());
        place.inbox.done([&first]).unwrap();
        assert!(!place.inbox.fail(&first, "because").unwrap());
        assert_eq!(place.text("a.user.csv"), "two");
        assert!(!place.at("done/a.user.csv").exists() && !place.at("failed/a.user.csv.reason").exists());
        // The file came after the last check of the identity, so it is moved and then moved back.
        assert!(!take(&first, &place.at("done/a.user.csv")).unwrap());
        assert_eq!(place.text("a.user.csv"), "two");
        assert!(!place.at("done/a.user.csv").exists());
        let second = place.entry("a.user.csv");
        assert!(take(&second, &place.at("done/a.user.csv")).unwrap());
    }

    #[test]
    fn a_name_as_long_as_there_is_leaves_room_for_the_reason() {
        let place = place();
        // The cut is inside a character.
        let long = format!("{}{}.json", "a".repeat(199), "ü".repeat(25));
        assert_eq!(long.len(), 254);
        for _ in 0..2 {
            place.deliver(&long, "x");
            assert!(place.inbox.fail(&place.entry(&long), "because").unwrap());
        }
        let cut = "a".repeat(199);
        assert_eq!(place.text(&format!("failed/{cut}.reason")), "because\n");
        assert_eq!(place.text(&format!("failed/{cut}~2.reason")), "because\n");
    }
}
