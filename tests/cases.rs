//! Faults that users met, each by its own input and command, held to what is right. `tests/fixtures/cases/README.md` lists them.
//!
//! Other tests check the same rules on more inputs. These are the inputs by which each fault was found.

#[cfg(feature = "encode")]
mod media;
#[cfg(feature = "train")]
mod predict;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use vaplan::ingest::npy;
use vaplan_schemas::rows::{LabelRule, ScoreTrack};
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{Labels, Scores, Settings, UserLabels, Videos};
use vaplan_schemas::{Modality, StoreVersion};

use crate::support::{assert_status, run, sample_annotations, scratch, stderr, stdout, vaplan};
use crate::watch::harness::Watch;

/// An input of a case.
fn input(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/cases")
        .join(name)
}

/// Runs the program in a folder.
fn run_in(folder: &Path, words: &[&str]) -> Output {
    vaplan().current_dir(folder).args(words).output().unwrap()
}

/// Simulated features of the 80 built-in videos in `features` below a folder, which also gets the annotations.
fn simulate(folder: &Path, more: &[&str]) {
    sample_annotations(folder.to_str().unwrap());
    let synth = ["-q", "synth", "--annotations", "annotations", "--out", "features"];
    assert_status(&run_in(folder, &[&synth[..], more].concat()), 0);
}

/// The words of `label` for what [`simulate`] wrote, relative to its folder.
fn label<'a>(store: &'a str, annotations: &'a str) -> Vec<&'a str> {
    let mut words = vec!["-q", "label", "--store", store, "--annotations", annotations];
    words.extend([
        "--visual",
        "features/visual",
        "--visual-text",
        "features/visual_text.npy",
    ]);
    words.extend([
        "--audio",
        "features/audio",
        "--audio-text",
        "features/audio_text.npy",
    ]);
    words
}

/// A folder with the built-in videos, labelled into `store`.
fn labelled() -> tempfile::TempDir {
    let folder = scratch();
    simulate(folder.path(), &["--dim", "16"]);
    assert_status(&run_in(folder.path(), &label("store", "annotations")), 0);
    folder
}

fn latest(store: &Path) -> Snapshot {
    Store::open(store).unwrap().latest().unwrap().unwrap()
}

#[test]
fn a01_relative_features_are_those_that_were_labelled() {
    let folder = scratch();
    let at = |name: &str| folder.path().join(name);
    for side in ["a", "b", "c"] {
        fs::create_dir(at(side)).unwrap();
    }
    for side in ["a", "b"] {
        simulate(&at(side), &["--dim", "16"]);
    }
    for entry in fs::read_dir(at("b/features/visual")).unwrap() {
        let path = entry.unwrap().path();
        let array = npy::read_floats(&path).unwrap().into_matrix(&path).unwrap();
        let negated: Vec<f32> = array.data.iter().map(|value| -value).collect();
        npy::write_f32(&path, &[array.rows, array.columns], &negated).unwrap();
    }
    assert_status(&run_in(&at("a"), &label("../s", "annotations")), 0);
    let scores = |video: &str| -> Vec<ScoreTrack> {
        let mut rows = latest(&at("s")).read::<Scores>().unwrap();
        rows.retain(|row| {
            *row.video == *video && row.modality == Modality::Visual && *row.class == *"Speech"
        });
        rows
    };
    let set = |video: &str| {
        let rows = latest(&at("s")).read::<Labels>().unwrap();
        let own = rows.iter().filter(|row| *row.video == *video);
        own.flat_map(|row| &row.labels).filter(|label| **label).count()
    };
    let add = |from: &str, row: &str| {
        fs::write(
            at(from).join("add.csv"),
            format!("filename\tevent_labels\n{row}\n"),
        )
        .unwrap();
        assert_status(
            &run_in(
                &at(from),
                &["relabel", "--store", "../s", "--weak-add", "add.csv"],
            ),
            0,
        );
    };
    // From a folder with other features, and from one without any.
    let before = scores("demo0000002_10_20");
    assert_eq!(before.len(), 1);
    add("b", "demo0000002_10_20\tDog");
    assert_eq!(scores("demo0000002_10_20"), before);
    let count = set("demo0000001_30_40");
    assert!(count > 0);
    add("c", "demo0000001_30_40\tSpeech");
    assert!(set("demo0000001_30_40") >= count, "its labels are unset");
    // Another spelling of the folder is no second input.
    assert_status(
        &run_in(
            &at("a"),
            &["relabel", "--store", "../s", "--visual", "./features/visual"],
        ),
        0,
    );
    let settings = latest(&at("s")).read::<Settings>().unwrap();
    let own = settings.iter().filter(|row| *row.name == *"features.visual");
    assert_eq!(own.count(), 1);
}

