//! `vaplan optimize` and `vaplan vacuum`, end to end.

use std::fs;
use std::path::Path;

use crate::sample::{Sample, name};
use crate::small_store::small_store;
use crate::support::{assert_status, run, scratch, stderr, stdout, vaplan};

fn ask(store: &str, words: &[&str]) -> String {
    let mut all = vec![words[0], "--store", store];
    all.extend(&words[1..]);
    let output = run(&all);
    assert_status(&output, 0);
    stdout(&output).to_owned()
}

#[test]
fn optimize_and_vacuum_leave_the_same_answers_and_the_log_still_lists_what_is_gone() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let store = store.to_str().unwrap();
    let sql = "SELECT * FROM labels ORDER BY video, modality, class, segment";
    let before = ask(store, &["query", "--format", "csv", sql]);
    let told = ask(store, &["optimize"]);
    // Two files of `label_changes`, one of each version, become one.
    assert!(
        told.starts_with("version 3: ") && told.contains("checkpoints of"),
        "{told}"
    );
    assert_eq!(ask(store, &["query", "--format", "csv", sql]), before);
    assert_eq!(
        ask(store, &["optimize"])
            .lines()
            .next()
            .unwrap()
            .split(':')
            .next(),
        Some("nothing to rewrite")
    );
    let would = ask(store, &["vacuum", "--keep", "1", "--dry-run"]);
    assert!(would.starts_with("would remove "), "{would}");
    let first = ["query", "--store", store, "--version", "1", "SELECT 1"];
    assert_status(&run(first), 0);
    let told = ask(store, &["vacuum", "--keep", "1"]);
    assert!(
        told.starts_with("removed ") && told.contains("1 versions can be opened, 3 to 3"),
        "{told}"
    );
    assert_eq!(ask(store, &["query", "--format", "csv", sql]), before);
    let refused = run(first);
    assert_status(&refused, 2);
    assert!(
        stderr(&refused).contains("version 1 was vacuumed"),
        "{}",
        stderr(&refused)
    );
    let log = ask(store, &["log"]);
    assert_eq!(log.lines().count(), 3, "{log}");
    assert!(log.lines().nth(1).unwrap().contains("1 changed"), "{log}");
    assert!(ask(store, &["check"]).contains("version 3 is whole"));
}

/// The reader version that the log of a table asks for last.
fn reader(store: &Path, table: &str) -> u64 {
    let log = fs::read_dir(store.join(table).join("_delta_log")).unwrap();
    let mut entries: Vec<_> = log.map(|entry| entry.unwrap().path()).collect();
    entries.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    entries.sort();
    let entries: Vec<String> = entries
        .into_iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    // The last line of an entry may have no line end.
    let actions = entries.join("\n");
    let actions = actions
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut versions = actions.filter_map(|action| action["protocol"]["minReaderVersion"].as_u64());
    versions.next_back().unwrap()
}

#[test]
fn optimize_with_reader_1_leaves_tables_that_readers_without_deletion_vectors_open() {
    let sample = Sample::new(24);
    assert_status(&sample.label("store", &[]), 0);
    let place = sample.path("store");
    let store = place.to_str().unwrap();
    let correct = |label: &str| {
        let user = sample.path("user.csv");
        fs::write(
            &user,
            format!(
                "video,modality,class,label,segment\n{},visual,Bell,{label},3\n",
                name(0)
            ),
        )
        .unwrap();
        // Every change is a patch, as in a store of a size above the limit for plain files.
        let output = vaplan()
            .args(["relabel", "--store", store, "--user", user.to_str().unwrap()])
            .env("VAPLAN_PLAIN_BYTES", "0")
            .output()
            .unwrap();
        assert_status(&output, 0);
    };
    correct("1");
    correct("0");
    assert_eq!(reader(&place, "labels"), 3);
    let sql = "SELECT * FROM labels ORDER BY video, modality, class, segment";
    let before = ask(store, &["log", "--format", "json"]);
    let labels = cfg!(feature = "query").then(|| ask(store, &["query", "--format", "csv", sql]));
    let refused = run(["optimize", "--store", store, "--reader", "2"]);
    assert_status(&refused, 2);
    assert!(
        stderr(&refused).contains("[possible values: 1, 3]"),
        "{}",
        stderr(&refused)
    );
    assert_eq!(ask(store, &["log", "--format", "json"]), before);
    assert_eq!(reader(&place, "labels"), 3);
    let told = ask(store, &["optimize", "--reader", "1"]);
    assert!(told.starts_with("version 4: "), "{told}");
    for table in ["labels", "scores", "videos"] {
        assert_eq!(reader(&place, table), 1, "{table}");
    }
    if let Some(labels) = labels {
        assert_eq!(ask(store, &["query", "--format", "csv", sql]), labels);
    }
    assert!(ask(store, &["check"]).contains("version 4 is whole"));
    let again = ask(store, &["optimize", "--reader", "1"]);
    assert!(again.starts_with("nothing to rewrite"), "{again}");
}
