//! A small data set, and how it is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use vaplan_schemas::rows::{
    ClassRow, LabelChangeRow, LabelChangeTrack, LabelRule, LabelTrack, RejectKind, RejectRow, ScoreTrack,
    Split, TruthRow, VersionRow, VideoRow,
};
use vaplan_schemas::store::{
    Commit, CommitInfo, Filter, Place, Problem, RowsAhead, Snapshot, Store, WriteLock,
};
use vaplan_schemas::tables::{Classes, LabelChanges, Labels, Rejects, Scores, Table, Truth, Videos};
use vaplan_schemas::{Modality, StoreError, bucket_of};

/// What a label's score is compared with.
pub(crate) const THRESHOLD: f64 = 0.5;
/// Videos that a store is made for, so that it has 4 buckets.
pub(crate) const VIDEOS: usize = 4 * 1024;

/// Scores per segment of video, modality and class: all else follows from them.
pub(crate) type ScoredTracks = BTreeMap<Key, Vec<f64>>;
/// Video, modality and class.
type Key = (Arc<str>, Modality, Arc<str>);

/// `videos` videos of odd names with 3 segments, one class each; `salt` tells versions apart.
pub(crate) fn scored(videos: usize, salt: u64) -> ScoredTracks {
    let mut scored = ScoredTracks::new();
    for number in 0..videos {
        let name: Arc<str> = match number % 5 {
            0 => format!("-rf_{number}_{}", number + 10).into(),
            1 => format!("../{number}/..").into(),
            2 => format!("nul\0{number}").into(),
            3 => format!("видео {number} \"'%20").into(),
            _ => format!("BjCEufrlXm4_{number}_{}", number + 10).into(),
        };
        for modality in Modality::ALL {
            let class: Arc<str> = if number % 2 == 0 {
                "Speech".into()
            } else {
                "Dog".into()
            };
            let score = |segment: u64| {
                let mixed = (number as u64 * 31 + segment * 17 + salt * 101 + modality as u64 * 7)
                    .wrapping_mul(2_654_435_761);
                (mixed % 1000) as f64 / 1000.0
            };
            scored.insert((name.clone(), modality, class), (0..3).map(score).collect());
        }
    }
    scored
}

pub(crate) fn classes() -> Vec<ClassRow> {
    let class = |(position, class): (usize, &str)| {
        Modality::ALL.map(|modality| ClassRow {
            class: class.into(),
            position: position as u32,
            modality,
            prompt: (position == 0).then(|| "A photo of speech.".into()),
            rule: "softmax".into(),
            scale: 1.0,
            threshold: 1.0,
            score_threshold: THRESHOLD,
        })
    };
    ["Speech", "Dog"]
        .into_iter()
        .enumerate()
        .flat_map(class)
        .collect()
}

pub(crate) fn videos(scored: &ScoredTracks) -> Vec<VideoRow> {
    let mut rows: BTreeMap<Arc<str>, VideoRow> = BTreeMap::new();
    for ((video, _, class), scores) in scored {
        let row = rows.entry(video.clone()).or_insert_with(|| VideoRow {
            video: video.clone(),
            split: Split::Val,
            segments: scores.len() as u32,
            segment_seconds: 1.0,
            weak_labels: Vec::new(),
            guessed: false,
            source: "val.csv".into(),
            audio_source: Some("audio.parquet".into()),
            visual_source: None,
        });
        if !row.weak_labels.contains(class) {
            row.weak_labels.push(class.clone());
        }
    }
    rows.into_values().collect()
}

pub(crate) fn scores(scored: &ScoredTracks) -> Vec<ScoreTrack> {
    let track = |((video, modality, class), scores): (&Key, &Vec<f64>)| ScoreTrack {
        video: video.clone(),
        modality: *modality,
        class: class.clone(),
        cosine: scores.iter().map(|score| *score as f32 / 2.0).collect(),
        score: scores.clone(),
    };
    scored.iter().map(track).collect()
}

pub(crate) fn labels(scored: &ScoredTracks) -> Vec<LabelTrack> {
    let track = |((video, modality, class), scores): (&Key, &Vec<f64>)| {
        LabelTrack::plg(video.clone(), *modality, class.clone(), scores.clone(), THRESHOLD)
    };
    scored.iter().map(track).collect()
}

