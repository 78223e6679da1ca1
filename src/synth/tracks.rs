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

// All shares below were counted in LLP's val and test, which agree. docs/synth.md has the counts and how well sampled
// tracks agree with them.

/// How often the tracks of a class exist, and how often they last the whole video.
#[derive(Clone, Copy, Debug, PartialEq)]
struct ClassShares {
    /// Share of the weak labels whose class is audible and visible, and of those whose class is only audible. In the rest the
    /// class is only visible.
    modalities: [f64; 2],
    /// Of the classes that are audible and visible: the share with both tracks over the whole video, with only the visual
    /// track, and with only the audio track. In the rest neither track lasts the whole video.
    whole: [f64; 3],
    /// Share of the audio tracks of classes that are only audible which last the whole video.
    whole_heard_only: f64,
    /// Share of the visual tracks of classes that are only visible which last the whole video.
    whole_seen_only: f64,
}

/// Shares over all classes of LLP.
const LLP: ClassShares = ClassShares {
    modalities: [0.605, 0.35],
    whole: [0.426, 0.199, 0.083],
    whole_heard_only: 0.24,
    whole_seen_only: 0.58,
};
/// Number of weak labels that [`LLP`] is worth beside the dense truth of a class. A class with few events in the dense truth
/// then gets shares between its own and those of all classes.
const PRIOR: f64 = 10.0;
/// Share of equal tracks, if a class is audible and visible and neither track lasts the whole video.
const SAME_TRACK: f64 = 0.61;
/// Probability that the visual track contains the audio track, if neither lasts the whole video and they differ.
const LONGER_VISUAL: f64 = 0.5;
/// Of the tracks that do not last the whole video: the shares with one run and with two runs. The rest has three.
const RUNS_AUDIO: [f64; 2] = [0.635, 0.29];
/// Like [`RUNS_AUDIO`], for visual tracks.
const RUNS_VISUAL: [f64; 2] = [0.71, 0.245];
/// Probability that a single run is moved to the start or to the end of the video.
const AT_AN_END: f64 = 0.48;

/// The simulated tracks of every annotated video.
#[derive(Clone, Debug)]
pub struct SimulatedTruth<'a> {
    annotations: &'a Annotations,
    /// Tracks from dense events, by position of the video.
    dense: BTreeMap<usize, SimulatedTracks>,
    /// Whether a video of the split has a dense event. If so, a video of the split without dense events gets no
    /// events.
    densely: [bool; Split::ALL.len()],
    /// Shares of each class, from the dense events.
    shares: Vec<ClassShares>,
    segments: u32,
    seed: u64,
}

