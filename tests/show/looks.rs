//! What a timeline looks like: golden files of rows made by hand.

use std::sync::Arc;

use vaplan::show::{Timeline, TimelineRows, TimelineStyle, render};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{
    ClassRow, FlipLimit, FlipReason, LabelRule, LabelTrack, ScoreTrack, Split, TruthRow, VideoRow,
};

use crate::support::assert_golden;

const THRESHOLD: f64 = 0.2;

/// Rows of one video of classes Dog, Speech and Frying_(food), threshold 0.2.
pub(super) struct VideoRows {
    pub(super) row: VideoRow,
    pub(super) classes: Vec<ClassRow>,
    pub(super) labels: Vec<LabelTrack>,
    pub(super) scores: Vec<ScoreTrack>,
    pub(super) truth: Vec<TruthRow>,
}

pub(super) fn video(name: &str, segments: u32, weak: &[&str]) -> VideoRows {
    let classes = ["Speech", "Dog", "Frying_(food)"];
    let class = |(position, class): (usize, &&str), modality| ClassRow {
        class: Arc::from(*class),
        position: position as u32,
        modality,
        prompt: None,
        rule: "softmax".into(),
        scale: 1.0,
        threshold: 0.6,
        score_threshold: THRESHOLD,
    };
    VideoRows {
        row: VideoRow {
            video: name.into(),
            split: Split::Test,
            segments,
            segment_seconds: 1.0,
            weak_labels: weak.iter().map(|class| Arc::from(*class)).collect(),
            guessed: false,
            source: "test.csv".into(),
            audio_source: None,
            visual_source: None,
        },
        classes: Modality::ALL
            .into_iter()
            .flat_map(|modality| classes.iter().enumerate().map(move |row| class(row, modality)))
            .collect(),
        labels: Vec::new(),
        scores: Vec::new(),
        truth: Vec::new(),
    }
}

impl VideoRows {
    /// Labels where the score is above the threshold.
    fn scores(mut self, modality: Modality, class: &str, score: impl Fn(u32) -> f64) -> VideoRows {
        let score: Vec<f64> = (0..self.row.segments).map(score).collect();
        let (video, class): (Arc<str>, Arc<str>) = (self.row.video.clone(), class.into());
        let track = LabelTrack::plg(video.clone(), modality, class.clone(), score.clone(), THRESHOLD);
        self.labels.push(track);
        self.scores.push(ScoreTrack {
            video,
            modality,
            class,
            cosine: vec![0.0; score.len()],
            score,
        });
        self
    }

    fn truth(mut self, modality: Modality, class: &str, onset: u32, offset: u32) -> VideoRows {
        self.truth.push(TruthRow {
            video: self.row.video.clone(),
            modality,
            class: class.into(),
            onset,
            offset,
        });
        self
    }

    fn timeline(&self, annotated: bool) -> Timeline {
        Timeline::of_rows(&TimelineRows {
            video: &self.row,
            classes: &self.classes,
            labels: &self.labels,
            scores: &self.scores,
            truth: annotated.then_some(&self.truth),
        })
    }
}

fn text(timeline: &Timeline, look: TimelineStyle) -> Vec<u8> {
    let mut text = Vec::new();
    render(timeline, look, &mut text).unwrap();
    text
}

const PLAIN: TimelineStyle = TimelineStyle {
    plain: true,
    width: 80,
};
const COLOURED: TimelineStyle = TimelineStyle {
    plain: false,
    width: 80,
};

/// Ten seconds: a dog is heard throughout and seen at the end; frying is heard, outside the weak label.
pub(super) fn dog() -> VideoRows {
    video("-rf_AAAAAAA_20_30", 10, &["Speech", "Dog"])
        .scores(Modality::Audio, "Dog", |t| 0.15 + 0.02 * f64::from(t))
        .scores(Modality::Audio, "Speech", |t| if t == 9 { f64::NAN } else { 0.1 })
        .scores(Modality::Visual, "Dog", |t| if t >= 5 { 0.4 } else { 0.1 })
        .scores(Modality::Visual, "Speech", |t| if t < 2 { 0.25 } else { 0.15 })
        .truth(Modality::Audio, "Dog", 0, 10)
        .truth(Modality::Visual, "Dog", 6, 12)
        .truth(Modality::Audio, "Frying_(food)", 3, 5)
}

