//! Checks that the files and rows of a store version are sound, and that its tables agree with each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::grouped::{GroupedChanges, GroupedFiles, Groups};
use super::parallel::on_all_cores;
use super::written::content;
use super::{DataFile, Deleted, Snapshot, snapshot};
use crate::error::StoreError;
use crate::ids::{Modality, bucket_of};
use crate::parquet_file::Opened;
use crate::rows::{LabelChangeTrack, LabelRule, LabelTrack, ScoreTrack, SegmentLabel, VideoRow};
use crate::tables::{self, LabelChanges, Labels, Predictions, Scores, Table, VideoPredictions, Videos};

/// A problem that the check found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The table with the problem.
    pub table: &'static str,
    /// The file with the problem, if the problem lies in one file.
    pub file: Option<PathBuf>,
    /// The problem: the place, the value found and what was expected.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}: `{}`: {}", self.table, file.display(), self.what),
            None => write!(f, "{}: {}", self.table, self.what),
        }
    }
}

type Key = (Arc<str>, Modality, Arc<str>);

/// The number of videos whose rows are compared at a time. Their rows take about 100 MiB.
const GROUP_VIDEOS: u64 = 1 << 15;

impl Snapshot {
    /// Reads the whole version and checks it.
    ///
    /// - Logs: the copy of a log says what the log says.
    /// - Files: each file exists, has the size and number of rows that the log names, and decodes. Rows that a
    ///   deletion vector deletes exist in the file.
    /// - Rows: each row is in the file of its bucket or in a patch file. Rows are in order, and each key occurs once.
    /// - Between tables: scores and labels have the same tracks, and each track belongs to an existing video and a
    ///   class of its weak label. A label of rule `plg` equals what score and threshold give; a label of rule `pld`
    ///   does not. If a flip has its loss, alpha and base, the loss is above alpha times the base. The changes up to
    ///   this version add up to its labels. An epoch with predictions of whole videos has them for the same videos as
    ///   predictions of segments.
    ///
    /// Memory holds the rows of about 32,768 videos, one data file of each table, and the names of the videos with
    /// predictions.
    ///
    /// # Errors
    /// Returns [`StoreError`] if the log of a table cannot be read, because then there is nothing to compare, or if a
    /// temporary file cannot be written.
    pub fn check(&self) -> Result<Vec<Problem>, StoreError> {
        self.check_in_groups(GROUP_VIDEOS)
    }

    /// Like [`Snapshot::check`], with the rows of about `videos` videos in memory.
    ///
    /// # Errors
    /// Returns the same errors as [`Snapshot::check`].
    pub fn check_in_groups(&self, videos: u64) -> Result<Vec<Problem>, StoreError> {
        let mut problems = Vec::new();
        for found in tables::each(&mut Files(self)) {
            problems.extend(found?);
        }
        let groups = Groups::new(self, videos)?;
        let videos = GroupedFiles::new::<Videos>(self, groups)?;
        let scores = GroupedFiles::new::<Scores>(self, groups)?;
        let labels = GroupedFiles::new::<Labels>(self, groups)?;
        let changes = GroupedChanges::read(self, groups)?;
        for group in groups.all() {
            let videos = rows_of_group::<Videos>(&videos, group, &mut problems);
            let scores = rows_of_group::<Scores>(&scores, group, &mut problems);
            let labels = rows_of_group::<Labels>(&labels, group, &mut problems);
            let labels: BTreeMap<Key, &LabelTrack> = labels
                .iter()
                .map(|row| (key(&row.video, row.modality, &row.class), row))
                .collect();
            problems.extend(check_tracks(&videos, &scores, &labels));
            // [`check_file`] already reports a file of changes that does not decode. Without its changes the replay cannot
            // add up, so the check is skipped.
            if let Some(changes) = &changes {
                problems.extend(check_changes(changes.of(group)?, &labels));
            }
        }
        problems.extend(self.check_predictions()?);
        problems.sort();
        // A file with rows of several groups is looked at once for each group.
        problems.dedup();
        Ok(problems)
    }

