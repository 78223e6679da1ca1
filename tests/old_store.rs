//! A store that an earlier program wrote opens, relabels and checks; see `tests/fixtures/store_0_1/README.md`.

use std::path::Path;
use std::process::Output;

use vaplan_schemas::rows::LabelChangeRow;

use crate::sample::Tables;
use crate::support::{assert_status, scratch, stderr, stdout, vaplan};

/// A copy of the fixture, where the program may write.
fn copied() -> tempfile::TempDir {
    let folder = scratch();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store_0_1");
    copy(&fixture, folder.path());
    // git keeps no empty folder, so a store that was copied by git has no `_vaplan`.
    let own = folder.path().join("store/_vaplan");
    if own.exists() {
        std::fs::remove_dir(own).unwrap();
    }
    folder
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, to) = (
            entry.as_ref().unwrap(),
            to.join(entry.as_ref().unwrap().file_name()),
        );
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}

/// Runs a command line in the folder, as its user did: the old store holds paths relative to it.
fn run(folder: &Path, line: &str) -> Output {
    let words = line.split_whitespace();
    vaplan().current_dir(folder).args(words).output().unwrap()
}

const LABEL: &str = "--annotations annotations --visual features/visual --visual-text features/visual_text.npy \
                     --audio features/audio --audio-text features/audio_text.npy";

/// The store that today's program makes of the same inputs by the same commands.
fn fresh(folder: &Path) {
    assert_status(&run(folder, &format!("label --store fresh {LABEL}")), 1);
    for change in [
        "--threshold visual/Song=1.1",
        "--user user.csv",
        "--predictions predictions --epoch 3 --alpha 2 --guard 0.2",
    ] {
        assert_status(&run(folder, &format!("relabel --store fresh {change}")), 0);
    }
}

/// Rows of `label_changes` without the number of their version.
fn unnumbered(tables: &Tables) -> Vec<LabelChangeRow> {
    let rows = tables.changes.iter().cloned();
    rows.map(|row| LabelChangeRow { version: 0, ..row }).collect()
}

#[test]
fn an_old_store_opens_and_its_labels_are_those_of_todays_program() {
    let folder = copied();
    let folder = folder.path();
    let checked = run(folder, "check --store store");
    assert_status(&checked, 0);
    assert!(stdout(&checked).contains("version 4"), "{}", stdout(&checked));
    fresh(folder);
    let (old, new) = (
        Tables::read(&folder.join("store")),
        Tables::read(&folder.join("fresh")),
    );
    assert_eq!(old.labels, new.labels);
    assert_eq!(old.changes, new.changes);
    assert_eq!(old.scores, new.scores);
}

#[test]
fn sql_and_timelines_of_an_old_store_are_those_of_a_store_of_today() {
    let folder = copied();
    let folder = folder.path();
    fresh(folder);
    let same = |line: &str, more: &[&str]| {
        let answers = ["store", "fresh"].map(|store| {
            let words = line.split_whitespace().chain(["--store", store]);
            let words = words.chain(more.iter().copied());
            let answer = vaplan().current_dir(folder).args(words).output().unwrap();
            assert_status(&answer, 0);
            stdout(&answer).to_owned()
        });
        assert_eq!(answers[0], answers[1], "{line} {more:?}");
        assert!(answers[0].lines().count() > 2, "{}", answers[0]);
    };
    for version in ["1", "4"] {
        for sql in [
            "SELECT * FROM scores ORDER BY video, modality, class, segment",
            // A track has one threshold. Before, the segments with a user label had none.
            "SELECT video, modality, class, segment, label, rule, score, CASE WHEN rule <> 'user' THEN threshold END, \
             why FROM labels ORDER BY video, modality, class, segment",
            "SELECT * FROM label_changes ORDER BY version, video, modality, class, segment",
            "SELECT * FROM events ORDER BY video, modality, class, onset",
        ] {
            same("query --format csv", &["--version", version, sql]);
        }
        same(
            "show --width 100",
            &["--version", version, "--", "vid00000000_0_10"],
        );
    }
}

#[test]
fn an_old_store_relabels_as_a_fresh_one_does_and_stays_whole() {
    let folder = copied();
    let folder = folder.path();
    fresh(folder);
    std::fs::write(
        folder.join("weak.csv"),
        "filename\tevent_labels\nvid00000000_0_10\tBark\nvid00000009_0_10\tBell\n",
    )
    .unwrap();
    // A threshold reads scores alone, a weak label reads features again, the bare rule of PLD flips other labels.
    for change in [
        "--threshold audio/Bark=1.05",
        "--weak-add weak.csv",
        "--alpha 3 --guard 0",
    ] {
        for store in ["store", "fresh"] {
            let done = run(folder, &format!("relabel --store {store} {change}"));
            assert_status(&done, 0);
        }
        let (old, new) = (
            Tables::read(&folder.join("store")),
            Tables::read(&folder.join("fresh")),
        );
        assert_eq!(old.labels, new.labels, "{change}");
        // The old store makes one version more: the one that records absolute paths instead of relative ones.
        assert_eq!(unnumbered(&old), unnumbered(&new), "{change}");
        assert_eq!(old.scores, new.scores, "{change}");
        assert_eq!(old.rejects.len(), new.rejects.len(), "{change}");
        let checked = run(folder, "check --store store");
        assert_status(&checked, 0);
    }
    for upkeep in [
        "optimize --store store",
        "vacuum --store store --keep 1",
        "check --store store",
    ] {
        let done = run(folder, upkeep);
        assert_status(&done, 0);
        assert!(!stderr(&done).contains("error"), "{upkeep}: {}", stderr(&done));
    }
}
