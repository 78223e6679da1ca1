//! `vaplan optimize` and `vaplan vacuum`, end to end.

use crate::small_store::small_store;
use crate::support::{assert_status, run, scratch, stderr, stdout};

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