#[test]
fn ten_segments_with_truth_in_plain_ascii() {
    let text = text(&dog().timeline(true), PLAIN);
    assert!(text.is_ascii() && !text.contains(&0x1b));
    assert_golden("show/ten_segments.txt", &text);
}

#[test]
fn ten_segments_with_truth_in_colour() {
    assert_golden(
        "show/ten_segments_coloured.txt",
        &text(&dog().timeline(true), COLOURED),
    );
}

#[test]
fn without_truth_labels_are_not_judged() {
    assert_golden("show/no_truth.txt", &text(&dog().timeline(false), PLAIN));
    assert_golden(
        "show/no_truth_coloured.txt",
        &text(&dog().timeline(false), COLOURED),
    );
}

#[test]
fn one_segment_is_a_timeline() {
    let video = video("short", 1, &["Dog"]).scores(Modality::Visual, "Dog", |_| 0.3);
    assert_golden("show/one_segment.txt", &text(&video.timeline(false), PLAIN));
}

/// Two hundred segments of 0.96 s on 80 columns: one column each, in pieces.
#[test]
fn a_long_video_is_shown_in_pieces() {
    let mut video = video("long", 200, &["Dog"])
        .scores(Modality::Audio, "Dog", |t| f64::from(t % 50) / 100.0)
        .truth(Modality::Audio, "Dog", 20, 120);
    video.row.segment_seconds = 0.96;
    let text = text(&video.timeline(true), PLAIN);
    assert!(
        String::from_utf8_lossy(&text)
            .lines()
            .all(|line| line.len() <= 80)
    );
    assert_golden("show/long.txt", &text);
}

#[test]
fn a_narrow_terminal_still_shows_ten_segments_a_piece() {
    let look = TimelineStyle {
        plain: true,
        width: 20,
    };
    let video = video("narrow", 12, &["Dog"]).scores(Modality::Audio, "Dog", |t| f64::from(t) / 20.0);
    assert_golden("show/narrow.txt", &text(&video.timeline(false), look));
}

#[test]
fn a_video_without_features_shows_its_truth_or_says_so() {
    let video = video("silent", 0, &["Dog"]);
    assert_golden("show/no_segments.txt", &text(&video.timeline(false), PLAIN));
    let video = video.truth(Modality::Audio, "Dog", 2, 4);
    assert_golden("show/truth_only.txt", &text(&video.timeline(true), PLAIN));
}

#[test]
fn flips_are_told_with_their_reasons_where_those_are_known() {
    let mut video = video("short", 3, &["Dog"]).scores(Modality::Visual, "Dog", |t| f64::from(t) / 4.0);
    for (segment, flip) in [(0, None), (2, Some((0.012_34, 10.0, 5)))] {
        let track = &mut video.labels[0];
        let why = FlipReason {
            epoch: 12,
            loss: Some(4.605),
            limit: flip.map(|(base, alpha, k)| FlipLimit { base, alpha, k }),
        };
        track.set(segment, !track.labels[segment], LabelRule::Pld, Some(why));
    }
    let text = String::from_utf8(text(&video.timeline(false), PLAIN)).unwrap();
    assert!(
        text.ends_with(
            "flipped: visual Dog, 0 s: set after epoch 12\n\
             flipped: visual Dog, 2 s: unset after epoch 12, loss 4.61 > 10 x 0.0123, the mean of the 5 smallest\n"
        ),
        "{text}"
    );
}

#[test]
fn control_characters_in_a_name_are_escaped() {
    let video = video("a\u{1b}[31mb", 1, &["Dog\r"]);
    let text = String::from_utf8(text(&video.timeline(false), PLAIN)).unwrap();
    assert!(
        text.starts_with("a\\u{1b}[31mb  test, 1 segment of 1 s, weak label: Dog\\r\n"),
        "{text}"
    );
    assert!(!text.contains(['\u{1b}', '\r']));
}
