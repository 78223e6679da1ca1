//! What a store costs does not grow with the number of its versions, beyond what the versions hold.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{Array, AsArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use vaplan_schemas::store::Store;

use crate::support::{ScoredTracks, assert_holds, commit, create, open, patch, scored};

/// A store of `versions` versions of these videos: each version changes a score of one video.
fn changed(folder: &Path, mut held: ScoredTracks, versions: u64) -> (Store, ScoredTracks) {
    let store = create(folder).unwrap();
    commit(&store, &ScoredTracks::new(), &held).unwrap();
    for version in 2..=versions {
        let mut next = held.clone();
        let at = version as usize * 7 % next.len();
        let scores = next.values_mut().nth(at).unwrap();
        scores[0] = if scores[0] > 0.5 { 0.125 } else { 0.75 };
        patch(&store, &held, &next).unwrap();
        held = next;
    }
    (store, held)
}

/// Videos of 60 segments.
fn long(videos: usize) -> ScoredTracks {
    let mut scored = scored(videos, 1);
    let mut state = 7_u64;
    for scores in scored.values_mut() {
        scores.resize_with(60, || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 54) as f64 / 1024.0
        });
    }
    scored
}

/// How many actions of each kind the newest checkpoint of a table has; none: the table has no checkpoint.
fn checkpointed(folder: &Path, table: &str) -> Option<BTreeMap<String, usize>> {
    let log = folder.join(table).join("_delta_log");
    let files = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
    let newest = files
        .filter(|path| path.to_str().unwrap().ends_with(".checkpoint.parquet"))
        .max()?;
    let file = std::fs::File::open(newest).unwrap();
    let mut kinds = BTreeMap::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap()
    {
        let batch = batch.unwrap();
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            let of_kind = column.as_struct();
            let count = of_kind.len() - of_kind.null_count();
            *kinds.entry(field.name().clone()).or_default() += count;
        }
    }
    Some(kinds)
}

#[test]
fn the_newest_checkpoint_holds_one_transaction_and_no_removed_file_that_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, held) = changed(folder.path(), scored(40, 1), 70);
    let mut checkpoints = 0;
    for table in ["labels", "scores", "label_changes", "rejects", "versions"] {
        let Some(kinds) = checkpointed(folder.path(), table) else {
            continue;
        };
        checkpoints += 1;
        assert_eq!(kinds["txn"], 1, "{table}: {kinds:?}");
        // Every patch removes a bucket file and adds it with another deletion vector. These removes are not kept.
        assert!(kinds["remove"] < 2 * 70, "{table}: {kinds:?}");
    }
    assert!(checkpoints > 2, "{checkpoints}");
    let again = open(folder.path()).unwrap();
    let latest = again.latest().unwrap().unwrap();
    assert_holds(&latest, &held);
    assert_eq!(latest.check().unwrap(), []);
}

#[test]
fn optimize_puts_the_rows_of_versions_into_one_file_and_then_has_nothing_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (store, held) = changed(folder.path(), scored(12, 1), 9);
    let files = || store.latest().unwrap().unwrap().version_files().unwrap().len();
    assert_eq!(files(), 9);
    let lock = store.lock(&mut |_| {}).unwrap();
    let done = store.optimize(&lock, "vaplan optimize", "0.1.0").unwrap();
    assert!(done.version.is_some(), "{done:?}");
    assert_eq!(files(), 1);
    let again = store.optimize(&lock, "vaplan optimize", "0.1.0").unwrap();
    assert_eq!(again.version, None, "{again:?}");
    for store in [store.clone(), open(folder.path()).unwrap()] {
        let versions: Vec<u64> = store.versions().unwrap().iter().map(|row| row.version).collect();
        assert_eq!(versions, (1..=10).collect::<Vec<_>>());
        let first = store.at_version(Some(vaplan_schemas::StoreVersion(1))).unwrap();
        assert_holds(&first, &scored(12, 1));
        assert_holds(&store.latest().unwrap().unwrap(), &held);
    }
}

/// Bytes of all files below a folder.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .map(|path| match path.is_dir() {
            true => size(&path),
            false => path.metadata().unwrap().len(),
        })
        .sum()
}

/// What 200 changes leave does not depend on the size of the store: about 65 kB of removes in the log entries that
/// `optimize` writes, 75 kB of checkpoints and 5 kB of rows of `versions`. The fresh store of this test has about 800 kB.
#[test]
fn after_200_changes_optimize_and_vacuum_leave_at_most_six_fifths_of_a_fresh_store() {
    let folder = tempfile::tempdir().unwrap();
    let (worn, fresh) = (folder.path().join("worn"), folder.path().join("fresh"));
    let (store, held) = changed(&worn, long(1200), 201);
    let before = size(&worn);
    let lock = store.lock(&mut |_| {}).unwrap();
    store.optimize(&lock, "vaplan optimize", "0.1.0").unwrap();
    for left in [
        "scratch/1-1",
        "staging/label/a.scores",
        "train/features/a.f32",
        "shards/a.parquet/0123456789abcdef.parquet",
        "shards/b/0123456789abcdef/a.npy",
    ] {
        let path = worn.join("_vaplan").join(left);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, vec![7; 100_000]).unwrap();
    }
    let done = store.vacuum(&lock, 1, false).unwrap();
    assert_eq!(
        done.folders.iter().map(|own| own.removed.1).sum::<u64>(),
        500_000,
        "{done:?}"
    );
    let other = create(&fresh).unwrap();
    commit(&other, &ScoredTracks::new(), &held).unwrap();
    let (worn, fresh) = (size(&worn), size(&fresh));
    println!("{before} bytes after 200 changes, {worn} vacuumed, {fresh} fresh");
    assert!(worn * 5 <= fresh * 6, "{worn} bytes, {fresh} fresh");
    let latest = store.latest().unwrap().unwrap();
    assert_holds(&latest, &held);
    assert_eq!(latest.check().unwrap(), []);
}
