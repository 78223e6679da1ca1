//! The input cache: copies of inputs at URLs, in the folder `inputs` of the scratch folder. Its size has a limit.
//!
//! ```text
//! inputs/NAME      a copy of an object, or a folder with copies of all objects below a URL
//! inputs/.part-*   a copy that a process is writing
//! inputs/.used     the number of bytes of all copies; a process changes the folder only while it holds the lock of this file
//! ```
//!
//! - A process reserves the bytes of a copy before it fetches the copy. If the copies would exceed the limit, the process first
//!   removes copies, the least recently used one first.
//! - A process holds a shared lock of each copy that it reads or writes, and only a copy without such a lock is removed. The lock
//!   belongs to the open file, so the system frees the lock when the process ends, however it ends.
//! - If the copies in use alone exceed the limit, the folder exceeds the limit by these copies until they are no longer used.

use std::fs::{File, FileTimes, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::StoreError;

/// The name of a copy that is being written begins with this text.
const PART: &str = ".part-";
/// The file with the number of bytes of all copies.
const USED: &str = ".used";
/// If copies are removed, this part of the limit becomes free, so that not every new copy lists the folder.
const FREED: u64 = 8;

/// The folder of copies.
#[derive(Clone, Debug)]
pub(super) struct Copies {
    folder: PathBuf,
    limit: u64,
}

/// A copy that is in use: no process removes it before this value is dropped.
#[derive(Debug)]
pub(super) struct HeldCopy {
    /// The open file, or the open folder.
    pub(super) file: File,
    pub(super) path: PathBuf,
}

/// A copy that is being written. Dropping it removes what was written.
#[derive(Debug)]
pub(super) struct NewCopy<'a> {
    copies: &'a Copies,
    path: PathBuf,
    /// The reserved bytes.
    bytes: u64,
    /// The open file or folder, which has the lock.
    file: File,
}

/// The lock of the folder, and the number of bytes of all copies.
struct Used {
    file: File,
    bytes: Option<u64>,
}

/// An entry of the folder.
struct Entry {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl Copies {
    /// The copies in a folder, which need not exist, of at most `limit` bytes.
    pub(super) fn new(folder: PathBuf, limit: u64) -> Copies {
        Copies { folder, limit }
    }

    /// The copy of this name; `None` if there is none.
    pub(super) fn find(&self, name: &str) -> Result<Option<HeldCopy>, StoreError> {
        let path = self.folder.join(name);
        loop {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(StoreError::io("open", &path)(error)),
            };
            file.lock_shared().map_err(StoreError::io("lock", &path))?;
            // Another process may have removed the copy between opening and locking.
            if is_at(&file, &path) {
                // The time of the last use. A folder that cannot be changed keeps an older time, which does no harm.
                let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
                return Ok(Some(HeldCopy { file, path }));
            }
        }
    }