/// From one scored to the next; a cell that is not there counts as unset.
pub(crate) fn changes(version: u64, before: &ScoredTracks, after: &ScoredTracks) -> Vec<LabelChangeTrack> {
    let set = |scored: &ScoredTracks, key: &Key, segment: usize| {
        scored
            .get(key)
            .and_then(|scores| scores.get(segment))
            .is_some_and(|&score| score > THRESHOLD)
    };
    let mut keys: Vec<_> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    let mut rows = Vec::new();
    for key in keys {
        let segments = [before, after].map(|scored| scored.get(key).map_or(0, Vec::len));
        for segment in 0..segments[0].max(segments[1]) {
            let (from, to) = (set(before, key, segment), set(after, key, segment));
            if from != to {
                rows.push(LabelChangeRow {
                    version,
                    video: key.0.clone(),
                    modality: key.1,
                    class: key.2.clone(),
                    segment: segment as u32,
                    from,
                    to,
                    rule: LabelRule::Plg,
                    why: None,
                });
            }
        }
    }
    LabelChangeTrack::group(rows)
}

pub(crate) fn truth() -> Vec<TruthRow> {
    vec![TruthRow {
        video: "../1/..".into(),
        modality: Modality::Audio,
        class: "Dog".into(),
        onset: 0,
        offset: 2,
    }]
}

pub(crate) fn rejects(scored: &ScoredTracks) -> Vec<RejectRow> {
    let reason = "class `Dgo` is unknown, did you mean `Dog`";
    vec![RejectRow::note(RejectKind::UnknownClass, "val.csv", reason).row(scored.len() as u64)]
}

/// Creates a store that patches every change, however small the store is. Most tests are about patches;
/// [`crate::plain`] has those of small stores that stay plain.
pub(crate) fn create(root: &Path) -> Result<Store, StoreError> {
    Store::create(root).map(|store| store.with_plain_bytes(0))
}

/// Opens a store as [`create`] makes it.
pub(crate) fn open(root: &Path) -> Result<Store, StoreError> {
    Store::open(root).map(|store| store.with_plain_bytes(0))
}

/// Commits `after` as the version that follows `before`.
pub(crate) fn commit(
    store: &Store,
    before: &ScoredTracks,
    after: &ScoredTracks,
) -> Result<VersionRow, StoreError> {
    let lock = store.lock(&mut |_| {})?;
    let info = CommitInfo {
        command: "vaplan label".into(),
        settings: "settings".into(),
        models: "models".into(),
        inputs: format!("{:x}", after.len()),
        program: "0.1.0".into(),
        videos: VIDEOS,
        ..CommitInfo::default()
    };
    let mut commit = store.begin(&lock, info)?;
    commit.replace_all::<Classes>(&classes())?;
    commit.replace_all::<Truth>(&truth())?;
    commit.replace_all::<Rejects>(&rejects(after))?;
    commit.append::<LabelChanges>(&changes(commit.version().0, before, after))?;
    let buckets = commit.buckets();
    let own = |scored: &ScoredTracks, bucket: u32| -> ScoredTracks {
        let own = scored
            .iter()
            .filter(|((video, ..), _)| bucket_of(video, buckets) == bucket);
        own.map(|(key, scores)| (key.clone(), scores.clone())).collect()
    };
    if commit.version().0 == 1 {
        commit.replace_buckets::<Videos>(|bucket| videos(&own(after, bucket)))?;
        commit.replace_buckets::<Scores>(|bucket| scores(&own(after, bucket)))?;
        commit.replace_buckets::<Labels>(|bucket| labels(&own(after, bucket)))?;
    } else {
        for bucket in 0..buckets {
            let (before, after) = (own(before, bucket), own(after, bucket));
            if before != after {
                commit.replace_bucket::<Videos>(bucket, &videos(&after))?;
                commit.replace_bucket::<Scores>(bucket, &scores(&after))?;
                commit.replace_bucket::<Labels>(bucket, &labels(&after))?;
            }
        }
    }
    commit.finish()
}

/// Commits `after` as the version that follows `before` as a patch of what differs.
pub(crate) fn patch(
    store: &Store,
    before: &ScoredTracks,
    after: &ScoredTracks,
) -> Result<VersionRow, StoreError> {
    patch_with(store, &store.lock(&mut |_| {})?, before, after)
}

/// Like [`patch`], by the holder of the lock.
pub(crate) fn patch_with(
    store: &Store,
    lock: &WriteLock,
    before: &ScoredTracks,
    after: &ScoredTracks,
) -> Result<VersionRow, StoreError> {
    let commit = store.begin(lock, patch_info())?;
    patched(commit, store.latest()?.as_ref(), (before, after))
}

