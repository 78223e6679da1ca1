//! A store that was written before tables had all columns of now: it reads, and goes on.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::Value;
use vaplan_schemas::TableError;
use vaplan_schemas::rows::{FlipLimit, FlipReason, LabelChangeRow, LabelRule, LabelTrack};
use vaplan_schemas::store::{CommitInfo, Filter, Store};
use vaplan_schemas::tables::{LabelChanges, Labels, Scores, Table, Videos};

use crate::support::{ScoredTracks, changes, labels, scored, scores, videos};

/// A table of labels as programs before column `why` wrote it: its first `N` columns of those below.
struct Old<T, const N: usize>(PhantomData<T>);

/// Columns of a flip before `why`, in their order in `labels`.
const REASONS: [&str; 5] = ["loss", "epoch", "base", "alpha", "k"];

/// As [`REASONS`], in `label_changes`.
const REASONS_OF_CHANGES: [&str; 5] = ["epoch", "loss", "base", "alpha", "k"];

fn reasons(table: &str) -> [&'static str; 5] {
    match table {
        "labels" => REASONS,
        _ => REASONS_OF_CHANGES,
    }
}

/// The field of `why` that a column before it held.
fn field_of_why(schema: &Schema, name: &str) -> Field {
    let DataType::Struct(fields) = schema.field_with_name("why").unwrap().data_type() else {
        panic!("why is a struct");
    };
    Field::clone(fields.iter().find(|field| field.name() == name).unwrap())
}

impl<T: Table, const N: usize> Table for Old<T, N> {
    type Row = T::Row;
    const NAME: &'static str = T::NAME;
    const BUCKETED: bool = T::BUCKETED;

    fn schema() -> SchemaRef {
        let schema = T::schema();
        let kept = schema.fields().iter().filter(|field| field.name() != "why");
        let mut fields: Vec<Field> = kept.map(|field| Field::clone(field)).collect();
        fields.extend(reasons(T::NAME).map(|name| field_of_why(&schema, name)));
        Arc::new(Schema::new(fields[..N].to_vec()))
    }