#[test]
fn a02_every_command_takes_a_path_with_dots() {
    let folder = labelled();
    let beside = folder.path().join("beside");
    fs::create_dir(&beside).unwrap();
    let inside = folder.path().join("store/labels");
    for (from, store) in [
        (&beside, "../store"),
        (&beside, "../beside/../store"),
        (&inside, ".."),
        (&inside, "../../store"),
    ] {
        let done = |words: &[&str]| {
            let output = run_in(from, &[words, &["--store", store]].concat());
            assert_status(&output, 0);
            stdout(&output).to_owned()
        };
        if cfg!(feature = "query") {
            let count = done(&["query", "--format", "csv", "SELECT count(*) AS n FROM videos"]);
            assert_eq!(count, "n\n80\n", "{store}");
        }
        done(&["check"]);
        done(&["log"]);
        done(&["eval", "--split", "test"]);
        done(&["relabel", "--threshold", "visual/Dog=1.2"]);
    }
    assert_status(
        &run_in(folder.path(), &label("beside/../store", "annotations")),
        0,
    );
    fs::create_dir(folder.path().join("inbox")).unwrap();
    let mut command = vaplan();
    command.current_dir(&beside).args([
        "watch",
        "--workers",
        "2",
        "--store",
        "../store",
        "--inbox",
        "../inbox",
        "--status",
        "../status.json",
    ]);
    let status = folder.path().join("status.json");
    Watch::start(command, status).ready().stop();
}

#[test]
fn a03_a_store_below_a_percent_escape_or_a_backslash_is_written_and_read() {
    let folder = labelled();
    // The store beside it has the name that the escape stands for, and another number of videos.
    fs::create_dir(folder.path().join("x y")).unwrap();
    let other = [&label("x y/s", "annotations")[..], &["--split", "test"]].concat();
    assert_status(&run_in(folder.path(), &other), 0);
    for name in ["x%20y", "a\\b", "new\nline", "100%", "a%b", "#", "?"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        let store = format!("{name}/s");
        assert_status(&run_in(folder.path(), &label(&store, "annotations")), 0);
        assert_eq!(
            latest(&folder.path().join(&store))
                .read::<Videos>()
                .unwrap()
                .len(),
            80
        );
        for words in [&["check"][..], &["log"]] {
            let output = run_in(folder.path(), &[words, &["--store", &store]].concat());
            assert_status(&output, 0);
            assert!(stdout(&output).contains('1'), "{name}: {}", stdout(&output));
        }
        if cfg!(feature = "query") {
            let sql = "SELECT count(*) AS n FROM videos";
            let query = run_in(
                folder.path(),
                &["query", "--store", &store, "--format", "csv", sql],
            );
            assert_eq!(stdout(&query), "n\n80\n", "{name}: {}", stderr(&query));
        }
    }
}

/// Also case a09: standard error cannot be written, and `label` of this size writes lines of progress and notes.
#[test]
fn a04_and_a09_label_of_32_000_videos_needs_64_descriptors_and_no_standard_error() {
    let folder = scratch();
    let more = [
        "--dim",
        "8",
        "--segments",
        "1",
        "--repeat",
        "400",
        "--parquet",
        "--shard-videos",
        "100000",
    ];
    simulate(folder.path(), &more);
    let words = label("store", "features/annotations");
    let program = vaplan();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\" 2>/dev/full"])
        .arg(program.get_program())
        .args(&words[1..])
        .current_dir(folder.path());
    let output = shell.output().unwrap();
    assert_status(&output, 0);
    let latest = latest(&folder.path().join("store"));
    assert_eq!(latest.version().version, 1);
    assert_eq!(latest.read::<Videos>().unwrap().len(), 32_000);
}

