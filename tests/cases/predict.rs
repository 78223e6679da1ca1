//! Cases of `predict --npy`.

use std::fs;

use crate::predict::{names, predict, trained};
use crate::support::{assert_status, run, stderr, stdout};

#[test]
fn a06_a_folder_that_was_in_the_output_before_stays() {
    let sample = trained();
    let part = sample.path("out/features.part");
    fs::create_dir_all(&part).unwrap();
    fs::write(format!("{part}/thesis.txt"), "precious\n").unwrap();
    let checkpoint = sample.path("store/_vaplan/train/best.safetensors");
    let words = [
        "predict",
        "--checkpoint",
        &checkpoint,
        "--npy",
        &sample.path("out"),
    ];
    assert_status(&run(sample.features(words.to_vec())), 0);
    let left = fs::read_to_string(format!("{part}/thesis.txt")).unwrap();
    assert_eq!(left, "precious\n");
    assert_eq!(names(&sample.path("out")), ["audio", "features.part", "visual"]);
    assert_eq!(names(&sample.path("out/visual")).len(), 80);
}

#[test]
fn a07_a_video_name_of_300_characters_is_left_out_and_the_others_are_predicted() {
    let sample = trained();
    let long = "x".repeat(300);
    let output = predict(&sample, &["good one", &long, "good two"], 32);
    assert_status(&output, 1);
    assert!(
        stdout(&output).contains("2 videos predicted"),
        "{}",
        stdout(&output)
    );
    assert!(stderr(&output).contains("has 300 bytes"), "{}", stderr(&output));
    assert_eq!(names(&sample.path("npy")), ["audio", "visual"]);
    assert_eq!(names(&sample.path("npy/audio")), ["good one.npy", "good two.npy"]);
}
