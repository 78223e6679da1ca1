//! Labels of a class that the weak label lacks: the class and its labels are added, and taken back, as one version.

use serde_json::{Value, json};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{LabelRule, LabelTrack};
use vaplan_schemas::tables::{Labels, Rejects, UserLabels, Videos};

use super::harness::{HttpAnswer, ServedStore, edit};
use crate::sample::{CLASSES, Tables, name};
use crate::support::{assert_status, run};

/// A class that the weak label of a video lacks.
fn lacking(served: &ServedStore, video: &str) -> &'static str {
    let row = served
        .latest()
        .read_video::<Videos>(video)
        .unwrap()
        .pop()
        .unwrap();
    let lacks = |class: &&&str| !row.weak_labels.iter().any(|own| **own == ***class);
    CLASSES
        .iter()
        .find(lacks)
        .copied()
        .expect("a class outside the weak label")
}

fn weak(video: &str, class: &str, present: bool) -> Value {
    json!([{"video": video, "class": class, "present": present}])
}

fn save(served: &ServedStore, version: u64, edits: Value, weak: Value) -> HttpAnswer {
    served
        .server
        .save(&json!({"version": version, "edits": edits, "weak": weak, "author": "Ana", "note": "a bell"}))
}

fn tracks(served: &ServedStore, video: &str, class: &str) -> Vec<LabelTrack> {
    let tracks = served.latest().read_video::<Labels>(video).unwrap();
    tracks
        .into_iter()
        .filter(|track| &*track.class == class)
        .collect()
}

#[test]
fn a_class_is_added_and_labelled_in_one_version_and_one_undo_takes_both_back() {
    let served = ServedStore::new(8, &[]);
    let video = name(1);
    let class = lacking(&served, &video);
    let start = Tables::read(&served.store());
    let edits = json!([edit(&video, "audio", class, (2, 5), Some(true))]);
    let answer = save(&served, 1, edits, weak(&video, class, true));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!((&answer["version"], &answer["saved"]), (&json!(2), &json!(true)));
    assert_eq!(
        answer["undo"],
        json!([edit(&video, "audio", class, (2, 5), None)])
    );
    assert_eq!(answer["undo_weak"], weak(&video, class, false));
    let row = served
        .latest()
        .read_video::<Videos>(&video)
        .unwrap()
        .pop()
        .unwrap();
    assert!(row.weak_labels.iter().any(|own| &**own == class));
    assert_eq!(&*row.source, "serve: Ana");
    let added = tracks(&served, &video, class);
    assert_eq!(added.len(), 2, "the class has labels of both modalities");
    for track in &added {
        let by_user: Vec<usize> = (0..10).filter(|&at| track.rules[at] == LabelRule::User).collect();
        let audio = track.modality == Modality::Audio;
        assert_eq!(by_user, if audio { vec![2, 3, 4] } else { vec![] });
        assert!(by_user.iter().all(|&at| track.labels[at]));
    }
    // The same store as by `relabel` with both files.
    let other = ServedStore::new(8, &[]);
    let path = |name: &str| other.sample.path(name).to_str().unwrap().to_owned();
    std::fs::write(
        path("add.csv"),
        format!("filename,event_labels\n{video},{class}\n"),
    )
    .unwrap();
    let user = format!("video,modality,class,onset,offset,label\n{video},audio,{class},2,5,1\n");
    std::fs::write(path("own.csv"), user).unwrap();
    let flags = [
        "relabel",
        "--store",
        &path("store"),
        "--weak-add",
        &path("add.csv"),
        "--user",
        &path("own.csv"),
    ];
    assert_status(&run(flags), 0);
    let (own, by_hand) = (Tables::read(&served.store()), Tables::read(&other.store()));
    assert_eq!((own.labels, own.scores), (by_hand.labels, by_hand.scores));

    let undone = save(&served, 2, answer["undo"].clone(), answer["undo_weak"].clone());
    assert_eq!(undone.status, 200, "{}", undone.text());
    let undone = undone.json();
    let end = Tables::read(&served.store());
    assert_eq!(
        (end.version, end.labels, end.scores),
        (3, start.labels, start.scores)
    );
    assert!(served.latest().read::<UserLabels>().unwrap().is_empty());
    assert!(served.latest().read::<Rejects>().unwrap().is_empty());
    // And the undo of the undo is the correction again.
    let redone = save(&served, 3, undone["undo"].clone(), undone["undo_weak"].clone()).json();
    assert_eq!(
        (&redone["undo"], &redone["undo_weak"]),
        (&answer["undo"], &answer["undo_weak"])
    );
    assert_eq!(tracks(&served, &video, class), added);
    let list = served
        .server
        .json(&format!("/api/videos?class={class}&at_least=4&q={video}"));
    assert_eq!((&list["total"], &list["list"][0]["user"]), (&json!(1), &json!(3)));
    assert_status(&run(["check", "--store", served.store().to_str().unwrap()]), 0);
}

