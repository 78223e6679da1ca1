//! Network `transformer` with every command that takes a network: `train`, `predict`, `eval`, `ablate`.

use std::fs;

use vaplan_schemas::rows::VideoPredictionRow;
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::VideoPredictions;

use crate::support::{assert_status, run, stderr, stdout};
use crate::train::{TrainingSample, metric};

/// Two layers, so that the test takes seconds.
const SMALL: &str = "network = \"transformer\"\nlayers = 2\nweight_average = 0\nfeature_dropout = 0\n";

#[test]
fn a_transformer_learns_resumes_bit_for_bit_and_predicts_what_the_store_has() {
    let sample = TrainingSample::new("8");
    sample.copy("other");
    let config = format!("{SMALL}learning_rate = 0.002\n");
    let output = sample.train("store", &config, "5");
    assert_status(&output, 0);
    let rows = sample.epochs("store");
    let score = |row| metric(row, "val.fused.segment.type_av");
    let best = rows.iter().map(score).fold(0.0, f64::max);
    let first = score(&rows[0]);
    assert!(
        best > first + 5.0,
        "segment Type@AV {first} at first, {best} at best"
    );

    // A training that was killed ends in the same bytes.
    sample.kill_in_the_third_epoch_with("other", &config);
    assert_status(&sample.train("other", &config, "5"), 0);
    let checkpoint = fs::read(sample.checkpoint("store")).unwrap();
    assert!(fs::read(sample.checkpoint("other")).unwrap() == checkpoint);
    let header = String::from_utf8_lossy(&checkpoint[8..4000]).into_owned();
    assert!(header.contains(r#""network":"transformer""#), "{header}");
    let model = fs::read_to_string(sample.path("store/_vaplan/train/model/model.json")).unwrap();
    let model: serde_json::Value = serde_json::from_str(&model).unwrap();
    assert_eq!(model["training"]["network"], "transformer");
    assert_eq!(model["training"]["layers"], 2);

    // `predict` gives the probabilities that the training wrote.
    let store = sample.path("store");
    let best = sample.path("store/_vaplan/train/best.safetensors");
    let words = vec![
        "predict",
        "--checkpoint",
        &best,
        "--store",
        &store,
        "--threads",
        "1",
    ];
    assert_status(&run(sample.features(words)), 0);
    let snapshot = Store::open(store.as_ref()).unwrap().at_version(None).unwrap();
    let rows = snapshot.read::<VideoPredictions>().unwrap();
    let last = rows.iter().map(|row| row.epoch).max().unwrap();
    let mut compared = 0;
    for row in rows.iter().filter(|row| row.epoch == last) {
        let of_training = |other: &&VideoPredictionRow| other.video == row.video && other.epoch != last;
        let same = rows.iter().filter(of_training).any(|other| {
            let mut pairs = other.probability.iter().zip(&row.probability);
            pairs.all(|(a, b)| (a - b).abs() < 1e-6)
        });
        compared += usize::from(same);
    }
    assert_eq!(compared, rows.iter().filter(|row| row.epoch == last).count());
    assert!(compared >= 80 * 8, "{compared}");
}

#[test]
fn an_ablation_compares_networks_and_a_flag_names_one() {
    let sample = TrainingSample::new("1");
    let words = |more: &[&str]| sample.ablate("store", "", &[&["--epochs", "2"][..], more].concat());
    let common = ["--seeds", "1,2", "--lines", "weak,pseudo+richness"];
    let output = words(&[&common[..], &["--networks", "han,transformer"]].concat());
    assert_status(&output, 0);
    let told = stdout(&output);
    for row in [
        "weak han ",
        "weak transformer ",
        "pseudo+richness han ",
        "pseudo+richness transformer ",
    ] {
        assert_eq!(
            told.lines().filter(|line| line.starts_with(row)).count(),
            3,
            "one for each protocol, and one for the score on val, {row}: {told}"
        );
    }
    let of = |name: &str| {
        let line = told.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].to_owned()
    };
    assert_ne!(
        of("weak han"),
        of("weak transformer"),
        "another network has other scores"
    );
    // One network alone has the same scores, and the scores of the other are not trained again.
    let alone = words(&[&common[..], &["--parser", "transformer"]].concat());
    assert_status(&alone, 0);
    let own: Vec<&str> = of("weak transformer").leak().split_whitespace().collect();
    let line = stdout(&alone)
        .lines()
        .find(|line| line.starts_with("weak "))
        .unwrap();
    assert_eq!(line.split_whitespace().skip(1).collect::<Vec<_>>(), own);

    let refused = words(&["--networks", "han,hat"]);
    assert_status(&refused, 2);
    let text = stderr(&refused);
    assert!(
        text.contains("invalid value 'hat'") && text.contains("han, transformer"),
        "{text}"
    );
}
