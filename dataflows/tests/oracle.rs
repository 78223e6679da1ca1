//! Random scripts of changes through the graph, against a plain loop, at every version and with 1, 2 and 3 workers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use differential_dataflow::input::Input;
use proptest::collection::vec;
use proptest::prelude::*;
use vaplan_dataflows::admit::Fault;
use vaplan_dataflows::changes::Change;
use vaplan_dataflows::graph::{Inputs, labelling};
use vaplan_dataflows::records::{Bits, Candidate, Cosine, LabelRecord, Score, ScoreRecord, VideoId};
use vaplan_schemas::{ClassId, Modality};

const CLASSES: u32 = 4;
const VIDEOS: u64 = 5;

/// What a version holds, before any dataflow.
#[derive(Clone, Debug, Default, PartialEq)]
struct World {
    weak: BTreeMap<VideoId, Arc<[ClassId]>>,
    /// A list, since copies may add up.
    scored: Vec<(VideoId, Candidate)>,
    cutoffs: BTreeMap<(Modality, ClassId), Score>,
}

/// One change of the world.
#[derive(Clone, Debug)]
enum Step {
    Weak(VideoId, Option<Vec<u32>>),
    Add(VideoId, Candidate),
    /// The nth of those there, if so many are.
    Remove(usize),
    Cutoff(Modality, ClassId, Score),
}

type Labels = BTreeMap<(VideoId, Modality), LabelRecord>;

/// What a version must give.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answer {
    labels: Labels,
    audio_visual: BTreeMap<VideoId, LabelRecord>,
    faults: BTreeSet<(VideoId, Fault)>,
    changes: BTreeSet<Change>,
}

/// The plain loop that says what the answer is, cell by cell.
fn oracle(world: &World, before: &Labels) -> Answer {
    let mut answer = Answer::default();
    for (&video, weak) in &world.weak {
        let mut taken: BTreeMap<Modality, &Candidate> = BTreeMap::new();
        for modality in Modality::ALL {
            let mut found: Vec<&Candidate> = Vec::new();
            for (owner, candidate) in &world.scored {
                if *owner == video && candidate.modality == modality {
                    found.push(candidate);
                }
            }
            found.sort();
            found.dedup();
            if found.is_empty() {
                answer.faults.insert((video, Fault::Missing(modality)));
            } else if found.iter().any(|other| other.record != found[0].record) {
                let sources = found.iter().map(|candidate| candidate.source.clone()).collect();
                answer.faults.insert((video, Fault::Conflict(modality, sources)));
            } else if let Some(class) = weak
                .iter()
                .find(|class| !found[0].record.classes().contains(class))
            {
                answer.faults.insert((video, Fault::Unscored(modality, *class)));
            } else {
                taken.insert(modality, found[0]);
            }
        }
        let lengths: Vec<u32> = taken
            .values()
            .map(|candidate| candidate.record.segments())
            .collect();
        if let [audio, visual] = lengths[..]
            && audio != visual
        {
            answer.faults.insert((video, Fault::Lengths { audio, visual }));
            continue;
        }
        for (&modality, candidate) in &taken {
            let mut tracks = Vec::new();
            for (class, _, scores) in candidate.record.tracks() {
                if let Some(cutoff) = world
                    .cutoffs
                    .get(&(modality, class))
                    .filter(|_| weak.contains(&class))
                {
                    let bits: Bits = scores.iter().map(|score| score.get() > cutoff.get()).collect();
                    tracks.push((class, bits));
                }
            }
            if !tracks.is_empty() {
                answer.labels.insert((video, modality), LabelRecord { tracks });
            }
        }
        let of = |modality| answer.labels.get(&(video, modality));
        if let (Some(audio), Some(visual)) = (of(Modality::Audio), of(Modality::Visual)) {
            let mut tracks = Vec::new();
            for (class, bits) in &audio.tracks {
                if let Some(other) = visual.track(*class) {
                    tracks.push((
                        *class,
                        (0..bits.len()).map(|t| bits.get(t) && other.get(t)).collect(),
                    ));
                }
            }
            answer.audio_visual.insert(video, LabelRecord { tracks });
        }
    }
    let ones = |labels: &Labels| -> BTreeSet<(VideoId, Modality, ClassId, u32)> {
        let mut ones = BTreeSet::new();
        for ((video, modality), record) in labels {
            for (class, bits) in &record.tracks {
                let set = (0..bits.len()).filter(|&segment| bits.get(segment));
                ones.extend(set.map(|segment| (*video, *modality, *class, segment as u32)));
            }
        }
        ones
    };
    let (was, is) = (ones(before), ones(&answer.labels));
    for (to, cells) in [(true, is.difference(&was)), (false, was.difference(&is))] {
        answer
            .changes
            .extend(cells.map(|&(video, modality, class, segment)| Change {
                video,
                modality,
                class,
                segment,
                to,
            }));
    }
    answer
}

