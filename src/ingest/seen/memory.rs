//! The memory of a store or an output folder: the identity and the content hash of each input file.
//!
//! The memory is a file of its own and no table, because it says nothing about labels. Without it, a command reads files
//! again that were touched; nothing else is lost. A program that does not know the version of the file takes the memory for
//! empty.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::Hasher as _;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

use super::{FileIdentity, Look};
use crate::ingest::open::open_regular;

/// The name of the file.
pub(super) const FILE: &str = "inputs.seen";
/// The first bytes of the file: its kind and its version.
const MAGIC: &[u8; 16] = b"vaplan inputs 1\n";
/// Bytes of a file that are hashed at a time.
const PIECE: usize = 1 << 18;

/// What is known about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SeenFile {
    /// The identity when a command first read this content.
    pub(super) first: FileIdentity,
    /// The identity when a command last found this content.
    pub(super) last: FileIdentity,
    /// Whether a later write must have changed the identity `last`.
    pub(super) settled: bool,
    /// XXH3 of the content, 64 bits. It is compared for one path only, and together with the size.
    pub(super) content: u64,
}

/// The known files. Keys are the bytes of a folder's path and of a file name.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Memory {
    folders: BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, SeenFile>>,
}

impl Memory {
    /// Reads a memory. It is empty if the file does not exist, is damaged, or is of another version.
    pub(super) fn read(file: &Path) -> Memory {
        let read = || {
            let bytes = fs::read(file).ok()?;
            let (sum, body) = bytes.strip_prefix(MAGIC)?.split_at_checked(8)?;
            let whole = twox_hash::XxHash3_64::oneshot(body).to_le_bytes() == sum;
            whole.then(|| postcard::from_bytes(body).ok())?
        };
        read().unwrap_or_default()
    }

    pub(super) fn get(&self, path: &Path) -> Option<&SeenFile> {
        let (folder, name) = key(path);
        self.folders.get(folder)?.get(name)
    }

    /// Adds files to the memory at a path, and drops files of the same folders that do not exist any more. Two commands can
    /// add at the same time.
    pub(super) fn add(
        file: &Path,
        learnt: BTreeMap<PathBuf, SeenFile>,
        looked: &BTreeMap<PathBuf, Look>,
    ) -> io::Result<()> {
        let folder = file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(file.with_extension("lock"))?;
        lock.lock()?;
        let mut memory = Memory::read(file);
        for (path, seen) in learnt {
            let (folder, name) = key(&path);
            let files = memory.folders.entry(folder.to_owned()).or_default();
            files.insert(name.to_owned(), seen);
        }
        let folders: std::collections::BTreeSet<&[u8]> = looked.keys().map(|path| key(path).0).collect();
        for (folder, files) in &mut memory.folders {
            if folders.contains(&folder[..]) {
                let folder = Path::new(OsStr::from_bytes(folder));
                files.retain(|name, _| {
                    let path = folder.join(OsStr::from_bytes(name));
                    looked.contains_key(&path) || path.exists()
                });
            }
        }
        let body = postcard::to_stdvec(&memory).map_err(io::Error::other)?;
        let mut scratch = tempfile::Builder::new()
            // The umask applies. A temporary file is otherwise for its owner only.
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(folder)?;
        scratch.write_all(MAGIC)?;
        scratch.write_all(&twox_hash::XxHash3_64::oneshot(&body).to_le_bytes())?;
        scratch.write_all(&body)?;
        scratch.persist(file).map(drop).map_err(|error| error.error)
    }
}

fn key(path: &Path) -> (&[u8], &[u8]) {
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or_default();
    (folder.as_os_str().as_bytes(), name.as_bytes())
}

/// The content hashes of files, in order. `None` for a file that cannot be read, or that has not this identity before and
/// after it was read.
pub(super) fn contents<'a>(files: impl Iterator<Item = (&'a Path, FileIdentity)>) -> Vec<Option<u64>> {
    let files: Vec<(&Path, FileIdentity)> = files.collect();
    let threads = available_parallelism().map_or(1, |cores| cores.get());
    let per_thread = files.len().div_ceil(threads).max(1);
    if files.len() <= 1 {
        return files.iter().map(content).collect();
    }
    std::thread::scope(|scope| {
        let parts: Vec<_> = files
            .chunks(per_thread)
            .map(|files| scope.spawn(move || files.iter().map(content).collect::<Vec<_>>()))
            .collect();
        let join = |part: std::thread::ScopedJoinHandle<'_, Vec<Option<u64>>>| {
            part.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        parts.into_iter().flat_map(join).collect()
    })
}

fn content((path, identity): &(&Path, FileIdentity)) -> Option<u64> {
    let is_unchanged = || FileIdentity::of(path).is_ok_and(|now| now == *identity);
    if !is_unchanged() {
        return None;
    }
    let (mut file, length) = open_regular(path).ok()?;
    let mut sum = twox_hash::XxHash3_64::new();
    let mut piece = vec![0; usize::try_from(length).map_or(PIECE, |length| length.clamp(1, PIECE))];
    loop {
        match file.read(&mut piece).ok()? {
            0 => break,
            read => sum.write(&piece[..read]),
        }
    }
    is_unchanged().then(|| sum.finish())
}
