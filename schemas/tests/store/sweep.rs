//! `kill -9` before every step of a patch, an optimize and a vacuum; a folder without permission; a full disk.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use vaplan_schemas::StoreVersion;
use vaplan_schemas::store::{Snapshot, Store};

use crate::damage::{Tmpfs, chain};
use crate::support::{ScoredTracks, assert_holds, commit, create, open, patch, scored};

const PLACE: &str = "VAPLAN_TEST_STORE";
const ACTION: &str = "VAPLAN_TEST_ACTION";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Patch,
    Optimize,
    Vacuum,
}

const ACTIONS: [Action; 3] = [Action::Patch, Action::Optimize, Action::Vacuum];

impl Action {
    fn run(self, store: &Store) {
        match self {
            Action::Patch => {
                patch(store, &held(), &after()).unwrap();
            }
            Action::Optimize => {
                let lock = store.lock(&mut |_| {}).unwrap();
                store.optimize(&lock, "vaplan optimize", "0.1.0").unwrap();
            }
            Action::Vacuum => {
                let lock = store.lock(&mut |_| {}).unwrap();
                store.vacuum(&lock, 1, false).unwrap();
            }
        }
    }

    /// What the latest version holds when it is done.
    fn leaves(self) -> ScoredTracks {
        match self {
            Action::Patch => after(),
            Action::Optimize | Action::Vacuum => held(),
        }
    }
}

/// Of the third version, the latest of the store that is swept.
fn held() -> ScoredTracks {
    let mut held = scored(10, 1);
    let first = held.len() / 2;
    held.values_mut().nth(first).unwrap()[1] = 0.75;
    held.values_mut().last().unwrap()[0] = 0.25;
    held
}

fn after() -> ScoredTracks {
    let mut after = held();
    after.pop_first();
    after.values_mut().nth(4).unwrap()[2] = 0.625;
    after.extend(scored(11, 2).into_iter().rev().take(2));
    after
}

/// Three versions, two of them patches.
fn prepared(folder: &Path) -> Store {
    let store = create(folder).unwrap();
    let versions = [ScoredTracks::new(), scored(10, 1), scored(10, 3), held()];
    commit(&store, &versions[0], &versions[1]).unwrap();
    patch(&store, &versions[1], &versions[2]).unwrap();
    patch(&store, &versions[2], &versions[3]).unwrap();
    store
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, to) = (
            entry.as_ref().unwrap().path(),
            to.join(entry.unwrap().file_name()),
        );
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

/// Does to the store that the environment names what it says there, as the process that the other tests kill; with
/// nothing said it does every action undisturbed, to a store of its own each.
#[test]
fn child() {
    if let (Ok(place), Ok(named)) = (std::env::var(PLACE), std::env::var(ACTION)) {
        let action = ACTIONS.into_iter().find(|action| format!("{action:?}") == named);
        action.unwrap().run(&open(Path::new(&place)).unwrap());
        return;
    }
    for action in ACTIONS {
        let folder = tempfile::tempdir().unwrap();
        let store = prepared(folder.path());
        action.run(&store);
        let snapshot = assert_whole(&store, action, "undisturbed");
        assert_holds(&snapshot, &action.leaves());
    }
}