/// Worlds after each batch of steps.
fn worlds(script: &[Vec<Step>]) -> Vec<World> {
    let mut world = World::default();
    let mut worlds = Vec::new();
    for batch in script {
        for step in batch.iter().cloned() {
            match step {
                Step::Weak(video, Some(classes)) => {
                    world
                        .weak
                        .insert(video, classes.into_iter().map(ClassId).collect());
                }
                Step::Weak(video, None) => {
                    world.weak.remove(&video);
                }
                Step::Add(video, candidate) => world.scored.push((video, candidate)),
                Step::Remove(nth) if nth < world.scored.len() => {
                    world.scored.remove(nth);
                }
                Step::Remove(_) => {}
                Step::Cutoff(modality, class, score) => {
                    world.cutoffs.insert((modality, class), score);
                }
            }
        }
        worlds.push(world.clone());
    }
    worlds
}

/// The graph's answers to the same worlds; `previous` are the labels before the first.
fn dataflow(worlds: Vec<World>, previous: Labels, workers: usize) -> Vec<Answer> {
    type Update<D> = (D, u64, isize);
    #[derive(Default)]
    struct Log {
        labels: Vec<Update<((VideoId, Modality), LabelRecord)>>,
        audio_visual: Vec<Update<(VideoId, LabelRecord)>>,
        faults: Vec<Update<(VideoId, Fault)>>,
        changes: Vec<(u64, Change)>,
    }
    let log = Arc::new(Mutex::new(Log::default()));
    let versions = worlds.len();
    let (worlds, written) = (Arc::new(worlds), log.clone());
    timely::execute(timely::Config::process(workers), move |worker| {
        let log = written.clone();
        let (index, peers) = (worker.index(), worker.peers());
        let (mut weak, mut scored, mut cutoffs, mut before, probe) = worker.dataflow::<u64, _, _>(|scope| {
            let (weak_in, weak) = scope.new_collection();
            let (scored_in, scored) = scope.new_collection();
            let (cutoffs_in, cutoffs) = scope.new_collection();
            let (previous_in, previous) = scope.new_collection();
            let outputs = labelling(Inputs {
                weak,
                scored,
                cutoffs,
                previous,
            });
            use timely::dataflow::operators::{Inspect, Probe};
            let (to, write) = (log.clone(), |log: &Arc<Mutex<Log>>| log.clone());
            outputs.labels.inspect(move |((key, record), time, diff)| {
                to.lock()
                    .unwrap()
                    .labels
                    .push(((*key, (**record).clone()), *time, *diff));
            });
            let to = write(&log);
            outputs
                .audio_visual
                .inspect(move |((video, record), time, diff)| {
                    to.lock()
                        .unwrap()
                        .audio_visual
                        .push(((*video, (**record).clone()), *time, *diff));
                });
            let to = write(&log);
            outputs
                .faults
                .inspect(move |update| to.lock().unwrap().faults.push(update.clone()));
            let to = write(&log);
            let (probe, _) = outputs
                .changes
                .inspect_time(move |time, change| to.lock().unwrap().changes.push((*time, *change)))
                .probe();
            (weak_in, scored_in, cutoffs_in, previous_in, probe)
        });
        if index == 0 {
            for (key, record) in &previous {
                before.insert((*key, Arc::new(record.clone())));
            }
        }
        let mut last = World::default();
        for (version, world) in worlds.iter().enumerate() {
            // Every worker hands in its share of each change.
            let mine = |nth: usize| nth % peers == index;
            for (diff, from) in [(-1, &last), (1, world)] {
                for (nth, (video, classes)) in from.weak.iter().enumerate().filter(|(nth, _)| mine(*nth)) {
                    weak.update((*video, classes.clone()), diff);
                    let _ = nth;
                }
                for (_, entry) in from.scored.iter().enumerate().filter(|(nth, _)| mine(*nth)) {
                    scored.update(entry.clone(), diff);
                }
                for (_, (key, cutoff)) in from.cutoffs.iter().enumerate().filter(|(nth, _)| mine(*nth)) {
                    cutoffs.update((*key, *cutoff), diff);
                }
            }
            last = world.clone();
            let next = version as u64 + 1;
            weak.advance_to(next);
            scored.advance_to(next);
            cutoffs.advance_to(next);
            before.advance_to(next);
            weak.flush();
            scored.flush();
            cutoffs.flush();
            before.flush();
            worker.step_while(|| probe.less_than(&next));
        }
    })
    .unwrap();
    let log = log.lock().unwrap();
    (0..versions as u64)
        .map(|version| Answer {
            labels: at(&log.labels, version).into_iter().collect(),
            audio_visual: at(&log.audio_visual, version).into_iter().collect(),
            faults: at(&log.faults, version).into_iter().collect(),
            changes: {
                let of: Vec<Change> = log
                    .changes
                    .iter()
                    .filter(|(time, _)| *time == version)
                    .map(|(_, change)| *change)
                    .collect();
                let distinct: BTreeSet<Change> = of.iter().copied().collect();
                assert_eq!(of.len(), distinct.len(), "a change is said once");
                distinct
            },
        })
        .collect()
}

