//! `vaplan denoise --format json`.

use vaplan_schemas::Modality;
use vaplan_schemas::rows::Split;

use crate::denoise::labelled;
use crate::sample::CLASSES;
use crate::support::{assert_status, stdout};

#[test]
fn the_json_report_says_what_the_table_and_the_store_say() {
    let case = labelled();
    case.epoch(2, &Split::ALL, Some(50.0));
    let json = |flags: &[&str]| -> serde_json::Value {
        let output = case.denoise(&[&["--format", "json"], flags].concat());
        assert_status(&output, 0);
        serde_json::from_str(stdout(&output)).unwrap()
    };
    let dry = json(&["--dry-run"]);
    assert_eq!(
        (&dry["version"], &dry["epoch"]),
        (&serde_json::Value::Null, &2.into())
    );
    assert_eq!(case.latest().version().version, 2, "a dry run commits nothing");
    let done = json(&[]);
    let flipped = case.flipped();
    // The labels that the dry run names are those that the next run flips.
    let mut named: Vec<_> = dry["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            assert_eq!(change["rule"], "pld");
            let text = |key: &str| change[key].as_str().unwrap().to_owned();
            let modality: Modality = text("modality").parse().unwrap();
            let segment = change["segment"].as_u64().unwrap() as usize;
            (
                text("video"),
                modality,
                text("class"),
                segment,
                change["label"].as_bool().unwrap(),
            )
        })
        .collect();
    let mut expected = flipped.clone();
    named.sort();
    expected.sort();
    assert_eq!(named, expected);
    assert_eq!(done["changes"], dry["changes"]);
    assert_eq!(done["version"], case.latest().version().version);
    let set = flipped.iter().filter(|own| own.4).count();
    assert_eq!(
        (&done["set"], &done["unset"]),
        (&set.into(), &(flipped.len() - set).into())
    );
    assert_eq!(done["audio"], serde_json::Value::Null);
    assert_eq!(done["visual"]["rule"], "pld");
    assert_eq!(
        (
            &done["visual"]["parameters"]["alpha"],
            &done["visual"]["parameters"]["k"]
        ),
        (&10.0.into(), &5.0.into())
    );
    let flips = done["flips"].as_array().unwrap();
    for class in CLASSES {
        let of = |label: bool| {
            flipped
                .iter()
                .filter(|own| own.2 == class && own.4 == label)
                .count()
        };
        let row = flips.iter().find(|row| row["class"] == class);
        let counts = row.map_or((0, 0), |row| {
            (row["set"].as_u64().unwrap(), row["unset"].as_u64().unwrap())
        });
        assert_eq!(counts, (of(true) as u64, of(false) as u64), "{class}");
    }
    // Split test has dense truth. The table has the same scores, with one decimal.
    let scores = &done["segment_scores"][0];
    assert_eq!(scores["split"], "test");
    let output = case.denoise(&[]);
    let line = stdout(&output)
        .lines()
        .find(|line| line.starts_with("test     after"))
        .unwrap()
        .to_owned();
    let visual = scores["after"]["visual"].as_f64().unwrap();
    assert!(line.contains(&format!("{visual:.1}")), "{line}: {scores}");
}
