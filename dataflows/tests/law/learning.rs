//! The law with a learner: its predictions for the labels of a version are inputs of the next version.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use vaplan_dataflows::records::VideoId;
use vaplan_dataflows::session::{GraphSession, SessionError, Updates};
use vaplan_dataflows::train::{Learner, Learnt, Predicted, RecordChanges};
use vaplan_dataflows::{LabelRecord, Prediction, Probability};
use vaplan_schemas::Modality;

use crate::inputs::GraphInputs;
use crate::oracle::{LabelRecords, VersionOutput, answers};
use crate::run::{held, rows, updates};
use crate::script::{Script, script};

/// A learner without a network: its predictions are a function of the epoch and the labels.
#[derive(Clone, Copy, Debug)]
struct TrainingPlan {
    /// Epochs.
    epochs: u64,
    /// Every how many epochs it predicts.
    every: u64,
}

/// Epochs of learners are later than those of scripts.
const LATER: u64 = 1000;

impl TrainingPlan {
    fn predict(self, step: u64, labels: &LabelRecords) -> Option<Vec<Predicted>> {
        let predicts = step.is_multiple_of(self.every);
        // Each time it leaves out other videos, so that their earlier predictions are removed.
        let of = |video: VideoId| !(video.0 + step).is_multiple_of(3);
        let own = labels.iter().filter(|((video, _), _)| of(*video));
        predicts.then(|| own.map(|(key, record)| predicted(step, *key, record)).collect())
    }

    fn more(self, step: u64) -> bool {
        step + 1 < self.epochs
    }
}

fn predicted(step: u64, (video, modality): (VideoId, Modality), record: &LabelRecord) -> Predicted {
    let segments = record.tracks[0].label.len();
    let cells = record.tracks.iter().flat_map(|track| {
        (0..segments).map(move |segment| {
            let nth = step + video.0 + u64::from(track.class.0) + segment as u64;
            let against = f32::from(u8::from(!track.label.get(segment)));
            Probability::new(match nth % 4 {
                0 => against,
                1 => 1.0 - against,
                _ => 0.25,
            })
        })
    });
    let classes = record.tracks.iter().map(|track| track.class).collect();
    let prediction = Prediction::new(LATER + step, segments as u32, classes, cells.collect());
    (video, (modality, Arc::new(prediction)))
}

/// The labels that a learner received, step by step.
type ReceivedLabels = Arc<Mutex<Vec<LabelRecords>>>;

struct Scripted {
    plan: TrainingPlan,
    labels: LabelRecords,
    received: ReceivedLabels,
}

impl Learner for Scripted {
    fn epoch(&mut self, step: u64, labels: RecordChanges) -> Result<Learnt, String> {
        let (gone, new): (Vec<_>, Vec<_>) = labels.into_iter().partition(|(_, diff)| *diff < 0);
        for ((key, record), _) in gone {
            assert_eq!(self.labels.remove(&key).as_ref(), Some(&*record), "{key:?} goes");
        }
        for ((key, record), _) in new {
            assert_eq!(self.labels.insert(key, (*record).clone()), None, "comes once");
        }
        let mut received = self.received.lock().unwrap();
        assert_eq!(received.len() as u64, step, "steps come one by one");
        received.push(self.labels.clone());
        Ok(Learnt {
            predictions: self.plan.predict(step, &self.labels),
            more: self.plan.more(step),
        })
    }
}

/// The plain loop.
fn expected(versions: &[GraphInputs], plan: TrainingPlan) -> Vec<VersionOutput> {
    let (mut before, mut given) = (LabelRecords::new(), BTreeMap::new());
    let mut all = Vec::new();
    for (step, inputs) in versions.iter().enumerate() {
        let mut inputs = inputs.clone();
        inputs.predictions.extend(given.clone());
        let answer = answers(&[inputs], &before).remove(0);
        before = answer.labels.clone();
        let step = step as u64;
        if let Some(predictions) = plan.predict(step, &before).filter(|_| step < plan.epochs) {
            let own = predictions.into_iter();
            given = own
                .map(|(video, (modality, own))| ((video, modality), own))
                .collect();
        }
        all.push(answer);
    }
    all
}

fn found(
    versions: &[GraphInputs],
    plan: TrainingPlan,
    workers: usize,
) -> (Vec<VersionOutput>, Vec<LabelRecords>) {
    let received = ReceivedLabels::default();
    let learner = Box::new(Scripted {
        plan,
        labels: LabelRecords::new(),
        received: received.clone(),
    });
    let start = GraphSession::start_learning(workers, rows(&versions[0]), Vec::new(), learner);
    let mut session = start.expect("the session starts");
    let mut all = vec![held(session.outcome())];
    for (nth, pair) in versions.windows(2).enumerate() {
        let applied = session.apply(updates(&pair[0], &pair[1], false));
        applied.expect("the session lives");
        all.push(held(session.outcome()));
        assert_eq!(session.learning(), plan.epochs > nth as u64 + 1);
    }
    session.finish().expect("the session lives");
    let received = received.lock().unwrap().clone();
    (all, received)
}

