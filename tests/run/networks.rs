//! A run with network `transformer`.

use std::fs;

use super::{SMALL, config, flipped_by, plan, run, tables};
use crate::support::{assert_status, run as vaplan, stdout};
use crate::train::TrainingSample;

#[test]
fn a_run_trains_the_network_of_its_file_and_another_network_is_another_training() {
    let sample = TrainingSample::new("1");
    let settings = SMALL.replace(
        "[train]\n",
        "[train]\nnetwork = 'transformer'\nlayers = 1\nheads = 2\n",
    );
    let file = config(&sample, "own", &settings);
    let first = run(&file);
    assert_status(&first, 0);
    let models: Vec<&str> = (stdout(&first).lines())
        .filter_map(|line| line.split_once("; model "))
        .map(|(_, model)| model)
        .collect();
    assert_eq!(models.len(), 3, "{}", stdout(&first));
    for model in models {
        let text = fs::read_to_string(format!("{model}/model.json")).unwrap();
        let told: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(told["training"]["network"], "transformer", "{model}");
        assert_eq!(told["training"]["layers"], 1, "{model}");
    }
    let held = tables(&sample.path("own"));
    assert_eq!(held.epochs.len(), 9, "three trainings");
    assert_eq!(flipped_by(&held.labels).len(), 1, "one epoch denoised the labels");
    assert!(stdout(&run(&file)).starts_with("nothing to do"));
    assert_status(&vaplan(["check", "--store", &sample.path("own")]), 0);

    // Every training is another one with HAN, and the labels of PLG stay.
    let with_han = settings.replace("network = 'transformer'\n", "");
    assert_eq!(config(&sample, "own", &with_han), file);
    let open: Vec<String> = plan(&file)
        .into_iter()
        .filter(|line| line.ends_with(" to be done"))
        .collect();
    assert_eq!(
        open,
        ["weak", "ple", "pld", "ple+pld"].map(|stage| format!("{stage} to be done"))
    );
    assert_status(&run(&file), 0);
    let after = tables(&sample.path("own"));
    assert_eq!(after.epochs.len(), 18);
    let losses = |of: &super::RunTables, nth: usize| of.epochs[nth].losses.clone();
    assert_ne!(
        losses(&after, 9),
        losses(&after, 0),
        "another network has other losses"
    );
}
