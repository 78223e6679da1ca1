//! Pictures and JSON of commands that print text by default.

use std::fs;

use serde_json::Value;

use crate::sample::Sample;
use crate::small_store::{LONG, small_store};
use crate::support::{assert_status, run, scratch, stderr, stdout};

fn json(words: &[&str]) -> Value {
    let output = run(words);
    assert_status(&output, 0);
    serde_json::from_str(stdout(&output)).unwrap()
}

#[test]
fn a_timeline_is_one_html_page_without_script_or_request() {
    let folder = scratch();
    let store = small_store(folder.path(), "store");
    let output = run(["show", "--store", store.to_str().unwrap(), "--html", LONG]);
    assert_status(&output, 0);
    let page = stdout(&output);
    assert!(
        page.starts_with("<!doctype html>") && page.ends_with("</html>\n"),
        "{page}"
    );
    assert!(
        !page.contains("<script") && !page.contains("http"),
        "nothing runs and nothing is fetched"
    );
    // Six segments of Dog in each modality, four of them labelled in both.
    assert_eq!(page.matches("<rect class=").count(), 6 * 3, "{page}");
    assert!(
        page.contains("<title>4 to 5 s: labelled, score 0.7500, threshold 0.1875</title>"),
        "{page}"
    );
}

#[test]
fn calibrate_draws_its_curve_and_prints_json() {
    let sample = Sample::new(40);
    assert_status(&sample.label("store", &[]), 0);
    let (store, plot) = (sample.path("store"), sample.path("curve.svg"));
    let words = [
        "calibrate",
        "--store",
        store.to_str().unwrap(),
        "--split",
        "test",
        "--format",
        "json",
    ];
    let report = json(&[&words[..], &["--plot", plot.to_str().unwrap()]].concat());
    assert_eq!(
        (&report["split"], &report["videos"]),
        (&"test".into(), &10.into())
    );
    let chosen = report["chosen"]["visual"]["thresholds"].as_array().unwrap();
    assert_eq!(chosen.len(), 3);
    assert!(report["thresholds"]["in_sample"]["visual"].as_f64() >= report["now"]["visual"].as_f64());
    let svg = fs::read_to_string(plot).unwrap();
    assert_eq!(
        (svg.matches("<polyline").count(), svg.matches(">chosen ").count()),
        (2, 2),
        "{svg}"
    );
    assert!(svg.contains(&format!(">chosen {}<", chosen[0])), "{svg}");
    assert!(
        svg.contains("<title>F over the threshold</title>") && svg.contains(">visual: F, percent<"),
        "{svg}"
    );
    for other in [sample.path("curve.png"), "-".into()] {
        let output = run([&words[..], &["--plot", other.to_str().unwrap()]].concat());
        assert_status(&output, 2);
        let expected = format!(
            "--plot is `{}`, expected a file that ends in .svg",
            other.display()
        );
        assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
        assert!(!other.exists());
    }
}

#[test]
fn plan_and_log_print_json() {
    let sample = Sample::new(24);
    assert_status(&sample.label("store", &[]), 0);
    let store = sample.path("store");
    let plan = json(&[
        "plan",
        "--store",
        store.to_str().unwrap(),
        "--visual-threshold",
        "1.1",
        "--format",
        "json",
    ]);
    assert_eq!((&plan["everything"], &plan["tracks"]), (&false.into(), &3.into()));
    assert!(plan["tables"]["labels"]["rows"].as_u64().unwrap() > 0);
    let log = json(&["log", "--store", store.to_str().unwrap(), "--format", "json"]);
    assert_eq!(log[0]["version"], 1);
}
