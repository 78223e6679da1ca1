//! Candidate classes of videos without a weak label: guessed from the scores of both modalities, without training.
//!
//! ```text
//! cosines [T, C] ── z-score over the classes ── sigmoid ── mean over the segments ─┐ vote of a modality
//!                                                       both modalities, mean ─────┴─▶ vote of a class ─▶ top K
//! ```
//!
//! Source (grade C): AV²A (arXiv 2503.13693), `norm_similarities`, `calculate_combined_similarity` and `filter_classes` in
//! the code of eitan159/AV2A: similarities of a row become z-scores over all classes and then probabilities by a sigmoid;
//! the vote of a class is the mean of both modalities (α = 0.5); a class is a candidate if its vote is above 0.5. Our own
//! (grade D): the mean over the segments for audio as well as for visual, the limit K, and the order of equal votes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_schemas::{ClassId, Modality};

use crate::records::{Candidate, Cosine, ScoreRecord};
use crate::rejection::Rejection;

/// The classes that can be labelled in a video without a weak label.
///
/// ```
/// use vaplan_dataflows::candidates::CandidateRule;
/// assert_eq!("top:3".parse(), Ok(CandidateRule::Top(3)));
/// assert_eq!(CandidateRule::Top(3).to_string(), "top:3");
/// assert_eq!(
///     "top:0".parse::<CandidateRule>().unwrap_err(),
///     "candidates is `top:0`, expected `weak`, `all` or `top:K` with K from 1, such as `top:3`"
/// );
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum CandidateRule {
    /// No class: the video gets no labels.
    #[default]
    Weak,
    /// Every class.
    All,
    /// The classes with the highest votes above 0.5, at most so many. The number is at least 1.
    Top(u32),
}

impl CandidateRule {
    /// Whether a video with this weak label gets its candidates from its scores.
    pub fn guesses(self, weak: &[ClassId]) -> bool {
        self != CandidateRule::Weak && weak.is_empty()
    }

    /// The candidates of a video whose features have these scores for every class, by modality. Ascending.
    ///
    /// A modality without scores has no vote. Without any scores there are no candidates.
    ///
    /// ```
    /// use vaplan_dataflows::candidates::CandidateRule;
    /// use vaplan_dataflows::{Cosine, Score, ScoreRecord};
    /// use vaplan_schemas::ClassId;
    /// let cosines = [0.3, 0.1, 0.25].map(Cosine::new).to_vec(); // three classes, one segment
    /// let score = vec![Score::new(0.0).unwrap(); 3];
    /// let record = ScoreRecord::new(1, (0..3).map(ClassId).collect(), cosines, score);
    /// assert_eq!(CandidateRule::Top(1).guess([Some(&record), None]), [ClassId(0)]);
    /// assert_eq!(CandidateRule::Top(9).guess([Some(&record), None]), [ClassId(0), ClassId(2)]);
    /// ```
    pub fn guess(self, records: [Option<&ScoreRecord>; 2]) -> Vec<ClassId> {
        let Some(classes) = records.iter().flatten().map(|record| record.classes()).next() else {
            return Vec::new();
        };
        match self {
            CandidateRule::Weak => Vec::new(),
            CandidateRule::All => classes.to_vec(),
            CandidateRule::Top(most) => {
                let of_modality: Vec<Vec<f64>> = records.into_iter().flatten().filter_map(votes).collect();
                let vote = |at: usize| {
                    let sum: f64 = of_modality.iter().map(|votes| votes[at]).sum();
                    sum / of_modality.len() as f64
                };
                let all = (0..classes.len()).map(|at| (vote(at), classes[at]));
                let mut voted: Vec<(f64, ClassId)> = all.filter(|(vote, _)| *vote > FILTER).collect();
                voted.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                voted.truncate(most as usize);
                let mut chosen: Vec<ClassId> = voted.into_iter().map(|(_, class)| class).collect();
                chosen.sort_unstable();
                chosen
            }
        }
    }

    /// The candidates of a video with these copies of features. Only the copies count that [`admit`](crate::admit::admit)
    /// admits.
    pub fn guess_of<'a>(self, copies: impl Iterator<Item = &'a Candidate> + Clone) -> Vec<ClassId> {
        let counts = |modality| counting(copies.clone(), modality).ok();
        let [audio, visual] = Modality::ALL.map(counts);
        match (audio, visual) {
            (Some(audio), Some(visual)) if audio.record.segments() != visual.record.segments() => Vec::new(),
            (audio, visual) => self.guess([audio, visual].map(|own| own.map(|own| &*own.record))),
        }
    }
}

/// The copy of the features of a modality that counts: the first of equal copies.
///
/// # Errors
/// Returns [`Rejection::Missing`] if there is no copy, and [`Rejection::Conflict`] if the copies differ.
pub(crate) fn counting<'a>(
    copies: impl Iterator<Item = &'a Candidate>,
    modality: Modality,
) -> Result<&'a Candidate, Rejection> {
    let mut candidates = copies.filter(|candidate| candidate.modality == modality);
    let first = candidates.next().ok_or(Rejection::Missing(modality))?;
    let others: Vec<&Candidate> = candidates.collect();
    if others.iter().any(|other| other.features != first.features) {
        let mut sources: Vec<Arc<str>> = std::iter::once(first)
            .chain(others)
            .map(|candidate| candidate.source.clone())
            .collect();
        sources.sort();
        return Err(Rejection::Conflict(modality, sources));
    }
    Ok(first)
}

/// The vote that a class must exceed (grade C, AV²A: `filter_threshold`).
const FILTER: f64 = 0.5;

