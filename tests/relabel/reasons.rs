//! The text of a rejected row is for people: no change decides by it.

use std::fs;
use std::path::Path;

use vaplan_schemas::rows::{LabelTrack, RejectKind, RejectRow, VideoRow};
use vaplan_schemas::store::{CommitInfo, Store};
use vaplan_schemas::tables::{Labels, Rejects, Videos};

use super::copied;
use crate::sample::{Sample, WIDTH, key, name};
use crate::support::{run, stderr};

/// Rewrites every reason of the latest version to `x`.
fn silence(root: &Path) {
    let store = Store::open(root).unwrap();
    let mut rows = store.latest().unwrap().unwrap().read::<Rejects>().unwrap();
    rows.iter_mut().for_each(|row| row.reason = "x".to_owned());
    rows.sort();
    rows.dedup();
    let lock = store.lock(&mut |_| ()).unwrap();
    let mut commit = store.begin(&lock, CommitInfo::default()).unwrap();
    commit.replace_all::<Rejects>(&rows).unwrap();
    commit.finish().unwrap();
}

type Decided = (Vec<VideoRow>, Vec<LabelTrack>, Vec<RejectRow>);

/// What a store holds, without the text of its rejected rows.
fn decided(root: &Path) -> Decided {
    let snapshot = Store::open(root).unwrap().latest().unwrap().unwrap();
    let mut rejects = snapshot.read::<Rejects>().unwrap();
    rejects.iter_mut().for_each(|row| row.reason = "x".to_owned());
    rejects.sort();
    rejects.dedup();
    (
        snapshot.read::<Videos>().unwrap(),
        snapshot.read::<Labels>().unwrap(),
        rejects,
    )
}

fn kinds(decided: &Decided) -> Vec<&str> {
    let mut kinds: Vec<&str> = decided.2.iter().map(|row| row.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// Relabels both stores, the reasons of one of them rewritten before, and compares what they decide.
fn both(told: &Path, silent: &Path, flags: &[&str]) -> Decided {
    silence(silent);
    for store in [told, silent] {
        let store = store.display().to_string();
        let output = run(["relabel", "--store", &store].iter().chain(flags).copied());
        assert!(output.status.code() < Some(2), "{flags:?}: {}", stderr(&output));
    }
    let (told, silent) = (decided(told), decided(silent));
    assert_eq!(told, silent, "{flags:?}");
    told
}

#[test]
fn a_message_of_a_rejected_row_can_be_reworded_without_another_decision() {
    let sample = Sample::new(8);
    let visual = |nth: usize| sample.features("visual", nth);
    let first = fs::read(visual(1)).unwrap();
    fs::remove_file(visual(1)).unwrap();
    sample.write_features("visual", 2, 7, &[0.5; 7 * WIDTH]);
    sample.write_features("visual", 3, 10, &[f32::NAN; 10 * WIDTH]);
    let write = |place: &str, text: String| {
        fs::write(sample.path(place), text).unwrap();
        sample.path(place).display().to_string()
    };
    let twin = format!("{}_20_30", key(5));
    let both = |flags: &[&str]| both(&sample.path("told"), &sample.path("silent"), flags);
    assert_eq!(sample.label("told", &[]).status.code(), Some(1));
    copied(&sample.path("told"), &sample.path("silent"));

    let user = |label: &str| {
        format!(
            "video,modality,class,label,segment\n{},audio,Bark,{label},99\n",
            name(4)
        )
    };
    let marks = write("marks.csv", user("1"));
    let twins = write(
        "twins.csv",
        format!("filename,event_labels\n{twin},Bark\nnobody,Borg\n"),
    );
    let after = both(&["--user", &marks, "--weak", &twins]);
    assert_eq!(
        kinds(&after),
        [
            "ambiguous_key",
            "feature_row",
            "missing_features",
            "unequal_lengths",
            "unknown_class",
            "user_label"
        ]
    );

    // Rows that name the inputs of a modality name the new input, too; other rows stay.
    fs::create_dir(sample.path("more")).unwrap();
    fs::write(sample.path(&format!("more/{}.npy", key(1))), &first).unwrap();
    let more = sample.path("more").display().to_string();
    let after = both(&["--visual", &more]);
    let named = |row: &&RejectRow| row.kind.names_inputs() && row.file.ends_with(&more);
    assert_eq!(after.2.iter().filter(named).count(), 4, "{:?}", after.2);

    // One of two videos of a key goes, with what was said of the key; a withdrawn user label waits no longer.
    let gone = write("gone.csv", format!("filename\n{twin}\n"));
    let withdrawn = write("withdrawn.csv", user("withdraw"));
    let after = both(&["--weak-remove", &gone, "--user", &withdrawn]);
    let of = |kind| after.2.iter().filter(move |row| row.kind == kind).count();
    assert_eq!((of(RejectKind::AmbiguousKey), of(RejectKind::UserLabel)), (0, 0));
    sample.write_features("visual", 2, 10, &[0.5; 10 * WIDTH]);
    let mended = visual(2).display().to_string();
    let after = both(&["--visual", &mended]);
    assert_eq!(
        kinds(&after),
        ["feature_row", "missing_features", "unknown_class"]
    );
}