    fn check_predictions(&self) -> Result<Vec<Problem>, StoreError> {
        let videos = self.epochs_and_videos::<VideoPredictions>(|row| (row.epoch, row.video))?;
        let of_videos: BTreeSet<u64> = videos.iter().map(|(epoch, _)| *epoch).collect();
        let mut segments = self.epochs_and_videos::<Predictions>(|track| (track.epoch, track.video))?;
        segments.retain(|(epoch, _)| of_videos.contains(epoch));
        let lacks = |table, (epoch, video): &(u64, Arc<str>), other| {
            problem(
                table,
                format!("epoch {epoch} has no video `{video}`, which `{other}` has"),
            )
        };
        let mut problems = Vec::new();
        for key in segments.difference(&videos) {
            problems.push(lacks(VideoPredictions::NAME, key, Predictions::NAME));
        }
        for key in videos.difference(&segments) {
            problems.push(lacks(Predictions::NAME, key, VideoPredictions::NAME));
        }
        Ok(problems)
    }

    /// The epochs and videos of a table. Files that do not decode are skipped here, because [`check_file`] already
    /// reports them.
    fn epochs_and_videos<T: Table>(
        &self,
        key: impl Fn(T::Row) -> (u64, Arc<str>),
    ) -> Result<BTreeSet<(u64, Arc<str>)>, StoreError> {
        let mut keys = BTreeSet::new();
        for file in self.files(T::NAME)? {
            let rows = snapshot::decode::<T>(&file).unwrap_or_default();
            keys.extend(rows.into_iter().map(&key));
        }
        Ok(keys)
    }
}

/// Reads the rows of a group of a bucketed table, in order. A row in the wrong bucket or out of order is added to
/// `problems`. Files that do not decode are skipped here, because [`check_file`] already reports them.
fn rows_of_group<T: Keyed>(files: &GroupedFiles, group: u32, problems: &mut Vec<Problem>) -> Vec<T::Row> {
    let mut all: Vec<(T::Row, Arc<Path>)> = Vec::new();
    files.each::<T>(group, |file, rows| {
        let at = |what: String| Problem {
            table: T::NAME,
            file: Some(file.path.clone()),
            what,
        };
        match file.bucket() {
            Some((bucket, buckets)) => {
                let strangers = rows
                    .iter()
                    .filter_map(T::video)
                    .filter(|video| bucket_of(video, buckets) != bucket);
                problems.extend(strangers.map(|video| at(format!("video `{video}` is of another bucket"))));
            }
            None if file.is_patch() => {}
            None => problems.push(at("its name tells no bucket".to_owned())),
        }
        for pair in rows.windows(2) {
            let (before, after) = (T::key(&pair[0]), T::key(&pair[1]));
            if before >= after {
                problems.push(at(format!("{} comes after {}", name(&after), name(&before))));
            }
        }
        let path: Arc<Path> = file.path.as_path().into();
        all.extend(rows.into_iter().map(|row| (row, path.clone())));
    });
    all.sort_by(|(a, _), (b, _)| T::compare(a, b));
    for pair in all.windows(2) {
        let [(before, first), (after, second)] = pair else {
            continue;
        };
        if T::compare(before, after).is_eq() && first != second {
            let what = format!("{} is also in `{}`", name(&T::key(after)), first.display());
            problems.push(Problem {
                table: T::NAME,
                file: Some(second.to_path_buf()),
                what,
            });
        }
    }
    all.into_iter().map(|(row, _)| row).collect()
}

/// A bucketed table whose rows the check compares by key.
trait Keyed: Table {
    /// Video, modality and class of a row. Table `videos` has neither modality nor class.
    fn key(row: &Self::Row) -> Key;
}

impl Keyed for Videos {
    fn key(row: &VideoRow) -> Key {
        key(&row.video, Modality::Audio, &Arc::from(""))
    }
}

impl Keyed for Scores {
    fn key(row: &ScoreTrack) -> Key {
        key(&row.video, row.modality, &row.class)
    }
}

impl Keyed for Labels {
    fn key(row: &LabelTrack) -> Key {
        key(&row.video, row.modality, &row.class)
    }
}

