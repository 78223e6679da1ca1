//! Stores in folders whose names or paths object stores and URLs treat specially.

use std::fs;

use crate::sample::Sample;
use crate::support::{assert_status, run, stdout, vaplan};

/// `%20` is a percent escape, `\` separates folders in a URL, and a URL parser drops newlines.
const NAMES: [&str; 5] = ["x%20y", "a\\b", "new\nline", "100% of #1?", "[a]*"];

#[test]
fn a_store_below_a_folder_of_any_name_is_written_and_read() {
    for name in NAMES {
        let sample = Sample::new(8);
        // A sibling whose name is the decoded escape: reading it instead would answer with its empty log.
        fs::create_dir_all(sample.path("x y/store/versions/_delta_log")).unwrap();
        let place = format!("{name}/store");
        fs::create_dir(sample.path(name)).unwrap();
        assert_status(&sample.label(&place, &[]), 0);
        let store = sample.path(&place).display().to_string();
        let check = run(["check", "--store", &store]);
        assert_status(&check, 0);
        let log = run(["log", "--store", &store, "--format", "json"]);
        assert_status(&log, 0);
        let versions: serde_json::Value = serde_json::from_str(stdout(&log)).unwrap();
        assert_eq!(versions.as_array().unwrap().len(), 1, "{name}");
        let sql = "SELECT count(*) AS n FROM videos";
        let answer = run(["query", "--store", &store, "--format", "csv", sql]);
        assert_status(&answer, 0);
        assert_eq!(stdout(&answer), "n\n8\n", "{name}");
        // The second version reads the log of the first.
        let again = sample.label(&place, &["--visual-threshold", "1.1"]);
        assert_status(&again, 0);
        assert!(stdout(&again).starts_with("version 2: "), "{}", stdout(&again));
        assert_status(&run(["check", "--store", &store]), 0);
    }
}

#[test]
fn a_store_is_read_by_a_path_with_dots_and_links() {
    let sample = Sample::new(8);
    assert_status(&sample.label("store", &[]), 0);
    fs::create_dir(sample.path("beside")).unwrap();
    let folder = |place: &str| {
        vaplan()
            .current_dir(sample.path("beside"))
            .args(["query", "--format", "csv", "--store", place])
            .arg("SELECT count(*) AS n FROM videos")
            .output()
            .unwrap()
    };
    #[cfg(unix)]
    std::os::unix::fs::symlink(sample.path("store"), sample.path("link")).unwrap();
    let there: &[&str] = match cfg!(unix) {
        true => &["../store", "../beside/../store", "./../store/", "../link"],
        false => &["../store", "../beside/../store", "./../store/"],
    };
    for place in there {
        let output = folder(place);
        assert_status(&output, 0);
        assert_eq!(stdout(&output), "n\n8\n", "{place}");
    }
    // From inside the store, its folder is `..`.
    let output = vaplan()
        .current_dir(sample.path("store/labels"))
        .args(["query", "--format", "csv", "--store", "..", "SELECT 1 AS one"])
        .output()
        .unwrap();
    assert_status(&output, 0);
}
