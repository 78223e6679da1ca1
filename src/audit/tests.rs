//! Samples and reports of the built-in sample, against its dense truth.

use std::path::PathBuf;

use super::*;
use crate::engine::Listener;
use crate::eval::store as eval_store;
use vaplan_schemas::rows::Split;
use vaplan_schemas::tables::{Truth, Videos};

struct Audited {
    _folder: tempfile::TempDir,
    request: crate::LabelRequest,
    store: Store,
}

fn labelled() -> Audited {
    let folder = tempfile::tempdir().unwrap();
    let request = crate::sample(folder.path()).unwrap();
    crate::label(&request, &Listener::silent()).unwrap();
    let store = Store::open(&request.store).unwrap();
    Audited {
        _folder: folder,
        request,
        store,
    }
}

impl Audited {
    fn snapshot(&self) -> Snapshot {
        self.store.at_version(None).unwrap()
    }

    fn sample(&self, by: AuditStrata, count: usize, seed: u64) -> Vec<SampledSegment> {
        self.sample_of(&Split::ALL, by, count, seed)
    }

    fn sample_of(&self, splits: &[Split], by: AuditStrata, count: usize, seed: u64) -> Vec<SampledSegment> {
        let snapshot = self.snapshot();
        let splits = splits.to_vec();
        let request = SampleRequest {
            by,
            count,
            seed,
            splits,
        };
        draw(&snapshot, &sorted(&snapshot).unwrap(), &request).unwrap()
    }

    /// Verdicts of the dense truth on these segments.
    fn judge(&self, sample: &[SampledSegment], by: &str) {
        let snapshot = self.snapshot();
        let truth = snapshot.read::<Truth>().unwrap();
        let version = snapshot.version().version;
        let verdict = |own: &SampledSegment| VerdictRow {
            present: Some(truth.iter().any(|row| {
                (&row.video, row.modality, &row.class) == (&own.video, own.modality, &own.class)
                    && (row.onset..row.offset).contains(&own.segment)
            })),
            video: own.video.clone(),
            modality: own.modality,
            class: own.class.clone(),
            segment: own.segment,
            version,
            strata: by.into(),
            source: "test".into(),
        };
        self.add(sample.iter().map(verdict).collect());
    }

    fn add(&self, added: Vec<VerdictRow>) {
        let change = VerdictChange {
            added,
            ..VerdictChange::default()
        };
        change_verdicts(&self.store, change, &mut |_| ()).unwrap();
    }
}

/// True and set, false and set, and true and unset segments of a split, by the matrices of `eval`.
fn counts(snapshot: &Snapshot, split: Split) -> [u64; 3] {
    let (truth, labels) = eval_store::of_snapshot(snapshot, split, None).unwrap();
    let videos = snapshot.read::<Videos>().unwrap();
    let mut counts = [0; 3];
    for (video, labels) in truth.videos.iter().zip(&labels) {
        let weak = &videos
            .iter()
            .find(|row| row.video == video.name)
            .unwrap()
            .weak_labels;
        let Some(segments) = labels.segments() else {
            continue;
        };
        let parse = video.parse(truth.classes.len(), segments);
        for (own, truth_of) in [(&labels.audio, &parse.audio), (&labels.visual, &parse.visual)] {
            let Some(own) = own else { continue };
            for (class, name) in truth.classes.iter().enumerate() {
                for segment in (0..segments).filter(|_| weak.contains(name)) {
                    match (own.get(class, segment), truth_of.get(class, segment)) {
                        (true, true) => counts[0] += 1,
                        (true, false) => counts[1] += 1,
                        (false, true) => counts[2] += 1,
                        (false, false) => {}
                    }
                }
            }
        }
    }
    counts
}