/// What a collection holds at a version; each record once.
fn at<D: Ord + Clone + std::fmt::Debug>(updates: &[(D, u64, isize)], version: u64) -> Vec<D> {
    let mut held: BTreeMap<D, isize> = BTreeMap::new();
    for (record, _, diff) in updates.iter().filter(|(_, time, _)| *time <= version) {
        *held.entry(record.clone()).or_default() += diff;
    }
    held.retain(|_, count| *count != 0);
    assert!(
        held.values().all(|&count| count == 1),
        "each record once: {held:?}"
    );
    held.into_keys().collect()
}

fn expected(worlds: &[World], previous: &Labels) -> Vec<Answer> {
    let mut before = previous.clone();
    let answer = |world| {
        let answer = oracle(world, &before);
        before = answer.labels.clone();
        answer
    };
    worlds.iter().map(answer).collect()
}

fn video() -> impl Strategy<Value = VideoId> {
    (0..VIDEOS).prop_map(VideoId)
}

fn modality() -> impl Strategy<Value = Modality> {
    prop_oneof![Just(Modality::Audio), Just(Modality::Visual)]
}

/// Few values, so that equal scores, equal copies and scores on the cutoff happen.
fn score() -> impl Strategy<Value = Score> {
    (-2i32..=2).prop_map(|value| Score::new(f64::from(value) / 4.0).unwrap())
}

