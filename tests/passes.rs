//! `vaplan label` and `vaplan relabel` in many passes against one pass.
//!
//! `VAPLAN_PASS_VIDEOS` gives the number of videos of a pass, in builds with debug assertions. A store that is made with
//! it has small buckets, because a pass has whole buckets.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use vaplan::ingest::npy;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{LabelRule, UserLabelRow};
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Candidates, LabelChanges, Rejects, Table, UserLabels};

use crate::sample::{CLASSES, Sample, Tables, WIDTH, name};
use crate::support::{assert_status, label_changes, sorted, stderr, vaplan};

const VIDEOS: usize = 120;
/// Many passes, few passes, and one pass.
const SIZES: [Option<&str>; 3] = [Some("4"), Some("50"), None];

/// Runs the program with passes of so many videos.
fn run_with(size: Option<&str>, fault: Option<&str>, arguments: &[String]) -> Output {
    let mut command = vaplan();
    // Each relabelling patches the tables, so that passes read patched buckets, too.
    command.args(arguments).env("VAPLAN_PLAIN_BYTES", "0");
    command.envs(size.map(|size| ("VAPLAN_PASS_VIDEOS", size)));
    command.envs(fault.map(|fault| ("VAPLAN_FAULT", fault)));
    command.output().unwrap()
}

fn label(sample: &Sample, store: &str, size: Option<&str>, more: &[&str]) -> Output {
    let mut arguments = sample.arguments(store);
    arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
    run_with(size, None, &arguments)
}

fn relabel(sample: &Sample, store: &str, size: Option<&str>, more: &[String]) -> Output {
    let store = sample.path(store).display().to_string();
    let mut arguments = vec!["relabel".to_owned(), "--store".to_owned(), store];
    arguments.extend(more.iter().cloned());
    run_with(size, None, &arguments)
}

/// A data set with a missing file, a file with a NaN, and a video whose modalities have different lengths.
fn sample() -> Sample {
    let sample = Sample::new(VIDEOS);
    fs::remove_file(sample.features("audio", 5)).unwrap();
    let mut values = vec![0.5; 10 * WIDTH];
    values[12] = f32::NAN;
    sample.write_features("visual", 7, 10, &values);
    sample.write_features("visual", 9, 4, &[0.5; 4 * WIDTH]);
    // A second copy of the features of a video, under its other name. It differs from the first copy.
    let copy = sample.path("visual").join(format!("{}.npy", name(11)));
    npy::write_f32(&copy, &[10, WIDTH], &vec![0.25; 10 * WIDTH]).unwrap();
    sample
}

/// The rows of all tables that labelling writes, in order of their keys.
fn tables(store: &Path) -> (Tables, Vec<UserLabelRow>, usize) {
    let snapshot = Store::open(store).unwrap().latest().unwrap().unwrap();
    assert_eq!(snapshot.check().unwrap(), []);
    let tables = Tables {
        version: snapshot.version().version,
        videos: sorted::<vaplan_schemas::tables::Videos>(&snapshot),
        scores: sorted::<vaplan_schemas::tables::Scores>(&snapshot),
        labels: sorted::<vaplan_schemas::tables::Labels>(&snapshot),
        changes: label_changes(&snapshot),
        rejects: sorted::<Rejects>(&snapshot),
    };
    let candidates = sorted::<Candidates>(&snapshot).len();
    (tables, sorted::<UserLabels>(&snapshot), candidates)
}

/// The number of files of a table that the latest version has.
fn files<T: Table>(store: &Path) -> usize {
    let snapshot = Store::open(store).unwrap().latest().unwrap().unwrap();
    snapshot.files(T::NAME).unwrap().len()
}

/// Asserts that the stores of all sizes have the same rows, and that small passes were many.
#[track_caller]
fn assert_equal_tables(sample: &Sample, what: &str) -> Tables {
    let store = |size: Option<&str>| sample.path(size.unwrap_or("one"));
    let wanted = tables(&store(None));
    for size in SIZES {
        let found = tables(&store(size));
        assert!(found == wanted, "{what}: passes of {size:?} videos differ");
    }
    wanted.0
}

/// Labels a store per size of the passes.
fn label_all(sample: &Sample, more: &[&str]) {
    for (nth, size) in SIZES.into_iter().enumerate() {
        let workers = ["1", "2", "3"][nth];
        let more: Vec<&str> = more.iter().copied().chain(["--workers", workers]).collect();
        assert_committed(&label(sample, size.unwrap_or("one"), size, &more));
    }
}

