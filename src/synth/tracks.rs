//! When events happen in a video: dense truth if the split of the video has it, otherwise sampled tracks.

use std::collections::BTreeMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use vaplan_schemas::rows::Split;
use vaplan_schemas::{ClassId, Modality};

use super::generator;
use crate::ingest::annotations::Annotations;

/// Segments in which each event of one video happens, by modality and class. Each track has at least one true
/// segment.
pub type SimulatedTracks = BTreeMap<(Modality, ClassId), Vec<bool>>;

/// Share of the classes of weak labels that are both audible and visible. 0.35 are only audible, the rest only
/// visible (counted in LLP's val and test: 2018, 1152 and 140 of 3310).
const BOTH: f64 = 0.61;
/// Share of the classes of weak labels that are only audible; see [`BOTH`].
const HEARD_ONLY: f64 = 0.35;
/// Share of audio tracks that last the whole video (LLP's val and test: 1306 of 3170).
const WHOLE_AUDIO: f64 = 0.41;
/// Share of visual tracks that last the whole video (LLP's val and test: 1349 of 2158).
const WHOLE_VISUAL: f64 = 0.625;
/// Share of the other tracks with one run (LLP: 0.79). A share of 0.17 has two runs, the rest three.
const ONE_RUN: f64 = 0.79;
/// Share of the other tracks with two runs; see [`ONE_RUN`].
const TWO_RUNS: f64 = 0.17;
/// Probability that a class that is audible and visible, but not in the whole video, has equal audio and visual
/// tracks (grade D).
const SAME_TRACK: f64 = 0.35;

/// The simulated tracks of every annotated video.
#[derive(Clone, Debug)]
pub struct SimulatedTruth<'a> {
    annotations: &'a Annotations,
    /// Tracks from dense events, by position of the video.
    dense: BTreeMap<usize, SimulatedTracks>,
    /// Whether a video of the split has a dense event. If so, a video of the split without dense events gets no
    /// events.
    densely: [bool; Split::ALL.len()],
    segments: u32,
    seed: u64,
}

