//! `vaplan denoise`: which labels flip, what is told of it, and what is refused.

use std::path::Path;
use std::process::Output;

use vaplan::ingest::npy;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{LabelRule, LabelTrack, PredictionTrack, SettingRow, Severity, Split, VideoRow};
use vaplan_schemas::store::{CommitInfo, Snapshot, Store};
use vaplan_schemas::tables::{Epochs, Labels, Predictions, Rejects, Settings, VideoPredictions, Videos};

use crate::sample::{CLASSES, Sample, commit_epoch, name};
use crate::support::{assert_status, run, stderr, stdout};

/// The segment that every epoch contradicts, in every third video.
const WRONG: usize = 6;

/// A labelled store of 24 videos, 18 of them of split train and 6 of test.
pub(crate) struct LabelledSample {
    sample: Sample,
    pub(crate) store: String,
}

pub(crate) fn labelled() -> LabelledSample {
    let sample = Sample::new(24);
    assert_status(&sample.label("store", &[]), 0);
    let store = sample.path("store").display().to_string();
    LabelledSample { sample, store }
}

impl LabelledSample {
    pub(crate) fn latest(&self) -> Snapshot {
        Store::open(Path::new(&self.store))
            .unwrap()
            .at_version(None)
            .unwrap()
    }

    /// As a training leaves it: an epoch whose predictions agree with the visual labels, but for [`WRONG`].
    pub(crate) fn epoch(&self, epoch: u64, splits: &[Split], score: Option<f64>) {
        let snapshot = self.latest();
        let labels = snapshot.read::<Labels>().unwrap();
        let mut videos = snapshot.read::<Videos>().unwrap();
        videos.retain(|video| splits.contains(&video.split));
        videos.sort_by(|a, b| a.video.cmp(&b.video));
        let tracks: Vec<_> = videos
            .iter()
            .flat_map(|video| predicted(epoch, video, &labels))
            .collect();
        commit_epoch(&snapshot, ("one", epoch), score, &tracks);
    }

    pub(crate) fn denoise(&self, flags: &[&str]) -> Output {
        run(["denoise", "--store", &self.store].iter().chain(flags))
    }

    pub(crate) fn relabel(&self, flags: &[&str]) -> Output {
        run(["relabel", "--store", &self.store].iter().chain(flags))
    }

    /// Labels of rule `pld`: video, modality, class, segment, label.
    pub(crate) fn flipped(&self) -> Vec<(String, Modality, String, usize, bool)> {
        let labels = self.latest().read::<Labels>().unwrap();
        let of = |track: &LabelTrack| {
            let key = (track.video.to_string(), track.modality, track.class.to_string());
            let cells = track.iter().enumerate();
            let own = cells.filter(|(_, cell)| cell.rule == LabelRule::Pld);
            own.map(|(segment, cell)| (key.0.clone(), key.1, key.2.clone(), segment, cell.label))
                .collect::<Vec<_>>()
        };
        labels.iter().flat_map(of).collect()
    }
}

/// Segment probabilities of a video, audio and visual: 0.03 off its visual labels, later epochs a bit more.
pub(crate) fn predicted(epoch: u64, video: &VideoRow, labels: &[LabelTrack]) -> Vec<PredictionTrack> {
    let off = 0.03 + 0.001 * epoch as f32;
    let mut probability = vec![off; 10 * CLASSES.len()];
    for track in labels {
        if track.video != video.video || track.modality != Modality::Visual {
            continue;
        }
        let class = CLASSES.iter().position(|class| **class == *track.class).unwrap();
        for (segment, cell) in track.iter().enumerate() {
            let wrong = segment == WRONG && is_wrong(&video.video);
            // What PLG says, whatever became of it.
            let likely = (cell.score > cell.threshold) != wrong;
            probability[segment * CLASSES.len() + class] = if likely { 1.0 - off } else { off };
        }
    }
    let track = |modality| PredictionTrack {
        epoch,
        video: video.video.clone(),
        modality,
        classes: CLASSES.len() as u32,
        probability: probability.clone(),
    };
    Modality::ALL.map(track).to_vec()
}

fn is_wrong(video: &str) -> bool {
    (0..24).step_by(3).any(|nth| name(nth) == video)
}

