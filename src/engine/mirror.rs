//! What the session was told, video by video: a row can only be taken back as it was given.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_dataflows::pld::Pld;
use vaplan_dataflows::session::{Rows, Updates};
use vaplan_dataflows::{Candidate, Marks, Prediction, Score, VideoId};
use vaplan_schemas::{ClassId, Modality};

use crate::world::{Both, at};

/// All rows the session holds. Records are shared with it, not copied.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    videos: BTreeMap<VideoId, Held>,
    cutoffs: BTreeMap<(Modality, ClassId), Score>,
    denoising: BTreeMap<Modality, Pld>,
}

/// Rows of a video.
#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    weak: Option<Arc<[ClassId]>>,
    /// Ascending.
    scored: Vec<Candidate>,
    marks: Both<Option<Arc<Marks>>>,
    predictions: Both<Option<Arc<Prediction>>>,
}

/// What rows are meant to say of a video that they are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    All,
    /// Only the scores of rescaled modalities: all else of it is as it was.
    Scores,
}

impl Mirror {
    /// How many videos it holds rows of.
    pub(super) fn videos(&self) -> usize {
        self.videos.len()
    }

    /// Takes what `rows` say: all there is of the videos of `whole`, of others the scores in the modalities `rescaled`,
    /// and all cutoffs and settings of denoising. Gives what that changes.
    pub(super) fn take(
        &mut self,
        rows: Rows,
        whole: impl IntoIterator<Item = VideoId>,
        rescaled: &[Modality],
    ) -> Updates {
        let mut updates = Updates::default();
        let mut after: BTreeMap<VideoId, (Says, Held)> = BTreeMap::new();
        for video in whole {
            after.insert(video, (Says::All, Held::default()));
        }
        for (video, candidate) in rows.scored {
            if rescaled.contains(&candidate.modality) {
                after.entry(video).or_insert((Says::Scores, Held::default()));
            }
            if let Some((_, held)) = after.get_mut(&video) {
                held.scored.push(candidate);
            }
        }
        let whole = |after: &mut BTreeMap<VideoId, (Says, Held)>, video: VideoId, set: &dyn Fn(&mut Held)| {
            if let Some((Says::All, held)) = after.get_mut(&video) {
                set(held);
            }
        };
        for (video, weak) in rows.weak {
            whole(&mut after, video, &|held| held.weak = Some(weak.clone()));
        }
        for (video, (modality, marks)) in rows.marks {
            whole(&mut after, video, &|held| {
                held.marks[at(modality)] = Some(marks.clone());
            });
        }
        for (video, (modality, prediction)) in rows.predictions {
            whole(&mut after, video, &|held| {
                held.predictions[at(modality)] = Some(prediction.clone());
            });
        }
        for (video, (says, mut held)) in after {
            let before = self.videos.remove(&video).unwrap_or_default();
            if says == Says::Scores {
                let (scored, mut others) = (held.scored, before.clone());
                others.scored.retain(|own| !rescaled.contains(&own.modality));
                let new = scored.into_iter().filter(|own| rescaled.contains(&own.modality));
                others.scored.extend(new);
                held = others;
            }
            held.scored.sort();
            differ(video, &before, &held, &mut updates);
            if held != Held::default() {
                self.videos.insert(video, held);
            }
        }
        let cutoffs = rows.cutoffs.into_iter().collect();
        (updates.gone.cutoffs, updates.new.cutoffs) = differing(&self.cutoffs, &cutoffs);
        self.cutoffs = cutoffs;
        let denoising = rows.denoising.into_iter().collect();
        (updates.gone.denoising, updates.new.denoising) = differing(&self.denoising, &denoising);
        self.denoising = denoising;
        updates
    }
}

/// Adds the rows of a video that are gone and new.
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
            let place = at(modality);
            if held.marks[place] != other.marks[place] {
                let own = held.marks[place].iter();
                rows.marks
                    .extend(own.map(|marks| (video, (modality, marks.clone()))));
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

/// Entries that are gone and new.
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
            cutoffs: vec![((Modality::Audio, ClassId(0)), Score::new(0.5).unwrap())],
            ..Rows::default()
        }
    }

    #[test]
    fn only_what_differs_is_gone_or_new_and_what_is_not_told_of_stays() {
        let mut mirror = Mirror::default();
        let first = mirror.take(video(1, 0.1, 0.2), [VideoId(1)], &[]);
        assert_eq!(first.gone, Rows::default());
        assert_eq!(
            (
                first.new.weak.len(),
                first.new.scored.len(),
                first.new.cutoffs.len()
            ),
            (1, 2, 1)
        );
        assert_eq!(
            mirror.take(video(1, 0.1, 0.2), [VideoId(1)], &[]),
            Updates::default()
        );
        // Rows of a video that is not touched as a whole say nothing but scores by another rule.
        assert_eq!(mirror.take(video(1, 0.9, 0.9), [], &[]), Updates::default());
        let rescaled = mirror.take(video(1, 0.9, 0.9), [], &[Modality::Audio]);
        let audio = |score| vec![(VideoId(1), candidate(Modality::Audio, score))];
        let visual = |score| (VideoId(1), candidate(Modality::Visual, score));
        assert_eq!(rescaled.gone.scored, [audio(0.1), vec![visual(0.2)]].concat());
        assert_eq!(rescaled.new.scored, [audio(0.9), vec![visual(0.2)]].concat());
        assert!(rescaled.new.weak.is_empty());
        // A video that is gone leaves nothing.
        let cutoffs = video(1, 0.0, 0.0).cutoffs;
        let gone = mirror.take(
            Rows {
                cutoffs,
                ..Rows::default()
            },
            [VideoId(1)],
            &[],
        );
        assert_eq!((gone.gone.weak.len(), gone.gone.scored.len()), (1, 2));
        assert_eq!(gone.new, Rows::default());
        assert_eq!(mirror.videos(), 0);
    }
}
