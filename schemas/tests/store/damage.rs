//! Damaged files and folders give errors that name them; nothing panics, nothing else is lost.

use std::error::Error;
use std::path::Path;

use vaplan_schemas::StoreError;
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{Labels, Videos};

use crate::support::{ScoredTracks, assert_holds, commit, create, open, scored};

fn store() -> (tempfile::TempDir, Store, Snapshot) {
    let folder = tempfile::tempdir().unwrap();
    let store = create(folder.path()).unwrap();
    commit(&store, &ScoredTracks::new(), &scored(23, 1)).unwrap();
    let snapshot = store.latest().unwrap().unwrap();
    (folder, store, snapshot)
}

pub(crate) fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[test]
fn truncated_empty_and_missing_files_are_named() {
    let (_folder, _store, snapshot) = store();
    let path = snapshot.files("labels").unwrap()[1].path.clone();
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 3, 4, 11, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let message = chain(&snapshot.read::<Labels>().unwrap_err());
        assert!(message.contains(path.to_str().unwrap()), "{length}: {message}");
        let problems = snapshot.check().unwrap();
        let what = format!("{length} bytes, expected {}", whole.len());
        assert!(
            problems
                .iter()
                .any(|problem| problem.what == what && problem.file.as_deref() == Some(&path))
        );
    }
    std::fs::remove_file(&path).unwrap();
    let message = chain(&snapshot.read::<Labels>().unwrap_err());
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    assert!(
        snapshot
            .check()
            .unwrap()
            .iter()
            .any(|problem| problem.file.as_deref() == Some(&path))
    );
    assert_eq!(snapshot.read::<Videos>().unwrap().len(), 23);
}

#[test]
fn no_flipped_bit_panics_and_check_finds_each() {
    let (_folder, _store, snapshot) = store();
    let file = &snapshot.files("labels").unwrap()[0];
    let whole = std::fs::read(&file.path).unwrap();
    // A bit of every byte of the footer, where panics were seen, and some of every page.
    let footer = whole.len().saturating_sub(400);
    let found = || {
        let problems = snapshot.check().unwrap();
        problems
            .iter()
            .any(|problem| problem.file.as_deref() == Some(&*file.path))
    };
    let (mut refused, mut bits) = (0, 0);
    for byte in (0..footer).step_by(7).chain(footer..whole.len()) {
        let mut damaged = whole.clone();
        damaged[byte] ^= 1 << (byte % 8);
        std::fs::write(&file.path, &damaged).unwrap();
        bits += 1;
        match snapshot.read::<Labels>() {
            Err(error) => {
                refused += 1;
                let message = chain(&error);
                assert!(message.contains(file.path.to_str().unwrap()), "{message}");
            }
            // Some bits decode to other values, and some to the same.
            Ok(_) if bits - refused < 20 => assert!(found(), "bit {} of byte {byte}", byte % 8),
            Ok(_) => {}
        }
    }
    assert!(refused > bits / 10, "{refused} of {bits} were refused");
    std::fs::write(&file.path, &whole).unwrap();
    assert_eq!(snapshot.check().unwrap(), []);
}

#[test]
fn a_broken_log_is_named_and_other_versions_read() {
    let (folder, store, _) = store();
    let (before, after) = (scored(23, 1), scored(23, 2));
    commit(&store, &before, &after).unwrap();
    let log = folder.path().join("labels/_delta_log/00000000000000000001.json");
    std::fs::write(&log, b"{\"add\": nonsense").unwrap();
    let latest = open(folder.path()).unwrap().latest().unwrap().unwrap();
    let message = chain(&latest.read::<Labels>().unwrap_err());
    assert!(message.contains("labels"), "{message}");
    assert_eq!(latest.read::<Videos>().unwrap().len(), 23);
    let first = store.at_version(Some(vaplan_schemas::StoreVersion(1))).unwrap();
    assert_holds(&first, &before);
}

/// Root may write anywhere, so a folder that cannot be made stands for one without permission.
#[test]
fn a_place_that_cannot_be_written_is_named_and_the_version_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let message = chain(&create(&file.join("store")).unwrap_err());
    assert!(message.contains("file"), "{message}");

    let (folder, store, _) = store();
    let log = folder.path().join("rejects/_delta_log/00000000000000000001.json");
    std::fs::create_dir(&log).unwrap();
    let refused = commit(&store, &scored(23, 1), &scored(9, 2)).unwrap_err();
    assert!(chain(&refused).contains("rejects"), "{}", chain(&refused));
    assert_holds(&store.latest().unwrap().unwrap(), &scored(23, 1));
    std::fs::remove_dir(&log).unwrap();
    commit(&store, &scored(23, 1), &scored(9, 2)).unwrap();
    assert_holds(&store.latest().unwrap().unwrap(), &scored(9, 2));
}

/// Needs a small file system, which only root can mount: elsewhere it says that it was left out.
#[test]
fn a_full_disk_is_named_and_the_version_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mounted) = Tmpfs::mount(folder.path(), "size=320k") else {
        eprintln!("LEFT OUT: a_full_disk_is_named_and_the_version_before_stays needs to mount a tmpfs");
        return;
    };
    let store = create(&folder.path().join("store")).unwrap();
    let mut held = ScoredTracks::new();
    for salt in 1..200 {
        let next = scored(40, salt);
        match commit(&store, &held, &next) {
            Ok(_) => held = next,
            Err(error) => {
                let message = chain(&error);
                assert!(
                    message.contains("store") && message.contains("No space left on device"),
                    "{message}"
                );
                assert!(salt > 1, "not even one version fits");
                assert_holds(&store.latest().unwrap().unwrap(), &held);
                return;
            }
        }
    }
    panic!("the disk never was full");
}

pub(crate) struct Tmpfs<'a>(&'a Path);

impl Tmpfs<'_> {
    pub(crate) fn mount<'a>(place: &'a Path, options: &str) -> Option<Tmpfs<'a>> {
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(place)
            .output();
        mount
            .is_ok_and(|output| output.status.success())
            .then_some(Tmpfs(place))
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0).status();
    }
}
