//! `vaplan relabel` and `vaplan plan`.

mod dry_run;
mod epochs;
mod kill;
mod law;
mod llp;
mod paths;
mod reasons;
mod refusals;
mod rows;
mod tracks;

use std::path::{Path, PathBuf};

/// A copy of a folder, in place of what is there; gives its place.
fn copied(from: &Path, to: &Path) -> PathBuf {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copied(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
    to.to_owned()
}
