//! The identity of an input file: its path, size, modification time, change time (ctime) and inode number.
//!
//! This is the one rule by which the program decides whether an input is the same as before, without reading its
//! contents. Size and modification time alone are not enough: `cp -p`, `rsync`, `tar` and `git` give other contents the
//! modification time of the original. No program can set the change time, and the inode number tells two files apart
//! that were made within one tick of the clock. If a file with equal contents has another identity, for example after a
//! copy to another disk, it counts as changed and is read again.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

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

/// Feeds the identity of files to a hash.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The last folder as it was given, and its canonical path. This avoids resolving the folder again for each file.
    folder: Option<(PathBuf, PathBuf)>,
}

impl Seen {
    /// Feeds one file. A missing file is fed without size, times and inode number.
    pub(crate) fn feed(&mut self, sum: &mut Sha256, path: &Path) {
        let folder = path.parent().unwrap_or(Path::new(""));
        if self.folder.as_ref().is_none_or(|(written, _)| written != folder) {
            self.folder = Some((folder.to_owned(), one_spelling(folder)));
        }
        let spelled = self.folder.as_ref().map(|(_, spelled)| spelled.as_os_str());
        sum.update(spelled.unwrap_or_default().as_encoded_bytes());
        sum.update([0]);
        sum.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        sum.update([0]);
        if let Ok(Some(object)) = super::remote::object(path) {
            sum.update(object.state);
        } else if let Ok(meta) = path.metadata() {
            for number in [
                meta.len().cast_signed(),
                meta.mtime(),
                meta.mtime_nsec(),
                meta.ctime(),
                meta.ctime_nsec(),
                meta.ino().cast_signed(),
            ] {
                sum.update(number.to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(path: &Path) -> Vec<u8> {
        let mut sum = Sha256::new();
        Seen::default().feed(&mut sum, path);
        sum.finalize().to_vec()
    }

    #[test]
    fn a_file_is_the_same_however_its_folder_is_written_and_another_once_it_is_rewritten() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("own")).unwrap();
        std::os::unix::fs::symlink("own", folder.path().join("link")).unwrap();
        let file = folder.path().join("own/a.npy");
        std::fs::write(&file, "1").unwrap();
        let before = sum(&file);
        assert_eq!(before, sum(&folder.path().join("own/../own/./a.npy")));
        assert_eq!(before, sum(&folder.path().join("link/a.npy")));
        std::fs::write(&file, "12").unwrap();
        let after = sum(&file);
        assert_ne!(before, after);
        std::fs::remove_file(&file).unwrap();
        assert!(![before, after].contains(&sum(&file)), "gone");
    }
    #[test]
    fn a_file_of_the_same_size_and_modification_time_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("a.npy"), "1").unwrap();
        let before = sum(&at("a.npy"));
        let time = at("a.npy").metadata().unwrap().modified().unwrap();
        // Renamed over it: another inode.
        std::fs::write(at("b.npy"), "2").unwrap();
        let file = std::fs::File::options().write(true).open(at("b.npy")).unwrap();
        file.set_modified(time).unwrap();
        drop(file);
        std::fs::rename(at("b.npy"), at("a.npy")).unwrap();
        assert_eq!(at("a.npy").metadata().unwrap().modified().unwrap(), time);
        assert_ne!(before, sum(&at("a.npy")));
    }
}
