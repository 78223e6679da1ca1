//! User labels from ELAN files and from Label Studio's export.

use std::path::PathBuf;

use super::*;
use crate::events::EventFormat;
use crate::events::tests::hard;

fn read(name: &str, text: &str) -> Result<ChangeRows, IngestError> {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    let mut rows = ChangeRows::default();
    rows.read_user(&path)?;
    Ok(rows)
}

/// Video, modality, class, span and label of each edit.
fn edits(rows: &ChangeRows) -> Vec<String> {
    let edit = |row: &UserEditRow| {
        let span = match &row.span {
            UserSpan::Whole => "whole".to_owned(),
            UserSpan::Seconds(span) => format!("{}-{}", span.start, span.end),
            UserSpan::Segments(span) => format!("{span:?}"),
        };
        let label = row.label.map_or(2, u8::from);
        format!("{} {} {} {span} {label}", row.video, row.modality, row.class)
    };
    rows.user.iter().map(edit).collect()
}

fn reasons(rows: &ChangeRows) -> Vec<&str> {
    rows.rejects.iter().map(|row| &*row.reason).collect()
}

#[test]
fn an_elan_file_counts_tier_by_tier_once_a_person_edited_or_signed_it() {
    let own = EventFormat::Elan.file(&hard()).text;
    let untouched = read("a.eaf", &own).unwrap();
    assert_eq!(edits(&untouched), Vec::<String>::new(), "nobody confirmed it");
    assert_eq!(
        reasons(&untouched),
        [
            "4 tiers are as the program wrote them, so that nobody confirmed them: edit the tier, or write the name of a person \
             as its annotator"
        ]
    );
    assert_eq!(
        untouched.rejects[0].severity,
        vaplan_schemas::rows::Severity::Note
    );
    let signed = own.replacen("ANNOTATOR=\"vaplan\"", "ANNOTATOR=\"Ada\"", 1);
    let video = "vid <1> & \"2\" ü";
    let dog = [
        format!("{video} audio Dog whole 0"),
        format!("{video} audio Dog 0-2 1"),
        format!("{video} audio Dog 4-5 1"),
    ];
    assert_eq!(edits(&read("a.eaf", &signed).unwrap()), dog);
    let moved = own.replacen("TIME_VALUE=\"4000\"", "TIME_VALUE=\"3000\"", 1);
    let moved = edits(&read("a.eaf", &moved).unwrap());
    assert_eq!(
        moved,
        [&dog[0], &dog[1], &format!("{video} audio Dog 3-5 1")].map(String::clone)
    );
    // An empty tier that a person signed unsets the whole track.
    let silent = own.replacen(
        "ANNOTATOR=\"vaplan\" LINGUISTIC_TYPE_REF=\"default-lt\" TIER_ID=\"visual/Dog\"",
        "ANNOTATOR=\"Ada\" LINGUISTIC_TYPE_REF=\"default-lt\" TIER_ID=\"visual/Dog\"",
        1,
    );
    assert_eq!(
        edits(&read("a.eaf", &silent).unwrap()),
        [format!("{video} visual Dog whole 0")]
    );
}

const FOREIGN: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2024-01-01T00:00:00+00:00" FORMAT="3.0" VERSION="3.0">
<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds"/>
<TIME_ORDER><TIME_SLOT TIME_SLOT_ID="s1" TIME_VALUE="500"/><TIME_SLOT TIME_SLOT_ID="s2" TIME_VALUE="2500"/>
<TIME_SLOT TIME_SLOT_ID="s3"/></TIME_ORDER>
<TIER TIER_ID="audio/Dog" LINGUISTIC_TYPE_REF="x"><ANNOTATION>
<ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="s1" TIME_SLOT_REF2="s2"><ANNOTATION_VALUE/></ALIGNABLE_ANNOTATION>
</ANNOTATION></TIER>
<TIER TIER_ID="comments" LINGUISTIC_TYPE_REF="x"/>
<TIER TIER_ID="audio/Cat" LINGUISTIC_TYPE_REF="x"><ANNOTATION>
<ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="s1" TIME_SLOT_REF2="s2"><ANNOTATION_VALUE>Dog &amp; Co</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION>
</ANNOTATION></TIER>
<TIER TIER_ID="visual/Cat" LINGUISTIC_TYPE_REF="x"><ANNOTATION>
<ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="s2" TIME_SLOT_REF2="s3"><ANNOTATION_VALUE>Cat</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION>
</ANNOTATION></TIER>
<TIER TIER_ID="visual/Dog" LINGUISTIC_TYPE_REF="x"><ANNOTATION>
<ALIGNABLE_ANNOTATION ANNOTATION_ID="a4" TIME_SLOT_REF1="s2" TIME_SLOT_REF2="s1"><ANNOTATION_VALUE>Dog</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION>
</ANNOTATION></TIER>
</ANNOTATION_DOCUMENT>"#;

#[test]
fn an_elan_file_of_another_program_is_named_by_its_file_and_bad_tiers_are_named() {
    let rows = read("vid1.eaf", FOREIGN).unwrap();
    assert_eq!(
        edits(&rows),
        ["vid1 audio Dog whole 0", "vid1 audio Dog 0.5-2.5 1"]
    );
    assert_eq!(
        reasons(&rows),
        [
            "tier `comments` is ignored, expected names `audio/<class>` and `visual/<class>`",
            "tier `audio/Cat`, annotation `a2`: value is `Dog & Co`, expected `Cat` or nothing; the tier is left out",
            "tier `visual/Cat`, annotation `a3`: time slot `s3` has no time, expected milliseconds; the tier is left out",
            "tier `visual/Dog`, annotation `a4`: start_seconds is 2.5 and end_seconds is 0.5, expected numbers from 0, the \
             first one less; the tier is left out",
        ]
    );
    for (text, problem) in [
        ("<html/>", "is XML, but no ELAN document"),
        (&FOREIGN[..FOREIGN.len() / 2], "is XML, but no ELAN document"),
        (
            &FOREIGN.replace("milliseconds", "frames"),
            "TIME_UNITS is `frames`",
        ),
    ] {
        let error = read("b.eaf", text).unwrap_err().to_string();
        assert!(error.contains("b.eaf") && error.contains(problem), "{error}");
    }
}