fn run_child(mut command: Command, place: &Path, action: Action) -> std::process::Output {
    command
        .args(["--exact", "sweep::child", "--test-threads=1", "--nocapture"])
        .env(PLACE, place)
        .env(ACTION, format!("{action:?}"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Whatever happened, the latest version reads as it must.
fn assert_readable(store: &Store, action: Action, what: &str) -> Snapshot {
    let snapshot = store.latest().unwrap().unwrap();
    let version = snapshot.version().version;
    assert!((3..=4).contains(&version), "{what}");
    let scored = if version == 4 { action.leaves() } else { held() };
    assert_holds(&snapshot, &scored);
    snapshot
}

/// And its tables agree.
fn assert_whole(store: &Store, action: Action, what: &str) -> Snapshot {
    let snapshot = assert_readable(store, action, what);
    assert_eq!(snapshot.check().unwrap(), [], "{what}");
    snapshot
}

fn sweep(action: Action) {
    let folder = tempfile::tempdir().unwrap();
    let original = folder.path().join("original");
    drop(prepared(&original));
    let mut points = 0;
    loop {
        let what = format!("{action:?}, killed at point {}", points + 1);
        let place = folder.path().join(points.to_string());
        copy(&original, &place);
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env("VAPLAN_FAULT", (points + 1).to_string());
        let killed = !run_child(command, &place, action).status.success();
        let store = open(&place).unwrap();
        assert_readable(&store, action, &what);
        if !killed {
            break;
        }
        points += 1;
        // Older versions are never touched: now and then is enough.
        if action != Action::Vacuum && points % 8 == 0 {
            let first = store.at_version(Some(StoreVersion(1))).unwrap();
            assert_holds(&first, &scored(10, 1));
        }
        // Killed after its last step it is done; else the same again ends well.
        if action != Action::Patch || store.latest().unwrap().unwrap().version().version == 3 {
            action.run(&store);
        }
        let snapshot = assert_whole(&store, action, &what);
        assert_holds(&snapshot, &action.leaves());
        match action {
            Action::Patch => assert_eq!(snapshot.version().version, 4, "{what}"),
            Action::Optimize => {
                for table in ["videos", "scores", "labels"] {
                    let plain =
                        |file: &vaplan_schemas::store::DataFile| file.deleted.is_none() && !file.is_patch();
                    assert!(
                        snapshot.files(table).unwrap().iter().all(plain),
                        "{what}, {table}"
                    );
                }
            }
            Action::Vacuum => {
                let gone = store.at_version(Some(StoreVersion(2)));
                assert!(
                    matches!(gone, Err(vaplan_schemas::StoreError::Vacuumed { .. })),
                    "{what}"
                );
            }
        }
        std::fs::remove_dir_all(&place).unwrap();
    }
    println!("{action:?}: killed at each of {points} points");
    assert!(points > 10, "{action:?}: {points} points");
}

#[test]
fn a_patch_killed_before_any_step_leaves_a_whole_version_and_ends_well_again() {
    sweep(Action::Patch);
}

#[test]
fn an_optimize_killed_before_any_step_leaves_a_whole_version_and_ends_well_again() {
    sweep(Action::Optimize);
}

#[test]
fn a_vacuum_killed_before_any_step_leaves_a_whole_version_and_ends_well_again() {
    sweep(Action::Vacuum);
}

#[test]
fn a_vacuum_killed_before_any_step_and_run_again_leaves_what_is_being_read() {
    let folder = tempfile::tempdir().unwrap();
    let original = folder.path().join("original");
    drop(prepared(&original));
    for point in 1.. {
        let place = folder.path().join(point.to_string());
        copy(&original, &place);
        let store = open(&place).unwrap();
        let reader = store.at_version(Some(StoreVersion(1))).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env("VAPLAN_FAULT", point.to_string());
        let killed = !run_child(command, &place, Action::Vacuum).status.success();
        let lock = store.lock(&mut |_| {}).unwrap();
        let done = store.vacuum(&lock, 1, false).unwrap();
        assert_eq!(done.read, [StoreVersion(1)], "killed at point {point}");
        assert_holds(&reader, &scored(10, 1));
        if !killed {
            assert!(point > 5, "{point} points");
            break;
        }
        std::fs::remove_dir_all(&place).unwrap();
    }
}

/// Root may write anywhere: the process runs as nobody, where the system lets it.
#[test]
fn a_folder_without_permission_is_named_and_the_version_before_stays() {
    const NOBODY: u32 = 65_534;
    let folder = tempfile::tempdir().unwrap();
    let original = folder.path().join("original");
    drop(prepared(&original));
    let copied = folder.path().join("child");
    std::fs::copy(std::env::current_exe().unwrap(), &copied).unwrap();
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(&copied);
        command
    };
    mode(folder.path(), 0o755);
    let may = as_nobody().arg("--list").output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("LEFT OUT: a_folder_without_permission needs to run a process as nobody");
        return;
    }
    for (number, closed) in ["labels", "scores/_delta_log", "versions/_delta_log", "_vaplan"]
        .iter()
        .enumerate()
    {
        let place = folder.path().join(number.to_string());
        copy(&original, &place);
        own(&place, NOBODY);
        mode(&place.join(closed), 0o555);
        let output = run_child(as_nobody(), &place, Action::Patch);
        let told =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{closed}: {told}");
        assert!(
            told.contains(closed.split('/').next().unwrap()) && told.contains("PermissionDenied"),
            "{closed}: {told}"
        );
        let store = open(&place).unwrap();
        assert_eq!(assert_whole(&store, Action::Patch, closed).version().version, 3);
        mode(&place.join(closed), 0o755);
        let output = run_child(as_nobody(), &place, Action::Patch);
        assert!(output.status.success(), "{output:?}");
        let store = open(&place).unwrap();
        assert_eq!(assert_whole(&store, Action::Patch, closed).version().version, 4);
    }
}

fn mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn own(path: &Path, user: u32) {
    let _ = std::os::unix::fs::chown(path, Some(user), Some(user));
    if path.is_dir() {
        let entries: Vec<PathBuf> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        entries.iter().for_each(|entry| own(entry, user));
    }
}

#[test]
fn a_patch_on_a_full_disk_leaves_the_version_before_and_vacuum_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mounted) = Tmpfs::mount(folder.path(), "size=640k") else {
        eprintln!("LEFT OUT: a_patch_on_a_full_disk needs to mount a tmpfs");
        return;
    };
    let store = create(&folder.path().join("store")).unwrap();
    let mut held = scored(40, 1);
    commit(&store, &ScoredTracks::new(), &held).unwrap();
    for salt in 2..400 {
        let next = scored(40, salt);
        match patch(&store, &held, &next) {
            Ok(_) => held = next,
            Err(error) => {
                let message = chain(&error);
                assert!(message.contains("No space left on device"), "{message}");
                let snapshot = store.latest().unwrap().unwrap();
                assert_holds(&snapshot, &held);
                assert_eq!(snapshot.check().unwrap(), []);
                drop(snapshot);
                let lock = store.lock(&mut |_| {}).unwrap();
                assert!(store.vacuum(&lock, 1, false).unwrap().bytes > 0);
                drop(lock);
                patch(&store, &held, &next).unwrap();
                let snapshot = store.latest().unwrap().unwrap();
                assert_holds(&snapshot, &next);
                assert_eq!(snapshot.check().unwrap(), []);
                return;
            }
        }
    }
    panic!("the disk never was full");
}

