//! What a change costs: the updates that enter the arrangements are in proportion to what it touches, not to the table.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::logging::{DifferentialEvent, DifferentialEventBuilder};
use timely::dataflow::operators::Probe;
use vaplan_dataflows::feed::Feed;
use vaplan_dataflows::graph::labelling;
use vaplan_dataflows::placement::Placement;
use vaplan_dataflows::records::{Candidate, Cosine, FeatureHash, Score, ScoreRecord, VideoId};
use vaplan_dataflows::{Bits, DenoisingRule, Prediction, Probability, UserLabelRecord, UserLabelTrack};
use vaplan_schemas::{ClassId, Modality};

const VIDEOS: u64 = 1000;
/// A tenth of the videos are tagged with each class.
const CLASSES: u64 = 10;
/// Every fourth video has predictions.
const PREDICTED: u64 = VIDEOS / 4;

/// At most this many updates for one video in all arrangements: of a handful of records, gone and new each.
const OF_A_VIDEO: i64 = 32;

fn class_of(video: VideoId) -> ClassId {
    ClassId((video.0 % CLASSES) as u32)
}

fn candidate(video: VideoId, modality: Modality, source: &str) -> (VideoId, Candidate) {
    let score = [0.1, 0.4, 0.6, 0.9].map(|value| Score::new(value).unwrap());
    let cosine = vec![Cosine::new(0.0); 4];
    let record = ScoreRecord::new(4, vec![class_of(video)], cosine, score.to_vec());
    let candidate = Candidate {
        modality,
        source: source.into(),
        record: Arc::new(record),
        features: FeatureHash::default(),
    };
    (video, candidate)
}

fn prediction(video: VideoId, epoch: u64) -> (VideoId, (Modality, Arc<Prediction>)) {
    let probability = [0.9, 0.01, 0.99, 0.99].map(Probability::new).to_vec();
    let prediction = Prediction::new(epoch, 4, vec![class_of(video)], probability);
    (video, (Modality::Visual, Arc::new(prediction)))
}

#[test]
fn a_change_costs_what_it_touches() {
    timely::execute_directly(|worker| {
        let entered = Rc::new(Cell::new(0i64));
        let to = entered.clone();
        worker
            .log_register()
            .expect("a timer is on")
            .insert::<DifferentialEventBuilder, _>("differential/arrange", move |_, events| {
                for (_, event) in events.iter_mut().flat_map(|events| events.drain(..)) {
                    if let DifferentialEvent::Batch(batch) = event {
                        to.set(to.get() + batch.length as i64);
                    }
                }
            });
        let (mut feed, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (feed, inputs) = Feed::new(scope, Placement::Spread);
            let (probe, _) = labelling(inputs).changes.probe();
            (feed, probe)
        });
        let mut version = 0;
        // Ends the version, and says how many updates it took.
        let mut end = |feed: &mut Feed| {
            version += 1;
            feed.advance(version);
            worker.step_while(|| probe.less_than(&version));
            worker.log_register().expect("a timer is on").flush();
            entered.take()
        };

        let half = Score::new(0.5).unwrap();
        for video in (0..VIDEOS).map(VideoId) {
            feed.weak.insert((video, [class_of(video)].into()));
            for modality in Modality::ALL {
                let (video, candidate) = candidate(video, modality, "a");
                feed.scored.insert((video, candidate));
            }
        }
        for video in (0..PREDICTED).map(VideoId) {
            feed.predictions.insert(prediction(video, 1));
        }
        for class in (0..CLASSES as u32).map(ClassId) {
            feed.thresholds.insert(((Modality::Audio, class), half));
            feed.thresholds.insert(((Modality::Visual, class), half));
        }
        feed.denoising
            .insert((Modality::Visual, DenoisingRule::default()));
        let all = end(&mut feed);
        assert!(all > 10 * VIDEOS as i64, "the first version is all: {all}");

        let video = VideoId(3);
        let user_label = UserLabelTrack {
            class: class_of(video),
            known: Bits::from_iter([true]),
            label: Bits::from_iter([true]),
        };
        let own = UserLabelRecord {
            classes: vec![user_label],
        };
        feed.user_labels.insert((video, (Modality::Audio, Arc::new(own))));
        let cost = end(&mut feed);
        assert!((1..=OF_A_VIDEO).contains(&cost), "a user_label: {cost}");

        feed.predictions.remove(prediction(video, 1));
        feed.predictions.insert(prediction(video, 2));
        let cost = end(&mut feed);
        assert!((1..=OF_A_VIDEO).contains(&cost), "a video's predictions: {cost}");

        feed.weak.remove((video, [class_of(video)].into()));
        let cost = end(&mut feed);
        assert!((1..=OF_A_VIDEO).contains(&cost), "a weak label: {cost}");

        let (gone, new) = (
            candidate(VideoId(5), Modality::Audio, "a"),
            candidate(VideoId(5), Modality::Audio, "b"),
        );
        feed.scored.remove(gone);
        feed.scored.insert(new);
        let cost = end(&mut feed);
        assert!((1..=OF_A_VIDEO).contains(&cost), "a shard's features: {cost}");

        feed.denoising
            .remove((Modality::Visual, DenoisingRule::default()));
        feed.denoising
            .insert((Modality::Visual, DenoisingRule::pld(2, 10.0, 0.5).unwrap()));
        let cost = end(&mut feed);
        // The setting itself is there once for each of 64 slots.
        let bound = PREDICTED as i64 * OF_A_VIDEO / 2 + 128;
        assert!((PREDICTED as i64..=bound).contains(&cost), "K: {cost}");

        feed.thresholds.remove(((Modality::Audio, ClassId(1)), half));
        feed.thresholds
            .insert(((Modality::Audio, ClassId(1)), Score::new(0.3).unwrap()));
        let cost = end(&mut feed);
        let tagged = (VIDEOS / CLASSES) as i64;
        let bound = tagged * OF_A_VIDEO / 2 + 128;
        assert!(
            (tagged..=bound).contains(&cost),
            "a class's score_threshold: {cost}"
        );

        assert_eq!(end(&mut feed), 0, "no change");
    });
}
