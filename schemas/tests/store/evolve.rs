//! A store that a program before wrote, with one row per segment: it reads, and its next versions have one row per track.

use std::path::Path;

use serde_json::Value;
use vaplan_schemas::rows::{FlipLimit, FlipReason, LabelChangeRow, LabelChangeTrack, LabelRule, LabelTrack};
use vaplan_schemas::store::{CommitInfo, Filter, Snapshot, Store};
use vaplan_schemas::tables::{LabelChanges, Labels, Scores, Table, Videos};

use crate::former::{FormerChanges, FormerLabels, FormerScores, of_log};
use crate::support::{ScoredTracks, changes, labels, problems_of, scored, scores, videos};

/// Makes the first entry of a table's log say the columns that an older program gave the table.
fn say<T: Table>(root: &Path) {
    let path = root.join(T::NAME).join("_delta_log/00000000000000000000.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let line = |line: &str| {
        let mut action: Value = serde_json::from_str(line).unwrap();
        if let Some(metadata) = action.get_mut("metaData") {
            metadata["schemaString"] = of_log(&T::schema()).to_string().into();
        }
        action.to_string() + "\n"
    };
    std::fs::write(&path, text.lines().map(line).collect::<String>()).unwrap();
}

/// Columns that an entry of a log says the table has; `None` if the entry says nothing of them.
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

fn names<T: Table>() -> Vec<String> {
    let schema = T::schema();
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

/// The changes of single labels, by version and key.
fn single(rows: &[LabelChangeTrack]) -> Vec<LabelChangeRow> {
    let mut changes: Vec<LabelChangeRow> = rows.iter().flat_map(LabelChangeTrack::changes).collect();
    let key = |row: &LabelChangeRow| {
        (
            row.version,
            row.video.clone(),
            row.modality,
            row.class.clone(),
            row.segment,
        )
    };
    changes.sort_by_key(key);
    changes
}

/// The labels of `scored`, of which segment 1 of track 4 is flipped, and the changes that led to them.
fn flipped(scored: &ScoredTracks, why: FlipReason) -> (Vec<LabelTrack>, Vec<LabelChangeRow>) {
    let mut tracks = labels(scored);
    let mut rows = single(&changes(1, &ScoredTracks::new(), scored));
    let track = &mut tracks[4];
    flip(track, why);
    let own = change(1, track);
    let key = |row: &LabelChangeRow| (row.video.clone(), row.modality, row.class.clone(), row.segment);
    rows.retain(|row| key(row) != key(&own));
    if own.to {
        rows.push(own);
        rows.sort_by_key(key);
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

/// Writes a store of one bucket as an older program did, with the reasons of flips as `LABELS` and `CHANGES` say.
fn old<const LABELS: u8, const CHANGES: u8>(root: &Path, scored: &ScoredTracks, why: FlipReason) {
    let store = Store::create(root).unwrap();
    let lock = store.lock(&mut |_| ()).unwrap();
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    commit.replace_bucket::<Videos>(0, &videos(scored)).unwrap();
    commit.replace_bucket::<FormerScores>(0, &scores(scored)).unwrap();
    let (tracks, rows) = flipped(scored, why);
    commit.replace_bucket::<FormerLabels<LABELS>>(0, &tracks).unwrap();
    commit.append::<FormerChanges<CHANGES>>(&rows).unwrap();
    commit.finish().unwrap();
    say::<FormerScores>(root);
    say::<FormerLabels<LABELS>>(root);
    say::<FormerChanges<CHANGES>>(root);
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

fn has_segment(snapshot: &Snapshot, table: &str) -> bool {
    let tables = snapshot.tables().unwrap();
    let (_, schema) = tables.iter().find(|(name, _)| *name == table).unwrap();
    schema.column_with_name("segment").is_some()
}

/// Checks that an old store reads with the reasons that it has, takes flips with theirs, and keeps both. `plain` is what
/// [`Store::with_plain_bytes`] says.
fn goes_on<const LABELS: u8, const CHANGES: u8>(plain: u64, of_labels: FlipReason, of_changes: FlipReason) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let scored = scored(6, 1);
    old::<LABELS, CHANGES>(&root, &scored, WHY);
    let store = Store::open(&root).unwrap().with_plain_bytes(plain);
    let first = store.at_version(None).unwrap();
    let mut expected = flipped(&scored, of_labels).0;
    let mut rows = flipped(&scored, of_changes).1;
    assert_eq!(first.read::<Labels>().unwrap(), expected);
    assert_eq!(first.read::<Scores>().unwrap(), scores(&scored));
    assert_eq!(single(&first.read::<LabelChanges>().unwrap()), rows);
    assert_eq!(problems_of(&first), []);
    assert!(has_segment(&first, "labels") && has_segment(&first, "scores"));

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
        commit
            .append::<LabelChanges>(&LabelChangeTrack::group([own.clone()]))
            .unwrap();
        commit.finish().unwrap();
        expected[nth] = track;
        rows.push(own);
        let latest = Store::open(&root).unwrap().at_version(None).unwrap();
        assert_eq!(latest.read::<Labels>().unwrap(), expected);
        assert_eq!(latest.read::<Scores>().unwrap(), scores(&scored));
        assert_eq!(single(&latest.read::<LabelChanges>().unwrap()), rows);
        assert_eq!(problems_of(&latest), []);
        assert_eq!(
            latest.changes_by_version().unwrap()[&1],
            rows.iter().filter(|row| row.version == 1).count() as u64
        );
        assert!(!has_segment(&latest, "labels") && !has_segment(&latest, "label_changes"));
        assert!(has_segment(&latest, "scores"), "no commit touched this table");
    }
    // The first commit says the columns of now, and no column of before stays. If the second commit patches, it says in
    // the same action that the table may have deletion vectors.
    let second = (plain == 0).then(names::<Labels>);
    assert_eq!(
        (said(&root, "labels", 1), said(&root, "labels", 2)),
        (Some(names::<Labels>()), second)
    );
    let of_changes = (said(&root, "label_changes", 1), said(&root, "label_changes", 2));
    assert_eq!(of_changes, (Some(names::<LabelChanges>()), None));
    assert_eq!(
        first.read::<Labels>().unwrap(),
        flipped(&scored, of_labels).0,
        "version 1 is as it was"
    );
}

#[test]
fn a_store_of_before_flips_told_why_reads_with_nulls_and_takes_flips_that_do() {
    let unlimited = FlipReason { limit: None, ..WHY };
    let without_loss = FlipReason {
        loss: None,
        ..unlimited
    };
    goes_on::<2, 1>(0, unlimited, without_loss);
    goes_on::<2, 1>(1 << 20, unlimited, without_loss);
}

#[test]
fn a_store_of_before_column_why_keeps_its_reasons_and_takes_flips_with_theirs() {
    goes_on::<5, 5>(0, WHY, WHY);
    goes_on::<5, 5>(1 << 20, WHY, WHY);
}

#[test]
fn a_store_of_one_row_per_segment_becomes_one_of_one_row_per_track() {
    goes_on::<0, 0>(0, WHY, WHY);
    goes_on::<0, 0>(1 << 20, WHY, WHY);
}