impl<'a> SimulatedTruth<'a> {
    /// Collects the dense events of `annotations`. Parts of events after the last of `segments` are left out.
    pub fn new(annotations: &'a Annotations, segments: u32, seed: u64) -> SimulatedTruth<'a> {
        let mut dense: BTreeMap<usize, SimulatedTracks> = BTreeMap::new();
        let mut densely = [false; Split::ALL.len()];
        for event in &annotations.events {
            densely[annotations.videos.get(event.video).split as usize] = true;
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
            shares: ClassShares::of_classes(&dense, annotations.classes.len()),
            annotations,
            dense,
            densely,
            segments,
            seed,
        }
    }

    /// Whether the tracks of this video come from dense truth. Otherwise they are sampled.
    pub fn is_dense(&self, video: usize) -> bool {
        self.densely[self.annotations.videos.get(video).split as usize]
    }

    /// Tracks of the video at position `video`, simulated with the name `name`.
    pub fn tracks(&self, video: usize, name: &str) -> SimulatedTracks {
        if self.is_dense(video) {
            return self.dense.get(&video).cloned().unwrap_or_default();
        }
        let mut rng = generator(self.seed, "tracks", name);
        let mut tracks = SimulatedTracks::new();
        for &class in &**self.annotations.videos.get(video).weak {
            let [audio, visual] = sample_class(&mut rng, &self.shares[class.index()], self.segments);
            if let Some(visual) = visual {
                tracks.insert((Modality::Visual, class), visual);
            }
            if let Some(audio) = audio {
                tracks.insert((Modality::Audio, class), audio);
            }
        }
        tracks
    }
}

impl ClassShares {
    /// The shares of each class in dense truth, and those of LLP with the weight [`PRIOR`].
    ///
    /// Classes differ: in LLP, speech is visible in 24 % of the videos in which it occurs, and a blender in 99 %. A parser that
    /// learns from tracks which are drawn alike for all classes learns to see speech where nobody sees it.
    fn of_classes(dense: &BTreeMap<usize, SimulatedTracks>, classes: usize) -> Vec<ClassShares> {
        // By class: audible and visible, only audible, only visible; each by whether the audio and the visual track are whole.
        let mut counts = vec![[[0.0; 4]; 3]; classes];
        for tracks in dense.values() {
            for class in (0..classes).map(|class| ClassId(class as u32)) {
                let [audio, visual] = Modality::ALL.map(|modality| {
                    let track: Option<&Vec<bool>> = tracks.get(&(modality, class));
                    track.map(|track| !track.contains(&false))
                });
                let which = match (audio, visual) {
                    (Some(_), Some(_)) => 0,
                    (Some(_), None) => 1,
                    (None, Some(_)) => 2,
                    (None, None) => continue,
                };
                let whole = 2 * usize::from(audio == Some(true)) + usize::from(visual == Some(true));
                counts[class.index()][which][whole] += 1.0;
            }
        }
        let shares = |[both, heard, seen]: &[[f64; 4]; 3]| {
            let [all_both, all_heard, all_seen] = [both, heard, seen].map(|own| own.iter().sum::<f64>());
            let all = all_both + all_heard + all_seen;
            let share = |count: f64, of: f64, prior: f64| (count + PRIOR * prior) / (of + PRIOR);
            ClassShares {
                modalities: [
                    share(all_both, all, LLP.modalities[0]),
                    share(all_heard, all, LLP.modalities[1]),
                ],
                whole: [
                    share(both[3], all_both, LLP.whole[0]),
                    share(both[1], all_both, LLP.whole[1]),
                    share(both[2], all_both, LLP.whole[2]),
                ],
                whole_heard_only: share(heard[2], all_heard, LLP.whole_heard_only),
                whole_seen_only: share(seen[1], all_seen, LLP.whole_seen_only),
            }
        };
        counts.iter().map(shares).collect()
    }
}

/// Sampled audio and visual track of a class of a weak label. At least one of them exists.
fn sample_class(rng: &mut ChaCha8Rng, shares: &ClassShares, segments: u32) -> [Option<Vec<bool>>; 2] {
    let length = segments as usize;
    let whole = || vec![true; length];
    let which: f64 = rng.random();
    let [both, heard_only] = shares.modalities;
    if which < both {
        let which: f64 = rng.random();
        let [both, visual, audio] = shares.whole;
        if which < both {
            [Some(whole()), Some(whole())]
        } else if which < both + visual {
            [Some(sample(rng, length, RUNS_AUDIO)), Some(whole())]
        } else if which < both + visual + audio {
            [Some(whole()), Some(sample(rng, length, RUNS_VISUAL))]
        } else {
            let audio = sample(rng, length, RUNS_AUDIO);
            let visual = if rng.random_bool(SAME_TRACK) {
                audio.clone()
            } else {
                let other = sample(rng, length, RUNS_VISUAL);
                if rng.random_bool(LONGER_VISUAL) {
                    audio.iter().zip(other).map(|(&a, b)| a || b).collect()
                } else {
                    other
                }
            };
            [Some(audio), Some(visual)]
        }
    } else if which < both + heard_only {
        let audio = if rng.random_bool(shares.whole_heard_only) {
            whole()
        } else {
            sample(rng, length, RUNS_AUDIO)
        };
        [Some(audio), None]
    } else {
        let visual = if rng.random_bool(shares.whole_seen_only) {
            whole()
        } else {
            sample(rng, length, RUNS_VISUAL)
        };
        [None, Some(visual)]
    }
}

/// One sampled track that has at least one true segment and, if the video has more than one segment, a false one.
fn sample(rng: &mut ChaCha8Rng, length: usize, shares: [f64; 2]) -> Vec<bool> {
    if length < 2 {
        return vec![true; length];
    }
    let which: f64 = rng.random();
    let runs = if which < shares[0] {
        1
    } else if which < shares[0] + shares[1] {
        2
    } else {
        3
    };
    let runs = runs.min(length.div_ceil(2)).max(1);
    if runs == 1 {
        return sample_run(rng, length);
    }
    // The number of true segments is uniform. Runs and the gaps between them have at least one segment; what is left
    // over is spread uniformly over the runs, and over the gaps and both ends.
    let most = length + 1 - runs;
    let active = rng.random_range(runs..=most);
    let run_lengths = composition(rng, active - runs, runs);
    let gaps = composition(rng, length - active - (runs - 1), runs + 1);
    let mut track = vec![false; length];
    let mut at = gaps[0];
    for (run, gap) in run_lengths.iter().zip(&gaps[1..]) {
        track[at..at + run + 1].fill(true);
        at += run + 1 + gap + 1;
    }
    track
}

/// A track with a single run that is shorter than the video.
fn sample_run(rng: &mut ChaCha8Rng, length: usize) -> Vec<bool> {
    // Half of the runs have a uniform length, the others lie between two uniform borders and are shorter.
    let run = if rng.random_bool(0.5) {
        rng.random_range(1..length)
    } else {
        let borders = rand::seq::index::sample(rng, length + 1, 2);
        borders.index(0).abs_diff(borders.index(1)).min(length - 1)
    };
    let start = if rng.random_bool(AT_AN_END) {
        if rng.random_bool(0.5) { 0 } else { length - run }
    } else {
        rng.random_range(0..=length - run)
    };
    let mut track = vec![false; length];
    track[start..start + run].fill(true);
    track
}

/// `total` as a sum of `parts` numbers from 0, each sum with the same probability.
fn composition(rng: &mut ChaCha8Rng, total: usize, parts: usize) -> Vec<usize> {
    let mut bars = rand::seq::index::sample(rng, total + parts - 1, parts - 1).into_vec();
    bars.sort_unstable();
    let mut start = 0;
    let mut numbers: Vec<usize> = Vec::with_capacity(parts);
    for bar in bars {
        numbers.push(bar - start);
        start = bar + 1;
    }
    numbers.push(total + parts - 1 - start);
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::annotations::{DenseEvent, VideoLabel};

    /// 4,000 training videos of classes 0 and 1, and two test videos. Only one of the test videos has an event.
    fn annotations() -> Annotations {
        let video = |number: usize| {
            let label = VideoLabel {
                split: if number < 4000 { Split::Train } else { Split::Test },
                weak: [ClassId(0), ClassId(1)].into(),
                source: "train.csv".into(),
            };
            (format!("test{number:07}_0_10"), label)
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

    /// Without dense events, the shares of every class are those of LLP.
    fn without_events() -> Annotations {
        Annotations {
            events: Vec::new(),
            ..annotations()
        }
    }

    #[test]
    fn sampled_tracks_have_the_rates_of_llp() {
        let annotations = without_events();
        let truth = SimulatedTruth::new(&annotations, 10, 1);
        let (mut audio, mut visual, mut both, mut whole) = (0, 0, 0, 0);
        for video in 0..4000 {
            let tracks = truth.tracks(video, annotations.videos.get(video).name);
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

    /// Events of one modality per track, and the mean number of segments of an event.
    fn events(truth: &SimulatedTruth<'_>, modality: Modality) -> (f64, f64) {
        let (mut tracks, mut events, mut active) = (0, 0, 0);
        for video in 0..4000 {
            for (_, track) in truth
                .tracks(video, truth.annotations.videos.get(video).name)
                .iter()
                .filter(|((of, _), _)| *of == modality)
            {
                tracks += 1;
                active += track.iter().filter(|&&on| on).count();
                events += (0..10).filter(|&t| track[t] && (t == 0 || !track[t - 1])).count();
            }
        }
        (
            f64::from(events as u32) / f64::from(tracks),
            f64::from(active as u32) / f64::from(events as u32),
        )
    }

    /// LLP's val has 1,440 audible events of 5.62 s in 1,138 tracks, and 856 visible events of 7.14 s in 754 tracks.
    #[test]
    fn sampled_events_have_the_number_and_length_of_llp() {
        let annotations = without_events();
        let truth = SimulatedTruth::new(&annotations, 10, 1);
        let (number, length) = events(&truth, Modality::Audio);
        assert!((number - 1.266).abs() < 0.05, "{number} audible events per track");
        assert!((length - 5.62).abs() < 0.25, "{length} s per audible event");
        let (number, length) = events(&truth, Modality::Visual);
        assert!((number - 1.135).abs() < 0.05, "{number} visible events per track");
        assert!((length - 7.14).abs() < 0.25, "{length} s per visible event");
    }

    /// Dense truth of 100 test videos: class 0 is audible and not visible, in half of them over the whole video. Class 1 has no
    /// dense event, and keeps the shares of LLP.
    #[test]
    fn sampled_tracks_have_the_shares_of_their_class_in_dense_truth() {
        let video = |number: usize| {
            let (split, weak) = match number {
                0..4000 => (Split::Train, vec![ClassId(0), ClassId(1)]),
                _ => (Split::Test, vec![ClassId(0)]),
            };
            let label = VideoLabel {
                split,
                weak: weak.into(),
                source: "annotations.csv".into(),
            };
            (format!("test{number:07}_0_10"), label)
        };
        let event = |video| DenseEvent {
            video,
            modality: Modality::Audio,
            class: ClassId(0),
            onset: (video % 2) as u32,
            offset: 10,
        };
        let annotations = Annotations {
            videos: (0..4100).map(video).collect(),
            events: (4000..4100).map(event).collect(),
            ..annotations()
        };
        let truth = SimulatedTruth::new(&annotations, 10, 1);
        let share = |class, counts: &dyn Fn(Option<&Vec<bool>>, bool) -> bool| {
            let found = (0..4000).filter(|&video| {
                let tracks = truth.tracks(video, annotations.videos.get(video).name);
                let seen = tracks.contains_key(&(Modality::Visual, class));
                counts(tracks.get(&(Modality::Audio, class)), seen)
            });
            found.count() as f64 / 4000.0
        };
        // 10 of 110 weak labels are those of the prior, of which 65.5 % are visible.
        let seen = share(ClassId(0), &|_, seen| seen);
        assert!((seen - 0.06).abs() < 0.02, "{seen}");
        let seen = share(ClassId(1), &|_, seen| seen);
        assert!((seen - 0.65).abs() < 0.03, "{seen}");
        let whole = share(ClassId(0), &|heard, seen| {
            !seen && heard.is_some_and(|track| !track.contains(&false))
        });
        assert!((whole - 0.94 * (50.0 + 2.4) / 110.0).abs() < 0.03, "{whole}");
    }

    #[test]
    fn parts_of_a_sum_are_as_asked() {
        let mut rng = generator(1, "test", "sums");
        for (total, parts) in [(0, 1), (5, 1), (0, 3), (7, 4)] {
            let numbers = composition(&mut rng, total, parts);
            assert_eq!((numbers.len(), numbers.iter().sum()), (parts, total));
        }
    }

    #[test]
    fn any_length_can_be_sampled() {
        let annotations = annotations();
        for segments in [1, 2, 3, 60] {
            let truth = SimulatedTruth::new(&annotations, segments, 1);
            for video in 0..50 {
                let tracks = truth.tracks(video, annotations.videos.get(video).name);
                assert!(
                    tracks
                        .values()
                        .all(|track| track.len() == segments as usize && track.contains(&true))
                );
            }
        }
    }
}