#[test]
fn verdicts_of_all_segments_give_the_precision_and_recall_of_eval() {
    let audited = labelled();
    let all = audited.sample(AuditStrata::All, usize::MAX, 1);
    audited.judge(&all, "all");
    for split in [Split::Val, Split::Test] {
        let snapshot = audited.snapshot();
        let [right, wrong, missed] = counts(&snapshot, split).map(|count| count as f64);
        let report = report(&snapshot, &[split], AuditStrata::Class).unwrap();
        let (precision, recall) = (report.rows[0].precision.unwrap(), report.rows[0].recall.unwrap());
        let expected = (right / (right + wrong), right / (right + missed));
        for (found, expected) in [(precision, expected.0), (recall, expected.1)] {
            assert!(
                (found.value - expected).abs() < 1e-12,
                "{found:?}, expected {expected}"
            );
            assert_eq!(
                (found.low, found.high, found.more_to_halve),
                (found.value, found.value, 0)
            );
        }
    }
}

#[test]
fn a_sample_is_that_of_its_seed_and_has_both_labels_and_no_judged_segment() {
    let audited = labelled();
    let sample = audited.sample(AuditStrata::Class, 200, 5);
    assert_eq!(sample, audited.sample(AuditStrata::Class, 200, 5));
    assert_ne!(sample, audited.sample(AuditStrata::Class, 200, 6));
    assert_eq!(
        (sample.len(), sample.iter().filter(|own| own.label).count()),
        (200, 100)
    );
    audited.judge(&sample, "class");
    let more = audited.sample(AuditStrata::Class, 200, 5);
    assert!(more.iter().all(|own| !sample.contains(own)));
}

#[test]
fn verdicts_judge_later_labels_and_the_interval_holds_the_truth() {
    let audited = labelled();
    // Dense truth is of val and test; the sample is of these splits.
    let splits = [Split::Val, Split::Test];
    let sample = audited.sample_of(&splits, AuditStrata::Modality, 400, 3);
    audited.judge(&sample, "modality");
    // Later labels: fewer visual ones.
    let mut changes = crate::Changes::default();
    changes.settings.visual_threshold = Some(1.04);
    let mut session = crate::Session::open(&audited.request.store, 1, Listener::silent()).unwrap();
    session.apply(changes, "raise").unwrap();
    session.close().unwrap();
    let snapshot = audited.snapshot();
    let later = report(&snapshot, &splits, AuditStrata::Modality).unwrap();
    assert_eq!(
        (later.rows[0].verdicts, later.unused, later.gone.len()),
        (400, 0, 0)
    );
    let [right, wrong, missed] = {
        let (val, test) = (counts(&snapshot, Split::Val), counts(&snapshot, Split::Test));
        [0, 1, 2].map(|at| (val[at] + test[at]) as f64)
    };
    let (precision, recall) = (later.rows[0].precision.unwrap(), later.rows[0].recall.unwrap());
    for (found, expected) in [
        (precision, right / (right + wrong)),
        (recall, right / (right + missed)),
    ] {
        assert!(
            (found.low..=found.high).contains(&expected),
            "{found:?}, truth {expected}"
        );
        assert!(
            found.high - found.low < 0.25 && found.more_to_halve > 0,
            "{found:?}"
        );
    }
    let before = audited.store.at_version(Some(StoreVersion(2))).unwrap();
    let before = report(&before, &splits, AuditStrata::Modality).unwrap();
    assert_ne!(before.rows[0].set, later.rows[0].set, "the labels changed");
}

