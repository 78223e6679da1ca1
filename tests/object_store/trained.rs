//! Trained networks and stores in S3: `train`, `predict` and `parse`.

use super::{S3, UPLOAD};
use crate::support::assert_status;
use crate::train::TrainingSample;

#[test]
fn train_and_predict_on_a_store_in_s3_give_the_network_and_the_rows_of_a_local_store() {
    let test = "train_and_predict_on_a_store_in_s3_give_the_network_and_the_rows_of_a_local_store";
    let Some(s3) = S3::start(test) else { return };
    let sample = TrainingSample::new("1");
    let (local, remote) = (sample.path("store"), "s3://bucket/trained");
    s3.done(&["store", "--store", &local, "--copy-to", remote]);
    s3.python(UPLOAD, &[&sample.path("features"), "in/features"]);
    let at = |features: &str| ["visual", "audio"].map(|modality| format!("{features}/{modality}"));
    let places = [
        (local.as_str(), sample.path("features"), s3.path("trained-local")),
        (
            remote,
            "s3://bucket/in/features".to_owned(),
            s3.path("trained-remote"),
        ),
    ];
    for (store, features, out) in &places {
        let [visual, audio] = at(features);
        let train = [
            "train", "--quiet", "--store", store, "--visual", &visual, "--audio", &audio,
        ];
        let words = ["--epochs", "1", "--threads", "1", "--out", out];
        assert_status(&s3.vaplan(&[&train[..], &words].concat()), 0);
    }
    // The header names the paths of the training.
    let weights = |out: &str| {
        let bytes = std::fs::read(format!("{out}/best.safetensors")).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[8 + header..].to_vec()
    };
    let trained = [weights(&places[0].2), weights(&places[1].2)];
    assert!(
        trained[0].len() > 1000 && trained[0] == trained[1],
        "the weights of the local store"
    );

    let checkpoint = format!("{}/best.safetensors", places[0].2);
    let rows = |store: &str| {
        let tables = [
            "SELECT * FROM predictions ORDER BY epoch, video, modality, segment",
            "SELECT * FROM video_predictions ORDER BY epoch, video",
            "SELECT version, epoch FROM versions ORDER BY version",
        ];
        tables.map(|sql| s3.done(&["query", "--store", store, "--format", "csv", sql]))
    };
    let before = rows(remote);
    for (store, features, _) in &places {
        let [visual, audio] = at(features);
        let predict = [
            "predict", "--quiet", "--store", store, "--visual", &visual, "--audio", &audio,
        ];
        let output = s3.vaplan(&[&predict[..], &["--checkpoint", &checkpoint, "--threads", "1"]].concat());
        assert_status(&output, 0);
    }
    let after = rows(remote);
    assert_eq!(after, rows(&local));
    assert!(
        after[0].lines().count() > before[0].lines().count() + 80,
        "{}",
        after[0].lines().count()
    );
    let sql = "SELECT max(epoch) FROM predictions";
    let epoch = s3.done(&["query", "--store", remote, "--format", "csv", sql]);
    let epoch = epoch.lines().nth(1).unwrap();
    let evaluated = |store: &str| {
        s3.done(&[
            "eval", "--store", store, "--split", "val", "--epoch", epoch, "--format", "json",
        ])
    };
    assert_eq!(evaluated(remote), evaluated(&local));
    s3.done(&["check", "--store", remote]);
}

#[cfg(feature = "encode")]
#[test]
fn parse_with_a_model_and_encoders_at_urls_gives_the_events_of_local_ones() {
    use crate::parse::{ParseStudio, VIDEOS, events};
    use crate::support::stderr;
    let test = "parse_with_a_model_and_encoders_at_urls_gives_the_events_of_local_ones";
    let Some(parse) = ParseStudio::new(test) else {
        return;
    };
    let Some(s3) = S3::start(test) else { return };
    let media = parse.path("media");
    assert_status(&parse.parse(&[&media, "--out", &parse.path("local")]), 0);
    for folder in ["model", "clip", "clap"] {
        s3.python(UPLOAD, &[&parse.path(folder), &format!("in/{folder}")]);
    }
    // The model names the folders of its encoders. They are gone on this machine.
    for folder in ["clip", "clap", "model"] {
        std::fs::rename(parse.path(folder), parse.path(&format!("{folder}-gone"))).unwrap();
    }
    let url = |name: &str| format!("s3://bucket/in/{name}");
    let (model, clip, clap) = (url("model"), url("clip"), url("clap"));
    let with = |out: &str, more: &[&str]| {
        let words = ["parse", "--threads", "1", "--model", &model, &media, "--out", out];
        s3.vaplan(&[&words[..], more].concat())
    };
    let without = with(&parse.path("without"), &[]);
    assert_status(&without, 2);
    assert!(stderr(&without).contains("--clip DIR"), "{}", stderr(&without));
    let mut found = 0;
    // A cache of one byte holds the folders that the command uses, until the command ends.
    for (out, limit) in [("remote", "68719476736"), ("small", "1")] {
        let out = parse.path(out);
        let more = ["--clip", &clip, "--clap", &clap, "--cache-bytes", limit];
        assert_status(&with(&out, &more), 0);
        for video in VIDEOS {
            let (own, there) = (parse.json("local", video), parse.json(&out, video));
            assert_eq!(events(&there), events(&own), "{video}");
            found += events(&own).len();
        }
    }
    assert!(found > 0, "the network finds events");
    let missing = s3.vaplan(&["parse", "--model", "s3://bucket/in/missing", &media]);
    assert_status(&missing, 2);
    assert!(
        stderr(&missing).contains("s3://bucket/in/missing"),
        "{}",
        stderr(&missing)
    );
}
