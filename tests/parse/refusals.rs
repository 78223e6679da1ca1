//! Models, encoders and media that cannot be used.

use std::fs;
use std::io::Write;

use super::ParseStudio;
use crate::support::{assert_status, stderr, stdout};

#[test]
fn another_encoder_is_refused_with_its_hash_and_a_moved_one_is_found_by_its_option() {
    let Some(parse) =
        ParseStudio::new("another_encoder_is_refused_with_its_hash_and_a_moved_one_is_found_by_its_option")
    else {
        return;
    };
    let wav = parse.path("media/parse000001.wav");
    // Moved.
    fs::rename(parse.path("clap"), parse.path("moved")).unwrap();
    let missing = parse.parse(&[&wav]);
    assert_status(&missing, 2);
    let message = stderr(&missing);
    let sum = message.split("SHA-256 ").nth(1).unwrap()[..64].to_owned();
    let old = parse
        .studio
        .path("clap")
        .canonicalize()
        .unwrap_or_else(|_| parse.studio.path("clap"));
    assert!(
        message.contains(&format!(
            "the clap encoder `audio_model.onnx` with SHA-256 {sum}, which is no longer in `"
        )) && message.contains(&format!("{}`: name its folder by --clap DIR", old.display())),
        "{message}"
    );
    let moved = parse.parse(&[&wav, "--clap", &parse.path("moved"), "--format", "json"]);
    assert_status(&moved, 0);
    // Changed: a field that ONNX does not know, which changes no embedding.
    let file = parse.path("moved/audio_model.onnx");
    fs::File::options()
        .append(true)
        .open(&file)
        .unwrap()
        .write_all(&[0xa0, 0x06, 0x01])
        .unwrap();
    let changed = parse.parse(&[&wav, "--clap", &parse.path("moved")]);
    assert_status(&changed, 2);
    let message = stderr(&changed);
    assert!(
        message.contains(&format!("with SHA-256 {sum}, but `")),
        "{message}"
    );
    assert!(
        message.contains("has `audio_model.onnx` with SHA-256 ") && message.contains("--clap DIR"),
        "{message}"
    );
    assert_eq!(stdout(&changed), "");
    // Prepared in another way.
    fs::write(
        parse.path("clip/vaplan.toml"),
        "[image]\nsize = 64\nresize = \"squash\"\n",
    )
    .unwrap();
    fs::rename(parse.path("moved"), parse.path("clap")).unwrap();
    let squashed = parse.parse(&[&wav]);
    assert_status(&squashed, 2);
    assert!(
        stderr(&squashed).contains("prepares media by {\"Image\":{\"size\":64,"),
        "{}",
        stderr(&squashed)
    );
}

#[test]
fn a_model_that_was_changed_or_is_none_is_refused_by_name() {
    let Some(parse) = ParseStudio::new("a_model_that_was_changed_or_is_none_is_refused_by_name") else {
        return;
    };
    let wav = parse.path("media/parse000001.wav");
    let model = parse.path("model/model.json");
    let text = fs::read_to_string(&model).unwrap();
    let refused = |problem: &str| {
        let output = parse.parse(&[&wav]);
        assert_status(&output, 2);
        assert!(stderr(&output).contains(problem), "{}", stderr(&output));
    };
    fs::write(&model, text.replace("\"sha256\": \"", "\"sha256\": \"00")).unwrap();
    refused("with SHA-256 00");
    fs::write(&model, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    refused("has format 2, expected 1");
    fs::write(&model, text.replace("\"weights\": \"", "\"weights\": \"../")).unwrap();
    refused("expected a file in the folder");
    fs::write(&model, &text[..text.len() / 2]).unwrap();
    refused("is no JSON");
    fs::remove_file(&model).unwrap();
    refused("expected a folder `model` that `train` or `run` wrote");
}

#[test]
fn a_file_that_cannot_be_used_is_named_and_the_others_are_parsed() {
    let Some(parse) = ParseStudio::new("a_file_that_cannot_be_used_is_named_and_the_others_are_parsed")
    else {
        return;
    };
    fs::write(parse.path("media/broken00001.wav"), b"RIFF, but no sound").unwrap();
    fs::write(parse.path("notes.txt"), b"no media").unwrap();
    let (media, out) = (parse.path("media"), parse.path("out"));
    let done = parse.parse(&[
        &media,
        &parse.path("notes.txt"),
        &parse.path("absent.mp4"),
        "--out",
        &out,
    ]);
    assert_status(&done, 1);
    assert_eq!(
        stdout(&done),
        format!("6 videos parsed, 0 done before, 4 left out: {out}\n")
    );
    let told = stderr(&done);
    for line in [
        "notes.txt: is no medium, expected a video (mp4 ..)",
        "absent.mp4: does not exist, expected a video",
        "broken00001: audio: ",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let none = parse.parse(&[&parse.path("absent.mp4"), "--out", &out]);
    assert_status(&none, 2);
    assert!(
        stderr(&none).contains("no media to parse: `"),
        "{}",
        stderr(&none)
    );
}