#[test]
fn labels_that_the_epoch_contradicts_flip_and_say_why() {
    let case = labelled();
    case.epoch(2, &Split::ALL, Some(50.0));
    let before = case.latest();
    let plg = before.read::<Labels>().unwrap();
    let output = case.denoise(&[]);
    assert_status(&output, 0);
    let after = case.latest();
    assert_eq!(after.check().unwrap(), []);

    let flipped = case.flipped();
    // Videos 0, 3, ... of 24 have two classes each.
    assert_eq!(flipped.len(), 16, "{flipped:?}");
    for (video, modality, _, segment, _) in &flipped {
        assert_eq!(
            (*modality, *segment, is_wrong(video)),
            (Modality::Visual, WRONG, true)
        );
    }
    let loss = -(0.032_f32 as f64).ln();
    let base = -(1.0 - 0.032_f32 as f64).ln();
    for track in after.read::<Labels>().unwrap() {
        let was = plg.iter().find(|was| {
            (&was.video, was.modality, &was.class) == (&track.video, track.modality, &track.class)
        });
        for (cell, was) in track.iter().zip(was.unwrap().iter()) {
            if cell.rule != LabelRule::Pld {
                assert_eq!(cell, was, "an epoch leaves what it does not flip");
                continue;
            }
            let why = cell.why.unwrap();
            assert_eq!((cell.label, cell.score, why.epoch), (!was.label, was.score, 2));
            let limit = why.limit.unwrap();
            assert_eq!((limit.alpha, limit.k), (10.0, 5));
            assert!(
                (why.loss.unwrap() - loss).abs() < 1e-5 && (limit.base - base).abs() < 1e-5,
                "{cell:?}"
            );
        }
    }
    let changes = crate::support::label_changes(&after);
    let own: Vec<_> = changes
        .iter()
        .filter(|row| row.version == after.version().version)
        .collect();
    assert_eq!(own.len(), 16);
    for row in own {
        let why = row.why.as_ref().unwrap();
        assert_eq!((row.rule, why.epoch, row.from), (LabelRule::Pld, 2, !row.to));
        assert!(why.loss.unwrap() > 10.0 * why.limit.unwrap().base);
    }
    assert_eq!(after.read::<Epochs>().unwrap()[0].flips, Some(16));

    let (to_set, to_unset) = (
        flipped.iter().filter(|row| row.4).count(),
        flipped.iter().filter(|row| !row.4).count(),
    );
    let said = stdout(&output);
    assert!(
        said.starts_with("epoch 2, visual: pld alpha=10 guard=0.5 k=5\n"),
        "{said}"
    );
    let all = format!("\nall      {:<5} {to_set:>9} {to_unset:>9}\n", 16);
    assert!(said.contains(&all), "{said}");
    for class in CLASSES {
        let of = |set: bool| {
            let own = flipped.iter().filter(|row| row.2 == class && row.4 == set);
            own.count().to_string()
        };
        let row = said
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = row.into_iter().find(|words| words.get(1) == Some(&class));
        let wanted = ["visual", class, &of(true), &of(false)];
        match wanted[2..] == ["0", "0"] {
            true => assert_eq!(row, None),
            false => assert_eq!(row.as_deref(), Some(&wanted[..]), "{said}"),
        }
    }
    // Videos that PLD leaves are not looked at.
    let end = format!(
        "version 3: {to_set} labels set, {to_unset} unset; 8 videos looked at, and tracks of 0 others\n"
    );
    assert!(said.ends_with(&end), "{said}");
    for when in ["before", "after"] {
        let version = if when == "before" { "2" } else { "3" };
        let eval = run([
            "eval",
            "--store",
            &case.store,
            "--split",
            "test",
            "--version",
            version,
        ]);
        let told = said
            .lines()
            .find(|line| line.starts_with(&format!("test     {when}")))
            .unwrap();
        let told: Vec<&str> = told.split_whitespace().skip(2).collect();
        let line = stdout(&eval)
            .lines()
            .find(|line| line.contains("segment"))
            .unwrap();
        let scores: Vec<&str> = line
            .split_whitespace()
            .filter(|word| word.contains('.'))
            .collect();
        assert_eq!(told, scores[..4], "as `eval` says\n{}", stdout(&eval));
    }
}

#[test]
fn a_dry_run_says_what_the_run_then_does_and_once_more_does_nothing() {
    let case = labelled();
    case.epoch(2, &Split::ALL, None);
    let dry = case.denoise(&["--dry-run", "--modality", "both", "--k", "3"]);
    assert_status(&dry, 0);
    assert_eq!(case.latest().version().version, 2);
    let done = case.denoise(&["--modality", "both", "--k", "3"]);
    let (dry, done) = (stdout(&dry), stdout(&done));
    let is_change = |line: &&str| line.starts_with(['+', '-']);
    let rest: Vec<&str> = dry.lines().filter(|line| !is_change(line)).collect();
    assert_eq!(rest, done.lines().take(rest.len()).collect::<Vec<_>>());
    let changes = crate::support::label_changes(&case.latest());
    let own = changes.iter().filter(|row| row.version == 3).count();
    assert!(own > 16, "{own}");
    assert_eq!(dry.lines().filter(is_change).count(), own);

    let again = case.denoise(&[]);
    assert_status(&again, 0);
    let again = stdout(&again);
    assert!(
        again.ends_with("nothing to do: the store holds what the change asks for\n"),
        "{again}"
    );
    let rest: Vec<&str> = rest
        .into_iter()
        .filter(|line| !line.contains(" before "))
        .collect();
    let told: Vec<&str> = again.lines().filter(|line| !line.contains(" before ")).collect();
    assert_eq!(rest, told[..rest.len()], "flips that are there are told, too");
}

