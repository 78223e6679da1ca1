//! `vaplan report`: one file that needs nothing else.

use std::fs;

use crate::sample::{Sample, name};
use crate::support::{assert_status, run, stderr};

#[test]
fn a_report_is_one_file_with_the_numbers_of_the_store() {
    let sample = Sample::new(12);
    assert_status(&sample.label("store", &[]), 0);
    let (store, out) = (sample.path("store"), sample.path("report.html"));
    let (store, out) = (store.to_str().unwrap(), out.to_str().unwrap());
    assert_status(
        &run(["report", "--store", store, "--out", out, "--video", &name(3)]),
        0,
    );
    let html = fs::read_to_string(out).unwrap();
    assert!(html.len() < 5_000_000, "{} bytes", html.len());
    // The only address is the name of SVG.
    assert_eq!(
        html.matches("http").count(),
        html.matches("http://www.w3.org/2000/svg").count() + html.matches("http-equiv").count()
    );
    assert!(
        !html
            .lines()
            .any(|line| line.starts_with("import ") || line.starts_with("export "))
    );
    let start = html.find("id=\"data\">").unwrap() + "id=\"data\">".len();
    let end = start + html[start..].find("</script>").unwrap();
    let data: serde_json::Value = serde_json::from_str(&html[start..end]).unwrap();
    assert_eq!(data["overview"]["version"], 1);
    assert_eq!(data["videos"][0]["video"], name(3));

    let unknown = run(["report", "--store", store, "--out", out, "--video", "nobody"]);
    assert_status(&unknown, 2);
    assert!(
        stderr(&unknown).contains("no video `nobody`"),
        "{}",
        stderr(&unknown)
    );
    let folder = sample.path("annotations");
    let into = run(["report", "--store", store, "--out", folder.to_str().unwrap()]);
    assert_status(&into, 2);
    let expected = format!(
        "vaplan: `{0}` is a folder, expected a file: name one with --out, such as `{0}/report.html`\n",
        folder.display()
    );
    assert_eq!(stderr(&into), expected);
    let nowhere = run(["report", "--store", store, "--out", "/nowhere/report.html"]);
    assert_status(&nowhere, 2);
    let text = stderr(&nowhere);
    assert!(text.contains("/nowhere/report.html"), "{text}");
    assert_eq!(
        text.matches("No such file").count(),
        1,
        "the reason is there once: {text}"
    );
}

#[test]
fn markup_in_a_name_cannot_end_the_data_of_a_report() {
    let sample = Sample::new(4);
    let classes = sample.path("annotations");
    for entry in fs::read_dir(classes).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("Bark", "</script><script>alert(1)</script>")).unwrap();
    }
    assert_status(&sample.label("store", &[]), 0);
    let (store, out) = (sample.path("store"), sample.path("report.html"));
    assert_status(
        &run([
            "report",
            "--store",
            store.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ]),
        0,
    );
    let html = fs::read_to_string(out).unwrap();
    assert!(html.contains("\\u003c/script>\\u003cscript>alert(1)") && !html.contains("<script>alert"));
    assert_eq!(html.matches("</script>").count(), 2, "the data and the script");
}
