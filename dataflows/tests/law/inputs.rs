//! The inputs of a graph version, and their changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_dataflows::records::{Candidate, Score, ScoreRecord, VideoId};
use vaplan_dataflows::{Bits, DenoisingRule, Prediction, UserLabelRecord, UserLabelTrack};
use vaplan_schemas::{ClassId, Modality};

/// The inputs of a graph version.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct GraphInputs {
    pub(crate) weak: BTreeMap<VideoId, Arc<[ClassId]>>,
    /// A list, since copies may add up.
    pub(crate) scored: Vec<(VideoId, Candidate)>,
    pub(crate) thresholds: BTreeMap<(Modality, ClassId), Score>,
    pub(crate) user_labels: BTreeMap<(VideoId, Modality), Arc<UserLabelRecord>>,
    pub(crate) predictions: BTreeMap<(VideoId, Modality), Arc<Prediction>>,
    pub(crate) denoising: BTreeMap<Modality, DenoisingRule>,
}

/// One change of the inputs.
#[derive(Clone, Debug)]
pub(crate) enum GraphChange {
    /// A weak label is set, replaced or removed.
    Weak(VideoId, Option<Vec<ClassId>>),
    /// A shard says something of a video and modality, beside what others say.
    Add(VideoId, Candidate),
    /// A shard replaces all that is said of a video and modality.
    Replace(VideoId, Candidate),
    /// The nth candidate goes, if so many are there.
    Remove(usize),
    /// Cutoffs of a class or all, and of a modality or both.
    Cutoff(Option<Modality>, Option<ClassId>, Score),
    /// Another rule: every score is replaced, by scale and shift.
    Rule(i8, i8),
    /// A person sets segments of a class from `from` to `to`.
    UserLabelTrack {
        video: VideoId,
        modality: Modality,
        class: ClassId,
        from: usize,
        to: usize,
        label: bool,
    },
    /// A person's user labels of a video and modality go.
    Withdraw(VideoId, Modality),
    /// An epoch's predictions of a video.
    Predict(VideoId, Modality, Prediction),
    /// The predictions of a video go.
    Unpredict(VideoId, Modality),
    /// K, α and guard of a modality, or none.
    Denoise(Modality, Option<DenoisingRule>),
    /// A class goes: its thresholds, and it is no longer in any weak label.
    Retire(ClassId),
    /// A class comes: with thresholds, into every weak label.
    Introduce(ClassId, Score),
}

impl GraphInputs {
    /// What the step makes of it.
    pub(crate) fn after(mut self, step: GraphChange) -> GraphInputs {
        match step {
            GraphChange::Weak(video, Some(classes)) => {
                self.weak.insert(video, classes.into());
            }
            GraphChange::Weak(video, None) => {
                self.weak.remove(&video);
            }
            GraphChange::Add(video, candidate) => self.scored.push((video, candidate)),
            GraphChange::Replace(video, candidate) => {
                self.scored
                    .retain(|(owner, other)| (*owner, other.modality) != (video, candidate.modality));
                self.scored.push((video, candidate));
            }
            GraphChange::Remove(nth) if nth < self.scored.len() => {
                self.scored.remove(nth);
            }
            GraphChange::Remove(_) => {}
            GraphChange::Cutoff(of, class, score) => {
                for ((modality, of_class), score_threshold) in &mut self.thresholds {
                    if of.is_none_or(|of| of == *modality) && class.is_none_or(|class| class == *of_class) {
                        *score_threshold = score;
                    }
                }
                if let (Some(modality), Some(class)) = (of, class) {
                    self.thresholds.insert((modality, class), score);
                }
            }
            GraphChange::Rule(scale, shift) => {
                for (_, candidate) in &mut self.scored {
                    candidate.record = Arc::new(rescored(&candidate.record, scale, shift));
                }
            }
            GraphChange::UserLabelTrack {
                video,
                modality,
                class,
                from,
                to,
                label,
            } => {
                let user_labels = self.user_labels.entry((video, modality)).or_default();
                *user_labels = Arc::new(marked(user_labels, class, from..to, label));
            }
            GraphChange::Withdraw(video, modality) => {
                self.user_labels.remove(&(video, modality));
            }
            GraphChange::Predict(video, modality, prediction) => {
                self.predictions.insert((video, modality), Arc::new(prediction));
            }
            GraphChange::Unpredict(video, modality) => {
                self.predictions.remove(&(video, modality));
            }
            GraphChange::Denoise(modality, Some(settings)) => {
                self.denoising.insert(modality, settings);
            }
            GraphChange::Denoise(modality, None) => {
                self.denoising.remove(&modality);
            }
            GraphChange::Retire(class) => {
                self.thresholds.retain(|(_, of), _| *of != class);
                for weak in self.weak.values_mut() {
                    *weak = weak.iter().copied().filter(|of| *of != class).collect();
                }
            }
            GraphChange::Introduce(class, score) => {
                for modality in Modality::ALL {
                    self.thresholds.insert((modality, class), score);
                }
                for weak in self.weak.values_mut() {
                    let mut classes: Vec<ClassId> = weak.iter().copied().chain([class]).collect();
                    classes.sort();
                    classes.dedup();
                    *weak = classes.into();
                }
            }
        }
        self
    }
}

fn rescored(record: &ScoreRecord, scale: i8, shift: i8) -> ScoreRecord {
    let score =
        |score: &Score| Score::new(score.get() * f64::from(scale) + f64::from(shift) / 4.0).expect("finite");
    let tracks: Vec<_> = record.tracks().collect();
    ScoreRecord::new(
        record.segments(),
        record.classes().to_vec(),
        tracks
            .iter()
            .flat_map(|(_, cosine, _)| *cosine)
            .copied()
            .collect(),
        tracks
            .iter()
            .flat_map(|(_, _, scores)| *scores)
            .map(score)
            .collect(),
    )
}

/// With some segments of a class set, on top of what was set before.
fn marked(
    user_labels: &UserLabelRecord,
    class: ClassId,
    segments: std::ops::Range<usize>,
    label: bool,
) -> UserLabelRecord {
    let mut classes: BTreeMap<ClassId, UserLabelTrack> = user_labels
        .classes
        .iter()
        .map(|user_label| (user_label.class, user_label.clone()))
        .collect();
    let nothing = UserLabelTrack {
        class,
        known: Bits::default(),
        label: Bits::default(),
    };
    let before = classes.remove(&class).unwrap_or(nothing);
    let len = before.known.len().max(segments.end);
    let after = UserLabelTrack {
        class,
        known: (0..len)
            .map(|segment| before.known.get(segment) || segments.contains(&segment))
            .collect(),
        label: (0..len)
            .map(|segment| match segments.contains(&segment) {
                true => label,
                false => before.label.get(segment),
            })
            .collect(),
    };
    classes.insert(class, after);
    UserLabelRecord {
        classes: classes.into_values().collect(),
    }
}