fn relabel_all(sample: &Sample, more: &[&str]) {
    let more: Vec<String> = more.iter().map(|argument| (*argument).to_owned()).collect();
    for size in SIZES {
        assert_committed(&relabel(sample, size.unwrap_or("one"), size, &more));
    }
}

/// Asserts that a run ended well, with or without rejected rows.
#[track_caller]
fn assert_committed(output: &Output) {
    let code = output.status.code();
    assert!(code == Some(0) || code == Some(1), "{code:?}: {}", stderr(output));
}

#[test]
fn tables_are_the_same_for_every_size_of_the_passes() {
    let sample = sample();
    label_all(&sample, &[]);
    let first = assert_equal_tables(&sample, "the first version");
    assert!(first.changes.len() > VIDEOS && first.rejects.len() >= 4);
    let passes =
        [Some("4"), Some("50"), None].map(|size| files::<LabelChanges>(&sample.path(size.unwrap_or("one"))));
    assert!(
        passes[0] > 10 && passes[1] > 1 && passes[2] == 1,
        "{passes:?} files"
    );
    label_all(&sample, &["--audio-threshold", "1.1"]);
    assert_equal_tables(&sample, "another threshold");
    // Some videos go. Their labels become unset, although no pass has these videos in its plan.
    label_all(&sample, &["--split", "train"]);
    let train = assert_equal_tables(&sample, "fewer splits");
    let removed = |row: &&vaplan_schemas::rows::LabelChangeRow| {
        row.version == 3 && row.from && train.videos.iter().all(|video| video.video != row.video)
    };
    assert!(train.changes.iter().filter(removed).count() > 20);
    // All of them come back, and the other videos go.
    label_all(&sample, &["--split", "test"]);
    assert_equal_tables(&sample, "the other split");
}

#[test]
fn user_labels_predictions_and_patches_reach_their_pass() {
    let sample = sample();
    label_all(&sample, &[]);
    let mut user = String::from("video,modality,class,label,onset,offset\n");
    for nth in (0..VIDEOS).step_by(3) {
        user.push_str(&format!("{},visual,{},1,0,4\n", name(nth), CLASSES[nth % 3]));
    }
    fs::write(sample.path("user.csv"), user).unwrap();
    let user = sample.path("user.csv").display().to_string();
    let folder = sample.path("predictions/visual");
    fs::create_dir_all(&folder).unwrap();
    for nth in 0..VIDEOS {
        // Segment 0 of every class is near 1 and the others near 0, so that some labels flip.
        let values: Vec<f32> = (0..10 * CLASSES.len())
            .map(|at| if at < CLASSES.len() { 0.99 } else { 0.01 })
            .collect();
        npy::write_f32(
            &folder.join(format!("{}.npy", name(nth))),
            &[10, CLASSES.len()],
            &values,
        )
        .unwrap();
    }
    let predictions = sample.path("predictions").display().to_string();
    relabel_all(&sample, &["--user", &user]);
    relabel_all(&sample, &["--predictions", &predictions, "--epoch", "1"]);
    let before = assert_equal_tables(&sample, "user labels and an epoch");
    let rules = |tables: &Tables| -> BTreeSet<LabelRule> {
        let cells = tables.labels.iter().flat_map(|track| track.rules.iter().copied());
        cells.collect()
    };
    let every = BTreeSet::from([LabelRule::Plg, LabelRule::Pld, LabelRule::User]);
    assert_eq!(rules(&before), every);
    // Both runs label everything again. The rows of the version before are in bucket files and in patch files.
    relabel_all(&sample, &["--visual-scale", "2"]);
    let scaled = assert_equal_tables(&sample, "relabel of everything");
    assert_eq!((scaled.version, rules(&scaled)), (4, every.clone()));
    relabel_all(&sample, &["--user", &user, "--visual-scale", "3"]);
    label_all(&sample, &["--visual-threshold", "1.01"]);
    let again = assert_equal_tables(&sample, "label over user labels and an epoch");
    assert_eq!((again.version, rules(&again)), (6, every.clone()));
    // `optimize` moves the user labels from patch files to bucket files.
    for size in SIZES {
        let store = sample.path(size.unwrap_or("one")).display().to_string();
        let optimize = ["optimize", "--store", &store].map(str::to_owned);
        assert_status(&run_with(size, None, &optimize), 0);
    }
    label_all(&sample, &["--visual-threshold", "1.02"]);
    let optimized = assert_equal_tables(&sample, "label over optimized user labels");
    assert_eq!((optimized.version, rules(&optimized)), (8, every));
}

