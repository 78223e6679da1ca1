//! Decides whether an input file is the same as before. Every command uses this one rule.
//!
//! ```text
//! file ── stat ──▶ FileIdentity ── as remembered? ── yes ──────────────────────▶ the same file
//!                                        └── no ── content hash as remembered? ── yes ──▶ the same file
//!                                                                └── no ──▶ another file
//! object at a URL ── ETag (or time of the last change) and size ── as before? ──▶ the same object
//! ```
//!
//! [`FileIdentity`] is what the file system says without reading the file. An equal identity means an equal file. Size and
//! modification time alone would not: `cp -p`, `rsync`, `tar` and `git` give other contents the modification time of the
//! original. A program cannot set the change time (ctime), and the inode number tells two files apart that were made
//! within one tick of the clock.
//!
//! Another identity does not mean another content: `touch`, `cp` and a restored backup change the identity only. The
//! memory of a store therefore has the content hash of each input. A file whose hash is as remembered keeps the
//! identity under which it was first read, so that all hashes that contain this identity stay as they are.
//!
//! A command without a memory, and a file that the memory does not have, are decided by the identity alone.

mod identity;
mod memory;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

pub(crate) use identity::FileIdentity;
use memory::{Memory, SeenFile};

/// The most bytes that a command reads a second time to remember the contents of its inputs: they are then mostly still in the
/// file cache. More inputs would be read from the disk again, which can take as long as the command itself.
const MOST_BYTES: u64 = 4 << 30;

/// The same path for every way to write it. A path that does not exist is returned as it is.
pub(crate) fn one_spelling(path: &Path) -> PathBuf {
    // The parent of a bare file name is the empty path. It means the working directory.
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The input files of a command, and whether each is the same as in earlier commands.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeenInputs {
    /// The file of the memory; `None`: only identities count.
    file: Option<PathBuf>,
    known: Arc<Memory>,
    looked: BTreeMap<PathBuf, Look>,
    /// The last folder as it was given, and its canonical path. This avoids resolving the folder again for each file.
    folder: Option<(PathBuf, PathBuf)>,
}

/// A file that this command looked at.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// The identity now.
    now: FileIdentity,
    /// The identity that hashes of inputs contain: that of the first time when the file had this content.
    first: FileIdentity,
    /// Whether the file can still change without a change of `now`; see [`FileIdentity::is_settled`].
    settled: bool,
    /// Hash of the content, if it is known.
    content: Option<u64>,
    /// Whether the memory already says all of this.
    remembered: bool,
}

impl SeenInputs {
    /// Reads the memory in a folder. A memory that does not exist or cannot be read is empty.
    pub(crate) fn open(folder: &Path) -> SeenInputs {
        let file = folder.join(memory::FILE);
        SeenInputs {
            known: Arc::new(Memory::read(&file)),
            file: Some(file),
            ..SeenInputs::default()
        }
    }

    /// Looks at files. Contents are read only of files that the memory knows under another identity, by all cores.
    pub(crate) fn look_at<'a>(&mut self, paths: impl IntoIterator<Item = &'a PathBuf>) {
        let mut doubtful: Vec<(PathBuf, Look, (u64, u64))> = Vec::new();
        for path in paths {
            let own = self.spelled(path);
            if self.looked.contains_key(&own) {
                continue;
            }
            let Ok(now) = FileIdentity::of(path) else { continue };
            let mut look = Look {
                now,
                first: now,
                settled: now.is_settled(),
                content: None,
                remembered: false,
            };
            match self.known.get(&own) {
                Some(known) if known.settled && known.last.is_same_state(&now) => {
                    (look.first, look.content, look.remembered) = (known.first, Some(known.content), true);
                }
                Some(known) => {
                    look.first = known.first;
                    doubtful.push((own, look, (known.content, known.last.size())));
                    continue;
                }
                None => {}
            }
            self.looked.insert(own, look);
        }
        let contents = memory::contents(doubtful.iter().map(|(path, look, _)| (path.as_path(), look.now)));
        for ((path, mut look, before), content) in doubtful.into_iter().zip(contents) {
            if content != Some(before.0) || look.now.size() != before.1 {
                look.first = look.now;
            }
            look.content = content;
            self.looked.insert(path, look);
        }
    }

    /// Feeds the identity of a file to a hash. A missing file is fed without size, times and inode number.
    pub(crate) fn feed(&mut self, sum: &mut Sha256, path: &PathBuf) {
        let own = self.spelled(path);
        let folder = own.parent().unwrap_or(Path::new(""));
        sum.update(folder.as_os_str().as_encoded_bytes());
        sum.update([0]);
        sum.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        sum.update([0]);
        if let Ok(Some(object)) = super::remote::object(path) {
            sum.update(object.state);
            return;
        }
        self.look_at([path]);
        if let Some(look) = self.looked.get(&own) {
            sum.update(look.first.bytes());
        }
    }

    /// Writes the contents of the files to the memory, so that later commands recognise them under another identity. Reads
    /// the files whose content is not known yet, by all cores, unless they have more than 4 GiB together. Without a memory,
    /// nothing is done.
    ///
    /// A memory that cannot be written is a warning: a later command then reads touched files again.
    pub(crate) fn remember(&self) {
        self.remember_up_to(MOST_BYTES);
    }

    /// Like [`SeenInputs::remember`], with another limit of the bytes.
    fn remember_up_to(&self, most: u64) {
        let Some(file) = &self.file else { return };
        let new: Vec<(&PathBuf, &Look)> = self.looked.iter().filter(|(_, look)| !look.remembered).collect();
        if new.is_empty() {
            return;
        }
        let unread = || new.iter().filter(|(_, look)| look.content.is_none());
        let bytes: u64 = unread().map(|(_, look)| look.now.size()).sum();
        let read = match bytes <= most {
            true => memory::contents(unread().map(|(path, look)| (path.as_path(), look.now))),
            false => Vec::new(),
        };
        let mut read = read.into_iter();
        let mut learnt = BTreeMap::new();
        for (path, look) in &new {
            let content = match look.content {
                Some(content) => Some(content),
                None => read.next().flatten(),
            };
            // A file that changed since the look has no known content. The next command looks at it again.
            if let Some(content) = content {
                let seen = SeenFile {
                    first: look.first,
                    last: look.now,
                    settled: look.settled,
                    content,
                };
                learnt.insert((*path).clone(), seen);
            }
        }
        if let Err(error) = Memory::add(file, learnt, &self.looked) {
            tracing::warn!(
                file = %file.display(),
                %error,
                "the contents of the inputs cannot be recorded; files that are touched or copied will be read again"
            );
        }
    }

    /// The path with the canonical path of its folder. The file itself may be a symbolic link.
    fn spelled(&mut self, path: &Path) -> PathBuf {
        let folder = path.parent().unwrap_or(Path::new(""));
        if self.folder.as_ref().is_none_or(|(written, _)| written != folder) {
            self.folder = Some((folder.to_owned(), one_spelling(folder)));
        }
        let spelled = self.folder.as_ref().map(|(_, spelled)| spelled.clone());
        let name = path.file_name().unwrap_or_default().to_owned();
        spelled
            .unwrap_or_default()
            .join(OsString::from_vec(name.into_vec()))
    }
}

#[cfg(test)]
mod tests;
