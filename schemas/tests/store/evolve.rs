//! A store that was written before tables had all columns of now: it reads, and goes on.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use serde_json::Value;
use vaplan_schemas::TableError;
use vaplan_schemas::rows::{Flip, LabelRule, LabelTrack};
use vaplan_schemas::store::{CommitInfo, Filter, Store};
use vaplan_schemas::tables::{LabelChanges, Labels, Scores, Table, Videos};

use crate::support::{World, changes, labels, scores, videos, world};

/// A table with its first `N` columns only.
struct First<T, const N: usize>(PhantomData<T>);

impl<T: Table, const N: usize> Table for First<T, N> {
    type Row = T::Row;
    const NAME: &'static str = T::NAME;
    const BUCKETED: bool = T::BUCKETED;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(T::schema().fields()[..N].to_vec()))
    }

    fn encode(rows: &[T::Row]) -> RecordBatch {
        T::encode(rows).project(&(0..N).collect::<Vec<_>>()).unwrap()
    }

    fn decode(batch: &RecordBatch) -> Result<Vec<T::Row>, TableError> {
        T::decode(batch)
    }

    fn compare(a: &T::Row, b: &T::Row) -> Ordering {
        T::compare(a, b)
    }

    fn height(row: &T::Row) -> usize {
        T::height(row)
    }

    fn video(row: &T::Row) -> Option<&Arc<str>> {
        T::video(row)
    }
}

/// Takes columns out of the schema in the first entry of a table's log.
fn without(root: &Path, table: &str, columns: &[&str]) {
    let path = root.join(table).join("_delta_log/00000000000000000000.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let line = |line: &str| {
        let mut action: Value = serde_json::from_str(line).unwrap();
        if let Some(metadata) = action.get_mut("metaData") {
            let mut schema: Value = serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
            let fields = schema["fields"].as_array_mut().unwrap();
            fields.retain(|field| !columns.contains(&field["name"].as_str().unwrap()));
            metadata["schemaString"] = schema.to_string().into();
        }
        action.to_string() + "\n"
    };
    std::fs::write(&path, text.lines().map(line).collect::<String>()).unwrap();
}

/// Columns that an entry of a log says the table has; none: it says nothing of them.
fn said(root: &Path, table: &str, entry: u64) -> Option<Vec<String>> {
    let path = root.join(table).join(format!("_delta_log/{entry:020}.json"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().find_map(|line| {
        let action: Value = serde_json::from_str(line).unwrap();
        let schema: Value = serde_json::from_str(action.get("metaData")?["schemaString"].as_str()?).ok()?;
        let fields = schema["fields"].as_array().unwrap().iter();
        Some(
            fields
                .map(|field| field["name"].as_str().unwrap().to_owned())
                .collect(),
        )
    })
}

const ADDED: [&str; 4] = ["loss", "base", "alpha", "k"];

/// A store of one bucket as the first program wrote it: flips do not tell why.
fn old(root: &Path, world: &World) {
    let store = Store::create(root).unwrap();
    let lock = store.lock(&mut |_| ()).unwrap();
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    commit.replace_bucket::<Videos>(0, &videos(world)).unwrap();
    commit.replace_bucket::<Scores>(0, &scores(world)).unwrap();
    commit
        .replace_bucket::<First<Labels, 10>>(0, &labels(world))
        .unwrap();
    let rows = changes(1, &World::new(), world);
    commit.append::<First<LabelChanges, 9>>(&rows).unwrap();
    commit.finish().unwrap();
    without(root, "labels", &ADDED[1..]);
    without(root, "label_changes", &ADDED);
}

#[test]
fn a_store_of_before_flips_told_why_reads_with_nulls_and_takes_flips_that_do() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let world = world(6, 1);
    old(&root, &world);
    let store = Store::open(&root).unwrap();
    let first = store.at_version(None).unwrap();
    assert_eq!(first.read::<Labels>().unwrap(), labels(&world));
    assert_eq!(
        first.read::<LabelChanges>().unwrap(),
        changes(1, &World::new(), &world)
    );
    assert_eq!(first.check().unwrap(), []);

    let flip = |commit: &mut vaplan_schemas::store::Commit<'_>, nth: usize| {
        let found = store
            .at_version(None)
            .unwrap()
            .scan::<Labels>(&Filter::all())
            .unwrap();
        let mut track: LabelTrack = found[nth].row.clone();
        let cell = &mut track.cells[1];
        cell.label = !cell.label;
        (cell.rule, cell.loss, cell.epoch) = (LabelRule::Pld, Some(2.5), Some(3));
        cell.flip = Some(Box::new(Flip {
            base: 0.125,
            alpha: 10.0,
            k: 5,
        }));
        let mut change = changes(1, &World::new(), &world)[0].clone();
        (change.version, change.video, change.modality) =
            (commit.version().0, track.video.clone(), track.modality);
        (change.class, change.segment) = (track.class.clone(), 1);
        (change.from, change.to, change.rule) = (!cell.label, cell.label, LabelRule::Pld);
        (change.epoch, change.loss, change.flip) = (cell.epoch, cell.loss, cell.flip.clone());
        commit
            .patch::<Labels>(&[found[nth].place], std::slice::from_ref(&track))
            .unwrap();
        commit
            .append::<LabelChanges>(std::slice::from_ref(&change))
            .unwrap();
        (track, change)
    };
    let lock = store.lock(&mut |_| ()).unwrap();
    let mut expected = labels(&world);
    for nth in [0, 2] {
        let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
        let (track, change) = flip(&mut commit, nth);
        commit.finish().unwrap();
        expected[nth] = track;
        let latest = Store::open(&root).unwrap().at_version(None).unwrap();
        assert_eq!(latest.read::<Labels>().unwrap(), expected);
        assert_eq!(latest.read::<LabelChanges>().unwrap().last(), Some(&change));
        assert_eq!(latest.check().unwrap(), []);
    }
    // Said once, and with the files that have them: other readers see the columns from then on.
    for (table, columns) in [("labels", 13), ("label_changes", 13)] {
        let names = said(&root, table, 1).unwrap();
        assert_eq!(
            (names.len(), said(&root, table, 2)),
            (columns, None),
            "{table}: {names:?}"
        );
        assert!(names.ends_with(&ADDED[1..].iter().map(|name| name.to_string()).collect::<Vec<_>>()));
    }
    assert_eq!(
        first.read::<Labels>().unwrap(),
        labels(&world),
        "version 1 is as it was"
    );
}