/// Checks the tracks of some videos against each other.
fn check_tracks(
    videos: &[VideoRow],
    scores: &[ScoreTrack],
    labels: &BTreeMap<Key, &LabelTrack>,
) -> Vec<Problem> {
    let videos: BTreeMap<&str, &VideoRow> = videos.iter().map(|row| (&*row.video, row)).collect();
    let mut problems = Vec::new();
    for score in scores {
        problems.extend(check_score(score, &videos, labels));
    }
    let scored: BTreeSet<Key> = scores.iter().map(Scores::key).collect();
    for (key, track) in labels {
        if !scored.contains(key) && track.rules.iter().any(|rule| rule.compares()) {
            let what = format!("{} has labels, but no scores", name(key));
            problems.push(problem(Labels::NAME, what));
        }
    }
    problems
}

/// Checks that replaying all label changes of some videos gives their labels. A label that is not in `labels` counts as
/// unset.
fn check_changes(mut changes: Vec<LabelChangeTrack>, labels: &BTreeMap<Key, &LabelTrack>) -> Vec<Problem> {
    let mut set: BTreeSet<(Key, u32)> = BTreeSet::new();
    let mut problems = Vec::new();
    changes.sort_by_key(|row| row.version);
    for row in changes.iter().flat_map(LabelChangeTrack::changes) {
        let cell = (key(&row.video, row.modality, &row.class), row.segment);
        let held = if row.to {
            set.insert(cell.clone())
        } else {
            set.remove(&cell)
        };
        if !held {
            let what = format!(
                "version {}: {}, segment {} is set to {}, which it was",
                row.version,
                name(&cell.0),
                row.segment,
                row.to
            );
            problems.push(problem(LabelChanges::NAME, what));
        }
    }
    for (key, track) in labels {
        for (segment, &label) in track.labels.iter().enumerate() {
            if set.remove(&(key.clone(), segment as u32)) != label {
                let what = format!(
                    "{}, segment {segment}: label is {}, the changes add up to {}",
                    name(key),
                    label,
                    !label
                );
                problems.push(problem(LabelChanges::NAME, what));
            }
        }
    }
    for (key, segment) in set {
        let what = format!(
            "{}, segment {segment}: the changes set it, no label does",
            name(&key)
        );
        problems.push(problem(LabelChanges::NAME, what));
    }
    problems
}

/// Checks each file of a table by itself.
struct Files<'a>(&'a Snapshot);

impl tables::ForTable for Files<'_> {
    type Out = Result<Vec<Problem>, StoreError>;

    fn table<T: Table>(&mut self) -> Self::Out {
        let files = self.0.files(T::NAME)?;
        let storage = &self.0.store().storage;
        let mut problems: Vec<Problem> = Vec::new();
        match storage.is_remote() {
            true => {
                let found = on_all_cores(storage, files.len(), |number| {
                    Ok::<_, StoreError>(check_file::<T>(&files[number]))
                })?;
                problems.extend(found.into_iter().flatten());
            }
            false => problems.extend(files.iter().filter_map(check_file::<T>)),
        }
        problems.extend(self.0.wrong_copy(T::NAME)?.map(|file| Problem {
            table: T::NAME,
            file: Some(file),
            what: "it differs from the log that it is a copy of, expected the same; remove it".to_owned(),
        }));
        Ok(problems)
    }
}

fn check_file<T: Table>(file: &DataFile) -> Option<Problem> {
    let table = T::NAME;
    let at = |what: String| {
        Some(Problem {
            table,
            file: Some(file.path.clone()),
            what,
        })
    };
    let bytes = match file.read() {
        Err(StoreError::Io { source, .. }) => return at(source.to_string()),
        Err(error) => return at(error.to_string()),
        Ok(found) if found.len() as u64 != file.bytes => {
            return at(format!("{} bytes, expected {}", found.len(), file.bytes));
        }
        // A file with a flipped bit can still decode, so compare the hash of its content with the hash in its name.
        Ok(found) => {
            let sum = content(&found);
            let name = file.path.file_stem().unwrap_or_default().to_string_lossy();
            if !name.ends_with(&sum) {
                return at(format!(
                    "its content has the sum {sum}, expected the one in its name"
                ));
            }
            found
        }
    };
    let rows = Opened::of_bytes(&file.path, bytes, &T::schema()).and_then(|opened| opened.read(None, None));
    let rows = match rows {
        Err(StoreError::File { problem, .. }) => return at(problem),
        Err(error) => return at(error.to_string()),
        Ok(batch) if batch.num_rows() as u64 != file.all_rows() => {
            return at(format!("{} rows, expected {}", batch.num_rows(), file.all_rows()));
        }
        Ok(batch) => batch,
    };
    if let Some(row) = file.deleted.as_ref().map(Deleted::last)
        && row >= rows.num_rows() as u64
    {
        return at(format!("row {row} is deleted, of {} rows", rows.num_rows()));
    }
    T::decode(&rows).err().and_then(|error| at(error.to_string()))
}

