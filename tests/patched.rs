//! A store whose rows were partly taken away by deletion vectors: SQL, and readers from outside, see what our reader sees.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use vaplan_schemas::rows::{LabelChangeRow, LabelChangeTrack, LabelTrack, ScoreTrack};
use vaplan_schemas::store::{CommitInfo, Filter, Snapshot, Store};
use vaplan_schemas::tables::{LabelChanges, Labels, Scores, Table, Videos};

use crate::open_outside::python;
use crate::sample::{Sample, name};
use crate::support::{assert_status, run, stdout};

/// Version 2: every ninth video lost its scores and labels of one modality, and has other scores of the other.
///
/// That leaves bucket files with holes, a patch file, and one table without any vector.
fn patched() -> (Sample, String) {
    let sample = Sample::new(48);
    assert_status(&sample.label("store", &[]), 0);
    let store = Store::open(&sample.path("store")).unwrap().with_plain_bytes(0);
    let lock = store.lock(&mut |_| ()).unwrap();
    let snapshot = store.latest().unwrap().unwrap();
    let filter = Filter::videos((0..48).step_by(9).map(|nth| name(nth).into()));
    let info = CommitInfo {
        command: "vaplan relabel".to_owned(),
        ..CommitInfo::default()
    };
    let mut commit = store.begin(&lock, info).unwrap();
    let version = commit.version().0;

    let scores = snapshot.scan::<Scores>(&filter).unwrap();
    let gone: Vec<_> = scores.iter().map(|found| found.place).collect();
    let audio = |track: &ScoreTrack| track.modality == vaplan_schemas::Modality::Audio;
    let mut new: Vec<ScoreTrack> = scores.into_iter().map(|found| found.row).filter(audio).collect();
    new.iter_mut()
        .flat_map(|track| &mut track.score)
        .for_each(|score| *score = 0.5 - *score / 4.0);
    commit.patch::<Scores>(&gone, &new).unwrap();

    let labels = snapshot.scan::<Labels>(&filter).unwrap();
    let gone: Vec<_> = labels.iter().map(|found| found.place).collect();
    let mut changes = Vec::new();
    let mut after: Vec<LabelTrack> = Vec::new();
    for mut track in labels.into_iter().map(|found| found.row) {
        let before = track.clone();
        let new = new.iter().find(|new| {
            (&new.video, new.modality, &new.class) == (&track.video, track.modality, &track.class)
        });
        if let Some(new) = new {
            let threshold = track.threshold.unwrap();
            let (video, class) = (track.video.clone(), track.class.clone());
            track = LabelTrack::plg(video, track.modality, class, new.score.clone(), threshold);
            after.push(track.clone());
        } else {
            track.labels.fill(false);
        }
        for (segment, (old, cell)) in before.iter().zip(track.iter()).enumerate() {
            if old.label != cell.label {
                changes.push(LabelChangeRow {
                    version,
                    video: track.video.clone(),
                    modality: track.modality,
                    class: track.class.clone(),
                    segment: segment as u32,
                    from: old.label,
                    to: cell.label,
                    rule: cell.rule,
                    why: None,
                });
            }
        }
    }
    assert!(!changes.is_empty());
    commit.patch::<Labels>(&gone, &after).unwrap();
    commit
        .append::<LabelChanges>(&LabelChangeTrack::group(changes))
        .unwrap();
    commit.finish().unwrap();
    let snapshot = store.latest().unwrap().unwrap();
    assert_eq!(snapshot.check().unwrap(), []);
    let holes = |table: &str| {
        let files = snapshot.files(table).unwrap();
        files.iter().any(|file| file.deleted.is_some())
    };
    assert!(holes(Scores::NAME) && holes(Labels::NAME) && !holes(Videos::NAME));
    let store = sample.path("store").display().to_string();
    (sample, store)
}

fn snapshot(store: &str, version: u64) -> Snapshot {
    let store = Store::open(Path::new(store)).unwrap();
    store
        .at_version(Some(vaplan_schemas::StoreVersion(version)))
        .unwrap()
}