#[test]
fn what_a_person_set_stays_and_is_no_flip() {
    let case = labelled();
    case.epoch(2, &Split::ALL, None);
    let plg = case.latest().read::<Labels>().unwrap();
    let track = plg
        .iter()
        .find(|track| *track.video == name(0) && track.modality == Modality::Visual)
        .unwrap();
    let mark = case.sample.path("mark.csv");
    let label = u8::from(track.labels[WRONG]);
    let text = format!(
        "video,modality,class,segment,label\n{},visual,{},{WRONG},{label}\n",
        name(0),
        track.class
    );
    std::fs::write(&mark, text).unwrap();
    assert_status(&case.relabel(&["--user", mark.to_str().unwrap()]), 0);
    assert_status(&case.denoise(&[]), 0);
    assert_eq!(case.flipped().len(), 15);
    assert_eq!(case.latest().read::<Epochs>().unwrap()[0].flips, Some(15));
    // Withdrawn, it flips.
    let text = std::fs::read_to_string(&mark)
        .unwrap()
        .replace(&format!(",{label}\n"), ",withdraw\n");
    std::fs::write(&mark, text).unwrap();
    assert_status(&case.relabel(&["--user", mark.to_str().unwrap()]), 0);
    assert_eq!(case.flipped().len(), 16);
}

#[test]
fn the_best_epoch_with_predictions_of_train_videos_counts_and_no_other() {
    let case = labelled();
    case.epoch(1, &Split::ALL, Some(51.0));
    case.epoch(2, &Split::ALL, Some(49.0));
    case.epoch(3, &[Split::Test], Some(60.0));
    assert_status(&case.denoise(&[]), 0);
    let epochs = |case: &LabelledSample| {
        let labels = case.latest().read::<Labels>().unwrap();
        let flips = labels.iter().flat_map(|track| &track.flips);
        let mut epochs: Vec<u64> = flips.map(|(_, why)| why.epoch).collect();
        epochs.sort_unstable();
        epochs.dedup();
        epochs
    };
    assert_eq!(epochs(&case), [1]);
    let there = case.flipped();
    assert_status(&case.denoise(&["--epoch", "2"]), 0);
    assert_eq!((epochs(&case), case.flipped()), (vec![2], there.clone()));
    // Of epoch 3 only: flips of train videos by others go.
    assert_status(&case.denoise(&["--epoch", "3"]), 0);
    assert_eq!(epochs(&case), [3]);
    let test: Vec<_> = there
        .into_iter()
        .filter(|row| (18..24).any(|nth| name(nth) == row.0))
        .collect();
    assert_eq!(case.flipped(), test);
    let rows = case.latest().read::<Epochs>().unwrap();
    let flips: Vec<Option<u64>> = rows.iter().map(|row| row.flips).collect();
    assert_eq!(flips, [Some(16), Some(16), Some(4)]);
}

#[test]
fn other_settings_touch_the_videos_that_they_flip() {
    let case = labelled();
    case.epoch(2, &Split::ALL, None);
    assert_status(&case.denoise(&[]), 0);
    let output = case.relabel(&["--alpha", "1000"]);
    let said = stdout(&output);
    assert!(
        said.contains("; 8 videos looked at, and tracks of 0 others"),
        "{said}"
    );
    assert_eq!(case.flipped(), []);
    let output = case.relabel(&["--guard", "0.99"]);
    let said = stdout(&output);
    assert!(
        said.contains(" 0 labels set, 0 unset; 0 videos looked at"),
        "{said}"
    );
    let settings = case.latest().read::<Settings>().unwrap();
    let guard = settings
        .iter()
        .find(|row| &*row.name == "denoise.visual.guard")
        .unwrap();
    assert_eq!(&*guard.value, "0.99");
}

