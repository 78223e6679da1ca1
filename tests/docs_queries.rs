//! The SQL of the documentation, run.

use std::path::Path;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::{LabelRule, Split};
use vaplan_schemas::tables::{Labels, Predictions};

use crate::denoise::labelled;
use crate::sample::name;
use crate::support::{assert_status, run, stdout};

/// The statements of a page, with the names of the sample.
fn statements(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let text = std::fs::read_to_string(path).unwrap();
    // A word that begins with two dashes is a flag.
    let plain = |block: &str| -> String {
        let lines = block.lines().filter(|line| !line.starts_with("--"));
        lines.map(|line| format!("{line}\n")).collect()
    };
    let blocks = text.split("```sql\n").skip(1);
    let blocks: Vec<String> = blocks
        .map(|rest| plain(rest.split("```").next().unwrap_or_default()))
        .collect();
    let statements = blocks.iter().flat_map(|block| block.split(';'));
    let own = statements.map(|sql| {
        sql.replace("BjCEufrlXm4_20_30", &name(0))
            .replace("'Speech'", "'Bark'")
    });
    own.filter(|sql| !sql.trim().is_empty()).collect()
}

#[test]
fn every_query_of_the_documentation_has_an_answer() {
    let case = labelled();
    case.epoch(12, &Split::ALL, Some(50.0));
    assert_status(&case.denoise(&[]), 0);
    // As far down as makes events of more than 5 s.
    assert_status(&case.relabel(&["--threshold", "visual/Bark=0.5"]), 0);
    let ask = |sql: &str| -> Vec<serde_json::Value> {
        let output = run(["query", "--store", &case.store, "--format", "json", sql]);
        assert_status(&output, 0);
        serde_json::from_str(stdout(&output)).unwrap()
    };
    for sql in statements("tables.md") {
        ask(&sql);
    }
    let answers: Vec<Vec<serde_json::Value>> = statements("queries.md").iter().map(|sql| ask(sql)).collect();
    for (sql, answer) in statements("queries.md").iter().zip(&answers) {
        assert!(!answer.is_empty(), "{sql}");
    }
    let [
        flips,
        by_class,
        changed,
        disagree,
        long,
        history,
        versions,
        probabilities,
        epochs,
    ] = &answers[..]
    else {
        panic!("{} queries, expected nine", answers.len());
    };

    let snapshot = case.latest();
    let labels = snapshot.read::<Labels>().unwrap();
    let cells = labels.iter().flat_map(|track| track.iter());
    let flipped = cells.filter(|cell| cell.rule == LabelRule::Pld).count();
    assert!(flipped > 0 && flips.len() == flipped);
    for row in flips {
        assert!(row["loss"].as_f64() > row["above"].as_f64(), "{row}");
        assert_eq!(
            (row["k"].as_u64(), row["was"].as_bool()),
            (Some(5), row["is"].as_bool().map(|is| !is))
        );
    }
    let sum = |rows: &[serde_json::Value], column: &str| {
        rows.iter().filter_map(|row| row[column].as_u64()).sum::<u64>()
    };
    assert_eq!(
        sum(by_class, "to_set") + sum(by_class, "to_unset"),
        flipped as u64
    );
    assert_eq!(epochs[0]["epoch"], 12);
    let changes = crate::support::label_changes(&snapshot);
    let of_pld = changes
        .iter()
        .filter(|row| row.why.as_ref().is_some_and(|why| why.epoch == 12));
    assert_eq!(changed.len(), of_pld.count());

    for row in disagree {
        let class = row["class"].as_str().unwrap();
        let (mut either, mut one) = (0, 0);
        for audio in labels
            .iter()
            .filter(|track| track.modality == Modality::Audio && *track.class == *class)
        {
            let visual = labels.iter().find(|track| {
                (track.modality, &track.video, &track.class) == (Modality::Visual, &audio.video, &audio.class)
            });
            for (audio, visual) in audio.iter().zip(visual.unwrap().iter()) {
                either += u64::from(audio.label || visual.label);
                one += u64::from(audio.label != visual.label);
            }
        }
        assert_eq!(row["segments"].as_u64(), Some(either), "{row}");
        assert_eq!(
            sum(std::slice::from_ref(row), "only_heard") + sum(std::slice::from_ref(row), "only_seen"),
            one
        );
        assert!(
            (row["disagree"].as_f64().unwrap() - one as f64 / either as f64).abs() < 1e-12,
            "{row}"
        );
    }
    assert!(long.iter().all(|row| row["seconds"].as_f64().unwrap() > 5.0));
    let own = changes.iter().filter(|row| *row.video == name(0)).count();
    assert_eq!(
        (history.len(), sum(versions, "set_") + sum(versions, "unset")),
        (own, own as u64)
    );
    let track = snapshot.read::<Predictions>().unwrap();
    let track = track
        .iter()
        .find(|track| *track.video == name(0) && track.modality == Modality::Visual)
        .unwrap();
    let classes = probabilities.len() / 10;
    assert!(classes > 0 && probabilities.len() == 10 * classes);
    let first = probabilities[0]["probability"].as_f64().unwrap() as f32;
    assert!(track.probability.contains(&first));
}
