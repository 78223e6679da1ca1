//! A copy of the rows that were fed to the graph, by video. The graph can retract a row only if exactly the same row
//! was added before, so the held_rows must keep the rows that it added.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_dataflows::denoising::DenoisingRule;
use vaplan_dataflows::session::{Rows, Updates};
use vaplan_dataflows::{Candidate, Prediction, Score, UserLabelRecord, VideoId};
use vaplan_schemas::{ClassId, Modality};

use crate::world::Both;

/// All rows that were fed to the graph. The held_rows shares the records with the graph and does not copy them.
#[derive(Debug, Default)]
pub(super) struct HeldRows {
    videos: BTreeMap<VideoId, Held>,
    thresholds: BTreeMap<(Modality, ClassId), Score>,
    denoising: BTreeMap<Modality, DenoisingRule>,
}

/// The rows of one video.
#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    weak: Option<Arc<[ClassId]>>,
    /// Candidates, ascending.
    scored: Vec<Candidate>,
    user_labels: Both<Option<Arc<UserLabelRecord>>>,
    predictions: Both<Option<Arc<Prediction>>>,
}

/// Which rows of a video are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReplacedRows {
    All,
    /// Only the scores of rescaled modalities, and the predictions. All other rows of the video stay.
    Tracks,
}

impl HeldRows {
    /// The number of videos that the held_rows has rows of.
    pub(super) fn videos(&self) -> usize {
        self.videos.len()
    }

    /// Replaces rows of the held_rows by `rows`, and returns the differences as updates for the graph.
    ///
    /// For the videos in `whole`, `rows` must have all rows. For all other videos of `rows`, only the scores of the modalities
    /// in `rescaled`, and the predictions, are taken from `rows`. `rows` must have all thresholds and denoising rules.
    ///
    /// The graph may hold an older prediction of a video than the store, as long as both lead to equal labels: an epoch tells
    /// the graph only of the videos whose labels it changes. A change of the tracks of a video therefore also brings the
    /// predictions that count now.
    pub(super) fn take(
        &mut self,
        rows: Rows,
        whole: impl IntoIterator<Item = VideoId>,
        rescaled: &[Modality],
    ) -> Updates {
        let mut updates = Updates::default();
        let mut after: BTreeMap<VideoId, (ReplacedRows, Held)> = BTreeMap::new();
        for video in whole {
            after.insert(video, (ReplacedRows::All, Held::default()));
        }
        for (video, _) in &rows.weak {
            after
                .entry(*video)
                .or_insert((ReplacedRows::Tracks, Held::default()));
        }
        for (video, candidate) in rows.scored {
            if let Some((_, held)) = after.get_mut(&video) {
                held.scored.push(candidate);
            }
        }
        let whole =
            |after: &mut BTreeMap<VideoId, (ReplacedRows, Held)>, video: VideoId, set: &dyn Fn(&mut Held)| {
                if let Some((ReplacedRows::All, held)) = after.get_mut(&video) {
                    set(held);
                }
            };
        for (video, weak) in rows.weak {
            whole(&mut after, video, &|held| held.weak = Some(weak.clone()));
        }
        for (video, (modality, user_labels)) in rows.user_labels {
            whole(&mut after, video, &|held| {
                held.user_labels[modality.index()] = Some(user_labels.clone());
            });
        }
        for (video, (modality, prediction)) in rows.predictions {
            if let Some((_, held)) = after.get_mut(&video) {
                held.predictions[modality.index()] = Some(prediction);
            }
        }
        for (video, (says, mut held)) in after {
            let before = self.videos.remove(&video).unwrap_or_default();
            if says == ReplacedRows::Tracks {
                let mut others = before.clone();
                others.scored.retain(|own| !rescaled.contains(&own.modality));
                let new = held
                    .scored
                    .into_iter()
                    .filter(|own| rescaled.contains(&own.modality));
                others.scored.extend(new);
                let weak = others.weak.as_deref().unwrap_or_default();
                others.predictions = held.predictions.map(|own| {
                    let own = own?;
                    let missing = own.classes().iter().any(|class| !weak.contains(class));
                    Some(match missing {
                        true => Arc::new(own.restricted(|class| weak.contains(&class))),
                        false => own,
                    })
                });
                held = others;
            }
            held.scored.sort();
            differ(video, &before, &held, &mut updates);
            if held != Held::default() {
                self.videos.insert(video, held);
            }
        }
        let thresholds = rows.thresholds.into_iter().collect();
        (updates.gone.thresholds, updates.new.thresholds) = differing(&self.thresholds, &thresholds);
        self.thresholds = thresholds;
        let denoising = rows.denoising.into_iter().collect();
        (updates.gone.denoising, updates.new.denoising) = differing(&self.denoising, &denoising);
        self.denoising = denoising;
        updates
    }
}

