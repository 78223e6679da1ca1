//! Media and models at URLs, and a store at a URL that is made of media.

use super::{S3, UPLOAD};
use crate::encode::Studio;
use crate::support::{assert_status, stderr, vaplan};

#[test]
fn media_and_models_at_urls_make_the_labels_of_local_ones_in_a_store_at_a_url() {
    let test = "media_and_models_at_urls_make_the_labels_of_local_ones_in_a_store_at_a_url";
    let Some(studio) = Studio::new(test) else { return };
    let Some(s3) = S3::start(test) else { return };
    let mut rows = String::new();
    for (nth, weak) in ["Speech,Dog", "Dog", "Speech"].iter().enumerate() {
        let name = format!("video{nth:06}_0_10");
        studio.frames(&name, 40);
        studio.sound(&name, 16_000, 80_000 + nth * 16);
        rows += &format!("{name}\t{weak}\n");
    }
    studio.annotate(&rows);
    let path = |name: &str| studio.path(name).display().to_string();
    for folder in ["media", "clip", "clap"] {
        s3.python(UPLOAD, &[&path(folder), &format!("in/{folder}")]);
    }
    let annotations = path("annotations");
    let label = |store: &str, at: &dyn Fn(&str) -> String| {
        let (media, clip, clap) = (at("media"), at("clip"), at("clap"));
        let words = [
            "label",
            "--store",
            store,
            "--annotations",
            &annotations,
            "--media",
            &media,
            "--clip",
            &clip,
            "--clap",
            &clap,
        ];
        s3.vaplan(&words)
    };
    let (local, remote) = (path("store"), "s3://bucket/media");
    let url = |name: &str| format!("s3://bucket/in/{name}");
    let output = label(&local, &path);
    assert!(output.status.code() < Some(2), "{}", stderr(&output));
    let output = label(remote, &url);
    assert!(output.status.code() < Some(2), "{}", stderr(&output));
    assert_eq!(s3.rows(remote), s3.rows(&local));
    let sql = "SELECT DISTINCT visual_source, audio_source FROM videos WHERE visual_source IS NOT NULL";
    let sources = s3.done(&["query", "--store", remote, "--format", "csv", sql]);
    assert!(
        sources.contains("s3://bucket/media/_vaplan/encoded/visual"),
        "{sources}"
    );
    // Another machine scores the uploaded features again.
    for (store, scratch) in [(local.as_str(), "scratch"), (remote, "elsewhere")] {
        let mut command = s3.command(&[
            "relabel",
            "--store",
            store,
            "--rule",
            "softmax",
            "--visual-scale",
            "2",
        ]);
        let output = command.env("VAPLAN_SCRATCH", s3.path(scratch)).output().unwrap();
        assert!(output.status.code() < Some(2), "{}", stderr(&output));
    }
    assert_eq!(s3.rows(remote), s3.rows(&local));
    // A path of the local disk is expected where nothing can be fetched.
    let output = vaplan()
        .args(["parse", "s3://bucket/in/media", "--model", "model"])
        .output()
        .unwrap();
    assert_status(&output, 2);
    assert!(
        stderr(&output).contains("takes a path of the local disk"),
        "{}",
        stderr(&output)
    );
}