    fn encode(rows: &[T::Row]) -> RecordBatch {
        let batch = T::encode(rows);
        let why = batch.column_by_name("why").unwrap().as_struct();
        let column = |field: &Arc<Field>| match why.column_by_name(field.name()) {
            Some(column) => column.clone(),
            None => batch.column_by_name(field.name()).unwrap().clone(),
        };
        let schema = Self::schema();
        let columns = schema.fields().iter().map(column).collect();
        RecordBatch::try_new(schema, columns).unwrap()
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

/// Makes the first entry of a table's log say the columns that an older program gave the table.
fn say(root: &Path, table: &str, columns: &SchemaRef) {
    let path = root.join(table).join("_delta_log/00000000000000000000.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let line = |line: &str| {
        let mut action: Value = serde_json::from_str(line).unwrap();
        if let Some(metadata) = action.get_mut("metaData") {
            let mut schema: Value = serde_json::from_str(metadata["schemaString"].as_str().unwrap()).unwrap();
            let fields = schema["fields"].as_array_mut().unwrap();
            let why = fields
                .iter()
                .find(|field| field["name"] == "why")
                .unwrap()
                .clone();
            let within = why["type"]["fields"].as_array().unwrap();
            let all: Vec<Value> = fields.iter().chain(within).cloned().collect();
            let named = |name: &String| all.iter().find(|field| field["name"] == **name).unwrap().clone();
            *fields = columns.fields().iter().map(|field| named(field.name())).collect();
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

/// Labels of a scored, of which segment 1 of track 4 is flipped, and the changes that led to them.
fn flipped(scored: &ScoredTracks, why: FlipReason) -> (Vec<LabelTrack>, Vec<LabelChangeRow>) {
    let (mut tracks, mut rows) = (labels(scored), changes(1, &ScoredTracks::new(), scored));
    let track = &mut tracks[4];
    flip(track, why);
    let own = change(1, track);
    let key = |row: &LabelChangeRow| (row.video.clone(), row.modality, row.class.clone(), row.segment);
    rows.retain(|row| key(row) != key(&own));
    if own.to {
        rows.push(own);
        rows.sort_by(LabelChanges::compare);
    }
    (tracks, rows)
}

fn flip(track: &mut LabelTrack, why: FlipReason) {
    track.set(1, !track.labels[1], LabelRule::Pld, Some(why));
}

/// The change of segment 1 of a track that was flipped.
fn change(version: u64, track: &LabelTrack) -> LabelChangeRow {
    let own = track.get(1);
    LabelChangeRow {
        version,
        video: track.video.clone(),
        modality: track.modality,
        class: track.class.clone(),
        segment: 1,
        from: !own.label,
        to: own.label,
        rule: own.rule,
        why: own.why.copied().map(Box::new),
    }
}

/// A store of one bucket as an older program wrote it: its `labels` has the first `L` columns, its `label_changes` `C`.
fn old<const L: usize, const C: usize>(root: &Path, scored: &ScoredTracks, why: FlipReason) {
    let store = Store::create(root).unwrap();
    let lock = store.lock(&mut |_| ()).unwrap();
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    commit.replace_bucket::<Videos>(0, &videos(scored)).unwrap();
    commit.replace_bucket::<Scores>(0, &scores(scored)).unwrap();
    let (tracks, rows) = flipped(scored, why);
    commit.replace_bucket::<Old<Labels, L>>(0, &tracks).unwrap();
    commit.append::<Old<LabelChanges, C>>(&rows).unwrap();
    commit.finish().unwrap();
    for (table, columns) in [
        ("labels", Old::<Labels, L>::schema()),
        ("label_changes", Old::<LabelChanges, C>::schema()),
    ] {
        if said(root, table, 0).unwrap().contains(&"why".to_owned()) {
            say(root, table, &columns);
        }
        assert_eq!(said(root, table, 0).unwrap().len(), columns.fields().len());
    }
}

/// Why the flips of these tests were made.
const WHY: FlipReason = FlipReason {
    epoch: 3,
    loss: Some(2.5),
    limit: Some(FlipLimit {
        base: 0.125,
        alpha: 10.0,
        k: 5,
    }),
};

/// Checks that an old store reads with the reasons that it has, takes flips with theirs, and keeps both.
fn goes_on<const L: usize, const C: usize>(of_labels: FlipReason, of_changes: FlipReason) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let scored = scored(6, 1);
    old::<L, C>(&root, &scored, WHY);
    let store = Store::open(&root).unwrap();
    let first = store.at_version(None).unwrap();
    let mut expected = flipped(&scored, of_labels).0;
    let rows = flipped(&scored, of_changes).1;
    assert_eq!(first.read::<Labels>().unwrap(), expected);
    assert_eq!(first.read::<LabelChanges>().unwrap(), rows);
    assert_eq!(first.check().unwrap(), []);

    let lock = store.lock(&mut |_| ()).unwrap();
    for nth in [0, 2] {
        let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
        let latest = store.at_version(None).unwrap();
        let found = latest.scan::<Labels>(&Filter::all()).unwrap();
        let mut track = found[nth].row.clone();
        flip(&mut track, WHY);
        let own = change(commit.version().0, &track);
        let patch = std::slice::from_ref(&track);
        commit.patch::<Labels>(&[found[nth].place], patch).unwrap();
        commit.append::<LabelChanges>(std::slice::from_ref(&own)).unwrap();
        commit.finish().unwrap();
        expected[nth] = track;
        let latest = Store::open(&root).unwrap().at_version(None).unwrap();
        assert_eq!(latest.read::<Labels>().unwrap(), expected);
        assert_eq!(latest.read::<LabelChanges>().unwrap().last(), Some(&own));
        assert_eq!(latest.check().unwrap(), []);
    }
    // The log says `why` once, with the first files that have it, and keeps the old columns: other readers see both.
    for (table, before) in [("labels", L), ("label_changes", C)] {
        let names = said(&root, table, 1).unwrap();
        assert_eq!(
            (names.len(), said(&root, table, 2)),
            (before + 1, None),
            "{names:?}"
        );
        assert_eq!(names[8], "why");
        assert_eq!(names[9..], reasons(table)[..before - 8], "{table}");
    }
    assert_eq!(
        first.read::<Labels>().unwrap(),
        flipped(&scored, of_labels).0,
        "version 1 is as it was"
    );
}

#[test]
fn a_store_of_before_flips_told_why_reads_with_nulls_and_takes_flips_that_do() {
    let unlimited = FlipReason { limit: None, ..WHY };
    goes_on::<10, 9>(
        unlimited,
        FlipReason {
            loss: None,
            ..unlimited
        },
    );
}

#[test]
fn a_store_of_before_column_why_keeps_its_reasons_and_takes_flips_with_theirs() {
    goes_on::<13, 13>(WHY, WHY);
}
