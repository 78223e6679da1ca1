//! Reads entries of an index from the tables of a version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vaplan_dataflows::pld::forward_loss;
use vaplan_dataflows::{Probability, VideoId};
use vaplan_schemas::rows::{LabelRule, LabelTrack, PredictionTrack, TruthRow, VideoRow};
use vaplan_schemas::store::{Filter, Snapshot};
use vaplan_schemas::tables::{Epochs, Labels, Truth, Videos};
use vaplan_schemas::{ClassId, Modality, bucket_of};

use super::{IndexedTrack, ReviewIndex, VideoEntry};
use crate::error::LabelError;
use crate::eval::report::LEAST_PROBABILITY;
use crate::world::evidence::{columns, latest_tracks, of_epochs};
use crate::world::{Active, World, epochs};

/// Number of videos whose rows are in memory at a time while an index is made.
pub const GROUP: usize = 8192;

/// What the entries of a version are compared with.
#[derive(Clone, Debug)]
pub struct IndexBasis {
    /// Classes in order.
    pub classes: Vec<Arc<str>>,
    /// The epochs of the parser, and the classes of their columns. `None` without predictions.
    pub parser: Option<Active>,
    columns: BTreeMap<u32, usize>,
    positions: BTreeMap<Arc<str>, u32>,
}

impl IndexBasis {
    /// Reads the basis of a version. The predictions are those that count for denoising; if none counts, those of the last
    /// epoch that was trained.
    ///
    /// # Errors
    /// Returns [`LabelError`] if a table cannot be read.
    pub fn read(snapshot: &Snapshot) -> Result<IndexBasis, LabelError> {
        let world = World::read(snapshot)?;
        let last = snapshot.read::<Epochs>()?.iter().map(|row| row.epoch).max();
        let parser = match (&world.active, last) {
            (Some(active), _) => Some(active.clone()),
            (None, Some(epoch)) => epochs::chosen(snapshot, &world, epoch).ok(),
            (None, None) => None,
        };
        let of_class = |(class, column): (ClassId, usize)| (class.0, column);
        let columns = parser
            .iter()
            .flat_map(|active| columns(active, &world))
            .map(of_class)
            .collect();
        let positions = world.classes.iter().cloned().zip(0..).collect();
        Ok(IndexBasis {
            classes: world.classes,
            parser,
            columns,
            positions,
        })
    }

    /// The latest epoch of the parser.
    pub fn epoch(&self) -> Option<u64> {
        self.parser
            .as_ref()
            .and_then(|parser| parser.epochs.last().copied())
    }

    /// Position of a class.
    pub fn position(&self, class: &str) -> Option<u32> {
        self.positions.get(class).copied()
    }

    /// Column of a class in the predictions.
    pub fn column(&self, class: u32) -> Option<usize> {
        self.columns.get(&class).copied()
    }

    /// The predictions of the parser for the videos of a filter.
    ///
    /// # Errors
    /// Returns [`LabelError`] if a table cannot be read.
    pub fn predictions(
        &self,
        snapshot: &Snapshot,
        filter: &Filter,
    ) -> Result<BTreeMap<(VideoId, Modality), PredictionTrack>, LabelError> {
        let Some(parser) = &self.parser else {
            return Ok(BTreeMap::new());
        };
        let found = of_epochs(snapshot, &parser.epochs, filter)?;
        Ok(latest_tracks(
            found.into_iter().map(|found| found.row).collect(),
            parser,
        ))
    }
}

