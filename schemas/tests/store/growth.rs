//! What a store costs does not grow with the number of its versions, beyond what the versions hold.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{Array, AsArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use vaplan_schemas::store::Store;

use crate::support::{World, assert_holds, commit, patch, world};

/// A store of `versions` versions: each changes the scores of one video of many.
fn changed(folder: &Path, videos: usize, versions: u64) -> (Store, World) {
    let store = Store::create(folder).unwrap();
    let mut held = world(videos, 1);
    commit(&store, &World::new(), &held).unwrap();
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
    let (store, held) = changed(folder.path(), 40, 70);
    let files = |table: &str| store.latest().unwrap().unwrap().files(table).unwrap().len();
    let mut checkpoints = 0;
    for table in ["labels", "scores", "label_changes", "rejects", "versions"] {
        let Some(kinds) = checkpointed(folder.path(), table) else {
            continue;
        };
        checkpoints += 1;
        assert_eq!(kinds["txn"], 1, "{table}: {kinds:?}");
        assert!(kinds["add"] <= files(table).max(70), "{table}: {kinds:?}");
        // A patch removes and adds the bucket of the video it changes, and merges patch files now and then.
        assert!(kinds["remove"] < 70, "{table}: {kinds:?}");
    }
    assert!(checkpoints > 2, "{checkpoints}");
    let again = Store::open(folder.path()).unwrap();
    let latest = again.latest().unwrap().unwrap();
    assert_holds(&latest, &held);
    assert_eq!(latest.check().unwrap(), []);
}

#[test]
fn time_opening() {
    for versions in [3, 65, 130, 200] {
        let folder = tempfile::tempdir().unwrap();
        let (_store, _held) = changed(folder.path(), 40, versions);
        let start = std::time::Instant::now();
        for _ in 0..5 {
            let store = Store::open(folder.path()).unwrap();
            let latest = store.latest().unwrap().unwrap();
            latest.read::<vaplan_schemas::tables::Labels>().unwrap();
            store.versions().unwrap();
        }
        eprintln!("{versions}: {:?}", start.elapsed() / 5);
        for table in ["labels", "scores", "label_changes", "rejects", "versions"] {
            eprintln!("   {table} {:?}", checkpointed(folder.path(), table));
        }
        let out = std::process::Command::new("sh").args(["-c", &format!("cd {} && du -ab --max-depth=2 . | sort -k2; ls -l */_delta_log/*.checkpoint.parquet | tail -30", folder.path().display())]).output().unwrap();
        if versions == 200 {
            eprintln!("{}", String::from_utf8_lossy(&out.stdout));
        }
    }
}