fn check_score(
    score: &ScoreTrack,
    videos: &BTreeMap<&str, &VideoRow>,
    labels: &BTreeMap<Key, &LabelTrack>,
) -> Vec<Problem> {
    let key = key(&score.video, score.modality, &score.class);
    let mut problems = Vec::new();
    match videos.get(&*score.video) {
        None => problems.push(problem(Scores::NAME, format!("{}: no such video", name(&key)))),
        Some(video) => {
            if !video.weak_labels.contains(&score.class) {
                let what = format!("{}: no class of the weak label", name(&key));
                problems.push(problem(Scores::NAME, what));
            }
            if video.segments as usize != score.score.len() {
                let what = format!(
                    "{}: {} segments, expected {}",
                    name(&key),
                    score.score.len(),
                    video.segments
                );
                problems.push(problem(Scores::NAME, what));
            }
        }
    }
    let Some(track) = labels.get(&key) else {
        problems.push(problem(
            Labels::NAME,
            format!("{} has scores, but no labels", name(&key)),
        ));
        return problems;
    };
    if track.segments() != score.score.len() {
        let what = format!(
            "{}: {} segments, {} in scores",
            name(&key),
            track.segments(),
            score.score.len()
        );
        problems.push(problem(Labels::NAME, what));
    }
    for (segment, (own, &value)) in track.iter().zip(&score.score).enumerate() {
        let says = own.threshold.map(|threshold| value > threshold);
        let generated = matches!(own.rule, LabelRule::Plg | LabelRule::Import);
        if generated && (own.score != Some(value) || says != Some(own.label)) {
            let what = format!(
                "{}, segment {segment}: label is {}, of score {:?} and threshold {:?}; `scores` has {value}",
                name(&key),
                own.label,
                own.score,
                own.threshold
            );
            problems.push(problem(Labels::NAME, what));
        }
        if let Some(wrong) = flip_problem(own, says) {
            problems.push(problem(
                Labels::NAME,
                format!("{}, segment {segment}: {wrong}", name(&key)),
            ));
        }
    }
    problems
}

/// Checks the reason of a flip. `says` is the label that score and threshold give.
fn flip_problem(own: SegmentLabel<'_>, says: Option<bool>) -> Option<String> {
    let flipped = own.rule == LabelRule::Pld;
    if flipped && says == Some(own.label) {
        return Some(format!(
            "label is {}, as score and threshold say, expected a flip",
            own.label
        ));
    }
    let why = own.why?;
    if !flipped {
        let rule = own.rule.as_str();
        return Some(format!(
            "why is a flip after epoch {}, expected null for rule `{rule}`",
            why.epoch
        ));
    }
    let limit = why.limit?;
    let abnormal = why.loss.is_some_and(|loss| loss > limit.alpha * limit.base);
    (!abnormal).then(|| {
        let (loss, alpha, base) = (why.loss, limit.alpha, limit.base);
        format!("flipped with loss {loss:?}, expected one above {alpha} times the base {base}")
    })
}

fn key(video: &Arc<str>, modality: Modality, class: &Arc<str>) -> Key {
    (video.clone(), modality, class.clone())
}

fn name((video, modality, class): &Key) -> String {
    if class.is_empty() {
        format!("video `{video}`")
    } else {
        format!("video `{video}`, {modality}, `{class}`")
    }
}

fn problem(table: &'static str, what: String) -> Problem {
    Problem {
        table,
        file: None,
        what,
    }
}
