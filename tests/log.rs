//! `vaplan log` beyond what tests/query.rs asks: what each version moved.

use crate::small_store::small_store;
use crate::support::{assert_status, run, scratch, stdout};

#[test]
fn log_tells_what_each_version_moved() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let log = |format: &str| {
        let output = run([
            "log".as_ref(),
            "--format".as_ref(),
            format.as_ref(),
            "--store".as_ref(),
            store.as_os_str(),
        ]);
        assert_status(&output, 0);
        stdout(&output).to_owned()
    };
    let table = log("table");
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0][2..5], ["11", "changed", "vaplan"]);
    assert_eq!(lines[1][2..5], ["1", "changed", "vaplan"]);
    let versions: serde_json::Value = serde_json::from_str(&log("json")).unwrap();
    assert_eq!(
        versions[0]["moved"],
        serde_json::json!(["classes", "label_changes", "labels", "scores", "videos"])
    );
    let second = &versions[1];
    assert_eq!(second["moved"], serde_json::json!(["label_changes", "labels"]));
    assert_eq!(second["label_changes"], 1);
    let time = second["committed_at"].as_str().unwrap();
    assert!(
        time.ends_with('Z') && time.len() == "2026-11-21T05:00:00Z".len(),
        "{time}"
    );
}