impl ReviewIndex {
    /// Reads the index of a version, a group of videos at a time.
    ///
    /// # Errors
    /// Returns [`LabelError`] if a table cannot be read.
    pub fn read(snapshot: &Snapshot, basis: &IndexBasis) -> Result<ReviewIndex, LabelError> {
        let buckets = snapshot.buckets()?.unwrap_or(1);
        let mut names: Vec<(u32, Arc<str>)> = snapshot
            .map_files::<Videos, _>(&Filter::all(), |rows| {
                rows.into_iter().map(|found| found.row.video).collect::<Vec<_>>()
            })?
            .into_iter()
            .flatten()
            .map(|name| (bucket_of(&name, buckets), name))
            .collect();
        // A group has few buckets, so that each file is opened once or twice.
        names.sort_unstable();
        let mut entries = Vec::with_capacity(names.len());
        for group in names.chunks(GROUP) {
            let filter = Filter::videos(group.iter().map(|(_, name)| name.clone()));
            entries.extend(read_entries(snapshot, basis, &filter)?);
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let version = snapshot.version().version;
        Ok(ReviewIndex::new(
            version,
            basis.classes.clone(),
            basis.epoch(),
            entries,
        ))
    }
}

/// Reads the entries of the videos of a filter, in order of name.
///
/// # Errors
/// Returns [`LabelError`] if a table cannot be read.
pub fn read_entries(
    snapshot: &Snapshot,
    basis: &IndexBasis,
    filter: &Filter,
) -> Result<Vec<VideoEntry>, LabelError> {
    let videos = snapshot.scan::<Videos>(filter)?;
    let labels = snapshot.scan::<Labels>(filter)?;
    let predictions = basis.predictions(snapshot, filter)?;
    let truth = snapshot.scan::<Truth>(filter)?;
    let mut tracks = labels.into_iter().map(|found| found.row).peekable();
    let mut events = truth.into_iter().map(|found| found.row).peekable();
    let mut entries = Vec::with_capacity(videos.len());
    // All three are in order of video, so that one pass joins them.
    for VideoRow {
        video,
        split,
        segments,
        ..
    } in videos.into_iter().map(|found| found.row)
    {
        let mut own: Vec<LabelTrack> = Vec::new();
        while let Some(track) = tracks.next_if(|track| track.video <= video) {
            own.extend((track.video == video).then_some(track));
        }
        let mut truth: Vec<TruthRow> = Vec::new();
        while let Some(event) = events.next_if(|event| event.video <= video) {
            truth.extend((event.video == video).then_some(event));
        }
        let id = VideoId::of(&video);
        let of = |modality| predictions.get(&(id, modality));
        let mut indexed: Vec<IndexedTrack> = own
            .iter()
            .filter_map(|track| {
                let class = basis.position(&track.class)?;
                let other =
                    |other: &&LabelTrack| other.class == track.class && other.modality != track.modality;
                let prediction = of(track.modality).zip(basis.column(class));
                Some(indexed(class, track, own.iter().find(other), prediction, &truth))
            })
            .collect();
        indexed.sort_unstable_by_key(|track| (track.class, track.modality));
        entries.push(VideoEntry {
            name: video,
            split,
            segments,
            tracks: indexed,
        });
    }
    Ok(entries)
}

/// Summarises a track. A video without true events is not counted as wrong: it may not be annotated.
fn indexed(
    class: u32,
    track: &LabelTrack,
    other: Option<&LabelTrack>,
    prediction: Option<(&PredictionTrack, usize)>,
    truth: &[TruthRow],
) -> IndexedTrack {
    let mut own = IndexedTrack::new(class, track.modality);
    let prediction = prediction.filter(|(track, column)| *column < track.classes as usize);
    let probability = |segment: usize| {
        let (track, column) = prediction?;
        let value = track.probability.get(segment * track.classes as usize + column)?;
        Some(Probability::new(*value))
    };
    let happens = |segment: u32| {
        truth.iter().any(|event| {
            let same = event.modality == track.modality && event.class == track.class;
            same && (event.onset..event.offset).contains(&segment)
        })
    };
    for (segment, cell) in track.iter().enumerate() {
        own.set += u32::from(cell.label);
        own.flipped += u32::from(cell.rule == LabelRule::Pld);
        own.user += u32::from(cell.rule == LabelRule::User);
        own.other += u32::from(other.is_some_and(|other| other.labels.get(segment) != Some(&cell.label)));
        own.wrong += u32::from(!truth.is_empty() && happens(segment as u32) != cell.label);
        let Some((score, threshold)) = cell.score.zip(cell.threshold) else {
            continue;
        };
        own.distance = own.distance.min(distance(score, threshold) as f32);
        if let Some(predicted) = probability(segment) {
            let generated = score > threshold;
            let found = predicted.get().map(|value| value >= LEAST_PROBABILITY);
            own.parser += u32::from(found.is_some_and(|found| found != generated));
            own.loss = own
                .loss
                .max(forward_loss(predicted, generated).unwrap_or(0.0) as f32);
        }
    }
    own
}

/// Distance of a score from its threshold, relative to the threshold. A threshold of 0 has no relative distance, so the
/// distance is then absolute.
pub fn distance(score: f64, threshold: f64) -> f64 {
    let difference = (score - threshold).abs();
    match threshold.abs() {
        0.0 => difference,
        size => difference / size,
    }
}

/// Names of the videos in these rows.
pub(super) fn names<R>(rows: &[R], name: impl Fn(&R) -> &Arc<str>) -> BTreeSet<Arc<str>> {
    rows.iter().map(|row| name(row).clone()).collect()
}

#[cfg(test)]
mod tests {
    use vaplan_schemas::rows::FlipReason;

    use super::*;

    fn labels(modality: Modality, scores: [f64; 4]) -> LabelTrack {
        LabelTrack::plg("clip".into(), modality, "Dog".into(), scores.into(), 0.5)
    }

    #[test]
    fn a_track_is_summarised_segment_by_segment() {
        let mut track = labels(Modality::Audio, [0.9, 0.4, 0.6, 0.1]);
        let reason = FlipReason {
            epoch: 1,
            loss: None,
            limit: None,
        };
        track.set(2, false, LabelRule::Pld, Some(reason));
        track.set(3, true, LabelRule::User, None);
        let other = labels(Modality::Visual, [0.9, 0.9, 0.1, 0.1]);
        let prediction = PredictionTrack {
            epoch: 1,
            video: "clip".into(),
            modality: Modality::Audio,
            classes: 2,
            probability: vec![0.0, 0.9, 0.0, 0.8, 0.0, 0.1, 0.0, 0.1],
        };
        let truth = [TruthRow {
            video: "clip".into(),
            modality: Modality::Audio,
            class: "Dog".into(),
            onset: 0,
            offset: 2,
        }];
        let own = indexed(3, &track, Some(&other), Some((&prediction, 1)), &truth);
        assert_eq!((own.class, own.set, own.flipped, own.user), (3, 2, 1, 1));
        // Segments 1 (audio 0, visual 1) and 3 (audio 1, visual 0) differ.
        assert_eq!(own.other, 2);
        // Truth is 1 in segments 0 and 1; labels are 1 in segments 0 and 3.
        assert_eq!(own.wrong, 2);
        // PLG says 1, 0, 1 and the parser 1, 1, 0. The fourth label is a person's.
        assert_eq!(own.parser, 2);
        assert!((own.distance - 0.2).abs() < 1e-6, "{}", own.distance);
        assert!(
            (f64::from(own.loss) - -(0.1_f64.ln())).abs() < 1e-5,
            "{}",
            own.loss
        );
    }

    #[test]
    fn distance_is_relative_unless_the_threshold_is_zero() {
        assert_eq!(distance(0.3, 0.2), (0.3 - 0.2) / 0.2);
        assert_eq!((distance(-1.0, -2.0), distance(0.25, 0.0)), (0.5, 0.25));
    }
}