    /// Begins a copy of one object of this size.
    pub(super) fn file(&self, bytes: u64) -> Result<NewCopy<'_>, StoreError> {
        let mut used = self.room_for(bytes)?;
        let failed = || StoreError::io("write", &self.folder);
        let (file, path) = tempfile::Builder::new()
            .prefix(PART)
            .tempfile_in(&self.folder)
            .and_then(|file| file.keep().map_err(|error| error.error))
            .map_err(failed())?;
        let mut new = self.begun(path, file)?;
        // The reserved bytes count if another process lists the folder before they are written.
        new.file.set_len(bytes).map_err(failed())?;
        new.reserve(bytes, &mut used)?;
        Ok(new)
    }

    /// Begins a copy of several objects, with these names within the folder and sizes.
    pub(super) fn folder(&self, objects: &[(PathBuf, u64)]) -> Result<NewCopy<'_>, StoreError> {
        let bytes = objects.iter().map(|(_, bytes)| bytes).sum();
        let mut used = self.room_for(bytes)?;
        let failed = || StoreError::io("write", &self.folder);
        let path = tempfile::Builder::new()
            .prefix(PART)
            .tempdir_in(&self.folder)
            .map_err(failed())?
            .keep();
        let file = File::open(&path).map_err(failed())?;
        let mut new = self.begun(path, file)?;
        for (name, bytes) in objects {
            let target = new.path.join(name);
            let parent = target.parent().unwrap_or(&new.path);
            std::fs::create_dir_all(parent).map_err(StoreError::io("make", parent))?;
            File::create(&target)
                .and_then(|file| file.set_len(*bytes))
                .map_err(StoreError::io("write", &target))?;
        }
        new.reserve(bytes, &mut used)?;
        Ok(new)
    }

    /// A copy in use that is being written to this new file or folder. It has reserved no bytes yet.
    fn begun(&self, path: PathBuf, file: File) -> Result<NewCopy<'_>, StoreError> {
        file.lock_shared().map_err(StoreError::io("lock", &path))?;
        Ok(NewCopy {
            copies: self,
            path,
            bytes: 0,
            file,
        })
    }

    /// Takes the lock of the folder, and removes copies if `bytes` more would exceed the limit.
    fn room_for(&self, bytes: u64) -> Result<Used, StoreError> {
        let mut used = self.lock()?;
        let counted = used.bytes.and_then(|used| used.checked_add(bytes));
        if counted.is_none_or(|all| all > self.limit) {
            let kept = self.remove_idle(bytes)?;
            used.set(kept).map_err(StoreError::io("write", &self.folder))?;
        }
        Ok(used)
    }

    fn lock(&self) -> Result<Used, StoreError> {
        std::fs::create_dir_all(&self.folder).map_err(StoreError::io("make", &self.folder))?;
        let path = self.folder.join(USED);
        let failed = || StoreError::io("lock", &path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed())?;
        file.lock().map_err(failed())?;
        let mut text = String::new();
        // A text that is no number makes the next copy list the folder.
        let _ = file.read_to_string(&mut text);
        Ok(Used {
            file,
            bytes: text.trim().parse().ok(),
        })
    }

    /// Removes copies that are not in use until there is room for `bytes`, the least recently used one first. Returns the
    /// number of bytes that stay. The caller holds the lock of the folder.
    fn remove_idle(&self, bytes: u64) -> Result<u64, StoreError> {
        let mut entries = self.entries()?;
        let mut all: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let aim = (self.limit - self.limit / FREED).saturating_sub(bytes);
        entries.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
        for entry in entries {
            // A process that was killed left an unfinished copy.
            if (all > aim || is_part(&entry.path)) && removed(&entry.path)? {
                tracing::debug!(copy = %entry.path.display(), bytes = entry.bytes, "removed from the input cache");
                all -= entry.bytes;
            }
        }
        Ok(all)
    }

    fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(StoreError::io("list", &self.folder))? {
            let path = entry.map_err(StoreError::io("list", &self.folder))?.path();
            if path.file_name().is_some_and(|name| name == USED) {
                continue;
            }
            let found = path.symlink_metadata();
            let found = found.and_then(|found| Ok((found.modified()?, size(&path)?)));
            let (used, bytes) = found.map_err(StoreError::io("read", &path))?;
            entries.push(Entry { path, bytes, used });
        }
        Ok(entries)
    }
}

impl Used {
    fn set(&mut self, bytes: u64) -> io::Result<()> {
        self.bytes = Some(bytes);
        self.file.set_len(0)?;
        self.file.rewind()?;
        write!(self.file, "{bytes}")
    }
}

impl NewCopy<'_> {
    fn reserve(&mut self, bytes: u64, used: &mut Used) -> Result<(), StoreError> {
        let all = used.bytes.unwrap_or_default().saturating_add(bytes);
        used.set(all)
            .map_err(StoreError::io("write", &self.copies.folder))?;
        self.bytes = bytes;
        Ok(())
    }

    /// The folder with the files to write.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file to write.
    pub(super) fn writer(&self) -> &File {
        &self.file
    }

    /// Gives the copy its name. If another process made the same copy meanwhile, that copy is used.
    pub(super) fn publish(self, name: &str) -> Result<HeldCopy, StoreError> {
        let used = self.copies.lock()?;
        if let Some(there) = self.copies.find(name)? {
            drop(used);
            return Ok(there);
        }
        let target = self.copies.folder.join(name);
        std::fs::rename(&self.path, &target).map_err(StoreError::io("name", &target))?;
        let gone = || StoreError::io("open", &target)(io::ErrorKind::NotFound.into());
        self.copies.find(name)?.ok_or_else(gone)
    }
}