#[test]
fn labels_of_a_retired_class_become_unset_in_every_pass() {
    let sample = sample();
    label_all(&sample, &[]);
    fs::write(sample.path("classes.txt"), "Song\nBark\n").unwrap();
    let classes = sample.path("classes.txt").display().to_string();
    let dry: Vec<String> = ["--classes", &classes, "--dry-run"].map(str::to_owned).into();
    let dry = SIZES.map(|size| relabel(&sample, size.unwrap_or("one"), size, &dry).stdout);
    assert!(dry[0] == dry[2] && dry[1] == dry[2] && !dry[2].is_empty());
    relabel_all(&sample, &["--classes", &classes]);
    let tables = assert_equal_tables(&sample, "a retired class");
    let retired = tables
        .changes
        .iter()
        .filter(|row| row.version == 2 && &*row.class == "Bell");
    let retired: BTreeSet<_> = retired.map(|row| (row.video.clone(), row.from, row.to)).collect();
    assert!(retired.len() > 20 && retired.iter().all(|(_, from, to)| *from && !to));
}

/// The staged files of a store.
fn staged(store: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(store.join("_vaplan/staging/label"))
        .into_iter()
        .flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_run_that_is_killed_in_either_phase_goes_on_and_ends_with_the_same_tables() {
    // More than one shard per modality.
    let sample = Sample::new(300);
    // The rejected row of a file is in the head of its staged shard.
    let mut values = vec![0.5; 10 * WIDTH];
    values[12] = f32::NAN;
    sample.write_features("visual", 7, 10, &values);
    assert_status(&label(&sample, "one", None, &[]), 1);
    let wanted = tables(&sample.path("one"));
    let shards = 6;
    // While shards are scored; at the first data file of a pass; in a later pass; before the commit; and in the commit.
    for (fault, all_staged) in [
        ("after-shard", false),
        ("after-file", true),
        ("60", true),
        ("before-labels", true),
        ("before-versions", true),
    ] {
        let store = sample.path(fault);
        let mut arguments = sample.arguments(fault);
        arguments.extend(["--workers", "2"].map(str::to_owned));
        let killed = run_with(Some("20"), Some(fault), &arguments);
        assert_eq!(killed.status.code(), None, "{fault}: {}", stderr(&killed));
        assert!(
            Store::open(&store).unwrap().latest().unwrap().is_none(),
            "{fault}"
        );
        // The other worker may have been writing a temporary file.
        let is_shard = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "scores");
        let left = staged(&store).iter().filter(is_shard).count();
        assert!(
            left > 0 && (left == shards) == all_staged,
            "{fault}: {left} staged shards"
        );
        let again = run_with(Some("20"), None, &arguments);
        assert_status(&again, 1);
        let told = format!("going on: {left} of {shards} shards were scored by a run before");
        assert!(stderr(&again).contains(&told), "{fault}: {}", stderr(&again));
        assert!(tables(&store) == wanted, "{fault}");
        assert_eq!(staged(&store), Vec::<PathBuf>::new(), "{fault}");
    }
}

#[test]
fn a_shard_with_a_damaged_section_is_scored_again() {
    let sample = Sample::new(300);
    assert_status(&label(&sample, "one", None, &[]), 0);
    let wanted = tables(&sample.path("one"));
    let arguments = sample.arguments("store");
    let killed = run_with(Some("20"), Some("after-file"), &arguments);
    assert_eq!(killed.status.code(), None);
    let files = staged(&sample.path("store"));
    assert_eq!(files.len(), 6);
    // The last byte is in the last section. The head and the other sections are sound.
    let mut bytes = fs::read(&files[2]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&files[2], bytes).unwrap();
    let again = run_with(Some("20"), None, &arguments);
    assert_status(&again, 0);
    let told = "going on: 5 of 6 shards were scored by a run before";
    assert!(stderr(&again).contains(told), "{}", stderr(&again));
    assert!(tables(&sample.path("store")) == wanted);
}

#[test]
fn the_candidates_that_do_not_count_are_those_of_one_pass() {
    let sample = sample();
    label_all(&sample, &[]);
    let rows = |size: Option<&str>| {
        let store = Store::open(&sample.path(size.unwrap_or("one"))).unwrap();
        sorted::<Candidates>(&store.latest().unwrap().unwrap())
    };
    let wanted = rows(None);
    assert_eq!(wanted.iter().filter(|row| *row.video == *name(11)).count(), 2);
    assert!(
        wanted
            .iter()
            .all(|row| row.modality == Modality::Visual || *row.video == *name(9))
    );
    for size in SIZES {
        assert_eq!(rows(size), wanted);
    }
}