fn classes() -> impl Strategy<Value = Vec<u32>> {
    proptest::sample::subsequence((0..CLASSES).collect::<Vec<_>>(), 0..=CLASSES as usize)
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let segments = prop_oneof![8 => 1u32..4, 1 => Just(70u32)];
    let classes = prop_oneof![4 => Just((0..CLASSES).collect::<Vec<_>>()), 1 => classes()];
    (modality(), segments, classes, 0..3u8, vec(score(), 1..5)).prop_map(
        |(modality, segments, classes, source, pattern)| {
            let score: Vec<Score> = pattern
                .into_iter()
                .cycle()
                .take(segments as usize * classes.len())
                .collect();
            let cosine = score
                .iter()
                .map(|score| Cosine::new(score.get() as f32))
                .collect();
            let classes = classes.into_iter().map(ClassId).collect();
            Candidate {
                modality,
                source: format!("shard-{source}").into(),
                record: Arc::new(ScoreRecord::new(segments, classes, cosine, score)),
            }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (video(), classes()).prop_map(|(video, classes)| Step::Weak(video, Some(classes))),
        1 => video().prop_map(|video| Step::Weak(video, None)),
        6 => (video(), candidate()).prop_map(|(video, candidate)| Step::Add(video, candidate)),
        2 => (0..20usize).prop_map(Step::Remove),
        4 => (modality(), 0..CLASSES, score()).prop_map(|(m, class, score)| Step::Cutoff(m, ClassId(class), score)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_version_is_what_the_plain_loop_says_for_1_2_and_3_workers(
        script in vec(vec(step(), 1..12), 1..5),
    ) {
        let worlds = worlds(&script);
        let expected = expected(&worlds, &Labels::new());
        for workers in 1..=3 {
            let answers = dataflow(worlds.clone(), Labels::new(), workers);
            prop_assert_eq!(&answers, &expected, "{} workers", workers);
        }
    }

    #[test]
    fn changes_of_a_restart_are_against_the_labels_before_it(
        script in vec(vec(step(), 1..12), 2..5),
        cut in 1..4usize,
        workers in 1..=3usize,
    ) {
        let worlds = worlds(&script);
        let cut = cut.min(worlds.len() - 1);
        let expected = expected(&worlds, &Labels::new());
        let answers = dataflow(worlds[cut..].to_vec(), expected[cut - 1].labels.clone(), workers);
        prop_assert_eq!(&answers[..], &expected[cut..]);
    }
}

#[test]
fn audio_visual_is_the_meet_of_the_two() {
    let record = |pattern: [f64; 3]| {
        let score: Vec<Score> = pattern.iter().map(|&value| Score::new(value).unwrap()).collect();
        let cosine = score.iter().map(|_| Cosine::new(0.0)).collect();
        Arc::new(ScoreRecord::new(3, vec![ClassId(1)], cosine, score))
    };
    let of = |modality, pattern| {
        (
            VideoId(9),
            Candidate {
                modality,
                source: "a.npy".into(),
                record: record(pattern),
            },
        )
    };
    let half = Score::new(0.5).unwrap();
    let world = World {
        weak: [(VideoId(9), [ClassId(1)].into())].into(),
        // 0.5 is on the cutoff, so it is no label.
        scored: vec![
            of(Modality::Audio, [0.9, 0.5, 0.9]),
            of(Modality::Visual, [0.9, 0.9, 0.1]),
        ],
        cutoffs: [
            ((Modality::Audio, ClassId(1)), half),
            ((Modality::Visual, ClassId(1)), half),
        ]
        .into(),
    };
    let answer = dataflow(vec![world], Labels::new(), 1).remove(0);
    let shown = |record: &LabelRecord| format!("{:?}", record.tracks[0].1);
    assert_eq!(shown(&answer.labels[&(VideoId(9), Modality::Audio)]), "101");
    assert_eq!(shown(&answer.labels[&(VideoId(9), Modality::Visual)]), "110");
    assert_eq!(shown(&answer.audio_visual[&VideoId(9)]), "100");
    assert_eq!(answer.changes.len(), 4);
}
