//! A store records where its inputs are, whatever the working directory of a later command is.

use std::fs;
use std::path::Path;
use std::process::Output;

use vaplan::ingest::npy;
use vaplan_schemas::bucket_of;
use vaplan_schemas::rows::{CandidateRow, ScoreTrack, VideoRow};
use vaplan_schemas::store::{CommitInfo, Snapshot, Store};
use vaplan_schemas::tables::{Candidates, Labels, Rejects, Scores, Settings, Videos};

use crate::sample::{CLASSES, Sample, WIDTH, key, name};
use crate::support::{assert_status, stderr, stdout, vaplan};

fn latest(store: &Path) -> Snapshot {
    Store::open(store).unwrap().latest().unwrap().unwrap()
}

/// Runs the program in a folder of the sample.
fn run_in(sample: &Sample, folder: &str, arguments: &[&str]) -> Output {
    vaplan()
        .current_dir(sample.path(folder))
        .args(arguments)
        .output()
        .unwrap()
}

/// Labels the sample into `store`, every path relative to its folder.
fn labelled() -> Sample {
    let sample = Sample::new(6);
    assert_status(&run_in(&sample, "", &label("visual")), 0);
    sample
}

fn label(visual: &str) -> [&str; 13] {
    let (text, audio_text) = ("visual_text.npy", "audio_text.npy");
    [
        "label",
        "--store",
        "store",
        "--annotations",
        "annotations",
        "--visual",
        visual,
        "--visual-text",
        text,
        "--audio",
        "./audio/",
        "--audio-text",
        audio_text,
    ]
}

fn inputs(store: &Path) -> Vec<String> {
    let rows = latest(store).read::<Settings>().unwrap();
    let own = rows.iter().filter(|row| row.name.starts_with("features."));
    own.map(|row| row.value.to_string()).collect()
}

/// A change that must read features: the video gets all classes.
fn all_classes(sample: &Sample, nth: usize) -> String {
    let rows = format!("filename,event_labels\n{},\"{}\"\n", name(nth), CLASSES.join(","));
    fs::write(sample.path("all.csv"), rows).unwrap();
    sample.path("all.csv").display().to_string()
}

fn scores(store: &Path, nth: usize) -> Vec<ScoreTrack> {
    let mut rows = latest(store).read::<Scores>().unwrap();
    rows.retain(|row| *row.video == *name(nth));
    rows
}

#[test]
fn another_working_directory_reads_the_features_that_were_labelled() {
    let sample = labelled();
    let (store, place) = (sample.path("store"), sample.path("").canonicalize().unwrap());
    let absolute = |folder: &str| place.join(folder).display().to_string();
    assert_eq!(inputs(&store), [absolute("audio"), absolute("visual")]);
    let videos = latest(&store).read::<Videos>().unwrap();
    assert!(
        videos
            .iter()
            .all(|row| row.source.starts_with(&absolute("annotations"))),
        "{videos:?}"
    );

    // Folders of the same relative names, with other features.
    for modality in ["audio", "visual"] {
        fs::create_dir_all(sample.path("B").join(modality)).unwrap();
        for nth in 0..6 {
            let file = sample.path("B").join(modality).join(format!("{}.npy", key(nth)));
            npy::write_f32(&file, &[10, WIDTH], &[-1.0; 10 * WIDTH]).unwrap();
        }
    }
    fs::create_dir(sample.path("C")).unwrap();
    for (folder, nth) in [("B", 0), ("C", 1)] {
        let before = scores(&store, nth);
        let edit = all_classes(&sample, nth);
        assert_status(
            &run_in(
                &sample,
                folder,
                &["relabel", "--store", "../store", "--weak-add", &edit],
            ),
            0,
        );
        let after = scores(&store, nth);
        assert_eq!(after.len(), 6, "three classes of two modalities");
        assert!(
            before.iter().all(|track| after.contains(track)),
            "from {folder}: the scores stay"
        );
    }
}