#[test]
fn labels_outside_the_weak_label_are_refused_without_the_class() {
    let served = ServedStore::new(4, &[]);
    let class = lacking(&served, &name(0));
    let edits = json!([edit(&name(0), "audio", class, (0, 1), Some(true))]);
    let refused = |edits: Value, weak: Value, expected: &str| {
        let answer = save(&served, 1, edits, weak);
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert!(answer.text().contains(expected), "{}", answer.text());
    };
    refused(edits.clone(), json!([]), "a class of its weak label");
    refused(json!([]), weak(&name(0), "Siren", true), "Siren");
    refused(
        json!([]),
        weak("nobody", class, true),
        "video `nobody` is not in the store",
    );
    let far = json!([edit(&name(0), "audio", class, (9, 11), Some(true))]);
    refused(far, weak(&name(0), class, true), "expected less than 10");
    let twice = json!([weak(&name(0), class, true)[0], weak(&name(0), class, false)[0]]);
    refused(json!([]), twice, "changed twice");
    // Without the features, the class would have no scores.
    let features = served.sample.features("visual", 0);
    std::fs::rename(&features, features.with_extension("away")).unwrap();
    refused(edits.clone(), weak(&name(0), class, true), "visual features");
    std::fs::rename(features.with_extension("away"), &features).unwrap();
    assert_eq!(served.latest().version().version, 1);
    assert_eq!(save(&served, 1, edits, weak(&name(0), class, true)).status, 200);
}

#[test]
fn a_class_whose_labels_changed_meanwhile_is_not_taken_out_unseen() {
    let served = ServedStore::new(4, &[]);
    let shown = served.server.json(&format!("/api/video?name={}", name(0)));
    let class = shown["weak_labels"][0].as_str().unwrap().to_owned();
    let track = &shown["tracks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|own| own["class"] == *class && own["modality"] == "visual")
        .unwrap()
        .clone();
    let set = track["labels"].as_str().unwrap().as_bytes()[7] == b'1';
    served
        .server
        .saved(1, json!([edit(&name(0), "visual", &class, (7, 8), Some(!set))]));
    let answer = save(&served, 1, json!([]), weak(&name(0), &class, false));
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert_eq!(answer.json()["tracks"][0]["segments"], json!([7]));
    let seen = save(&served, 2, json!([]), weak(&name(0), &class, false));
    assert_eq!(seen.status, 200, "{}", seen.text());
    assert!(tracks(&served, &name(0), &class).is_empty());
    // The user label waits, and is there again when the class is.
    let back = save(
        &served,
        3,
        seen.json()["undo"].clone(),
        seen.json()["undo_weak"].clone(),
    );
    assert_eq!(back.status, 200, "{}", back.text());
    let visual = tracks(&served, &name(0), &class)
        .into_iter()
        .find(|own| own.modality == Modality::Visual)
        .unwrap();
    assert_eq!((visual.labels[7], visual.rules[7]), (!set, LabelRule::User));
}
