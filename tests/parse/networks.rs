//! A model folder names its network, so that `parse` needs no other word for another network.

use std::fs;

use super::{ParseStudio, VIDEOS, classes, description, events, predicted_events};
use crate::support::{assert_status, run};

#[test]
fn a_transformer_parses_what_it_predicts() {
    let Some(parse) = ParseStudio::new("a_transformer_parses_what_it_predicts") else {
        return;
    };
    let settings = fs::read_to_string(parse.path("train.toml")).unwrap();
    let own = "network = \"transformer\"\nlayers = 1\nheads = 2\nweight_average = 0\n";
    fs::write(parse.path("train.toml"), format!("{own}{settings}")).unwrap();
    let model = parse.train(&[]);
    let told = description(&model);
    assert_eq!(told["training"]["network"], "transformer");
    // The folder is all that `parse` needs.
    let moved = parse.path("moved");
    fs::rename(&model, &moved).unwrap();
    let (media, out) = (parse.path("media"), parse.path("out"));
    let words = ["parse", "--threads", "1", "--protocol", "segment", "--out", &out];
    assert_status(&run([&words[..], &["--model", &moved, &media]].concat()), 0);

    let npy = parse.path("npy");
    let features = |modality: &str| parse.path(&format!("store/_vaplan/encoded/{modality}"));
    let predict = ["predict", "--quiet", "--threads", "1", "--npy", &npy];
    let checkpoint = parse.path("trained/best.safetensors");
    let (visual, audio) = (features("visual"), features("audio"));
    let from = [
        "--checkpoint",
        &checkpoint,
        "--visual",
        &visual,
        "--audio",
        &audio,
    ];
    assert_status(&run([&predict[..], &from].concat()), 0);
    let mut all = 0;
    for video in VIDEOS {
        // The features of a store have the full names of its videos.
        let name = format!("{video}_0_10");
        let expected = predicted_events(npy.as_ref(), &name, &classes(&told));
        all += expected.len();
        assert_eq!(events(&parse.json("out", video)), expected, "{video}");
    }
    assert!(all >= VIDEOS.len(), "the network sets labels: {all} events");
}