/// The answer to a query at a version, line by line, without its header.
fn ask(store: &str, version: u64, sql: &str) -> Vec<String> {
    let version = version.to_string();
    let output = run([
        "query",
        "--store",
        store,
        "--version",
        &version,
        "--format",
        "csv",
        sql,
    ]);
    assert_status(&output, 0);
    stdout(&output).lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn sql_sees_a_patched_store_as_our_reader_does() {
    let (_sample, store) = patched();
    let cell = |track: &LabelTrack, segment: usize| {
        let cell = track.get(segment);
        format!(
            "{},{},{},{segment},{}",
            track.video, track.modality, track.class, cell.label
        )
    };
    for version in [1, 2] {
        let snapshot = snapshot(&store, version);
        let rows = |wanted: &dyn Fn(&LabelTrack, usize) -> bool| -> Vec<String> {
            let tracks = snapshot.scan::<Labels>(&Filter::all()).unwrap();
            let cells = tracks.iter().flat_map(|found| {
                let track = &found.row;
                (0..track.segments()).map(move |segment| (track, segment))
            });
            cells
                .filter(|(track, segment)| wanted(track, *segment))
                .map(|(track, segment)| cell(track, segment))
                .collect()
        };
        let sql = |filter: &str| {
            ask(
                &store,
                version,
                &format!(
                    "SELECT video, modality, class, segment, label FROM labels {filter} \
                     ORDER BY video, modality, class, segment"
                ),
            )
        };
        assert_eq!(sql(""), rows(&|_, _| true));
        assert_eq!(sql("WHERE label"), rows(&|track, segment| track.labels[segment]));
        let (video, other) = (name(9), name(4));
        assert_eq!(
            sql(&format!("WHERE video = '{video}'")),
            rows(&|track, _| *track.video == *video)
        );
        assert_eq!(
            sql(&format!("WHERE video IN ('{video}', '{other}') AND segment > 7")),
            rows(&|track, segment| segment > 7 && (*track.video == *video || *track.video == *other))
        );
        let all = rows(&|_, _| true).len();
        assert_eq!(
            ask(&store, version, "SELECT count(*) FROM labels"),
            [all.to_string()]
        );
        assert_eq!(
            ask(&store, version, "SELECT count(score), count(*) FROM scores"),
            [format!("{all},{all}")]
        );
        assert_eq!(
            ask(&store, version, "SELECT 1 FROM labels LIMIT 100000").len(),
            all
        );
        assert_eq!(ask(&store, version, "SELECT 1 FROM labels LIMIT 7").len(), 7);
    }
}

#[test]
fn polars_duckdb_and_deltalake_see_a_patched_store_as_our_reader_does() {
    let Some(python) = python("polars_duckdb_and_deltalake_see_a_patched_store_as_our_reader_does") else {
        return;
    };
    let (_sample, store) = patched();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/open_patched.py");
    let output = Command::new(python).arg(script).arg(&store).output().unwrap();
    assert_status(&output, 0);
    let seen: Value = serde_json::from_str(stdout(&output)).unwrap();
    for version in [1, 2] {
        let sql = "SELECT count(*), count(*) FILTER (WHERE label), count(DISTINCT video) FROM labels";
        let wanted = ask(&store, version, sql).join("");
        let rows = "SELECT video, modality, class, segment, score FROM scores ORDER BY 1, 2, 3, 4";
        let wanted_rows = ask(&store, version, rows);
        for reader in ["polars", "deltalake"] {
            let own = &seen[reader][version.to_string()];
            assert_eq!(
                own["labels"].as_str(),
                Some(&*wanted),
                "{reader}, version {version}"
            );
            let own_rows = own["scores"].as_array().expect("a list");
            assert_eq!(own_rows.len(), wanted_rows.len(), "{reader}, version {version}");
            for (own, wanted) in own_rows.iter().zip(&wanted_rows) {
                let (key, score) = wanted.rsplit_once(',').expect("five columns");
                assert_eq!(own["key"].as_str(), Some(key), "{reader}");
                // As text: the JSON crate rounds numbers.
                let score: f64 = score.parse().unwrap();
                let seen = own["score"].as_str().and_then(|text| text.parse().ok());
                assert_eq!(seen, Some(score), "{reader}, {key}");
            }
        }
    }
    assert_eq!(seen["duckdb"], seen["polars"]["2"]["labels"]);
}
