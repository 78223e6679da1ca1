//! Changes that a program makes as rows, without files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use vaplan::ingest::text::TextRows;
use vaplan::relabel::{self, RelabelRequest};
use vaplan::world::changes::{
    ChangeRows, EpochPredictions, Origin, PredictedRow, PromptEdit, UserEditRow, UserSpan, WeakEdit,
    WeakEditRow,
};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::Split;
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Labels, Predictions, Rejects, UserLabels, Videos};

use super::copied;
use super::refusals::{array, file, labelled, request, rows};
use crate::sample::{WIDTH, key, name};
use crate::support::{assert_status, run};

#[test]
fn changes_as_rows_and_as_files_make_the_same_version() {
    let sample = labelled();
    copied(&sample.path("store"), &sample.path("other"));
    let weak = file(
        &sample,
        "weak.csv",
        &format!(
            "filename,event_labels,split\n{},\"Bark,Bell\",val\nnew_0_10,Horn,\n",
            name(1)
        ),
    );
    let user = file(
        &sample,
        "user.csv",
        &format!(
            "video,modality,class,label,onset,offset\n{},audio,Bark,1,2,5\n",
            name(1)
        ),
    );
    let list = file(&sample, "classes.txt", "Bark\nBell\nHorn\nSong\n");
    let horn = array(&sample, "horn.npy", &[WIDTH], &[0.5; WIDTH]);
    let values: Vec<f32> = (0..4 * WIDTH).map(|at| (1 + at % 7) as f32).collect();
    let text = array(&sample, "text.npy", &[4, WIDTH], &values);
    fs::create_dir_all(sample.path("epoch/visual")).unwrap();
    array(
        &sample,
        &format!("epoch/visual/{}.npy", name(1)),
        &[10, 4],
        &[0.9; 40],
    );
    let files = rows(|rows| {
        rows.read_weak(WeakEdit::Add, &weak).unwrap();
        rows.read_user(&user).unwrap();
        rows.read_classes(&list).unwrap();
        rows.read_prompt(Modality::Audio, "Horn", &horn).unwrap();
        rows.read_text(Modality::Visual, &text).unwrap();
        rows.read_predictions(&sample.path("epoch"), 3).unwrap();
    });

    let place = |path: &Path| path.canonicalize().unwrap().display().to_string();
    let origin = |path: &Path, row| Origin {
        file: place(path).into(),
        row: Some(row),
    };
    let edit = |video: &str, classes: &[&str], split, row| WeakEditRow {
        edit: WeakEdit::Add,
        video: video.into(),
        classes: classes.iter().map(|class| Arc::from(*class)).collect(),
        split,
        origin: origin(&weak, row),
    };
    let predicted = sample.path(&format!("epoch/visual/{}.npy", name(1)));
    let made = rows(|rows| {
        *rows = ChangeRows {
            weak: vec![
                edit(&name(1), &["Bark", "Bell"], Some(Split::Val), 2),
                edit("new_0_10", &["Horn"], None, 3),
            ],
            user: vec![UserEditRow {
                video: name(1).into(),
                modality: Modality::Audio,
                class: "Bark".into(),
                span: UserSpan::Segments(2..5),
                label: Some(true),
                origin: origin(&user, 2),
            }],
            classes: Some(["Bark", "Bell", "Horn", "Song"].map(Arc::from).to_vec()),
            texts: [
                None,
                Some(TextRows {
                    origin: text.clone(),
                    width: WIDTH,
                    data: values.clone(),
                    classes: None,
                    prompts: Vec::new(),
                }),
            ],
            prompts: vec![PromptEdit {
                modality: Modality::Audio,
                class: "Horn".into(),
                embedding: vec![0.5; WIDTH],
                origin: "horn".into(),
            }],
            predictions: Some(EpochPredictions {
                epoch: 3,
                rows: vec![PredictedRow {
                    key: name(1).into(),
                    modality: Modality::Visual,
                    classes: 4,
                    probability: vec![0.9; 40],
                    origin: origin(&predicted, 0),
                }],
            }),
            files: BTreeSet::new(),
            rejects: Vec::new(),
        };
    });
    let both = [("store", files), ("other", made)].map(|(store, changes)| {
        let request = RelabelRequest {
            store: sample.path(store),
            ..request(&sample, changes)
        };
        let summary = relabel::run(&request, &vaplan::Listener::silent()).unwrap();
        let snapshot = Store::open(&sample.path(store))
            .unwrap()
            .latest()
            .unwrap()
            .unwrap();
        let mut predictions = snapshot.read::<Predictions>().unwrap();
        predictions.sort_by_key(|track| (track.video.clone(), track.modality));
        (
            (summary.set, summary.unset, summary.rejected),
            summary
                .version
                .map(|row| (row.version, row.inputs, row.settings, row.models, row.epoch)),
            (
                snapshot.read::<Videos>().unwrap(),
                snapshot.read::<Labels>().unwrap(),
            ),
            (
                snapshot.read::<Rejects>().unwrap(),
                snapshot.read::<UserLabels>().unwrap(),
                predictions,
            ),
        )
    });
    assert_eq!(both[0], both[1]);
    assert_eq!(both[0].2.0.len(), 9, "the new video is there");
    assert_eq!((both[0].3.1.len(), both[0].3.2.len()), (3, 1));
}

