//! `vaplan audit`: from a sample to a report, as a person would use it.

use std::fs;

use serde_json::Value;

use crate::sample::Sample;
use crate::support::{assert_status, run, stderr, stdout};

#[test]
fn a_sample_is_filled_in_read_back_and_judges_later_labels() {
    let sample = Sample::new(24);
    assert_status(&sample.label("store", &[]), 0);
    let path = |name: &str| sample.path(name).to_str().unwrap().to_owned();
    let (store, file) = (path("store"), path("sample.csv"));
    let audit = |more: &[&str]| run([&["audit", "--store", &store][..], more].concat());

    let none = audit(&[]);
    assert_status(&none, 2);
    assert!(
        stderr(&none).contains("version 1 has no verdicts, expected some: draw a sample"),
        "{}",
        stderr(&none)
    );
    let drawn = audit(&["--sample", "60", "--out", &file, "--seed", "4"]);
    assert_status(&drawn, 0);
    assert_eq!(
        stdout(&drawn),
        format!("60 segments of version 1 in {file}, 30 of them labelled\n")
    );
    let again = audit(&["--sample", "60", "--out", &file]);
    assert_status(&again, 2);
    assert!(
        stderr(&again).contains("exists, expected a new file"),
        "{}",
        stderr(&again)
    );
    let other = path("other.csv");
    assert_status(&audit(&["--sample", "60", "--out", &other, "--seed", "4"]), 0);
    assert_eq!(
        fs::read(&file).unwrap(),
        fs::read(&other).unwrap(),
        "the sample is that of its seed"
    );

    // A person says that each event of an even segment occurs, and leaves the last row open.
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let filled = lines.iter().enumerate().map(|(nth, line)| {
        let mut fields: Vec<&str> = line.split(',').collect();
        if nth > 0 && nth < lines.len() - 1 {
            fields[6] = if fields[3].parse::<u32>().unwrap() % 2 == 0 {
                "1"
            } else {
                "0"
            };
        }
        fields.join(",") + "\n"
    });
    fs::write(
        &file,
        filled.collect::<String>() + "nobody,audio,Bark,0,0,1,1,1,class\n",
    )
    .unwrap();
    let read = audit(&["--verdicts", &file, "--format", "json"]);
    assert_status(&read, 1);
    assert!(
        stderr(&read).contains("59 verdicts read, 1 row without a verdict"),
        "{}",
        stderr(&read)
    );
    assert!(
        stderr(&read).contains("the store has no audio labels of class `Bark` of this video"),
        "{}",
        stderr(&read)
    );
    let report: Value = serde_json::from_str(stdout(&read)).unwrap();
    assert_eq!(
        (&report["version"], &report["rows"][0]["verdicts"]),
        (&2.into(), &59.into())
    );
    let precision = &report["rows"][0]["precision"];
    let number = |key: &str| precision[key].as_f64().unwrap();
    assert!(
        number("low") < number("value") && number("value") < number("high"),
        "{report}"
    );
    assert!(number("more_to_halve") > 0.0);
    let names: Vec<&str> = report["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["overall", "Bark", "Bell", "Song"]);
    // The same file again changes nothing.
    assert_status(&audit(&["--verdicts", &file]), 1);
    let log = run(["log", "--store", &store]);
    assert_eq!(stdout(&log).lines().count(), 2, "{}", stdout(&log));
    assert_status(&run(["check", "--store", &store]), 0);

    // Labels change, and the verdicts stay.
    assert_status(
        &run(["relabel", "--store", &store, "--visual-threshold", "1.01"]),
        0,
    );
    let later = audit(&["--by", "modality"]);
    assert_status(&later, 0);
    let table = stdout(&later);
    assert!(table.starts_with("version 3, by modality "), "{table}");
    assert!(
        table.lines().nth(1).unwrap().starts_with("overall ") && table.contains("\nvisual "),
        "{table}"
    );
    // `label` from the same inputs still knows that it is done, and keeps the verdicts.
    let verdicts = [
        "query",
        "--store",
        &store,
        "--format",
        "csv",
        "SELECT count(*) FROM verdicts",
    ];
    assert_eq!(stdout(&run(verdicts)).lines().nth(1), Some("59"));
    assert_status(&sample.label("store", &["--visual-threshold", "1.05"]), 0);
    assert_eq!(stdout(&run(verdicts)).lines().nth(1), Some("59"), "labelled anew");
}

#[test]
fn a_sample_of_no_segments_is_refused() {
    let sample = Sample::new(4);
    assert_status(&sample.label("store", &[]), 0);
    let (store, file) = (sample.path("store"), sample.path("none.csv"));
    let words = [
        "audit",
        "--store",
        store.to_str().unwrap(),
        "--sample",
        "0",
        "--out",
    ];
    let output = run([&words[..], &[file.to_str().unwrap()]].concat());
    assert_status(&output, 2);
    assert_eq!(stderr(&output), "vaplan: --sample is 0, expected at least 1\n");
    assert!(!file.exists());
}
