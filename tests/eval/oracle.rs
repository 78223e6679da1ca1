//! The evaluator against plain loops straight from the definition, and against cases small enough to do by hand.

use proptest::prelude::*;
use vaplan::eval::{BitMatrix, Evaluator, Level, VideoParse};

/// `[class][segment]`.
type Grid = Vec<Vec<bool>>;

/// One video: predicted audio and visual, true audio and visual.
#[derive(Clone, Debug)]
struct Video {
    predicted: [Grid; 2],
    truth: [Grid; 2],
}

/// Rows of text, `#` for 1, one per class.
fn grid(rows: &[&str]) -> Grid {
    rows.iter()
        .map(|row| row.chars().map(|cell| cell == '#').collect())
        .collect()
}

fn matrix(grid: &Grid) -> BitMatrix {
    let mut matrix = BitMatrix::new(grid.len(), grid.first().map_or(0, Vec::len));
    for (class, row) in grid.iter().enumerate() {
        for (segment, _) in row.iter().enumerate().filter(|(_, cell)| **cell) {
            matrix.set(class, segment);
        }
    }
    matrix
}

fn parse([audio, visual]: &[Grid; 2]) -> VideoParse {
    VideoParse {
        audio: matrix(audio),
        visual: matrix(visual),
    }
}

fn evaluate(classes: usize, videos: &[Video]) -> Evaluator {
    let mut evaluator = Evaluator::new(classes);
    for video in videos {
        evaluator.add(&parse(&video.predicted), &parse(&video.truth));
    }
    evaluator
}

/// The definition of docs/method.md, "Evaluation", with nothing clever.
mod definition {
    use super::{Grid, Video};

    pub(super) type MatchCounts = (f64, f64, f64);

    pub(super) fn both([audio, visual]: &[Grid; 2]) -> Grid {
        let meet = |(a, v): (&Vec<bool>, &Vec<bool>)| a.iter().zip(v).map(|(a, v)| *a && *v).collect();
        audio.iter().zip(visual).map(meet).collect()
    }

    pub(super) fn segments(predicted: &[bool], truth: &[bool]) -> MatchCounts {
        let count = |p: bool, t: bool| {
            predicted
                .iter()
                .zip(truth)
                .filter(|cell| *cell == (&p, &t))
                .count() as f64
        };
        (count(true, true), count(true, false), count(false, true))
    }

    /// Each maximal run of 1s, as a row that holds nothing else.
    fn events(row: &[bool]) -> Vec<Vec<bool>> {
        let mut events: Vec<Vec<bool>> = Vec::new();
        for segment in 0..row.len() {
            if row[segment] {
                if segment == 0 || !row[segment - 1] {
                    events.push(vec![false; row.len()]);
                }
                events.last_mut().unwrap()[segment] = true;
            }
        }
        events
    }

    fn matched(event: &[bool], others: &[Vec<bool>]) -> bool {
        others.iter().any(|other| {
            let intersection = event.iter().zip(other).filter(|(a, b)| **a && **b).count();
            let union = event.iter().zip(other).filter(|(a, b)| **a || **b).count();
            intersection as f64 >= 0.5 * union as f64
        })
    }

    pub(super) fn runs(predicted: &[bool], truth: &[bool]) -> MatchCounts {
        let (predicted, truth) = (events(predicted), events(truth));
        let hits = predicted.iter().filter(|event| matched(event, &truth)).count();
        let misses = truth.iter().filter(|event| !matched(event, &predicted)).count();
        (hits as f64, (predicted.len() - hits) as f64, misses as f64)
    }

    fn f_score((tp, fp, fn_): MatchCounts) -> Option<f64> {
        (tp + fp + fn_ > 0.0).then(|| 2.0 * tp / (2.0 * tp + fp + fn_))
    }

    fn class_mean(counts: &[MatchCounts]) -> f64 {
        let scores: Vec<f64> = counts.iter().filter_map(|counts| f_score(*counts)).collect();
        if scores.is_empty() {
            1.0
        } else {
            scores.iter().sum::<f64>() / scores.len() as f64
        }
    }