#[test]
fn user_labels_take_short_names_and_seconds() {
    let sample = labelled();
    copied(&sample.path("store"), &sample.path("other"));
    let relabel = |store: &str, name: &str, text: &str| {
        let csv = file(&sample, name, text);
        let (store, csv) = (sample.path(store), csv.display().to_string());
        run(["relabel", "--store", store.to_str().unwrap(), "--user", &csv])
    };
    let full = format!(
        "video,modality,class,label,onset,offset\n{0},audio,Bark,1,2,5\n{0},visual,Bark,0,4,5\n",
        name(1)
    );
    assert_status(&relabel("store", "full.csv", &full), 0);
    let short = format!(
        "video,modality,class,label,start_seconds,end_seconds\n{0},audio,Bark,1,1.6,5.4\n{0},visual,Bark,0,4.2,4.4\n\
         vid,audio,Bark,1,1,2\n",
        key(1)
    );
    let output = relabel("other", "short.csv", &short);
    assert_status(&output, 1);
    let read = |store: &str| {
        let latest = Store::open(&sample.path(store))
            .unwrap()
            .at_version(None)
            .unwrap();
        let user = latest.read::<UserLabels>().unwrap();
        let user = user
            .into_iter()
            .map(|row| (row.video, row.modality, row.class, row.segment, row.label));
        (user.collect::<Vec<_>>(), latest.read::<Labels>().unwrap())
    };
    assert_eq!(read("store"), read("other"));
    assert_eq!(read("store").0.len(), 4);
    let latest = Store::open(&sample.path("other"))
        .unwrap()
        .at_version(None)
        .unwrap();
    let reasons: Vec<String> = (latest.read::<Rejects>().unwrap().into_iter())
        .filter(|row| row.row == Some(4))
        .map(|row| row.reason)
        .collect();
    assert_eq!(reasons, ["video is not in the store, expected one that is"]);
}

#[test]
fn a_user_label_of_a_stored_track_reads_table_labels_only() {
    let sample = labelled();
    copied(&sample.path("store"), &sample.path("other"));
    let relabel = |store: &str, csv: &str, label: &str| {
        let text = format!(
            "video,modality,class,label,segment\n{},visual,Bark,{label},4\n",
            name(1)
        );
        let csv = file(&sample, csv, &text);
        let (store, csv) = (sample.path(store), csv.display().to_string());
        run(["relabel", "--store", store.to_str().unwrap(), "--user", &csv])
    };
    let labels = |store: &str| {
        let store = Store::open(&sample.path(store)).unwrap();
        store.at_version(None).unwrap().read::<Labels>().unwrap()
    };
    for table in ["scores", "videos"] {
        for entry in fs::read_dir(sample.path("other").join(table)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "parquet") {
                fs::remove_file(path).unwrap();
            }
        }
    }
    let before = labels("store");
    let set = before
        .iter()
        .find(|track| *track.video == *name(1) && *track.class == *"Bark");
    let flipped = if set.expect("the weak label has the class").labels[4] {
        "0"
    } else {
        "1"
    };
    assert_status(&relabel("store", "a.csv", flipped), 0);
    assert_status(&relabel("other", "a.csv", flipped), 0);
    assert_eq!(labels("store"), labels("other"));
    assert_ne!(labels("store"), before);
    // A withdrawn user label uncovers its score, which only table `scores` has.
    assert_status(&relabel("store", "b.csv", "withdraw"), 0);
    assert_eq!(labels("store"), before);
    assert_status(&relabel("other", "b.csv", "withdraw"), 2);
}
