//! What lies in the inbox, and where it goes.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::WatchError;
use super::delivery::DeliveryKind;

/// The folder, and its `done` and `failed`.
#[derive(Clone, Debug)]
pub struct Inbox {
    path: PathBuf,
    done: PathBuf,
    failed: PathBuf,
}

/// An entry that may be a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxEntry {
    /// Its name; where it is not UTF-8, as near as can be.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// What lay there when it was listed.
    pub identity: Identity,
}

/// What lies by a name: another that is renamed over it differs, and it stays the same when it is moved or linked.
///
/// The time of its status is no part of it, since a hard link changes that. Size and time of the content are, since a
/// file system gives numbers of files that are gone to new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    number: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Identity {
    /// Of a file, folder or link.
    ///
    /// # Errors
    /// Where nothing lies there, say.
    pub fn of(path: &Path) -> io::Result<Identity> {
        path.symlink_metadata().map(|meta| Identity::told(&meta))
    }

    /// Number and time of modification of the file, without the number of the device, which another mount can change.
    pub(super) fn file_bytes(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.modified.0.to_le_bytes());
        bytes[16..].copy_from_slice(&self.modified.1.to_le_bytes());
        bytes
    }

    fn told(meta: &Metadata) -> Identity {
        Identity {
            device: meta.dev(),
            number: meta.ino(),
            bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

impl InboxEntry {
    /// Does it still lie there? Not where it went, or another took its name.
    pub fn lies(&self) -> bool {
        Identity::of(&self.path).is_ok_and(|now| now == self.identity)
    }

    /// What kind of delivery its name says it is; none: it went meanwhile.
    ///
    /// # Errors
    /// What was expected.
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
            // What went since is not there.
            if let Ok(identity) = Identity::of(&path) {
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

    /// Moves what is done, durably. Where another took its name, that stays: it is yet to be read.
    ///
    /// # Errors
    /// [`WatchError::Io`].
    pub fn done<'a>(&self, entries: impl IntoIterator<Item = &'a InboxEntry>) -> Result<(), WatchError> {
        for entry in entries {
            put(entry, &self.done)?;
        }
        self.sync(&self.done)
    }

    /// Moves what cannot be used, and writes the reason beside it; false: it went, or another took its name.
    ///
    /// # Errors
    /// [`WatchError::Io`].
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
/// As many bytes of a name are kept: a file system takes 255, and some are appended.
const KEPT: usize = 200;

/// Renames into a folder, by a name that is free there; none: it is not there any more.
fn put(entry: &InboxEntry, folder: &Path) -> Result<Option<PathBuf>, WatchError> {
    // Asked before too: what is not taken need not be put back.
    if !entry.lies() {
        return Ok(None);
    }
    let to = free(folder, entry.path.file_name().unwrap_or_default());
    let moved = take(entry, &to).map_err(WatchError::io("move", &entry.path))?;
    Ok(moved.then_some(to))
}

/// A name that is free in a folder where only this process writes, with a reason beside it too.
fn free(folder: &Path, name: &OsStr) -> PathBuf {
    let bytes = name.as_bytes();
    let is_inside = |at: &usize| {
        bytes
            .get(*at)
            .is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000)
    };
    let mut end = KEPT.min(bytes.len());
    // Not inside a character.
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

/// Renames an entry; false: it had gone, or another had taken its name, and has it again.
fn take(entry: &InboxEntry, to: &Path) -> io::Result<bool> {
    match fs::rename(&entry.path, to) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    if Identity::of(to)? == entry.identity {
        return Ok(true);
    }
    // Nothing that came after it may go: a rename would replace a file, but no folder that holds something.
    let back = match to.symlink_metadata()?.is_dir() {
        true => fs::rename(to, &entry.path),
        false => fs::hard_link(to, &entry.path).and_then(|()| fs::remove_file(to)),
    };
    match back {
        // A third came over it, and would have replaced it: it need not be read.
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

        /// Puts it there as one should.
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
        // The second time it is not there any more.
        place.inbox.done([&again, &again]).unwrap();
        assert_eq!(place.text("done/a.user.csv"), "a.user.csv");
        assert_eq!(place.text("done/a.user.csv~2"), "again");
        assert!(place.inbox.fail(&place.entry("b.user.csv"), "because").unwrap());
        assert_eq!(place.text("failed/b.user.csv.reason"), "because\n");
        assert_eq!(place.names(), [""; 0]);
        // Nor does a reason overwrite a delivery, or a delivery a reason.
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
        // It came after the name was last looked at: moved, and moved back.
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