#[test]
fn a_filled_file_is_read_and_bad_rows_are_named() {
    let audited = labelled();
    let snapshot = audited.snapshot();
    let sample = audited.sample(AuditStrata::Class, 10, 1);
    let text = sheet::text(&sample, 1, AuditStrata::Class, 1.0);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 11);
    let fill = |line: &str, verdict: &str| line.replacen(",,1,class", &format!(",{verdict},1,class"), 1);
    for (at, verdict) in [(1, "1"), (2, "0"), (3, "maybe"), (5, "?")] {
        lines[at] = fill(&lines[at], verdict);
    }
    lines.push("nobody,audio,Dog,0,0,1,1,1,class".to_owned());
    lines.push(fill(&lines[4], "1").replacen(",1,class", ",9,class", 1));
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("sample.csv");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let read = sheet::read(&path, &snapshot).unwrap();
    assert_eq!((read.verdicts.len(), read.open), (3, 6));
    let present: Vec<Option<bool>> = read.verdicts.iter().map(|row| row.present).collect();
    assert_eq!(present, [Some(true), Some(false), None]);
    let reasons: Vec<String> = read
        .rejects
        .iter()
        .map(|row| format!("{}: {}", row.row.unwrap(), row.reason))
        .collect();
    assert_eq!(
        reasons,
        [
            "4: verdict is `maybe`, expected 1, 0, `?` (unsure) or nothing",
            "12: the store has no audio labels of class `Dog` of this video",
            "13: version is `9`, expected a store version from 1 to 1",
        ]
    );
}

#[test]
fn an_unsure_verdict_is_left_out_of_the_estimates_and_is_not_drawn_again() {
    let audited = labelled();
    let sample = audited.sample(AuditStrata::Class, 100, 2);
    audited.judge(&sample, "class");
    let sure = report(&audited.snapshot(), &Split::ALL, AuditStrata::Class).unwrap();
    let more = audited.sample(AuditStrata::Class, 40, 2);
    let unsure = |own: &SampledSegment| VerdictRow {
        video: own.video.clone(),
        modality: own.modality,
        class: own.class.clone(),
        segment: own.segment,
        present: None,
        version: 2,
        strata: "class".into(),
        source: "test".into(),
    };
    audited.add(more.iter().map(unsure).collect());
    let snapshot = audited.snapshot();
    let both = report(&snapshot, &Split::ALL, AuditStrata::Class).unwrap();
    assert_eq!((both.unsure, both.rows[0].verdicts), (40, 100));
    assert_eq!(
        both.rows[0], sure.rows[0],
        "the labels and the sure verdicts are the same"
    );
    let next = audited.sample(AuditStrata::Class, 40, 2);
    assert!(next.iter().all(|own| !more.contains(own)));
    // A verdict can be taken back, and the segment can then be drawn again.
    let withdrawn = sorted(&snapshot).unwrap().iter().map(verdict_key).collect();
    let change = VerdictChange {
        withdrawn,
        ..VerdictChange::default()
    };
    change_verdicts(&audited.store, change, &mut |_| ()).unwrap();
    assert_eq!(audited.sample(AuditStrata::Class, 100, 2), sample);
}

#[test]
fn the_frame_of_a_sample_stays_while_only_verdicts_come() {
    let audited = labelled();
    let sample = audited.sample(AuditStrata::Class, 20, 2);
    let basis = || {
        let snapshot = audited.snapshot();
        let verdicts = sorted(&snapshot).unwrap();
        FrameBasis::new(&snapshot, &Split::ALL, AuditStrata::Class, &verdicts).unwrap()
    };
    audited.judge(&sample[..1], "class");
    let frame = AuditFrame::read(&audited.snapshot(), basis()).unwrap();
    audited.judge(&sample[1..], "class");
    let snapshot = audited.snapshot();
    assert!(frame.is_of(&basis()));
    let verdicts = sorted(&snapshot).unwrap();
    assert_eq!(
        frame.report(&snapshot, &verdicts).unwrap(),
        report(&snapshot, &Split::ALL, AuditStrata::Class).unwrap()
    );
    let mut changes = crate::Changes::default();
    changes.settings.visual_threshold = Some(1.04);
    let mut session = crate::Session::open(&audited.request.store, 1, Listener::silent()).unwrap();
    session.apply(changes, "raise").unwrap();
    session.close().unwrap();
    assert!(!frame.is_of(&basis()), "the labels changed");
}