#[test]
fn a_prediction_that_is_none_flips_nothing_and_is_listed() {
    let case = labelled();
    let snapshot = case.latest();
    let labels = snapshot.read::<Labels>().unwrap();
    let video = snapshot
        .read::<Videos>()
        .unwrap()
        .into_iter()
        .find(|row| *row.video == name(3))
        .unwrap();
    let mut tracks = predicted(4, &video, &labels);
    for value in tracks[1]
        .probability
        .iter_mut()
        .skip(WRONG * CLASSES.len())
        .take(CLASSES.len())
    {
        *value = f32::NAN;
    }
    let lock = snapshot.store().lock(&mut |_| ()).unwrap();
    let info = CommitInfo {
        epoch: Some(4),
        ..CommitInfo::default()
    };
    let mut commit = snapshot.store().begin(&lock, info).unwrap();
    commit.append::<Predictions>(&tracks).unwrap();
    commit.finish().unwrap();
    drop(lock);
    let output = case.denoise(&[]);
    assert_status(&output, 1);
    assert!(
        stderr(&output).contains("is NaN, expected 0 to 1: it flips nothing"),
        "{}",
        stderr(&output)
    );
    assert_eq!(case.flipped(), []);
    let rejects = case.latest().read::<Rejects>().unwrap();
    let own = rejects
        .iter()
        .filter(|row| row.severity == Severity::Reject && row.file == "predictions");
    assert_eq!(own.count(), 2, "a class each");
    // Of another epoch, they are gone.
    case.epoch(5, &Split::ALL, None);
    assert_status(&case.denoise(&["--epoch", "5"]), 0);
    let rejects = case.latest().read::<Rejects>().unwrap();
    assert!(rejects.iter().all(|row| row.file != "predictions"), "{rejects:?}");
}

#[test]
fn an_epoch_that_is_not_there_is_refused_with_those_that_are() {
    let case = labelled();
    let refused = |flags: &[&str]| {
        let output = case.denoise(flags);
        assert_status(&output, 2);
        stderr(&output).to_owned()
    };
    assert_eq!(
        refused(&[]),
        "vaplan: store version 1 has no predictions of train videos by any epoch (it has none of any epoch): name one with \
         --epoch, or train\n"
    );
    case.epoch(1, &[Split::Test], None);
    case.epoch(2, &[Split::Test], None);
    assert_eq!(
        refused(&[]),
        "vaplan: store version 3 has no predictions of train videos by any epoch (it has epochs 1 to 2 of test): name one \
         with --epoch, or train\n"
    );
    case.epoch(3, &Split::ALL, None);
    assert_eq!(
        refused(&["--epoch", "9"]),
        "vaplan: store version 4 has no predictions of epoch 9 (it has epochs 1 to 2 of test; 3 of train, test)\n"
    );
    let predictions = case.sample.path("predictions/audio");
    std::fs::create_dir_all(&predictions).unwrap();
    npy::write_f32(
        &predictions.join(format!("{}.npy", name(1))),
        &[10, 3],
        &[0.5; 30],
    )
    .unwrap();
    let folder = predictions.parent().unwrap().to_str().unwrap();
    let output = case.relabel(&["--predictions", folder, "--epoch", "3"]);
    assert_status(&output, 2);
    assert_eq!(
        stderr(&output),
        "vaplan: epoch 3 is one that this store trained, expected another: `vaplan denoise --epoch 3` goes by it\n"
    );
    assert!(refused(&["--guard", "2"]).contains("guard is 2, expected a number from 0 to 1"));
    assert_eq!(case.latest().version().version, 4);
}

#[test]
fn columns_of_an_epoch_are_the_classes_of_its_time() {
    let case = labelled();
    case.epoch(2, &Split::ALL, None);
    assert_status(&case.denoise(&[]), 0);
    let there = case.flipped();
    // Another order: every column means another class now, but in the predictions.
    let classes = case.sample.path("classes.txt");
    std::fs::write(
        &classes,
        format!("{}\n{}\n{}\n", CLASSES[2], CLASSES[0], CLASSES[1]),
    )
    .unwrap();
    assert_status(&case.relabel(&["--classes", classes.to_str().unwrap()]), 0);
    assert_eq!(case.flipped(), there);
    // Of a training on version 1, by which nothing was denoised before.
    case.epoch(7, &Split::ALL, None);
    assert_status(&case.denoise(&["--epoch", "7"]), 0);
    assert_eq!(case.flipped(), there);
}