/// Adds the differences between the old and new rows of a video to `updates`.
fn differ(video: VideoId, before: &Held, after: &Held, updates: &mut Updates) {
    for (held, other, rows) in [
        (before, after, &mut updates.gone),
        (after, before, &mut updates.new),
    ] {
        if held.weak != other.weak {
            rows.weak
                .extend(held.weak.iter().map(|weak| (video, weak.clone())));
        }
        if held.scored != other.scored {
            rows.scored
                .extend(held.scored.iter().map(|own| (video, own.clone())));
        }
        for modality in Modality::ALL {
            let place = modality.index();
            if held.user_labels[place] != other.user_labels[place] {
                let own = held.user_labels[place].iter();
                rows.user_labels
                    .extend(own.map(|user_labels| (video, (modality, user_labels.clone()))));
            }
            if held.predictions[place] != other.predictions[place] {
                let own = held.predictions[place].iter();
                rows.predictions
                    .extend(own.map(|prediction| (video, (modality, prediction.clone()))));
            }
        }
    }
}

type Entries<K, V> = Vec<(K, V)>;

/// Returns the entries that are removed and the entries that are added.
fn differing<K: Ord + Clone, V: PartialEq + Clone>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) -> (Entries<K, V>, Entries<K, V>) {
    let only = |these: &BTreeMap<K, V>, others: &BTreeMap<K, V>| {
        let own = these.iter().filter(|(key, value)| others.get(key) != Some(value));
        own.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    (only(before, after), only(after, before))
}

#[cfg(test)]
mod tests {
    use vaplan_dataflows::{Cosine, FeatureHash, ScoreRecord};

    use super::*;

    fn candidate(modality: Modality, score: f64) -> Candidate {
        let scores = vec![Score::new(score).unwrap()];
        Candidate {
            modality,
            source: "a.parquet".into(),
            record: Arc::new(ScoreRecord::new(
                1,
                vec![ClassId(0)],
                vec![Cosine::new(0.5)],
                scores,
            )),
            features: FeatureHash::default(),
        }
    }

    fn video(id: u64, audio: f64, visual: f64) -> Rows {
        Rows {
            weak: vec![(VideoId(id), [ClassId(0)].into())],
            scored: vec![
                (VideoId(id), candidate(Modality::Visual, visual)),
                (VideoId(id), candidate(Modality::Audio, audio)),
            ],
            thresholds: vec![((Modality::Audio, ClassId(0)), Score::new(0.5).unwrap())],
            ..Rows::default()
        }
    }

    #[test]
    fn only_what_differs_is_gone_or_new_and_what_is_not_told_of_stays() {
        let mut held_rows = HeldRows::default();
        let first = held_rows.take(video(1, 0.1, 0.2), [VideoId(1)], &[]);
        assert_eq!(first.gone, Rows::default());
        assert_eq!(
            (
                first.new.weak.len(),
                first.new.scored.len(),
                first.new.thresholds.len()
            ),
            (1, 2, 1)
        );
        assert_eq!(
            held_rows.take(video(1, 0.1, 0.2), [VideoId(1)], &[]),
            Updates::default()
        );
        // From a video that is not in `whole`, only the scores of a rescaled modality and the predictions are taken.
        assert_eq!(held_rows.take(video(1, 0.9, 0.9), [], &[]), Updates::default());
        let rescaled = held_rows.take(video(1, 0.9, 0.9), [], &[Modality::Audio]);
        let audio = |score| vec![(VideoId(1), candidate(Modality::Audio, score))];
        let visual = |score| (VideoId(1), candidate(Modality::Visual, score));
        assert_eq!(rescaled.gone.scored, [audio(0.1), vec![visual(0.2)]].concat());
        assert_eq!(rescaled.new.scored, [audio(0.9), vec![visual(0.2)]].concat());
        assert!(rescaled.new.weak.is_empty());
        let predicted = |classes: Vec<ClassId>| {
            let cells = vec![vaplan_dataflows::Probability::new(0.5); classes.len()];
            let prediction = Arc::new(Prediction::new(1, 1, classes, cells));
            vec![(VideoId(1), (Modality::Visual, prediction))]
        };
        let rows = Rows {
            predictions: predicted(vec![ClassId(0), ClassId(7)]),
            ..video(1, 0.9, 0.9)
        };
        let told = held_rows.take(rows, [], &[]);
        assert_eq!(
            told.new.predictions,
            predicted(vec![ClassId(0)]),
            "class 7 is not in the weak label"
        );
        let told = held_rows.take(video(1, 0.9, 0.9), [], &[]);
        assert_eq!(
            told.gone.predictions,
            predicted(vec![ClassId(0)]),
            "no prediction counts now"
        );
        // A removed video leaves no rows.
        let thresholds = video(1, 0.0, 0.0).thresholds;
        let gone = held_rows.take(
            Rows {
                thresholds,
                ..Rows::default()
            },
            [VideoId(1)],
            &[],
        );
        assert_eq!((gone.gone.weak.len(), gone.gone.scored.len()), (1, 2));
        assert_eq!(gone.new, Rows::default());
        assert_eq!(held_rows.videos(), 0);
    }
}
