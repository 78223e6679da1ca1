//! What the end-to-end tests share: the built program, scratch folders, golden files, the data beside the repository.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vaplan_schemas::rows::{LabelChangeRow, LabelChangeTrack};
use vaplan_schemas::store::Snapshot;
use vaplan_schemas::tables::{LabelChanges, Table};

/// The changes of single labels that the versions up to this one made, by version and key.
pub(crate) fn label_changes(snapshot: &Snapshot) -> Vec<LabelChangeRow> {
    let rows = snapshot.read::<LabelChanges>().unwrap();
    let mut changes: Vec<LabelChangeRow> = rows.iter().flat_map(LabelChangeTrack::changes).collect();
    changes.sort_by(|a, b| {
        let key = (a.version, &a.video, a.modality, &a.class, a.segment);
        key.cmp(&(b.version, &b.video, b.modality, &b.class, b.segment))
    });
    changes
}

/// The built program, in an environment that has nothing of the caller's to change its answers.
pub(crate) fn vaplan() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vaplan"));
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "RUST_LOG"] {
        command.env_remove(name);
    }
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("VAPLAN_")) {
        command.env_remove(name);
    }
    command
}

/// Runs the program with these arguments.
pub(crate) fn run<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Output {
    vaplan()
        .args(arguments)
        .output()
        .expect("the built program starts")
}

/// Standard output as text.
pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("standard output is UTF-8")
}

/// Standard error as text.
pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("standard error is UTF-8")
}

/// Asserts the exit status, showing what the program said when it is another.
#[track_caller]
pub(crate) fn assert_status(output: &Output, expected: i32) {
    assert_eq!(
        output.status.code(),
        Some(expected),
        "exit status; standard output:\n{}\nstandard error:\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

/// Writes the annotations of 80 made-up videos (40 train, 16 val, 24 test) into `dir/annotations`.
pub(crate) fn sample_annotations(dir: &str) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/sample");
    let to = Path::new(dir).join("annotations");
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// An empty folder that goes when it is dropped.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a scratch folder")
}

/// Where golden file `name` lies (below `tests/golden/`).
pub(crate) fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Asserts that `actual` is what `tests/golden/<name>` holds, byte for byte.
///
/// `UPDATE_GOLDEN=1` rewrites the file instead: review its diff.
#[track_caller]
pub(crate) fn assert_golden(name: &str, actual: &[u8]) {
    let path = golden_path(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().expect("below tests/golden")).expect("the golden folder");
        std::fs::write(&path, actual).expect("the golden file can be written");
        return;
    }
    let expected = std::fs::read(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 writes it", path.display()));
    assert!(
        expected == actual,
        "{} differs\n--- expected\n{}\n--- actual\n{}",
        path.display(),
        String::from_utf8_lossy(&expected),
        String::from_utf8_lossy(actual),
    );
}

/// The folder of data that lies beside the repository (or at `VAPLAN_SHARED`); none where it is absent, and then
/// the test `name` says on standard error that it was skipped, and returns.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("VAPLAN_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"),
        PathBuf::from,
    );
    if folder.join("golden/README.md").is_file() && folder.join("llp").is_dir() {
        return Some(folder);
    }
    eprintln!("SKIPPED: {name} needs ../shared");
    None
}

/// All rows of a table, sorted by key. The files of a table are sorted by bucket.
pub(crate) fn sorted<T: Table>(snapshot: &Snapshot) -> Vec<T::Row> {
    let mut rows = snapshot.read::<T>().unwrap();
    rows.sort_by(T::compare);
    rows
}

/// Replaces a file by a copy of itself: its content is the same, its inode and its times are not.
pub(crate) fn copy_over(path: &Path) {
    let copy = path.with_extension("copy");
    std::fs::copy(path, &copy).unwrap();
    std::fs::rename(&copy, path).unwrap();
}

/// [`copy_over`] for every file in a folder and in the folders below it.
pub(crate) fn copy_over_all(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => copy_over_all(&path),
            false => copy_over(&path),
        }
    }
}