    /// A, V, AV, Type@AV, Event@AV.
    pub(super) fn level(videos: &[Video], count: fn(&[bool], &[bool]) -> MatchCounts) -> [f64; 5] {
        let mut sums = [0.0; 4];
        for video in videos {
            let per_class = |predicted: &Grid, truth: &Grid| -> Vec<MatchCounts> {
                predicted.iter().zip(truth).map(|(p, t)| count(p, t)).collect()
            };
            let audio = per_class(&video.predicted[0], &video.truth[0]);
            let visual = per_class(&video.predicted[1], &video.truth[1]);
            let meet = per_class(&both(&video.predicted), &both(&video.truth));
            let together: Vec<MatchCounts> = audio
                .iter()
                .zip(&visual)
                .map(|(a, v)| (a.0 + v.0, a.1 + v.1, a.2 + v.2))
                .collect();
            for (sum, counts) in sums.iter_mut().zip([&audio, &visual, &meet, &together]) {
                *sum += class_mean(counts);
            }
        }
        let [a, v, av, event] = sums.map(|sum| 100.0 * sum / videos.len() as f64);
        [a, v, av, (a + v + av) / 3.0, event]
    }

    pub(super) fn class_score(videos: &[Video], modality: usize, class: usize) -> Option<f64> {
        let mut total = (0.0, 0.0, 0.0);
        for video in videos {
            let (tp, fp, fn_) = segments(&video.predicted[modality][class], &video.truth[modality][class]);
            total = (total.0 + tp, total.1 + fp, total.2 + fn_);
        }
        f_score(total).map(|f| 100.0 * f)
    }
}

fn numbers(level: Level) -> [f64; 5] {
    [
        level.audio,
        level.visual,
        level.audio_visual,
        level.type_av,
        level.event_av,
    ]
}

#[track_caller]
fn assert_close(actual: [f64; 5], expected: [f64; 5]) {
    for (actual, expected) in actual.iter().zip(expected) {
        assert!((actual - expected).abs() < 1e-9, "{actual} is not {expected}");
    }
}

/// Rows whose events are long enough to match now and then: runs of random length, not coin flips.
fn row(segments: usize) -> impl Strategy<Value = Vec<bool>> {
    prop_oneof![
        2 => Just(vec![false; segments]),
        5 => prop::collection::vec((any::<bool>(), 1..9usize), 0..40).prop_map(move |runs| {
            let mut row: Vec<bool> =
                runs.into_iter().flat_map(|(on, length)| std::iter::repeat_n(on, length)).take(segments).collect();
            row.resize(segments, false);
            row
        }),
    ]
}

fn grids(classes: usize, segments: usize) -> impl Strategy<Value = [Grid; 2]> {
    let grid = move || prop::collection::vec(row(segments), classes);
    [grid(), grid()]
}

fn videos() -> impl Strategy<Value = (usize, Vec<Video>)> {
    (0..7usize, prop::collection::vec(0..150usize, 1..5)).prop_flat_map(|(classes, lengths)| {
        let video = |segments| {
            (grids(classes, segments), grids(classes, segments))
                .prop_map(|(predicted, truth)| Video { predicted, truth })
        };
        (Just(classes), lengths.into_iter().map(video).collect::<Vec<_>>())
    })
}

proptest! {
    #[test]
    fn scores_are_those_of_the_definition((classes, videos) in videos()) {
        let evaluator = evaluate(classes, &videos);
        let scores = evaluator.scores().unwrap();
        assert_close(numbers(scores.segment), definition::level(&videos, definition::segments));
        assert_close(numbers(scores.event), definition::level(&videos, definition::runs));
    }

    #[test]
    fn class_scores_sum_counts_over_the_videos((classes, videos) in videos()) {
        let scores = evaluate(classes, &videos).class_scores();
        prop_assert_eq!(scores.len(), classes);
        for (class, scores) in scores.into_iter().enumerate() {
            prop_assert_eq!(scores.audio, definition::class_score(&videos, 0, class));
            prop_assert_eq!(scores.visual, definition::class_score(&videos, 1, class));
        }
    }

    #[test]
    fn the_truth_itself_scores_100((classes, videos) in videos()) {
        let perfect: Vec<Video> =
            videos.into_iter().map(|video| Video { predicted: video.truth.clone(), ..video }).collect();
        let scores = evaluate(classes, &perfect).scores().unwrap();
        prop_assert_eq!(numbers(scores.segment), [100.0; 5]);
        prop_assert_eq!(numbers(scores.event), [100.0; 5]);
    }
}