/// The vote of one modality for each class of the record: the mean over the segments of the sigmoid of the z-score.
/// `None` for a record without segments.
///
/// The deviation is that of a sample (C - 1), as in `torch.std`. If all cosines of a segment are equal, no class stands out,
/// and each z-score is 0.
fn votes(record: &ScoreRecord) -> Option<Vec<f64>> {
    let (segments, classes) = (record.segments() as usize, record.classes().len());
    if segments == 0 || classes == 0 {
        return None;
    }
    let tracks: Vec<&[Cosine]> = record.tracks().map(|(_, cosine, _)| cosine).collect();
    let mut votes = vec![0.0; classes];
    for segment in 0..segments {
        let value = |track: &&[Cosine]| f64::from(track[segment].get());
        let mean = tracks.iter().map(value).sum::<f64>() / classes as f64;
        let squares: f64 = tracks.iter().map(|track| (value(track) - mean).powi(2)).sum();
        let deviation = (squares / (classes.max(2) - 1) as f64).sqrt();
        for (vote, track) in votes.iter_mut().zip(&tracks) {
            let z = match deviation > 0.0 {
                true => (value(track) - mean) / deviation,
                false => 0.0,
            };
            *vote += 1.0 / (1.0 + (-z).exp());
        }
    }
    votes.iter_mut().for_each(|vote| *vote /= segments as f64);
    Some(votes)
}

impl fmt::Display for CandidateRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CandidateRule::Weak => f.write_str("weak"),
            CandidateRule::All => f.write_str("all"),
            CandidateRule::Top(most) => write!(f, "top:{most}"),
        }
    }
}

impl FromStr for CandidateRule {
    type Err = String;

    fn from_str(text: &str) -> Result<CandidateRule, String> {
        let most = || text.strip_prefix("top:")?.parse().ok().filter(|most| *most > 0);
        match text {
            "weak" => Ok(CandidateRule::Weak),
            "all" => Ok(CandidateRule::All),
            _ => most().map(CandidateRule::Top).ok_or_else(|| {
                format!(
                    "candidates is `{text}`, expected `weak`, `all` or `top:K` with K from 1, such as `top:3`"
                )
            }),
        }
    }
}

impl From<CandidateRule> for String {
    fn from(rule: CandidateRule) -> String {
        rule.to_string()
    }
}

impl TryFrom<String> for CandidateRule {
    type Error = String;

    fn try_from(text: String) -> Result<CandidateRule, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Score;

    /// A record of these cosines `[T][C]`.
    fn record(cosines: &[&[f32]]) -> ScoreRecord {
        let classes = cosines[0].len();
        let cells = (0..classes).flat_map(|class| cosines.iter().map(move |row| Cosine::new(row[class])));
        let score = vec![Score::new(0.0).unwrap(); classes * cosines.len()];
        let ids = (0..classes as u32).map(ClassId).collect();
        ScoreRecord::new(cosines.len() as u32, ids, cells.collect(), score)
    }

    #[test]
    fn a_vote_is_the_mean_sigmoid_of_the_z_scores() {
        // numpy: z = (x - x.mean(1, keepdims=True)) / x.std(1, ddof=1, keepdims=True); (1 / (1 + exp(-z))).mean(0)
        let found = votes(&record(&[&[0.1, 0.2, 0.4], &[0.3, 0.3, 0.0]])).unwrap();
        let expected = [0.467_557_308_5, 0.543_059_231_6, 0.494_109_187_5];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
        }
        assert_eq!(
            votes(&record(&[&[0.2, 0.2]])).unwrap(),
            [0.5; 2],
            "no class stands out"
        );
        assert_eq!(
            votes(&record(&[&[0.7]])).unwrap(),
            [0.5],
            "one class has no deviation"
        );
    }

    #[test]
    fn both_modalities_vote_and_only_classes_above_the_mean_are_candidates() {
        let ids = |classes: &[u32]| classes.iter().map(|class| ClassId(*class)).collect::<Vec<_>>();
        let audio = record(&[&[0.9, 0.1, 0.2, 0.1]]);
        let visual = record(&[&[0.1, 0.9, 0.7, 0.1]]);
        let top = |most, records| CandidateRule::Top(most).guess(records);
        assert_eq!(top(1, [Some(&audio), None]), ids(&[0]));
        assert_eq!(top(1, [None, Some(&visual)]), ids(&[1]));
        let both = [Some(&audio), Some(&visual)];
        assert_eq!(top(2, both), ids(&[0, 1]));
        assert_eq!(top(4, both), ids(&[0, 1, 2]), "class 3 is below the mean in both");
        assert_eq!(CandidateRule::All.guess(both), ids(&[0, 1, 2, 3]));
        assert_eq!(CandidateRule::Weak.guess(both), []);
        assert_eq!(top(3, [None, None]), []);
        // Equal votes are in the order of the classes.
        let equal = record(&[&[0.5, 0.1, 0.5, 0.5, 0.1]]);
        assert_eq!(top(2, [Some(&equal), None]), ids(&[0, 2]));
    }

    #[test]
    fn a_thousand_classes_and_videos_of_any_length_have_candidates() {
        for segments in [1, 7, 40] {
            let row = |segment: usize| -> Vec<f32> {
                let noise = |class: usize| ((class * 7919 + segment * 104_729) % 1000) as f32 * 1e-5;
                let value = |class| if class == 777 { 0.5 } else { 0.2 + noise(class) };
                (0..1000).map(value).collect()
            };
            let rows: Vec<Vec<f32>> = (0..segments).map(row).collect();
            let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            let found = CandidateRule::Top(3).guess([Some(&record(&rows)), None]);
            assert!(found.contains(&ClassId(777)) && found.len() <= 3, "{found:?}");
        }
    }
}