#[test]
fn with_a_learner_every_version_is_what_the_plain_loop_says_for_1_2_and_3_workers() {
    let config = ProptestConfig {
        cases: 128,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    };
    let plan = (1..7u64, 1..4u64).prop_map(|(epochs, every)| TrainingPlan { epochs, every });
    let flips = Mutex::new(0);
    let law = |(script, plan): (Script, TrainingPlan)| {
        let mut versions = script.versions();
        // Epochs at which nothing else changes.
        versions.extend(vec![versions[versions.len() - 1].clone(); 2]);
        let expected = expected(&versions, plan);
        for workers in 1..=3 {
            let (found, received) = found(&versions, plan, workers);
            for (version, (found, expected)) in found.iter().zip(&expected).enumerate() {
                prop_assert_eq!(found, expected, "version {}, {} workers", version, workers);
            }
            prop_assert_eq!(found.len(), expected.len());
            // If the session ends with the last version, the learner may have received its labels or not.
            let labels: Vec<&LabelRecords> = expected.iter().map(|answer| &answer.labels).collect();
            let least = (plan.epochs as usize).min(versions.len() - 1);
            prop_assert!(received.len() >= least, "{} of {}", received.len(), least);
            prop_assert!(
                received
                    .iter()
                    .zip(&labels)
                    .all(|(received, labels)| received == *labels)
            );
        }
        let denoised = |answer: &VersionOutput| {
            let tracks = answer.labels.values().flat_map(|record| &record.tracks);
            let by = tracks.filter_map(|track| track.denoised.as_ref());
            by.filter(|denoised| denoised.epoch >= LATER).count()
        };
        *flips.lock().unwrap() += expected.iter().map(denoised).sum::<usize>();
        Ok(())
    };
    if let Err(broken) = TestRunner::new(config).run(&(script(), plan), law) {
        panic!("{broken}");
    }
    let flips = *flips.lock().unwrap();
    println!("{flips} tracks were flipped by predictions that were learnt");
    assert!(flips > 100, "{flips}");
}

/// Fails, or panics, at an epoch.
struct Failing {
    at: u64,
    panics: bool,
}

impl Learner for Failing {
    fn epoch(&mut self, step: u64, _labels: RecordChanges) -> Result<Learnt, String> {
        if step == self.at {
            assert!(!self.panics, "of a bug");
            return Err(format!("the loss of epoch {step} is NaN"));
        }
        Ok(Learnt {
            predictions: None,
            more: true,
        })
    }
}

#[test]
fn a_learner_that_fails_or_panics_ends_the_session_with_what_it_said_and_no_hang() {
    for workers in [1, 2, 3] {
        for (at, panics, said) in [
            (0, false, "the loss of epoch 0 is NaN"),
            (2, false, "the loss of epoch 2 is NaN"),
            (1, true, "training panicked: of a bug"),
        ] {
            let inputs = rows(&GraphInputs::default());
            let learner = Box::new(Failing { at, panics });
            let start = GraphSession::start_learning(workers, inputs, Vec::new(), learner);
            let mut session = start.expect("the first version waits for no epoch");
            for _ in 0..at {
                session
                    .apply(Updates::default())
                    .expect("the epochs before are well");
            }
            let failed = session.apply(Updates::default()).unwrap_err();
            assert_eq!(failed, SessionError::Learner(said.to_owned()));
            let again = session.apply(Updates::default()).unwrap_err();
            assert_eq!(again, SessionError::Stopped);
        }
    }
}

/// Waits for leave to end an epoch.
struct WaitingLearner {
    begun: crossbeam::channel::Sender<u64>,
    leave: crossbeam::channel::Receiver<()>,
}

impl Learner for WaitingLearner {
    fn epoch(&mut self, step: u64, _labels: RecordChanges) -> Result<Learnt, String> {
        self.begun.send(step).expect("the test listens");
        self.leave.recv().expect("the test gives leave");
        Ok(Learnt {
            predictions: None,
            more: true,
        })
    }
}

#[test]
fn an_epoch_begins_with_its_version_and_the_next_version_waits_for_it() {
    for workers in [1, 2] {
        let ((begun, begins), (let_go, leave)) =
            (crossbeam::channel::unbounded(), crossbeam::channel::unbounded());
        let learner = Box::new(WaitingLearner { begun, leave });
        let start = GraphSession::start_learning(workers, rows(&GraphInputs::default()), Vec::new(), learner);
        let mut session = start.expect("the first version waits for no epoch");
        // Without any further call: the caller can be busy with version 0.
        assert_eq!(begins.recv(), Ok(0));
        let next = std::thread::spawn(move || {
            session.apply(Updates::default()).expect("the session lives");
            session
        });
        assert!(begins.try_recv().is_err(), "epoch 1 waits for epoch 0");
        let_go.send(()).unwrap();
        let session = next.join().unwrap();
        assert_eq!(begins.recv(), Ok(1));
        assert_eq!(session.version(), 1);
        let_go.send(()).unwrap();
        session.finish().unwrap();
    }
}