#[test]
fn two_spellings_of_a_folder_are_one_input_and_one_question() {
    let sample = labelled();
    let store = sample.path("store");
    let before = inputs(&store);
    fs::create_dir(sample.path("C")).unwrap();
    for (folder, spelled) in [("", "./visual"), ("C", "../visual/"), ("visual", ".")] {
        let output = run_in(
            &sample,
            folder,
            &[
                "relabel",
                "--store",
                &store.display().to_string(),
                "--visual",
                spelled,
            ],
        );
        assert_status(&output, 0);
        assert!(
            stdout(&output).starts_with("nothing to do"),
            "{spelled}: {}",
            stdout(&output)
        );
    }
    assert_eq!(inputs(&store), before);
    assert!(latest(&store).read::<Candidates>().unwrap().is_empty());
    // The hash of the inputs is the same for another spelling.
    assert_status(&run_in(&sample, "", &label("annotations/../visual")), 0);
    assert_eq!(latest(&store).version().version, 1);
}

#[test]
fn a_folder_that_is_gone_is_an_error_and_rebase_says_where_it_is_now() {
    let sample = labelled();
    let store = sample.path("store");
    let labels = latest(&store).read::<Labels>().unwrap();
    let old = sample.path("visual").canonicalize().unwrap();
    fs::create_dir(sample.path("moved")).unwrap();
    fs::rename(&old, sample.path("moved/clip")).unwrap();
    let edit = all_classes(&sample, 0);
    let relabel = || run_in(&sample, "", &["relabel", "--store", "store", "--weak-add", &edit]);
    let refused = relabel();
    assert_status(&refused, 2);
    let told = stderr(&refused);
    assert!(
        told.contains("are not there") && told.contains("--rebase"),
        "{told}"
    );
    assert_eq!(latest(&store).version().version, 1, "nothing is committed");

    let rebase = |new: &str| {
        let moves = format!("{}={new}", old.display());
        run_in(
            &sample,
            "moved",
            &["relabel", "--store", "../store", "--rebase", &moves],
        )
    };
    // Another folder lacks the files, and one with other features is refused.
    fs::create_dir(sample.path("other")).unwrap();
    let lacks = rebase("../other");
    assert_status(&lacks, 2);
    assert!(
        stderr(&lacks).contains("is not there, nor are 5 others"),
        "{}",
        stderr(&lacks)
    );
    for nth in 0..6 {
        let file = sample.path("other").join(format!("{}.npy", key(nth)));
        npy::write_f32(&file, &[10, WIDTH], &[-1.0; 10 * WIDTH]).unwrap();
    }
    let differ = rebase("../other");
    assert_status(&differ, 2);
    assert!(
        stderr(&differ).contains("do not give the scores of the store"),
        "{}",
        stderr(&differ)
    );
    assert_eq!(latest(&store).version().version, 1, "nothing is committed");

    let output = rebase("clip");
    assert_status(&output, 0);
    assert!(
        stdout(&output)
            .starts_with("version 2: 1 feature inputs moved to `clip`, with the files of 6 videos"),
        "{}",
        stdout(&output)
    );
    assert_eq!(latest(&store).read::<Labels>().unwrap(), labels);
    assert_status(&relabel(), 0);
    assert_eq!(scores(&store, 0).len(), 6);
    assert_status(
        &vaplan().arg("check").arg("--store").arg(&store).output().unwrap(),
        0,
    );
}