/// Every row of the tables with buckets, to be read ahead.
pub(crate) fn every_row() -> RowsAhead {
    RowsAhead::default()
        .and::<Labels>(Filter::all())
        .and::<Scores>(Filter::all())
        .and::<Videos>(Filter::all())
}

/// Like [`patch`], but opens the store by [`Store::open_to_write`], which reads every row ahead.
pub(crate) fn patch_ahead(
    root: &Path,
    before: &ScoredTracks,
    after: &ScoredTracks,
) -> Result<VersionRow, StoreError> {
    let (store, lock, snapshot) = Store::open_to_write(root, &every_row(), &mut |_| {})?;
    let store = store.with_plain_bytes(0);
    let commit = store.begin_after(&lock, &snapshot, patch_info())?;
    patched(commit, Some(&snapshot), (before, after))
}

fn patch_info() -> CommitInfo {
    CommitInfo {
        command: "vaplan relabel".into(),
        inputs: "patch".into(),
        videos: VIDEOS,
        ..CommitInfo::default()
    }
}

fn patched(
    mut commit: Commit<'_>,
    snapshot: Option<&Snapshot>,
    (before, after): (&ScoredTracks, &ScoredTracks),
) -> Result<VersionRow, StoreError> {
    let same = |(key, scores): &(&Key, &Vec<f64>), other: &ScoredTracks| other.get(*key) == Some(*scores);
    let changed: BTreeSet<Arc<str>> = before
        .iter()
        .filter(|entry| !same(entry, after))
        .chain(after.iter().filter(|entry| !same(entry, before)))
        .map(|((video, ..), _)| video.clone())
        .collect();
    let new: ScoredTracks = after
        .iter()
        .filter(|((video, ..), _)| changed.contains(video))
        .map(|(key, scores)| (key.clone(), scores.clone()))
        .collect();
    commit.append::<LabelChanges>(&changes(commit.version().0, before, after))?;
    let filter = Filter::videos(changed);
    commit.patch::<Videos>(&places::<Videos>(snapshot, &filter)?, &videos(&new))?;
    commit.patch::<Scores>(&places::<Scores>(snapshot, &filter)?, &scores(&new))?;
    commit.patch::<Labels>(&places::<Labels>(snapshot, &filter)?, &labels(&new))?;
    let gone = places::<Rejects>(snapshot, &Filter::all())?;
    commit.patch::<Rejects>(&gone, &rejects(after))?;
    if snapshot.is_none() {
        commit.replace_all::<Classes>(&classes())?;
        commit.replace_all::<Truth>(&truth())?;
    }
    commit.finish()
}

/// Where the rows of a filter lie; nowhere in a store without versions.
pub(crate) fn places<T: Table>(
    snapshot: Option<&Snapshot>,
    filter: &Filter,
) -> Result<Vec<Place>, StoreError> {
    let found = snapshot.map(|snapshot| snapshot.scan::<T>(filter)).transpose()?;
    Ok(found.into_iter().flatten().map(|found| found.place).collect())
}

/// The snapshot holds this scored: every table, row for row.
pub(crate) fn assert_holds(snapshot: &Snapshot, scored: &ScoredTracks) {
    fn sorted<R: std::fmt::Debug>(rows: Vec<R>) -> Vec<String> {
        let mut rows: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
        rows.sort();
        rows
    }
    assert_eq!(snapshot.read::<Classes>().unwrap(), classes());
    assert_eq!(snapshot.read::<Truth>().unwrap(), truth());
    assert_eq!(snapshot.read::<Rejects>().unwrap(), rejects(scored));
    assert_eq!(sorted(snapshot.read::<Videos>().unwrap()), sorted(videos(scored)));
    assert_eq!(sorted(snapshot.read::<Scores>().unwrap()), sorted(scores(scored)));
    assert_eq!(sorted(snapshot.read::<Labels>().unwrap()), sorted(labels(scored)));
}

/// The batch with one column replaced.
pub(crate) fn with(batch: &RecordBatch, column: &str, array: ArrayRef) -> RecordBatch {
    let at = batch.schema().index_of(column).unwrap();
    let mut fields: Vec<Field> = batch
        .schema()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone())
        .collect();
    fields[at] = Field::new(column, array.data_type().clone(), true);
    let mut columns = batch.columns().to_vec();
    columns[at] = array;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The problems that a check finds. The groups that the check reads the videos in make no difference.
pub(crate) fn problems_of(snapshot: &Snapshot) -> Vec<Problem> {
    let problems = snapshot.check().unwrap();
    assert_eq!(snapshot.check_in_groups(1).unwrap(), problems);
    problems
}