#[test]
fn a09_a_pipe_that_was_closed_does_not_end_label() {
    let folder = scratch();
    simulate(folder.path(), &["--dim", "16"]);
    // A video without features, so that there is a line to write.
    let visual = fs::read_dir(folder.path().join("features/visual")).unwrap();
    fs::remove_file(visual.map(|entry| entry.unwrap().path()).max().unwrap()).unwrap();
    let mut child = vaplan()
        .args(&label("store", "annotations")[1..])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert_eq!(
        child.wait().unwrap().code(),
        Some(1),
        "done, and a row was rejected"
    );
    assert_eq!(latest(&folder.path().join("store")).version().version, 1);
}

/// A watch of `store` in a folder, with the inbox `inbox`.
fn watch(folder: &Path, more: &[&str]) -> Watch {
    fs::create_dir_all(folder.join("inbox")).unwrap();
    let mut command = vaplan();
    command
        .current_dir(folder)
        .args([
            "watch",
            "--workers",
            "2",
            "--store",
            "store",
            "--inbox",
            "inbox",
            "--status",
            "status.json",
        ])
        .args(more);
    Watch::start(command, folder.join("status.json")).ready()
}

/// Puts a file into the inbox of [`watch`] by renaming it.
fn deliver(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    let unfinished = folder.join("inbox/.unfinished");
    fs::write(&unfinished, content).unwrap();
    fs::rename(&unfinished, folder.join("inbox").join(name)).unwrap();
}

#[test]
fn a05_a_correction_that_is_set_withdrawn_and_set_again_holds() {
    let folder = labelled();
    let watch = watch(folder.path(), &[]);
    for (name, version) in [("fix.user.csv", 2), ("undo.user.csv", 3), ("fix.user.csv", 4)] {
        deliver(folder.path(), name, fs::read(input("a05").join(name)).unwrap());
        watch.line(&format!("version {version}: "));
    }
    watch.stop();
    let labels = latest(&folder.path().join("store")).read::<Labels>().unwrap();
    let track = labels.iter().find(|row| {
        *row.video == *"demo0000001_30_40" && row.modality == Modality::Visual && *row.class == *"Accordion"
    });
    let first = track.unwrap().get(0);
    assert_eq!((first.label, first.rule), (false, LabelRule::User));
    let mut done: Vec<String> = fs::read_dir(folder.path().join("inbox/done"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    done.sort();
    assert_eq!(done, ["fix.user.csv", "fix.user.csv~2", "undo.user.csv"]);
}

/// Sends a request, and returns the answer.
fn answer(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    // The server may close the connection before it reads all of the request.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a10_a_request_with_a_large_content_length_does_not_end_a_watch() {
    let folder = labelled();
    let watch = watch(folder.path(), &["--metrics", "127.0.0.1:0"]);
    let address = watch.status()["metrics"].as_str().unwrap().to_owned();
    for method in ["GET", "POST"] {
        let request = format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n");
        let told = answer(&address, request.as_bytes());
        assert!(told.starts_with("HTTP/1.1 4"), "{method}: {told}");
    }
    // Connections that send nothing do not keep others out.
    let idle: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(&address).unwrap()).collect();
    drop(idle);
    let own = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let told = answer(&address, own.as_bytes());
    assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    watch.stop();
}

#[test]
fn a12_a_store_does_not_grow_with_the_number_of_deliveries() {
    const DELIVERIES: u64 = 185;
    let folder = labelled();
    let watch = watch(folder.path(), &[]);
    for nth in 0..DELIVERIES {
        let (segment, label) = (nth % 10, u8::from(nth / 10 % 2 == 0));
        let row = format!("demo0000001_30_40\tvisual\tAccordion\t{label}\t{segment}");
        let content = format!("video\tmodality\tclass\tlabel\tsegment\n{row}\n");
        deliver(folder.path(), &format!("{nth:04}.user.csv"), content);
        watch.line(&format!("version {}: ", nth + 2));
    }
    watch.stop();
    let store = folder.path().join("store");
    assert_eq!(latest(&store).read::<UserLabels>().unwrap().len(), 10);
    // Every commit writes its transaction under one name, of which a checkpoint keeps the last.
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(store.join("labels/_delta_log")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read_to_string(path).unwrap();
            let actions = text
                .lines()
                .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            names.extend(actions.filter_map(|action| Some(action["txn"]["appId"].as_str()?.to_owned())));
        }
    }
    let commits = names.len();
    names.dedup();
    assert!(commits > 8 && names.len() == 1, "{commits} commits: {names:?}");
    let place = store.to_str().unwrap();
    assert_status(&run(["optimize", "--store", place]), 0);
    assert_status(&run(["vacuum", "--store", place, "--keep", "1"]), 0);
    let versions = fs::read_dir(store.join("versions")).unwrap();
    let files = versions
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    assert!(files.count() < 10, "versions has a file for each version");
    assert_status(&run(["check", "--store", place]), 0);
    let log = run(["log", "--store", place]);
    assert!(
        stdout(&log).lines().count() as u64 > DELIVERIES,
        "{}",
        stdout(&log)
    );
}

