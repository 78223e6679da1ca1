//! A store's tables, opened from outside as a user would: Polars, DuckDB and pandas from Python.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{assert_status, run, sample_annotations, scratch, stdout};

/// Python of the virtual environment; none where it is absent, and then `test` was skipped.
pub(crate) fn python(test: &str) -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    if python.is_file() {
        return Some(python);
    }
    eprintln!("SKIPPED: {test} needs .venv (scripts/test-venv.sh makes it)");
    None
}

/// The only cell of an answer.
fn ask(store: &str, version: &str, sql: &str) -> f64 {
    let output = run([
        "query",
        "--store",
        store,
        "--version",
        version,
        "--format",
        "csv",
        sql,
    ]);
    assert_status(&output, 0);
    let cell = stdout(&output).lines().nth(1).expect("a header and a row");
    cell.parse().expect("a number")
}

#[test]
fn polars_duckdb_and_pandas_read_every_version_as_query_does() {
    let Some(python) = python("polars_duckdb_and_pandas_read_every_version_as_query_does") else {
        return;
    };
    let folder = scratch();
    let dir = folder.path().to_str().unwrap();
    let place = |name: &str| format!("{dir}/demo/{name}");
    sample_annotations(&place(""));
    let (annotations, features, store) = (place("annotations"), place("features"), place("store"));
    let synth = ["synth", "--annotations", &annotations, "--out", &features];
    assert_status(&run(synth), 0);
    // Labelled, labelled anew, and changed. Tables of a store with deletion vectors are compared in patched.rs.
    let paths = [
        ("--annotations", "annotations"),
        ("--visual", "features/visual"),
        ("--visual-text", "features/visual_text.npy"),
        ("--audio", "features/audio"),
        ("--audio-text", "features/audio_text.npy"),
    ];
    let mut words = vec!["label".to_owned(), "--store".to_owned(), store.clone()];
    words.extend(
        paths
            .iter()
            .flat_map(|(flag, name)| [(*flag).to_owned(), place(name)]),
    );
    assert_status(&run(&words), 0);
    // A second version, with more visual labels.
    words.extend(["--visual-threshold", "1.01"].map(str::to_owned));
    assert_status(&run(&words), 0);
    // A third version, by a small change: one threshold of one class, and user labels.
    let user = place("user.csv");
    let video = {
        let query = [
            "query",
            "--store",
            &store,
            "--format",
            "csv",
            "SELECT video, class FROM labels WHERE modality = 'audio' ORDER BY video LIMIT 1",
        ];
        stdout(&run(query)).lines().nth(1).expect("a row").to_owned()
    };
    let (video, class) = video.split_once(',').unwrap();
    std::fs::write(
        &user,
        format!("video,modality,class,segment,label\n{video},audio,{class},0,1\n"),
    )
    .unwrap();
    let change = [
        "relabel",
        "--store",
        &store,
        "--visual-threshold",
        "1.02",
        "--user",
        &user,
    ];
    assert_status(&run(change), 0);

    let seen = look(&python, &store, "1");
    compare(&seen, &store, &["1", "2", "3"]);
    let first = seen["polars"]["1"]["set"]["visual"].as_f64();
    let second = seen["polars"]["2"]["set"]["visual"].as_f64();
    assert!(
        first < second,
        "versions are told apart: {first:?} and {second:?}"
    );

    // Every kind of upkeep, and flips of PLD, leave tables that all of these readers open.
    let epoch = place("epoch");
    let videos = stdout(&run([
        "query",
        "--store",
        &store,
        "--format",
        "csv",
        "SELECT video FROM videos",
    ]))
    .to_owned();
    std::fs::create_dir_all(format!("{epoch}/visual")).unwrap();
    for (nth, video) in videos.lines().skip(1).enumerate() {
        // Every class is certain in one segment of a video and certainly absent in the others.
        let values: Vec<f32> = (0..10 * 25)
            .map(|cell| f32::from(u8::from((cell / 25 + nth) % 10 == 0)).clamp(0.01, 0.99))
            .collect();
        vaplan::ingest::npy::write_f32(
            Path::new(&format!("{epoch}/visual/{video}.npy")),
            &[10, 25],
            &values,
        )
        .unwrap();
    }
    let flips = [
        "relabel",
        "--store",
        &store,
        "--predictions",
        &epoch,
        "--epoch",
        "1",
    ];
    assert_status(&run(flips), 0);
    let flipped = ask(&store, "4", "SELECT count(*) FROM labels WHERE rule = 'pld'");
    assert!(flipped > 0.0, "the epoch flips labels");
    compare(&look(&python, &store, "4"), &store, &["4"]);
    for upkeep in [&["optimize"][..], &["vacuum", "--keep", "1"]] {
        let words = upkeep.iter().copied().chain(["--store", &store]);
        assert_status(&run(words), 0);
        // `optimize` makes a version that changes no row.
        compare(&look(&python, &store, "5"), &store, &["5"]);
    }
}

/// What the readers see in the store, at versions from `first` on.
fn look(python: &Path, store: &str, first: &str) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/open_store.py");
    let output = Command::new(python)
        .arg(script)
        .args([store, first])
        .output()
        .unwrap();
    assert_status(&output, 0);
    serde_json::from_str(stdout(&output)).unwrap()
}

/// Asserts that the readers see what `query` sees: Polars in all of these versions, the others in the last one.
fn compare(seen: &Value, store: &str, versions: &[&str]) {
    let number = |value: &Value| value.as_f64().expect("a number");
    let set = |modality: &str| format!("SELECT count(*) FROM labels WHERE label AND modality = '{modality}'");
    for version in versions {
        let polars = &seen["polars"][version];
        for (value, sql) in [
            (&polars["rows"], "SELECT count(*) FROM labels"),
            (&polars["set"]["audio"], &set("audio")),
            (&polars["set"]["visual"], &set("visual")),
            (&polars["videos"], "SELECT count(*) FROM videos"),
            (&polars["scores"], "SELECT count(*) FROM scores"),
        ] {
            assert_eq!(
                number(value),
                ask(store, version, sql),
                "version {version}: {sql}"
            );
        }
        let sum = ask(store, version, "SELECT sum(score) FROM scores");
        assert!(
            (number(&polars["score_sum"]) - sum).abs() < 1e-9 * sum,
            "version {version}: {polars} and {sum}"
        );
    }
    let last = versions.last().unwrap();
    for reader in ["duckdb", "delta_scan", "pandas"] {
        assert_eq!(seen[reader]["set"], seen["polars"][last]["set"], "{reader}");
        assert_eq!(seen[reader]["rows"], seen["polars"][last]["rows"], "{reader}");
    }
    let all = ask(store, last, "SELECT count(*) FROM labels WHERE label");
    assert_eq!(
        number(&seen["duckdb"]["changes_add_up"]),
        all,
        "changes add up to the labels"
    );
}