impl Drop for NewCopy<'_> {
    fn drop(&mut self) {
        if !is_at(&self.file, &self.path) {
            return;
        }
        // If a step fails here, a later process removes the unfinished copy. Without reserved bytes, this process may have the
        // lock of the folder already.
        if self.bytes == 0 {
            let _ = remove(&self.path);
        } else if let Ok(mut used) = self.copies.lock()
            && remove(&self.path).is_ok()
            && let Some(bytes) = used.bytes
        {
            let _ = used.set(bytes.saturating_sub(self.bytes));
        }
    }
}

/// Whether the copy of this path is unfinished.
fn is_part(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(PART.as_bytes())
}

/// Removes a copy, unless a process uses it.
fn removed(path: &Path) -> Result<bool, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", path)(error)),
    }
    remove(path).map_err(StoreError::io("remove", path))?;
    Ok(true)
}

fn remove(path: &Path) -> io::Result<()> {
    if !path.symlink_metadata()?.is_dir() {
        return std::fs::remove_file(path);
    }
    if is_part(path) {
        return std::fs::remove_dir_all(path);
    }
    // A folder without some of its files must not have the name of a copy.
    let name = path.file_name().unwrap_or_default().display();
    let gone = path.with_file_name(format!("{PART}{name}"));
    std::fs::rename(path, &gone)?;
    std::fs::remove_dir_all(&gone)
}

/// The bytes of a file, or of all files of a folder.
fn size(path: &Path) -> io::Result<u64> {
    let found = path.symlink_metadata()?;
    if !found.is_dir() {
        return Ok(found.len());
    }
    let mut all = 0;
    for entry in std::fs::read_dir(path)? {
        all += size(&entry?.path())?;
    }
    Ok(all)
}

