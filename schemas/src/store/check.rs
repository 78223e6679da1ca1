//! Does a store version hold what it says, and do its tables agree?

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::written::content;
use super::{DataFile, Deleted, Snapshot, snapshot};
use crate::error::StoreError;
use crate::ids::{Modality, bucket_of};
use crate::parquet_file;
use crate::rows::{LabelCell, LabelRule, LabelTrack, ScoreTrack, VideoRow};
use crate::tables::{self, LabelChanges, Labels, Predictions, Scores, Table, VideoPredictions, Videos};

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Table it is in.
    pub table: &'static str,
    /// File, where it is in one.
    pub file: Option<PathBuf>,
    /// What is wrong: place, value and what was expected.
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

impl Snapshot {
    /// Reads the whole version and compares what its tables say.
    ///
    /// Files: there, of the size and rows the log says, readable; what is deleted of them is in them. Rows: in their
    /// bucket unless they were patched, in order, each key once.
    /// Between tables: scores and labels have the same tracks, of videos that are there and classes of their weak
    /// label; a label of rule `plg` is what score and threshold say, one of rule `pld` is not, and its loss is above alpha
    /// times the base, where that is told; the changes up to this version add up to its labels; an epoch with predictions
    /// of whole videos has them of the same videos as of segments.
    ///
    /// # Errors
    /// Where a table's log does not read back, so that there is nothing to compare.
    pub fn check(&self) -> Result<Vec<Problem>, StoreError> {
        let mut problems = Vec::new();
        for found in tables::each(&mut Files(self)) {
            problems.extend(found?);
        }
        let videos = self.rows_by_file::<Videos>(&mut problems, |row| {
            (row.video.clone(), Modality::Audio, Arc::from(""))
        })?;
        let scores =
            self.rows_by_file::<Scores>(&mut problems, |row| key(&row.video, row.modality, &row.class))?;
        let labels =
            self.rows_by_file::<Labels>(&mut problems, |row| key(&row.video, row.modality, &row.class))?;
        let videos: BTreeMap<&str, &VideoRow> = videos.iter().map(|row| (&*row.video, row)).collect();
        let labels: BTreeMap<Key, &LabelTrack> = labels
            .iter()
            .map(|row| (key(&row.video, row.modality, &row.class), row))
            .collect();
        for score in &scores {
            problems.extend(check_score(score, &videos, &labels));
        }
        let scored: BTreeSet<Key> = scores
            .iter()
            .map(|row| key(&row.video, row.modality, &row.class))
            .collect();
        for (key, track) in &labels {
            if !scored.contains(key) && track.cells.iter().any(|cell| cell.rule != LabelRule::User) {
                problems.push(problem(
                    Labels::NAME,
                    format!("{} has labels, but no scores", name(key)),
                ));
            }
        }
        problems.extend(self.check_changes(&labels)?);
        problems.extend(self.check_predictions()?);
        problems.sort();
        Ok(problems)
    }