/// The store lies on a file system of its own, which a user namespace may mount.
#[test]
fn a13_vacuum_makes_room_on_a_full_disk() {
    const SCRIPT: &str = r#"
        set -e
        mount -t tmpfs -o size=24m none disk
        echo mounted >&2
        cp -r store disk/store
        for threshold in 1.2 1.1 1.3 1.05 1.25; do
            "$VAPLAN_PROGRAM" -q relabel --store disk/store --threshold visual/Dog=$threshold >&2
        done
        cat /dev/zero >disk/fill 2>cat || grep -q 'No space' cat
        if "$VAPLAN_PROGRAM" -q relabel --store disk/store --threshold visual/Dog=1.4 >&2; then echo 'not full' >&2; exit 9; fi
        "$VAPLAN_PROGRAM" -q vacuum --store disk/store --keep 1
        rm disk/fill
        "$VAPLAN_PROGRAM" check --store disk/store
    "#;
    let folder = labelled();
    fs::create_dir(folder.path().join("disk")).unwrap();
    let program = vaplan();
    let output = Command::new("unshare")
        .args(["-Urm", "sh", "-c", SCRIPT])
        .env("VAPLAN_PROGRAM", program.get_program())
        .current_dir(folder.path())
        .output();
    match output {
        Ok(output) if stderr(&output).contains("mounted") => {
            assert_status(&output, 0);
            let told = stdout(&output);
            assert!(
                told.starts_with("removed ") && !told.starts_with("removed 0"),
                "{told}"
            );
            assert!(told.ends_with("version 6 is whole\n"), "{told}");
        }
        _ => eprintln!("SKIPPED: a13_vacuum_makes_room_on_a_full_disk needs `unshare` and user namespaces"),
    }
}

#[test]
fn f08_rows_that_end_in_a_tab_are_read() {
    let folder = scratch();
    let store = folder.path().join("store");
    let features = input("f09/audio").display().to_string();
    let (text, annotations) = (input("f09/audio_text.npy"), input("f08/annotations"));
    let text = text.to_str().unwrap();
    let mut words = vec!["label", "--store", store.to_str().unwrap()];
    words.extend(["--annotations", annotations.to_str().unwrap()]);
    words.extend(["--visual", &features, "--visual-text", text]);
    words.extend(["--audio", &features, "--audio-text", text]);
    assert_status(&run(words), 0);
    let videos = latest(&store).read::<Videos>().unwrap();
    let read: Vec<(&str, Vec<&str>)> = videos
        .iter()
        .map(|row| {
            (
                &*row.video,
                row.weak_labels.iter().map(|class| &**class).collect(),
            )
        })
        .collect();
    assert_eq!(
        read,
        [
            ("aaaaaaaaaaa_0_10", vec!["Speech", "Dog"]),
            ("bbbbbbbbbbb_20_30", vec!["Cat"])
        ]
    );
}

#[test]
fn f09_features_whose_names_match_no_video_are_told() {
    let folder = scratch();
    let store = folder.path().join("store");
    let at = |name: &str| input("f09").join(name).display().to_string();
    let output = run([
        "label",
        "--store",
        store.to_str().unwrap(),
        "--annotations",
        &at("annotations"),
        "--visual",
        &at("visual"),
        "--visual-text",
        &at("visual_text.npy"),
        "--audio",
        &at("audio"),
        "--audio-text",
        &at("audio_text.npy"),
    ]);
    assert_status(&output, 1);
    let said = stderr(&output);
    let note = format!("features=2 example=aaaaaaaaaaa_visual path={}", at("visual"));
    assert_eq!(said.matches(&note).count(), 1, "{said}");
    assert!(!said.contains(&format!("path={}", at("audio"))), "{said}");
    assert!(said.contains("has no visual features"), "{said}");
    let opened = Store::open(&store).unwrap();
    assert_eq!(
        opened.latest().unwrap().unwrap().version().version,
        StoreVersion(1).0
    );
}
