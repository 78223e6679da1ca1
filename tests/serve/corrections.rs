//! Corrections: from a save to the tables, undo, conflicts, read-only.

use serde_json::{Value, json};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{LabelRule, LabelTrack};
use vaplan_schemas::tables::{Labels, UserLabels};

use super::harness::{ServedStore, edit};
use crate::sample::{Tables, name};
use crate::support::{assert_status, label_changes, run, stderr, stdout};

/// The first audio track of a video.
fn track(served: &ServedStore, video: &str) -> LabelTrack {
    let tracks = served.latest().read_video::<Labels>(video).unwrap();
    let audio = |track: &LabelTrack| track.modality == Modality::Audio;
    tracks.into_iter().find(audio).expect("an audio track")
}

#[test]
fn a_correction_ends_in_the_tables_with_its_author() {
    let served = ServedStore::new(8, &["--author", "Ana"]);
    let before = track(&served, &name(0));
    let wanted = !before.labels[2];
    let edits = json!([edit(&name(0), "audio", &before.class, (2, 4), Some(wanted))]);
    let answer = served
        .server
        .save(&json!({"version": 1, "edits": edits, "note": "heard it"}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!((&answer["version"], &answer["saved"]), (&json!(2), &json!(true)));
    assert!(answer["milliseconds"].as_f64().unwrap() > 0.0);

    let snapshot = served.latest();
    let row = snapshot.version();
    assert_eq!(
        (row.author.as_deref(), row.note.as_deref()),
        (Some("Ana"), Some("heard it"))
    );
    assert!(row.command.contains("serve"), "{}", row.command);
    let after = track(&served, &name(0));
    assert_eq!(after.labels[2..4], [wanted; 2]);
    assert_eq!(after.rules[2..4], [LabelRule::User; 2]);
    assert_eq!(after.rules[4..], before.rules[4..]);
    let user = snapshot.read::<UserLabels>().unwrap();
    assert_eq!(user.len(), 2);
    assert!(
        user.iter()
            .all(|row| row.label == wanted && &*row.source == "serve: Ana")
    );
    let changes = label_changes(&snapshot);
    let own: Vec<_> = changes.iter().filter(|change| change.version == 2).collect();
    assert!(
        !own.is_empty()
            && own
                .iter()
                .all(|change| change.rule == LabelRule::User && change.to == wanted)
    );

    let shown = served.server.json(&format!("/api/video?name={}", name(0)));
    assert_eq!(shown["version"], 2);
    let tracks = shown["tracks"].as_array().unwrap();
    let own = tracks
        .iter()
        .find(|track| track["class"] == *before.class && track["modality"] == "audio")
        .unwrap();
    assert_eq!(&own["rules"].as_str().unwrap()[2..4], "uu");
    let history = served.server.json(&format!("/api/history?name={}", name(0)));
    assert_eq!(
        (
            &history["versions"][0]["version"],
            &history["versions"][0]["author"]
        ),
        (&json!(2), &json!("Ana"))
    );
    let list = served.server.json("/api/videos?reviewed=true&at_least=2");
    assert_eq!(
        (&list["total"], &list["list"][0]["video"]),
        (&json!(1), &json!(name(0)))
    );
    let metrics = served.server.get("/metrics").text();
    assert!(
        metrics.contains("vaplan_save_seconds_count 1\n") && metrics.contains("vaplan_store_version 2\n"),
        "{metrics}"
    );
    assert_status(&run(["check", "--store", served.store().to_str().unwrap()]), 0);
}

#[test]
fn undo_and_redo_give_the_labels_back() {
    let served = ServedStore::new(8, &[]);
    let start = Tables::read(&served.store());
    let first = track(&served, &name(1));
    let one = edit(&name(1), "audio", &first.class, (0, 3), Some(!first.labels[0]));
    let done = served.server.saved(1, json!([one]));
    let two = edit(&name(1), "audio", &first.class, (1, 6), Some(first.labels[0]));
    let middle = Tables::read(&served.store());
    let again = served.server.saved(2, json!([two]));
    // The undo of the second save restores the user labels of the first one, and withdraws the others.
    assert_eq!(
        again["undo"],
        json!([
            edit(&name(1), "audio", &first.class, (1, 3), Some(!first.labels[0])),
            edit(&name(1), "audio", &first.class, (3, 6), None),
        ])
    );
    let undone = served.server.saved(3, again["undo"].clone());
    assert_eq!(Tables::read(&served.store()).labels, middle.labels);
    let redone = served.server.saved(4, undone["undo"].clone());
    assert_eq!(redone["undo"], again["undo"]);
    served.server.saved(5, redone["undo"].clone());
    served.server.saved(6, done["undo"].clone());
    let end = Tables::read(&served.store());
    assert_eq!(
        (end.version, end.labels, end.scores),
        (7, start.labels, start.scores)
    );
    assert!(served.latest().read::<UserLabels>().unwrap().is_empty());
}

#[test]
fn what_changes_nothing_makes_no_version() {
    let served = ServedStore::new(4, &[]);
    let first = track(&served, &name(0));
    let withdraw = json!([edit(&name(0), "audio", &first.class, (0, 10), None)]);
    let answer = served.server.saved(1, withdraw);
    assert_eq!(
        (&answer["saved"], &answer["version"], &answer["undo"]),
        (&json!(false), &json!(1), &json!([]))
    );
    assert_eq!(served.latest().version().version, 1);
}

/// Sets a label by `relabel`, as another person would.
fn by_another_program(served: &ServedStore, video: &str, class: &str, segment: u32, label: bool) {
    let path = served.sample.path("other.user.csv");
    let row = format!(
        "video,modality,class,segment,label\n{video},audio,{class},{segment},{}\n",
        u8::from(label)
    );
    std::fs::write(&path, row).unwrap();
    let store = served.store();
    assert_status(
        &run([
            "relabel",
            "--store",
            store.to_str().unwrap(),
            "--user",
            path.to_str().unwrap(),
        ]),
        0,
    );
}

#[test]
fn a_label_that_changed_meanwhile_is_a_conflict_and_nothing_is_lost() {
    let served = ServedStore::new(8, &[]);
    let first = track(&served, &name(2));
    let now = first.labels[5];
    by_another_program(&served, &name(2), &first.class, 5, !now);

    let touching = json!({"version": 1, "edits": [edit(&name(2), "audio", &first.class, (4, 7), Some(now))]});
    let answer = served.server.save(&touching);
    assert_eq!(answer.status, 409, "{}", answer.text());
    let conflict = answer.json();
    assert_eq!((&conflict["seen"], &conflict["version"]), (&json!(1), &json!(2)));
    let own = &conflict["tracks"][0];
    assert_eq!(own["segments"], json!([5]));
    assert_eq!(own["seen"][0]["label"], json!(now));
    assert_eq!(own["now"][0], json!({"label": !now, "rule": "user"}));
    assert_eq!(own["wanted"], json!([now]));
    assert!(
        conflict["versions"][0]["command"]
            .as_str()
            .unwrap()
            .contains("relabel")
    );
    assert_eq!(served.latest().version().version, 2, "nothing was saved");
    assert_eq!(
        track(&served, &name(2)).labels[5],
        !now,
        "the other person's label stays"
    );

    // Labels beside the changed one are no conflict, and neither is the same save after having seen version 2.
    let beside = served.server.saved(
        1,
        json!([edit(&name(2), "audio", &first.class, (6, 9), Some(now))]),
    );
    assert_eq!(beside["version"], 3);
    let seen = json!({"version": 2, "edits": [edit(&name(2), "audio", &first.class, (4, 6), Some(now))]});
    assert_eq!(served.server.save(&seen).status, 200);
    assert_eq!(track(&served, &name(2)).labels[5], now);
    let metrics = served.server.get("/metrics").text();
    assert!(metrics.contains("vaplan_save_conflicts_total 1\n"), "{metrics}");
}

#[test]
fn a_conflict_over_a_confirmed_label_is_seen_although_the_label_is_the_same() {
    let served = ServedStore::new(4, &[]);
    let first = track(&served, &name(0));
    by_another_program(&served, &name(0), &first.class, 1, first.labels[1]);
    let edits = json!([edit(
        &name(0),
        "audio",
        &first.class,
        (1, 2),
        Some(!first.labels[1])
    )]);
    assert_eq!(
        served.server.save(&json!({"version": 1, "edits": edits})).status,
        409
    );
}

#[test]
fn a_version_that_is_gone_is_a_conflict_with_what_is_there_now() {
    let served = ServedStore::new(4, &[]);
    let first = track(&served, &name(0));
    let edits = json!([edit(&name(0), "audio", &first.class, (0, 1), Some(true))]);
    let answer = served.server.save(&json!({"version": 99, "edits": edits}));
    assert_eq!(answer.status, 409);
    assert_eq!(answer.json()["tracks"][0]["seen"], Value::Null);
}

#[test]
fn edits_that_name_nothing_are_refused_with_what_was_expected() {
    let served = ServedStore::new(4, &[]);
    let first = track(&served, &name(0));
    let refused = |edit: Value, expected: &str| {
        let answer = served.server.save(&json!({"version": 1, "edits": [edit]}));
        assert_eq!(answer.status, 422, "{}", answer.text());
        let reason = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(reason.contains(expected), "{reason}");
    };
    refused(
        edit(&name(0), "audio", &first.class, (8, 11), Some(true)),
        "expected less than 10",
    );
    refused(
        edit(&name(0), "audio", &first.class, (3, 3), Some(true)),
        "expected less than offset 3",
    );
    refused(
        edit("nobody", "audio", &first.class, (0, 1), Some(true)),
        "expected a video of the store",
    );
    refused(
        edit(&name(0), "smell", &first.class, (0, 1), Some(true)),
        "unknown variant `smell`",
    );
    refused(json!({"video": name(0)}), "missing field");
    assert_eq!(
        served
            .server
            .ask("POST", "/api/save", "Content-Type: application/json", b"{")
            .status,
        422
    );
    assert_eq!(served.latest().version().version, 1);
}

#[test]
fn a_read_only_server_refuses_corrections_and_shows_all_else() {
    let served = ServedStore::new(4, &["--read-only"]);
    let first = track(&served, &name(0));
    let edits = json!([edit(
        &name(0),
        "audio",
        &first.class,
        (0, 1),
        Some(!first.labels[0])
    )]);
    let answer = served.server.save(&json!({"version": 1, "edits": edits}));
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("--read-only"), "{}", answer.text());
    assert_eq!(served.server.json("/api/info")["read_only"], true);
    assert_eq!(served.server.json("/api/overview")["version"], 1);
    assert_eq!(served.latest().version().version, 1);
}

#[test]
fn a_request_that_was_committed_and_not_answered_can_be_sent_again() {
    let served = ServedStore::new(8, &[]);
    let before = track(&served, &name(0));
    let own = edit(&name(0), "audio", &before.class, (2, 4), Some(!before.labels[2]));
    let request = json!({"version": 1, "edits": [own]});
    let first = served.server.save(&request).json();
    assert_eq!(first["version"], 2);
    // Without the mark, the request is one of a person who has not seen the label of now.
    assert_eq!(served.server.save(&request).status, 409);
    let again = json!({"version": 1, "edits": [own], "again": true});
    let second = served.server.save(&again);
    assert_eq!(second.status, 200, "{}", second.text());
    let second = second.json();
    assert_eq!(
        (&second["version"], &second["saved"], &second["undo"]),
        (&json!(2), &json!(false), &first["undo"]),
        "nothing is saved twice, and the undo is that of the first request"
    );
    // Another person changed one of the labels since: the mark does not save over it.
    let other = edit(&name(0), "audio", &before.class, (3, 4), Some(before.labels[2]));
    assert_eq!(served.server.saved(2, json!([other]))["version"], 3);
    let conflict = served.server.save(&again);
    assert_eq!(conflict.status, 409);
    assert_eq!(conflict.json()["tracks"][0]["segments"], json!([2, 3]));
    assert_eq!(served.latest().version().version, 3);
    // A request that never came is saved, whether it has the mark or not.
    let new = edit(
        &name(1),
        "audio",
        &track(&served, &name(1)).class,
        (0, 1),
        Some(true),
    );
    let saved = served
        .server
        .save(&json!({"version": 3, "edits": [new], "again": true}))
        .json();
    assert_eq!((&saved["version"], &saved["saved"]), (&json!(4), &json!(true)));
}

#[test]
fn the_log_tells_who_saved_and_why_and_control_characters_are_refused() {
    let served = ServedStore::new(4, &["--author", "Ana"]);
    let class = track(&served, &name(0)).class;
    let edits = json!([edit(&name(0), "audio", &class, (0, 1), Some(true))]);
    let with = |author: &str, note: &str| {
        let request = json!({"version": 1, "edits": edits, "author": author, "note": note});
        served.server.save(&request)
    };
    for (author, note, field) in [
        ("Ben\u{1b}[31m", "", "author"),
        ("Ben\nAna", "", "author"),
        ("Ben", "red \u{1b}[31m", "note"),
        ("Ben", "\0", "note"),
    ] {
        let refused = with(author, note);
        assert_eq!(refused.status, 422, "{}", refused.text());
        let error = refused.json()["error"].as_str().unwrap().to_owned();
        assert!(
            error.starts_with(&format!("{field} has the control character U+00")),
            "{error}"
        );
    }
    assert_eq!(with("Ben", "heard it\ntwice").status, 200);
    let store = served.store();
    let log = |format: &str| {
        let output = run(["log", "--store", store.to_str().unwrap(), "--format", format]);
        assert_status(&output, 0);
        stdout(&output).to_owned()
    };
    let json: Value = serde_json::from_str(&log("json")).unwrap();
    assert_eq!(
        (&json[0]["author"], &json[0]["note"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        (&json[1]["author"], &json[1]["note"]),
        (&json!("Ben"), &json!("heard it\ntwice"))
    );
    let table = log("table");
    assert_eq!(table.lines().count(), 2);
    assert!(table.ends_with("  by Ben  note: heard it\\ntwice\n"), "{table}");

    let output = run(["serve", "--store", store.to_str().unwrap(), "--author", "a\tb"]);
    assert_status(&output, 2);
    let expected = "author has the control character U+0009, expected no control characters: name another one with --author";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
}