impl<'a> SimulatedTruth<'a> {
    /// Collects the dense events of `annotations`. Parts of events after the last of `segments` are left out.
    pub fn new(annotations: &'a Annotations, segments: u32, seed: u64) -> SimulatedTruth<'a> {
        let mut dense: BTreeMap<usize, SimulatedTracks> = BTreeMap::new();
        let mut densely = [false; Split::ALL.len()];
        for event in &annotations.events {
            densely[annotations.videos[event.video].split as usize] = true;
            if event.onset < segments {
                let track = dense
                    .entry(event.video)
                    .or_default()
                    .entry((event.modality, event.class))
                    .or_insert_with(|| vec![false; segments as usize]);
                track[event.onset as usize..event.offset.min(segments) as usize].fill(true);
            }
        }
        SimulatedTruth {
            annotations,
            dense,
            densely,
            segments,
            seed,
        }
    }

    /// Whether the tracks of this video come from dense truth. Otherwise they are sampled.
    pub fn is_dense(&self, video: usize) -> bool {
        self.densely[self.annotations.videos[video].split as usize]
    }

    /// Tracks of the video at position `video`, simulated with the name `name`.
    pub fn tracks(&self, video: usize, name: &str) -> SimulatedTracks {
        if self.is_dense(video) {
            return self.dense.get(&video).cloned().unwrap_or_default();
        }
        let mut rng = generator(self.seed, "tracks", name);
        let mut tracks = SimulatedTracks::new();
        for &class in &self.annotations.videos[video].weak {
            let which: f64 = rng.random();
            let heard = which < BOTH + HEARD_ONLY;
            let seen = !(BOTH..BOTH + HEARD_ONLY).contains(&which);
            let audio = sample(&mut rng, self.segments, WHOLE_AUDIO);
            if seen {
                let whole = audio.iter().all(|&active| active);
                let visual = if heard && !whole && rng.random_bool(SAME_TRACK) {
                    audio.clone()
                } else {
                    sample(&mut rng, self.segments, WHOLE_VISUAL)
                };
                tracks.insert((Modality::Visual, class), visual);
            }
            if heard {
                tracks.insert((Modality::Audio, class), audio);
            }
        }
        tracks
    }
}

/// One sampled track with at least one true segment. The track lasts the whole video with probability `whole`.
fn sample(rng: &mut ChaCha8Rng, segments: u32, whole: f64) -> Vec<bool> {
    let length = segments as usize;
    if rng.random_bool(whole) {
        return vec![true; length];
    }
    let which: f64 = rng.random();
    let runs = if which < ONE_RUN {
        1
    } else if which < ONE_RUN + TWO_RUNS {
        2
    } else {
        3
    };
    // Each run lies between two different borders, so that runs are not empty and do not touch.
    let runs = runs.min(length.div_ceil(2));
    let mut borders = rand::seq::index::sample(rng, length + 1, 2 * runs).into_vec();
    borders.sort_unstable();
    let mut track = vec![false; length];
    for run in borders.chunks_exact(2) {
        track[run[0]..run[1]].fill(true);
    }
    track
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::annotations::{AnnotatedVideo, DenseEvent};

    /// 4,000 training videos of classes 0 and 1, and two test videos. Only one of the test videos has an event.
    fn annotations() -> Annotations {
        let video = |number: usize| AnnotatedVideo {
            name: format!("test{number:07}_0_10").into(),
            split: if number < 4000 { Split::Train } else { Split::Test },
            weak: vec![ClassId(0), ClassId(1)],
            source: "train.csv".into(),
        };
        let event = |onset, offset| DenseEvent {
            video: 4000,
            modality: Modality::Visual,
            class: ClassId(1),
            onset,
            offset,
        };
        Annotations {
            classes: vec!["Dog".into(), "Cat".into()],
            videos: (0..4002).map(video).collect(),
            events: vec![event(1, 3), event(8, 30), event(40, 50)],
            rejects: Vec::new(),
        }
    }

    #[test]
    fn dense_truth_is_taken_as_it_is() {
        let annotations = annotations();
        let truth = SimulatedTruth::new(&annotations, 10, 1);
        let tracks = truth.tracks(4000, "test0004000_0_10");
        let expected: Vec<bool> = (0..10).map(|t| [1, 2, 8, 9].contains(&t)).collect();
        assert_eq!(
            tracks,
            SimulatedTracks::from([((Modality::Visual, ClassId(1)), expected)])
        );
        assert!(
            truth.tracks(4001, "test0004001_0_10").is_empty(),
            "no event is the truth here"
        );
    }

    #[test]
    fn sampled_tracks_have_the_rates_of_llp() {
        let annotations = annotations();
        let truth = SimulatedTruth::new(&annotations, 10, 1);
        let (mut audio, mut visual, mut both, mut whole) = (0, 0, 0, 0);
        for video in 0..4000 {
            let tracks = truth.tracks(video, &annotations.videos[video].name);
            assert!(
                tracks
                    .values()
                    .all(|track| track.len() == 10 && track.contains(&true))
            );
            for class in [ClassId(0), ClassId(1)] {
                let heard = tracks.get(&(Modality::Audio, class));
                let seen = tracks.contains_key(&(Modality::Visual, class));
                assert!(heard.is_some() || seen, "a weak label is heard or seen");
                audio += usize::from(heard.is_some());
                visual += usize::from(seen);
                both += usize::from(heard.is_some() && seen);
                whole += usize::from(heard.is_some_and(|track| !track.contains(&false)));
            }
        }
        let near = |count: usize, rate: f64| (count as f64 / 8000.0 - rate).abs() < 0.03;
        assert!(
            near(audio, 0.96) && near(visual, 0.65) && near(both, 0.61),
            "{audio} {visual} {both}"
        );
        assert!(near(whole, 0.41 * 0.96 + 0.01), "{whole}");
    }

    #[test]
    fn any_length_can_be_sampled() {
        let annotations = annotations();
        for segments in [1, 2, 3, 60] {
            let truth = SimulatedTruth::new(&annotations, segments, 1);
            for video in 0..50 {
                let tracks = truth.tracks(video, &annotations.videos[video].name);
                assert!(
                    tracks
                        .values()
                        .all(|track| track.len() == segments as usize && track.contains(&true))
                );
            }
        }
    }
}