/// Whether the open file or folder is the one of this path now.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(own), Ok(there)) = (file.metadata(), path.symlink_metadata()) else {
        return false;
    };
    (own.dev(), own.ino()) == (there.dev(), there.ino())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const LIMIT: u64 = 1000;

    fn write(new: &NewCopy<'_>, byte: u8) {
        new.writer().write_all(&vec![byte; new.bytes as usize]).unwrap();
    }

    /// Fetches a copy of this size whose bytes are those of its name.
    fn fetch(copies: &Copies, name: &str, bytes: u64) -> HeldCopy {
        if let Some(held) = copies.find(name).unwrap() {
            return held;
        }
        let new = copies.file(bytes).unwrap();
        write(&new, name.as_bytes()[0]);
        new.publish(name).unwrap()
    }

    /// The bytes of all copies and the bytes that the folder reserves, while no process changes the folder.
    fn used(copies: &Copies) -> (u64, u64) {
        let used = copies.lock().unwrap();
        let there = copies.entries().unwrap().iter().map(|entry| entry.bytes).sum();
        (there, used.bytes.unwrap_or_default())
    }

    fn has(copies: &Copies, name: &str) -> bool {
        copies.folder.join(name).exists()
    }

    /// Sets the time of the last use, in seconds.
    fn use_at(copies: &Copies, name: &str, seconds: u64) {
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let file = File::open(copies.folder.join(name)).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }

    fn empty() -> (tempfile::TempDir, Copies) {
        let folder = tempfile::tempdir().unwrap();
        let copies = Copies::new(folder.path().join("inputs"), LIMIT);
        (folder, copies)
    }

    #[test]
    fn the_least_recently_used_copies_go_when_a_new_one_needs_their_room() {
        let (_folder, copies) = empty();
        for (seconds, name) in (1..).zip(["a", "b", "c"]) {
            fetch(&copies, name, 300);
            use_at(&copies, name, seconds);
        }
        assert_eq!(used(&copies), (900, 900));
        // Reading a copy again makes it the most recently used one.
        assert!(copies.find("a").unwrap().is_some());
        fetch(&copies, "d", 300);
        let there = ["a", "b", "c", "d"].map(|name| has(&copies, name));
        assert_eq!(there, [true, false, false, true]);
        assert_eq!(used(&copies), (600, 600));
        // A copy that is larger than the limit is fetched, too, and is alone then.
        drop(fetch(&copies, "e", 3 * LIMIT));
        assert_eq!(used(&copies), (3 * LIMIT, 3 * LIMIT));
        fetch(&copies, "f", 1);
        assert_eq!(used(&copies), (1, 1));
    }

    #[test]
    fn a_file_or_folder_in_use_stays_until_it_is_no_longer_used() {
        let (_folder, copies) = empty();
        let file = fetch(&copies, "a", 400);
        let objects = [("x".into(), 100), ("deep/y".into(), 300)];
        let new = copies.folder(&objects).unwrap();
        let folder = new.publish("folder").unwrap();
        use_at(&copies, "a", 1);
        use_at(&copies, "folder", 2);
        fetch(&copies, "b", 200);
        fetch(&copies, "c", 200);
        assert!(!has(&copies, "b") && has(&copies, "a") && has(&copies, "folder/deep/y"));
        let mut bytes = Vec::new();
        (&file.file).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [b'a'; 400]);
        drop((file, folder));
        fetch(&copies, "d", 700);
        assert!(!has(&copies, "a") && !has(&copies, "folder"));
        assert_eq!(used(&copies), (700, 700));
    }

    #[test]
    fn a_copy_that_is_not_finished_gives_its_room_back_and_that_of_a_killed_process_is_removed() {
        let (_folder, copies) = empty();
        drop(copies.file(400).unwrap());
        drop(copies.folder(&[("x".into(), 400)]).unwrap());
        assert_eq!(used(&copies), (0, 0));
        // The folder of a killed process: its copies count, although the file with the number does not tell.
        std::fs::write(copies.folder.join(".part-killed"), vec![0; 900]).unwrap();
        std::fs::write(copies.folder.join(USED), "no number").unwrap();
        let new = copies.file(200).unwrap();
        assert_eq!(used(&copies), (200, 200));
        // Another process finishes the same copy first.
        fetch(&copies, "a", 200);
        let there = new.publish("a").unwrap();
        assert!(is_at(&there.file, &copies.folder.join("a")));
        assert_eq!(used(&copies), (200, 200));
    }

    const FOLDER: &str = "VAPLAN_TEST_COPIES";

    /// What each of several processes does: it fetches copies, and keeps the last two in use.
    #[test]
    fn child() {
        let Ok(folder) = std::env::var(FOLDER) else { return };
        let copies = Copies::new(folder.into(), LIMIT);
        let mut held: std::collections::VecDeque<HeldCopy> = Default::default();
        let mut random = u64::from(std::process::id());
        for _ in 0..400 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let name = char::from(b'a' + (random >> 40) as u8 % 20).to_string();
            held.push_back(fetch(&copies, &name, 100));
            if held.len() > 2 {
                held.pop_front();
            }
            for copy in &held {
                assert!(is_at(&copy.file, &copy.path), "{} is in use", copy.path.display());
                let bytes = std::fs::read(&copy.path).unwrap();
                let name = copy.path.file_name().unwrap().as_encoded_bytes();
                assert_eq!(bytes, vec![name[0]; 100]);
            }
            let (there, reserved) = used(&copies);
            assert!(
                there <= LIMIT && there <= reserved,
                "{there} bytes, {reserved} reserved"
            );
        }
    }

    #[test]
    fn several_processes_on_one_folder_never_exceed_the_limit_and_remove_no_copy_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let child = || {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command
                .args(["--exact", "storage::copies::tests::child"])
                .env(FOLDER, folder.path());
            command
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
        };
        let children: Vec<_> = (0..3).map(|_| child().unwrap()).collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stdout)
            );
        }
        let (there, _) = used(&Copies::new(folder.path().to_owned(), LIMIT));
        assert!(there > LIMIT / 2 && there <= LIMIT, "{there}");
    }
}