#[test]
fn a_video_that_goes_takes_its_predictions_along() {
    let case = labelled();
    case.epoch(2, &Split::ALL, None);
    assert_status(&case.denoise(&[]), 0);
    let gone = case.sample.path("gone.csv");
    std::fs::write(&gone, format!("filename\n{}\n", name(3))).unwrap();
    assert_status(&case.relabel(&["--weak-remove", gone.to_str().unwrap()]), 0);
    let snapshot = case.latest();
    let rows = snapshot.read::<VideoPredictions>().unwrap();
    assert!(rows.len() == 23 && rows.iter().all(|row| *row.video != name(3)));
    let rows = snapshot.read::<Predictions>().unwrap();
    assert!(rows.len() == 46 && rows.iter().all(|row| *row.video != name(3)));
}

#[test]
fn a_store_that_names_the_first_and_last_epoch_that_count_is_read_as_that_range() {
    let case = labelled();
    case.epoch(1, &Split::ALL, None);
    case.epoch(2, &[Split::Test], None);
    assert_status(&case.denoise(&["--epoch", "2"]), 0);
    let snapshot = case.latest();
    let mut rows = snapshot.read::<Settings>().unwrap();
    rows.push(SettingRow {
        name: "predictions.since".into(),
        position: 0,
        value: "1".into(),
    });
    let lock = snapshot.store().lock(&mut |_| ()).unwrap();
    let mut commit = snapshot.store().begin(&lock, CommitInfo::default()).unwrap();
    commit.replace_all::<Settings>(&rows).unwrap();
    commit.finish().unwrap();
    drop(lock);
    // Of another alpha, all that counts is looked at: train videos by epoch 1.
    assert_status(&case.relabel(&["--alpha", "9"]), 0);
    assert_eq!(case.flipped().len(), 16);
    let rows = case.latest().read::<Settings>().unwrap();
    let epochs = rows
        .iter()
        .filter(|row| row.name.starts_with("predictions.epoch"));
    let epochs: Vec<&str> = epochs.map(|row| &*row.value).collect();
    assert_eq!(epochs, ["1", "2"]);
    assert!(rows.iter().all(|row| &*row.name != "predictions.since"));
}

#[test]
#[cfg(feature = "train")]
fn an_epoch_that_denoises_gets_no_predictions_of_more_videos() {
    use vaplan::parser::record::{self, Recorder};
    let case = labelled();
    case.epoch(1, &[Split::Train], None);
    let recorder = Recorder {
        store: Store::open(Path::new(&case.store)).unwrap(),
        command: "test".to_owned(),
        run: "one".to_owned(),
    };
    let there = record::read(&case.latest(), 1).unwrap();
    let mut more = there[..1].to_vec();
    more[0].video = name(99).into();
    // Before it has a say, it gets them.
    assert_eq!(recorder.add(1, &more, &mut |_| ()).unwrap(), 1);
    assert_status(&case.denoise(&["--epoch", "1"]), 0);
    assert_eq!(recorder.add(1, &there, &mut |_| ()).unwrap(), 1);
    more[0].video = name(98).into();
    let refused = recorder.add(1, &more, &mut |_| ()).unwrap_err().to_string();
    assert!(
        refused.contains("are denoised by epoch 1, so predictions of 1 more videos cannot be added"),
        "{refused}"
    );
}

#[test]
fn eval_of_an_epoch_says_which_splits_it_predicted_and_scores_epochs_from_outside() {
    let case = labelled();
    case.epoch(1, &[Split::Train], Some(50.0));
    let eval = |more: &[&str]| {
        let first = ["eval", "--store", &case.store, "--split", "test", "--epoch"];
        run(first.iter().chain(more))
    };
    let refused = eval(&["1"]);
    assert_status(&refused, 2);
    assert!(
        stderr(&refused).contains("predicted no video of split `test`")
            && stderr(&refused).contains("18 of split `train`"),
        "{}",
        stderr(&refused)
    );
    // An epoch from outside: probabilities of segments, of one modality alone.
    let folder = case.sample.path("predictions/visual");
    std::fs::create_dir_all(&folder).unwrap();
    for nth in 18..24 {
        let values = vec![0.9; 10 * CLASSES.len()];
        npy::write_f32(
            &folder.join(format!("{}.npy", name(nth))),
            &[10, CLASSES.len()],
            &values,
        )
        .unwrap();
    }
    let folder = case.sample.path("predictions").display().to_string();
    assert_status(
        &case.relabel(&["--predictions", &folder, "--epoch", "7", "--denoise", "visual"]),
        0,
    );
    let refused = eval(&["7"]);
    assert_status(&refused, 2);
    assert!(
        stderr(&refused).contains("--protocol segment"),
        "{}",
        stderr(&refused)
    );
    let scored = eval(&["7", "--protocol", "segment"]);
    assert!(scored.status.code() != Some(2), "{}", stderr(&scored));
    assert!(stdout(&scored).contains("segment"), "{}", stdout(&scored));
}
