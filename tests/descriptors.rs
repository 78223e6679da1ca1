//! Every command that reads or writes a store works with 64 descriptors (`ulimit -n 64`), whatever the number of data files.
//!
//! The store of these tests is cut into 1,024 buckets, and its 100 videos lie in more than 90 of them. A version that
//! rewrites `labels` and `scores` therefore writes more than 180 data files, and a reader opens as many. A store of
//! 265,600 videos, for which `label` once failed at 1,024 descriptors, has no more files per bucket and table than this
//! one.

use std::path::Path;
use std::process::Output;

use vaplan_schemas::store::{Commit, CommitInfo, Snapshot, Store};
use vaplan_schemas::tables::{
    Candidates, Classes, LabelChanges, Labels, Prompts, Scores, Settings, Table, Truth, UserLabels, Videos,
};
use vaplan_schemas::{StoreVersion, bucket_of};

use crate::sample::Sample;
use crate::support::{assert_status, stdout, vaplan};

const LIMIT: u32 = 64;
const VIDEOS: usize = 100;

/// Runs the program with at most [`LIMIT`] descriptors.
fn limited(arguments: &[&str]) -> Output {
    let mut program = vaplan();
    // Every change is a patch, as in a store of this many buckets with many videos.
    program.env("VAPLAN_PLAIN_BYTES", "0");
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", &format!("ulimit -n {LIMIT}; exec \"$0\" \"$@\"")])
        .arg(program.get_program())
        .args(arguments);
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.output().expect("sh starts")
}

fn copy<T: Table>(from: &Snapshot, commit: &mut Commit<'_>) {
    let rows = from.read::<T>().unwrap();
    if T::BUCKETED {
        let buckets = commit.buckets();
        let of = |bucket| {
            let own = rows
                .iter()
                .filter(|row| T::video(row).is_some_and(|video| bucket_of(video, buckets) == bucket));
            own.cloned().collect()
        };
        commit.replace_buckets::<T>(of).unwrap();
    } else if T::NAME == LabelChanges::NAME {
        commit.append::<T>(&rows).unwrap();
    } else {
        commit.replace_all::<T>(&rows).unwrap();
    }
}

/// Copies the latest version of a store into a new store of 1,024 buckets.
fn in_many_buckets(from: &Path, to: &Path) {
    let from = Store::open(from).unwrap().latest().unwrap().unwrap();
    let store = Store::create(to).unwrap();
    let lock = store.lock(&mut |_| ()).unwrap();
    let row = from.version();
    let info = CommitInfo {
        settings: row.settings.clone(),
        models: row.models.clone(),
        inputs: row.inputs.clone(),
        program: row.program.clone(),
        command: row.command.clone(),
        videos: 1 << 20,
        ..CommitInfo::default()
    };
    let mut commit = store.begin(&lock, info).unwrap();
    copy::<Settings>(&from, &mut commit);
    copy::<Classes>(&from, &mut commit);
    copy::<Prompts>(&from, &mut commit);
    copy::<Videos>(&from, &mut commit);
    copy::<Candidates>(&from, &mut commit);
    copy::<Truth>(&from, &mut commit);
    copy::<UserLabels>(&from, &mut commit);
    copy::<Scores>(&from, &mut commit);
    copy::<Labels>(&from, &mut commit);
    copy::<LabelChanges>(&from, &mut commit);
    commit.finish().unwrap();
}

fn files(store: &str, table: &str, version: u64) -> Vec<vaplan_schemas::store::DataFile> {
    let store = Store::open(Path::new(store)).unwrap();
    let snapshot = store.at_version(Some(StoreVersion(version))).unwrap();
    snapshot.files(table).unwrap()
}

#[test]
fn commands_on_hundreds_of_files_need_few_descriptors() {
    let sample = Sample::new(VIDEOS);
    assert_status(&sample.label("plain", &[]), 0);
    in_many_buckets(&sample.path("plain"), &sample.path("store"));
    let store = sample.path("store").display().to_string();
    assert!(files(&store, "labels", 1).len() > LIMIT as usize);
    let done = |arguments: &[&str]| {
        let output = limited(arguments);
        assert_status(&output, 0);
        stdout(&output).to_owned()
    };

    // Labels and scores of every bucket, by the graph of all videos.
    let mut label = sample.arguments("store");
    label.extend(
        [
            "--rule",
            "logit",
            "--visual-threshold",
            "0.5",
            "--audio-threshold",
            "0.5",
        ]
        .map(String::from),
    );
    let label: Vec<&str> = label.iter().map(String::as_str).collect();
    let told = done(&label);
    assert!(told.starts_with("version 2: 100 videos"), "{told}");
    let new = |table: &str, version: u64| {
        let before = files(&store, table, version - 1);
        let after = files(&store, table, version);
        after.iter().filter(|file| !before.contains(file)).count()
    };
    assert!(new("labels", 2) > LIMIT as usize, "{}", new("labels", 2));

    // Buckets of tracks that are labelled anew, then everything.
    done(&["relabel", "--store", &store, "--visual-threshold", "0.6"]);
    done(&[
        "relabel",
        "--store",
        &store,
        "--rule",
        "softmax",
        "--visual-scale",
        "2",
        "--audio-scale",
        "2",
    ]);
    assert!(new("labels", 4) > LIMIT as usize);
    // User labels in every video: a patch, with a deletion vector for the file of every bucket.
    let user = sample.path("user.csv").display().to_string();
    let videos = Store::open(Path::new(&store))
        .unwrap()
        .latest()
        .unwrap()
        .unwrap()
        .read::<Videos>()
        .unwrap();
    let mut rows = "video,modality,class,label,segment\n".to_owned();
    for row in &videos {
        let (video, class) = (&row.video, &row.weak_labels[0]);
        rows += &format!("{video},visual,{class},1,0\n{video},visual,{class},0,1\n");
    }
    std::fs::write(&user, rows).unwrap();
    done(&["relabel", "--store", &store, "--user", &user]);
    assert!(
        files(&store, "labels", 5)
            .iter()
            .filter(|file| file.deleted.is_some())
            .count()
            > LIMIT as usize
    );

    let told = done(&["optimize", "--store", &store]);
    assert!(told.starts_with("version 6: "), "{told}");
    assert!(new("labels", 6) > LIMIT as usize);
    done(&["check", "--store", &store]);
    if cfg!(feature = "query") {
        let sql = "SELECT count(*), sum(CAST(label AS INT)) FROM labels JOIN scores USING (video, modality, class, segment)";
        done(&["query", "--store", &store, "--format", "csv", sql]);
    }
    let told = done(&["vacuum", "--store", &store, "--keep", "1"]);
    assert!(told.contains("6 to 6"), "{told}");
    done(&["check", "--store", &store]);
    done(&["log", "--store", &store]);
}