/// One class, audio only: scores of the audio column at (segment, event) level, in percent.
fn audio(predicted: &str, truth: &str) -> (f64, f64) {
    let none = grid(&[&".".repeat(predicted.len())]);
    let video = Video {
        predicted: [grid(&[predicted]), none.clone()],
        truth: [grid(&[truth]), none],
    };
    let scores = evaluate(1, &[video]).scores().unwrap();
    (scores.segment.audio, scores.event.audio)
}

#[test]
fn half_of_the_union_is_a_match_and_less_is_not() {
    assert_eq!(audio("#####.....", "##########"), (100.0 * (10.0 / 15.0), 100.0));
    assert_eq!(audio("####......", "##########").1, 0.0);
    assert_eq!(audio("####......", ".####.....").1, 100.0, "3 of 5");
    assert_eq!(audio("####......", "..####....").1, 0.0, "2 of 6");
}

#[test]
fn an_event_in_two_pieces_is_at_most_one_hit() {
    // Five of ten match and three do not: one hit, one false alarm, no miss; and the other way round.
    assert_eq!(audio("#####.###.", "##########").1, 100.0 * (2.0 / 3.0));
    assert_eq!(audio("##########", "#####.###.").1, 100.0 * (2.0 / 3.0));
    assert_eq!(audio("####.####.", "##########").1, 0.0);
}

#[test]
fn a_video_in_which_nothing_happens_scores_100_when_nothing_is_found() {
    assert_eq!(audio("..........", ".........."), (100.0, 100.0));
    assert_eq!(audio("#.........", ".........."), (0.0, 0.0));
    assert_eq!(audio("..........", "#........."), (0.0, 0.0));
}

/// Dog: right in audio, unheard in the picture. Speech: predicted in vain in audio. Two classes by hand.
#[test]
fn classes_are_averaged_before_videos() {
    let video = Video {
        predicted: [
            grid(&["####......", "#........."]),
            grid(&["..........", ".........."]),
        ],
        truth: [
            grid(&["####......", ".........."]),
            grid(&["####......", ".........."]),
        ],
    };
    let quiet = grid(&["..........", ".........."]);
    let nothing = Video {
        predicted: [quiet.clone(), quiet.clone()],
        truth: [quiet.clone(), quiet],
    };
    let scores = evaluate(2, &[video, nothing]).scores().unwrap();
    // A: (1 + 0) / 2 and 1; V: 0 and 1; AV: 0 and 1; Event@AV: Dog 8 / (8 + 4), Speech 0, and 1.
    assert_close(
        numbers(scores.segment),
        [75.0, 50.0, 50.0, 175.0 / 3.0, 50.0 * (1.0 + 1.0 / 3.0)],
    );
    // Event@AV: Dog one hit, one miss: 2 / 3.
    assert_close(
        numbers(scores.event),
        [75.0, 50.0, 50.0, 175.0 / 3.0, 50.0 * (1.0 + 1.0 / 3.0)],
    );
}

#[test]
fn no_video_has_no_score() {
    assert_eq!(Evaluator::new(25).scores(), None);
}

#[test]
#[should_panic(expected = "shape (C, T)")]
fn a_matrix_of_another_length_is_a_bug() {
    let mut evaluator = Evaluator::new(1);
    evaluator.add(&VideoParse::new(1, 10), &VideoParse::new(1, 9));
}
