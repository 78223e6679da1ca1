//! What a session keeps: as much after thousands of versions as after a few, and nothing after its end.

use std::sync::Arc;

use vaplan_dataflows::records::{Candidate, Cosine, FeatureHash, Score, ScoreRecord, VideoId};
use vaplan_dataflows::session::{GraphSession, Rows, Updates};
use vaplan_dataflows::{Bits, DenoisingRule, Prediction, Probability, UserLabelRecord, UserLabelTrack};
use vaplan_schemas::{ClassId, Modality};

const VIDEOS: u64 = 200;
const CLASS: ClassId = ClassId(0);

fn score(value: f64) -> Score {
    Score::new(value).unwrap()
}

fn bits(pattern: &str) -> Bits {
    pattern.chars().map(|bit| bit == '1').collect()
}

/// Videos of four segments, heard and seen, with predictions that flip one of them.
fn world() -> Rows {
    let mut rows = Rows::default();
    for video in (0..VIDEOS).map(VideoId) {
        rows.weak.push((video, [CLASS].into()));
        for modality in Modality::ALL {
            let candidate = Candidate {
                modality,
                source: "a.npy".into(),
                record: Arc::new(ScoreRecord::new(
                    4,
                    vec![CLASS],
                    vec![Cosine::new(0.0); 4],
                    [0.1, 0.4, 0.6, 0.9].map(score).to_vec(),
                )),
                features: FeatureHash::default(),
            };
            rows.scored.push((video, candidate));
        }
        rows.predictions.push(prediction(video, 1, 0.9));
    }
    rows.thresholds = Modality::ALL
        .map(|modality| ((modality, CLASS), score(0.5)))
        .to_vec();
    rows.denoising = vec![(Modality::Visual, DenoisingRule::default())];
    rows
}

fn prediction(video: VideoId, epoch: u64, first: f32) -> (VideoId, (Modality, Arc<Prediction>)) {
    let probability = [first, 0.01, 0.99, 0.99].map(Probability::new).to_vec();
    let prediction = Prediction::new(epoch, 4, vec![CLASS], probability);
    (video, (Modality::Visual, Arc::new(prediction)))
}

/// A version that changes something of every input, and the one that changes it back.
fn there_and_back(nth: u64) -> [Updates; 2] {
    let video = VideoId(nth % VIDEOS);
    let before = Rows {
        weak: vec![(video, [CLASS].into())],
        thresholds: vec![((Modality::Audio, CLASS), score(0.5))],
        predictions: vec![prediction(video, 1, 0.9)],
        denoising: vec![(Modality::Visual, DenoisingRule::default())],
        ..Rows::default()
    };
    let user_labels = UserLabelRecord {
        classes: vec![UserLabelTrack {
            class: CLASS,
            known: bits("0110"),
            label: bits("0100"),
        }],
    };
    let after = Rows {
        weak: vec![(video, [].into())],
        thresholds: vec![((Modality::Audio, CLASS), score(0.3))],
        user_labels: vec![(VideoId(7), (Modality::Visual, Arc::new(user_labels)))],
        predictions: vec![prediction(video, nth + 2, 0.02)],
        denoising: vec![(Modality::Visual, DenoisingRule::pld(2, 3.0, 0.5).unwrap())],
        ..Rows::default()
    };
    let there = Updates {
        gone: before.clone(),
        new: after.clone(),
    };
    let back = Updates {
        gone: after,
        new: before,
    };
    [there, back]
}

#[test]
fn what_is_held_does_not_grow_with_the_number_of_versions() {
    for workers in [1, 2] {
        let mut session = GraphSession::start(workers, world(), Vec::new()).unwrap();
        assert_eq!(session.outcome().labels().count() as u64, 2 * VIDEOS);
        let mut most = Vec::new();
        for thousand in 0..4 {
            let mut largest = 0;
            for nth in 0..250 {
                let [there, back] = there_and_back(thousand * 250 + nth);
                session.apply(there).unwrap();
                let changed = session.outcome().changes.len();
                session.apply(back).unwrap();
                assert!(changed > 0, "the version changes labels");
                assert_eq!(changed, session.outcome().changes.len());
                largest = largest.max(session.held());
            }
            most.push(largest);
        }
        assert_eq!(session.version(), 2000);
        println!("{workers} workers: most updates held in each 500 of 2000 versions: {most:?}");
        // A merge may be under way or not, so not to the last update.
        assert!(most[3] <= most[0] + most[0] / 10, "{workers} workers: {most:?}");
        // Without compaction it were at least this: every version changes all audio labels.
        assert!(most[3] < VIDEOS * 2000, "{most:?}");
        session.finish().unwrap();
    }
}

#[test]
fn a_session_that_ends_or_is_dropped_gives_back_what_it_held() {
    for dropped in [false, true] {
        let weak: Arc<[ClassId]> = [CLASS].into();
        let mut rows = world();
        for (_, classes) in &mut rows.weak {
            *classes = weak.clone();
        }
        let session = GraphSession::start(2, rows, Vec::new()).unwrap();
        assert!(Arc::strong_count(&weak) as u64 > VIDEOS);
        match dropped {
            true => drop(session),
            false => drop(session.finish().unwrap()),
        }
        assert_eq!(Arc::strong_count(&weak), 1);
    }
}

#[test]
fn rows_that_are_gone_and_new_at_once_change_nothing() {
    let mut session = GraphSession::start(2, world(), Vec::new()).unwrap();
    let same = Updates {
        gone: world(),
        new: world(),
    };
    session.apply(same).unwrap();
    assert_eq!(session.outcome().changes, []);
    assert!(session.touched().is_empty());
}

#[test]
fn rows_that_go_without_having_been_there_are_an_error_and_no_labels() {
    let video = VideoId(3);
    let gone = [
        Rows {
            weak: vec![(video, [].into())],
            ..Rows::default()
        },
        Rows {
            scored: vec![(VideoId(VIDEOS), world().scored[0].1.clone()); 2],
            ..Rows::default()
        },
        Rows {
            predictions: vec![prediction(video, 9, 0.9)],
            ..Rows::default()
        },
        Rows {
            user_labels: vec![(video, (Modality::Audio, Arc::default()))],
            ..Rows::default()
        },
        Rows {
            thresholds: vec![((Modality::Audio, CLASS), score(0.75))],
            ..Rows::default()
        },
    ];
    for gone in gone {
        let shown = format!("{gone:?}");
        let mut session = GraphSession::start(2, world(), Vec::new()).unwrap();
        let new = Rows::default();
        let error = session
            .apply(Updates { gone, new })
            .expect_err(&shown)
            .to_string();
        let said = "a dataflow worker stopped: a record went that was not there: ";
        assert!(error.starts_with(said), "{shown}: {error}");
    }
}