#[test]
fn a_vacuum_works_on_a_simulated_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("store");
    drop(prepared(&place));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("VAPLAN_ROOM", "0");
    let output = run_child(command, &place, Action::Vacuum);
    assert!(output.status.success(), "{output:?}");
    let store = open(&place).unwrap();
    assert_holds(&assert_whole(&store, Action::Vacuum, "full"), &held());
    assert!(store.at_version(Some(StoreVersion(2))).is_err());
    assert!(place.join("_vaplan/spare").exists());
    // A disk that is that full takes no commit.
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("VAPLAN_ROOM", "0");
    let output = run_child(command, &place, Action::Patch);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("StorageFull"), "{told}");
}

#[test]
fn a_vacuum_works_on_a_disk_that_is_filled_to_the_last_block() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_mounted) = Tmpfs::mount(folder.path(), "size=1m") else {
        eprintln!("LEFT OUT: a_vacuum_on_a_filled_disk needs to mount a tmpfs");
        return;
    };
    let place = folder.path().join("store");
    let store = prepared(&place);
    let mut filler = std::fs::File::create(folder.path().join("filler")).unwrap();
    while std::io::Write::write_all(&mut filler, &[7; 512]).is_ok() {}
    Action::Vacuum.run(&store);
    assert_holds(&assert_whole(&store, Action::Vacuum, "full"), &held());
    assert!(matches!(
        store.at_version(Some(StoreVersion(2))),
        Err(vaplan_schemas::StoreError::Vacuumed { .. })
    ));
}