/// Two tasks of our own export, with annotations of persons, and one task of another tool.
const TASKS: &str = r#"[
{"id": 7, "data": {"name": "vid1", "frame_rate": 24, "tracks": ["audio/Dog", "audio/Cat", "visual/Dog"]},
 "predictions": [{"result": [{"id": "p", "type": "labels", "value": {"start": 0, "end": 9, "labels": ["Cat"]}}]}],
 "annotations": [
  {"id": 1, "was_cancelled": true, "result": [{"id": "x", "type": "labels", "value": {"start": 0, "end": 9, "labels": ["Cat"]}}]},
  {"id": 2, "updated_at": "2024-05-01T00:00:00Z", "result": []},
  {"id": 3, "updated_at": "2024-06-01T00:00:00Z", "result": [
   {"id": "r1", "from_name": "audio_labels", "type": "labels", "value": {"start": 1.0, "end": 3.0, "channel": 0, "labels": ["Dog"]}},
   {"id": "r2", "from_name": "visual_labels", "type": "timelinelabels", "value": {"ranges": [{"start": 25, "end": 48}], "timelinelabels": ["Dog"]}},
   {"id": "r3", "from_name": "note", "type": "textarea", "value": {"text": ["unsure"]}}]}]},
{"id": 8, "data": {"name": "vid2", "tracks": []}, "annotations": [{"id": 4, "result": [
   {"id": "r4", "type": "timelinelabels", "value": {"ranges": [{"start": 1, "end": 2}], "timelinelabels": ["Dog"]}}]}]},
{"id": 9, "data": {"audio": "/data/local-files/?d=sounds/vid3.v2.wav"}, "annotations": [{"id": 5, "result": [
   {"id": "r5", "type": "labels", "value": {"start": 0, "end": 1.5, "labels": ["Dog", "Cat"]}}]}]},
{"id": 10, "data": {"name": "vid4"}, "annotations": [{"id": 6, "result": [
   {"id": "r6", "type": "labels", "value": {"start": 2, "end": 1, "labels": ["Dog"]}}]}]},
{"id": 11, "data": {"text": "no video"}, "annotations": [{"id": 7, "result": []}]}]"#;

#[test]
fn the_last_submitted_annotation_of_a_task_covers_its_tracks_and_predictions_do_not_count() {
    let rows = read("export.json", TASKS).unwrap();
    assert_eq!(
        edits(&rows),
        [
            "vid1 audio Cat whole 0",
            "vid1 audio Dog whole 0",
            "vid1 audio Dog 1-3 1",
            "vid1 visual Dog whole 0",
            "vid1 visual Dog 1-2 1",
            "vid3.v2 audio Cat whole 0",
            "vid3.v2 audio Cat 0-1.5 1",
            "vid3.v2 audio Dog whole 0",
            "vid3.v2 audio Dog 0-1.5 1",
        ]
    );
    assert_eq!(
        reasons(&rows),
        [
            "task 7: annotation 3 counts, 1 other annotations of the task do not",
            "task 8, annotation 4, region `r4`: counts frames, but `data.frame_rate` of the task is no number above 0; the \
             task is left out",
            "task 10, annotation 6, region `r6`: start_seconds is 2 and end_seconds is 1, expected numbers from 0, the first \
             one less; the task is left out",
            "task 11: neither `data.name` nor `data.video` or `data.audio` names a video",
        ]
    );
    for (text, problem) in [
        (
            "[{\"id\": 1, \"video\": \"a.mp4\", \"labels\": []}]",
            "(not `JSON-MIN`)",
        ),
        ("[1, 2", "is no JSON: EOF"),
    ] {
        let error = read("b.json", text).unwrap_err().to_string();
        assert!(error.contains("b.json") && error.contains(problem), "{error}");
    }
}

#[test]
fn a_task_that_nobody_submitted_is_told() {
    let open = r#"[{"id": 1, "data": {"name": "vid1"}, "predictions": []},
{"id": 2, "data": {"name": "vid2"}, "annotations": [{"id": 1, "was_cancelled": true, "result": []}]}]"#;
    let rows = read("export.json", open).unwrap();
    assert_eq!(edits(&rows), Vec::<String>::new());
    assert_eq!(
        reasons(&rows),
        [
            "2 tasks are without a submitted annotation, so that nobody confirmed the predictions: submit the tasks in Label \
             Studio, and export again"
        ]
    );
}

#[test]
fn a_file_in_utf_16_is_named_and_not_read_as_a_table() {
    let folder = tempfile::tempdir().unwrap();
    for (name, mark) in [("marked.eaf", true), ("bare.csv", false)] {
        let path = folder.path().join(name);
        let start = mark.then_some(0xfeff_u16);
        let units = start.into_iter().chain(FOREIGN.encode_utf16());
        let bytes: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
        std::fs::write(&path, bytes).unwrap();
        let error = ChangeRows::default().read_user(&path).unwrap_err().to_string();
        assert!(
            error.contains(name) && error.contains("is UTF-16 or no text, expected UTF-8"),
            "{error}"
        );
    }
}