/// Rewrites a store as programs before this one left it: every path below the folder of the sample is relative.
fn made_relative(sample: &Sample) {
    let place = format!("{}/", sample.path("").canonicalize().unwrap().display());
    let place = place.replace("//", "/");
    let store = Store::open(&sample.path("store")).unwrap();
    let snapshot = store.latest().unwrap().unwrap();
    let plain = |path: &str| path.replace(&place, "");
    let mut settings = snapshot.read::<Settings>().unwrap();
    settings
        .iter_mut()
        .for_each(|row| row.value = plain(&row.value).into());
    let mut videos = snapshot.read::<Videos>().unwrap();
    for row in &mut videos {
        row.source = plain(&row.source).into();
        for source in [&mut row.audio_source, &mut row.visual_source]
            .into_iter()
            .flatten()
        {
            *source = plain(source).into();
        }
    }
    let mut candidates = snapshot.read::<Candidates>().unwrap();
    candidates
        .iter_mut()
        .for_each(|row| row.source = plain(&row.source).into());
    let mut rejects = snapshot.read::<Rejects>().unwrap();
    for row in &mut rejects {
        (row.file, row.reason) = (plain(&row.file), plain(&row.reason));
    }
    let lock = store.lock(&mut |_| ()).unwrap();
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    commit.replace_all::<Settings>(&settings).unwrap();
    commit.replace_all::<Rejects>(&rejects).unwrap();
    for bucket in 0..commit.buckets() {
        let of = |video: &str| bucket_of(video, commit.buckets()) == bucket;
        let own: Vec<VideoRow> = videos.iter().filter(|row| of(&row.video)).cloned().collect();
        let spare: Vec<CandidateRow> = candidates.iter().filter(|row| of(&row.video)).cloned().collect();
        commit.replace_bucket::<Videos>(bucket, &own).unwrap();
        commit.replace_bucket::<Candidates>(bucket, &spare).unwrap();
    }
    commit.finish().unwrap();
}

#[test]
fn a_store_with_relative_paths_opens_and_takes_only_a_folder_that_holds_its_features() {
    let sample = Sample::new(6);
    // Copies that are equal and that differ, so that every table has paths.
    fs::create_dir(sample.path("copies")).unwrap();
    fs::copy(
        sample.features("visual", 0),
        sample.path(&format!("copies/{}.npy", key(0))),
    )
    .unwrap();
    fs::copy(
        sample.features("visual", 0),
        sample.path(&format!("copies/{}.npy", key(1))),
    )
    .unwrap();
    fs::remove_file(sample.features("audio", 2)).unwrap();
    assert_status(&run_in(&sample, "", &label("visual")), 1);
    assert_status(
        &run_in(
            &sample,
            "",
            &["relabel", "--store", "store", "--visual", "copies"],
        ),
        1,
    );
    let store = sample.path("store");
    let read = || {
        let snapshot = latest(&store);
        (
            inputs(&store),
            snapshot.read::<Videos>().unwrap(),
            snapshot.read::<Candidates>().unwrap(),
            snapshot.read::<Rejects>().unwrap(),
        )
    };
    let wanted = read();
    assert_eq!((wanted.2.len(), wanted.3.len()), (3, 3), "{wanted:?}");
    made_relative(&sample);
    assert_eq!(inputs(&store), ["audio", "visual", "copies"]);
    fs::create_dir(sample.path("C")).unwrap();

    // A threshold needs no features, so any folder will do; a new class of a weak label needs them.
    let threshold = ["relabel", "--store", "../store", "--visual-threshold", "1.01"];
    assert_status(&run_in(&sample, "C", &threshold), 0);
    let version = latest(&store).version().version;
    let edit = all_classes(&sample, 3);
    let refused = run_in(
        &sample,
        "C",
        &["relabel", "--store", "../store", "--weak-add", &edit],
    );
    assert_status(&refused, 2);
    assert!(
        stderr(&refused).contains("--rebase .=FOLDER"),
        "{}",
        stderr(&refused)
    );
    assert_eq!(latest(&store).version().version, version, "nothing is committed");
    // The folder can be named from elsewhere; then all paths are as if the store were made now.
    assert_status(
        &run_in(
            &sample,
            "C",
            &["relabel", "--store", "../store", "--rebase", ".=.."],
        ),
        0,
    );
    let found = read();
    assert_eq!(found, wanted);
    assert_status(
        &run_in(
            &sample,
            "C",
            &["relabel", "--store", "../store", "--weak-add", &edit],
        ),
        0,
    );
    assert_eq!(scores(&store, 3).len(), 6);

    // Or a change is made where the store was made.
    made_relative(&sample);
    let edit = all_classes(&sample, 4);
    assert_status(
        &run_in(&sample, "", &["relabel", "--store", "store", "--weak-add", &edit]),
        0,
    );
    assert_eq!(inputs(&store), wanted.0);
    assert_eq!(scores(&store, 4).len(), 6);
}