    /// Rows of a bucketed table; out of place or order is a problem, a file that does not read is one already.
    fn rows_by_file<T: Table>(
        &self,
        problems: &mut Vec<Problem>,
        key: impl Fn(&T::Row) -> Key,
    ) -> Result<Vec<T::Row>, StoreError> {
        let mut all = Vec::new();
        for file in self.files(T::NAME)? {
            let Ok(rows) = snapshot::decode::<T>(&file) else {
                continue;
            };
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
                    problems
                        .extend(strangers.map(|video| at(format!("video `{video}` is of another bucket"))));
                }
                None if file.is_patch() => {}
                None => problems.push(at("its name tells no bucket".to_owned())),
            }
            for pair in rows.windows(2) {
                let (before, after) = (key(&pair[0]), key(&pair[1]));
                if before >= after {
                    problems.push(at(format!("{} comes after {}", name(&after), name(&before))));
                }
            }
            all.extend(rows.into_iter().map(|row| (row, file.path.clone())));
        }
        all.sort_by(|(a, _), (b, _)| T::compare(a, b));
        for pair in all.windows(2) {
            let [(before, first), (after, second)] = pair else {
                continue;
            };
            if T::compare(before, after).is_eq() && first != second {
                let what = format!("{} is also in `{}`", name(&key(after)), first.display());
                problems.push(Problem {
                    table: T::NAME,
                    file: Some(second.clone()),
                    what,
                });
            }
        }
        Ok(all.into_iter().map(|(row, _)| row).collect())
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

    /// Epochs and videos of a table; a file that does not read is a problem already.
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

    /// The replay law: a cell that is not in `labels` counts as unset.
    fn check_changes(&self, labels: &BTreeMap<Key, &LabelTrack>) -> Result<Vec<Problem>, StoreError> {
        let mut set: BTreeSet<(Key, u32)> = BTreeSet::new();
        let mut problems = Vec::new();
        let mut changes = Vec::new();
        for file in self.files(LabelChanges::NAME)? {
            // One that does not read is a problem already; without it nothing adds up.
            let Ok(rows) = snapshot::decode::<LabelChanges>(&file) else {
                return Ok(problems);
            };
            changes.extend(rows);
        }
        changes.sort_by_key(|row| row.version);
        for row in changes {
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
            for (segment, cell) in track.cells.iter().enumerate() {
                if set.remove(&(key.clone(), segment as u32)) != cell.label {
                    let what = format!(
                        "{}, segment {segment}: label is {}, the changes add up to {}",
                        name(key),
                        cell.label,
                        !cell.label
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
        Ok(problems)
    }
}

/// Checks each file of a table for itself.
struct Files<'a>(&'a Snapshot);

impl tables::ForTable for Files<'_> {
    type Out = Result<Vec<Problem>, StoreError>;

    fn table<T: Table>(&mut self) -> Self::Out {
        let files = self.0.files(T::NAME)?;
        Ok(files.iter().filter_map(check_file::<T>).collect())
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
    match std::fs::read(&file.path) {
        Err(error) => return at(error.to_string()),
        Ok(found) if found.len() as u64 != file.bytes => {
            return at(format!("{} bytes, expected {}", found.len(), file.bytes));
        }
        // A flipped bit may well decode.
        Ok(found) => {
            let sum = content(&found);
            let name = file.path.file_stem().unwrap_or_default().to_string_lossy();
            if !name.ends_with(&sum) {
                return at(format!(
                    "its content has the sum {sum}, expected the one in its name"
                ));
            }
        }
    }
    let rows = match parquet_file::read(&file.path, &T::schema()) {
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
    if track.cells.len() != score.score.len() {
        let what = format!(
            "{}: {} segments, {} in scores",
            name(&key),
            track.cells.len(),
            score.score.len()
        );
        problems.push(problem(Labels::NAME, what));
    }
    for (segment, (cell, &value)) in track.cells.iter().zip(&score.score).enumerate() {
        let says = cell.threshold.map(|threshold| value > threshold);
        if cell.rule == LabelRule::Plg && (cell.score != Some(value) || says != Some(cell.label)) {
            let what = format!(
                "{}, segment {segment}: label is {}, of score {:?} and threshold {:?}; `scores` has {value}",
                name(&key),
                cell.label,
                cell.score,
                cell.threshold
            );
            problems.push(problem(Labels::NAME, what));
        }
        if let Some(wrong) = flip_problem(cell, says) {
            problems.push(problem(
                Labels::NAME,
                format!("{}, segment {segment}: {wrong}", name(&key)),
            ));
        }
    }
    problems
}

/// What is wrong with what a label tells of its flip; `says`: what score and threshold say.
fn flip_problem(cell: &LabelCell, says: Option<bool>) -> Option<String> {
    let flipped = cell.rule == LabelRule::Pld;
    if flipped && says == Some(cell.label) {
        return Some(format!(
            "label is {}, as score and threshold say, expected a flip",
            cell.label
        ));
    }
    let why = cell.why.as_deref()?;
    if !flipped {
        let rule = cell.rule.as_str();
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
