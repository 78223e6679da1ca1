//! The law on stores and files: after any changes in any order, the tables equal those of a store that is made anew.
//!
//! ```text
//! one store ── run, run, run … ─┬─ its tables ═ those of the store made anew
//! inputs after these runs ──────┘        ║        ├─ `label` on them changes no label
//! its copy ─ one session ──────── its tables      └─ `check` finds nothing
//! ```
//!
//! Each run reads the store again, as a new process does. The number of workers is 1, 2 or 3 and changes from run to run.
//! One session makes the same changes in the copy, as `watch` does.
//!
//! With `VAPLAN_PASS_VIDEOS=1` in the environment, every run that labels all videos has one pass per video.

mod apply;
mod cover;
pub(super) mod files;
mod inputs;
mod script;
mod stayed;
mod tables;

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRng, TestRunner};
use vaplan::engine::Listener;

use vaplan::relabel::{self, RelabelSummary};
use vaplan::world::changes::{Changes, WeakEdit};
use vaplan::world::flips::total;
use vaplan::world::settings::{SettingsRequest, ThresholdsFile};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{LabelChangeRow, LabelRule, LabelTrack, Split};
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{Labels, Predictions, Videos};

use apply::write_predictions;
use cover::StoreCoverage;
use files::FeatureRows;
use inputs::StoreInputs;
use script::{Request, script};
use stayed::Stayed;
use tables::StoreTables;

use super::copied;

/// Set in the process of [`the_law_holds_for_patches`].
const PATCHED: &str = "VAPLAN_LAW_OF_PATCHES";
/// How many scripts that process runs.
const PATCHED_CASES: u32 = 12;
/// How many scripts are run.
const CASES: u32 = 40;
/// Videos that are there only so that a store has two buckets, and that go before a script begins.
const BULK: usize = 1030;

/// Stages of a script fail with what they were.
fn failed<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> TestCaseError {
    let what = what.to_owned();
    move |error| TestCaseError::fail(format!("{what}: {error:#}"))
}

fn quiet() -> Listener {
    Listener::silent()
}

/// A folder in memory, where there is one.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::Builder::new()
        .prefix("vaplan-law-")
        .tempdir_in(if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        })
        .expect("a scratch folder")
}

/// Labels what the annotations say, with the first input of each modality.
fn label(
    inputs: &StoreInputs,
    store: &Path,
    workers: usize,
) -> Result<vaplan::engine::LabelSummary, vaplan::error::LabelError> {
    let request = vaplan::LabelRequest {
        store: store.to_owned(),
        annotations: inputs.folder.join("annotations"),
        classes: None,
        visual: inputs.features[1][0].clone(),
        visual_text: inputs.text(Modality::Visual),
        audio: inputs.features[0][0].clone(),
        audio_text: inputs.text(Modality::Audio),
        label_folders: [None, None],
        left_out: Vec::new(),
        splits: vec![Split::Train, Split::Val, Split::Test],
        segment_seconds: 1.0,
        settings: SettingsRequest {
            file: Some(ThresholdsFile::read(&inputs.folder.join("settings.toml")).unwrap()),
            candidates: Some(inputs.now.candidates),
            ..SettingsRequest::default()
        },
        allow_missing: true,
        columns: Default::default(),
        workers,
        command: "vaplan label".to_owned(),
    };
    vaplan::label(&request, &quiet())
}

fn relabel(
    store: &Path,
    changes: &Changes,
    workers: usize,
    dry_run: bool,
) -> Result<RelabelSummary, vaplan::error::LabelError> {
    relabel::run(&request(store, changes, workers, dry_run), &quiet())
}

fn request(store: &Path, changes: &Changes, workers: usize, dry_run: bool) -> relabel::RelabelRequest {
    relabel::RelabelRequest {
        store: store.to_owned(),
        changes: changes.clone(),
        workers,
        dry_run,
        command: "vaplan relabel".to_owned(),
    }
}

/// The store that every script begins with, of two buckets, beside the files it is of.
struct Base {
    folder: tempfile::TempDir,
    inputs: StoreInputs,
}

impl Base {
    fn new() -> Base {
        let folder = scratch();
        let case = folder.path().join("case");
        std::fs::create_dir(&case).unwrap();
        let mut inputs = StoreInputs::first(&case);
        inputs.write();
        let train = case.join("annotations/law_train.csv");
        let mut text = std::fs::read_to_string(&train).unwrap();
        let mut gone = "filename\n".to_owned();
        for nth in 0..BULK {
            text += &format!("bulk{nth:07}_0_10\tBark\n");
            gone += &format!("bulk{nth:07}_0_10\n");
        }
        std::fs::write(&train, text).unwrap();
        std::fs::write(case.join("gone.csv"), gone).unwrap();
        let store = case.join("store");
        label(&inputs, &store, 2).unwrap();
        let mut changes = Changes::default();
        let gone = case.join("gone.csv");
        changes.rows.read_weak(WeakEdit::Remove, &gone).unwrap();
        let summary = relabel(&store, &changes, 2, false).unwrap();
        assert_eq!((summary.set, summary.unset), (0, 0), "they have no features");
        inputs.history.insert(1, inputs.now.clone());
        inputs.history.insert(2, inputs.now.clone());
        let snapshot = Store::open(&store).unwrap().latest().unwrap().unwrap();
        assert_eq!(snapshot.read::<Videos>().unwrap().len(), inputs.videos.len());
        copied(&case, &folder.path().join("base"));
        Base { folder, inputs }
    }

    /// Everything as it was at first.
    fn restore(&self) -> StoreInputs {
        let folder = self.folder.path();
        copied(&folder.join("base"), &folder.join("case"));
        self.inputs.clone()
    }
}

fn latest(store: &Path) -> Snapshot {
    Store::open(store).unwrap().latest().unwrap().expect("a version")
}

fn changes_of(snapshot: &Snapshot, version: u64) -> Vec<LabelChangeRow> {
    let mut rows = crate::support::label_changes(snapshot);
    rows.retain(|row| row.version == version);
    rows
}

/// One run of a script, on the store and on its copy; and what it says of itself.
fn step(
    inputs: &mut StoreInputs,
    store: &Path,
    stayed: &mut Stayed,
    nth: usize,
    run: &Request,
    cover: &StoreCoverage,
) -> Result<(), TestCaseError> {
    let before = latest(store);
    let changes = inputs.change(&run.steps, &inputs.folder.join(format!("changes/{nth}")));
    let dry = match run.dry {
        true => Some(relabel(store, &changes, run.workers, true).map_err(failed("dry run"))?),
        false => None,
    };
    let untouched = latest(store);
    prop_assert_eq!(untouched.version(), before.version());
    let summary = relabel(store, &changes, run.workers, false).map_err(failed(&format!("run {nth}")))?;
    let after = latest(store);
    let version = after.version().version;
    let told = match &summary.version {
        Some(_) => {
            prop_assert_eq!(version, before.version().version + 1);
            inputs.history.insert(version, inputs.now.clone());
            changes_of(&after, version)
        }
        None => {
            prop_assert_eq!(version, before.version().version);
            Vec::new()
        }
    };
    let set = told.iter().filter(|row| row.to).count() as u64;
    prop_assert_eq!((summary.set, summary.unset), (set, told.len() as u64 - set));
    cover.run(run, &summary, &told);
    let own = stayed.change(&changes, run.workers).map_err(failed("told"))?;
    prop_assert_eq!(
        (own.set, own.unset, own.version.is_some()),
        (summary.set, summary.unset, summary.version.is_some()),
        "a session that stays says what a run says"
    );
    // It looks at more videos, since it is to know of each prediction: it may tell more of what stays rejected.
    for row in &summary.rejected {
        prop_assert!(own.rejected.contains(row), "{:?} is not told by a session", row);
    }
    if let Some(dry) = dry {
        prop_assert_eq!(&dry.changes, &told, "a dry run says what the run does");
        prop_assert_eq!(&dry.rejected, &summary.rejected);
        prop_assert_eq!(&dry.flips, &summary.flips);
    }
    let labels = after.read::<Labels>().map_err(failed("labels"))?;
    told_why(&told, &labels)?;
    let flipped = labels.iter().flat_map(LabelTrack::iter);
    let flipped = flipped.filter(|cell| cell.rule == LabelRule::Pld).count();
    if let Some(flips) = &summary.flips {
        prop_assert_eq!(total(flips), flipped as u64, "flips told, and flips in `labels`");
    }
    if run.again && changes.removed.iter().all(Vec::is_empty) {
        let again = relabel(store, &changes, run.workers, false).map_err(failed("again"))?;
        let own = stayed
            .change(&changes, run.workers)
            .map_err(failed("told again"))?;
        prop_assert_eq!(own.version.is_some(), again.version.is_some());
        prop_assert_eq!((again.set, again.unset), (0, 0), "once more changes no label");
        // A video that is gone cannot go: its row is rejected then.
        let removes = changes.rows.weak.iter().any(|row| row.edit == WeakEdit::Remove);
        if let Some(version) = again.version {
            prop_assert!(removes, "once more commits nothing");
            inputs.history.insert(version.version, inputs.now.clone());
        }
        cover.count("runs once more", 1);
    }
    Ok(())
}

/// Changes of rule `pld` say why, and what `labels` says.
fn told_why(told: &[LabelChangeRow], labels: &[LabelTrack]) -> Result<(), TestCaseError> {
    for row in told {
        let flipped = row.rule == LabelRule::Pld;
        prop_assert_eq!(flipped, row.why.is_some(), "{:?}", row);
        let key = (&row.video, row.modality, &row.class);
        let track = labels
            .iter()
            .find(|track| (&track.video, track.modality, &track.class) == key);
        if let Some(cell) = track
            .filter(|_| flipped)
            .map(|track| track.get(row.segment as usize))
        {
            prop_assert_eq!(cell.why, row.why.as_deref());
            let why = row.why.as_ref().expect("checked above");
            // Rule `margin` compares the loss with nothing.
            let base = why.limit.map_or(0.0, |limit| limit.alpha * limit.base);
            prop_assert!(why.loss.is_some_and(|loss| loss > base), "{:?}", row);
        }
    }
    Ok(())
}

/// Keys of the predictions a store has, and of the videos' predictions.
type Predicted = BTreeSet<(u64, String, Modality)>;

/// The store has the predictions that came, of all epochs, and none of videos that went.
fn predictions_are_those_that_came(inputs: &StoreInputs, snapshot: &Snapshot) -> Result<(), TestCaseError> {
    let rows = snapshot.read::<Predictions>().map_err(failed("predictions"))?;
    let found = rows
        .iter()
        .map(|row| (row.epoch, row.video.to_string(), row.modality));
    let came = inputs.predictions.iter().flat_map(|(epoch, own)| {
        own.tracks
            .keys()
            .map(|(video, modality)| (*epoch, video.clone(), *modality))
    });
    prop_assert_eq!(found.collect::<Predicted>(), came.collect::<Predicted>());
    Ok(())
}

/// Makes a store of the inputs as they are now.
fn anew(inputs: &StoreInputs, store: &Path) -> Result<(), TestCaseError> {
    label(inputs, store, 2).map_err(failed("label anew"))?;
    let folder = inputs.folder.join("changes/anew");
    std::fs::create_dir_all(&folder).unwrap();
    let mut changes = Changes::default();
    for modality in Modality::ALL {
        changes.features[modality.index()] = inputs.features[modality.index()][1..].to_vec();
    }
    if !inputs.marks.is_empty() {
        let mut text = "video,modality,class,label,segment\n".to_owned();
        for ((video, modality, class, segment), label) in &inputs.marks {
            // A mark of a class that is not there waits for it.
            if inputs.has(class) {
                text += &format!("{video},{modality},{class},{},{segment}\n", u8::from(*label));
            }
        }
        std::fs::write(folder.join("user.csv"), text).unwrap();
        changes.rows.read_user(&folder.join("user.csv")).unwrap();
    }
    let denoising = &mut changes.denoising;
    denoising.modalities = Some(Vec::new());
    for modality in Modality::ALL {
        if let Some(rule) = inputs.now.denoising[modality.index()] {
            denoising.rule = Some(rule.name().to_owned());
            denoising.parameters = rule.parameters();
            denoising.modalities.as_mut().expect("set above").push(modality);
        }
    }
    for &epoch in inputs.active.iter().flat_map(|active| &active.epochs) {
        let rows = inputs.predicted(epoch);
        let rows = rows.into_iter().map(|(key, modality, values)| FeatureRows {
            key,
            modality,
            width: inputs.now.classes.len(),
            values,
        });
        let rows: Vec<FeatureRows> = rows.collect();
        if rows.is_empty() {
            continue;
        }
        let path = write_predictions(&folder.join(format!("epoch{epoch}")), epoch % 2 == 0, &rows);
        changes.rows.read_predictions(&path, epoch).unwrap();
        relabel(store, &changes, 1, false).map_err(failed("epoch anew"))?;
        changes = Changes {
            denoising: changes.denoising,
            ..Changes::default()
        };
    }
    relabel(store, &changes, 1, false).map_err(failed("marks anew"))?;
    Ok(())
}

fn holds(base: &Base, runs: &[Request], cover: &StoreCoverage) -> Result<(), TestCaseError> {
    let mut inputs = base.restore();
    let store = inputs.folder.join("store");
    let copy = copied(&store, &inputs.folder.join("stayed"));
    let mut stayed = Stayed::load(&copy).map_err(failed("load"))?;
    for (nth, run) in runs.iter().enumerate() {
        step(&mut inputs, &store, &mut stayed, nth, run, cover)?;
    }
    inputs.write();
    let snapshot = latest(&store);
    let found = StoreTables::read(&snapshot, &inputs);
    cover.count("changes told to a session that stays", stayed.told);
    stayed.finish().map_err(failed("finish"))?;
    let differences = StoreTables::read(&latest(&copy), &inputs).differences(&found);
    prop_assert!(differences.is_empty(), "the session that stays:\n{}", differences);
    prop_assert_eq!(
        crate::support::label_changes(&latest(&copy)),
        crate::support::label_changes(&snapshot)
    );
    let fresh = inputs.folder.join("fresh");
    anew(&inputs, &fresh)?;
    let wanted = StoreTables::read(&latest(&fresh), &inputs);
    // Marks of classes that are not there are in no store made anew.
    let marks = inputs.marks.iter().map(|(cell, label)| (cell.clone(), *label));
    prop_assert_eq!(&found.marks, &marks.collect::<Vec<_>>(), "marks");
    let wanted = StoreTables {
        marks: found.marks.clone(),
        ..wanted
    };
    let differences = found.differences(&wanted);
    prop_assert!(
        differences.is_empty(),
        "+ only in the store that was changed, - only in the store made anew\n{}",
        differences
    );
    predictions_are_those_that_came(&inputs, &snapshot)?;
    let problems = snapshot.check().map_err(failed("check"))?;
    prop_assert!(problems.is_empty(), "check: {:?}", problems);
    cover.end(&found, &snapshot);
    if inputs.features.iter().all(|inputs| inputs.len() == 1) {
        let summary = label(&inputs, &store, 1).map_err(failed("label after"))?;
        let after = latest(&store);
        prop_assert_eq!(
            changes_of(&after, summary.version.version),
            changes_of(&snapshot, summary.version.version)
        );
        let differences = StoreTables::read(&after, &inputs).differences(&found);
        prop_assert!(
            differences.is_empty(),
            "label on the same store:\n{}",
            differences
        );
        cover.count("labelled after", 1);
    }
    Ok(())
}

#[test]
fn a_changed_store_is_the_store_made_anew_for_1_2_and_3_workers_with_a_restart_before_each_run() {
    let cases = match std::env::var("VAPLAN_SOAK") {
        Ok(cases) => cases.parse().expect("VAPLAN_SOAK is a number of cases"),
        Err(_) => match std::env::var_os(PATCHED) {
            Some(_) => PATCHED_CASES,
            None => CASES,
        },
    };
    let cover = StoreCoverage::default();
    let base = Base::new();
    let config = ProptestConfig {
        cases,
        // A failing script is printed; what it taught belongs in a test of its own.
        failure_persistence: None,
        max_shrink_iters: 120,
        ..ProptestConfig::default()
    };
    let law = |runs: Vec<Request>| {
        let held = holds(&base, &runs, &cover);
        cover.count("scripts", 1);
        held
    };
    if let Err(broken) = runner(config).run(&script(), law) {
        panic!("{broken}");
    }
    cover.report(cases >= 10 * CASES);
}

/// The stores of the scripts are small, so their changes write files anew. In the process that this test starts, every
/// change is a patch, as in a large store.
#[test]
fn the_law_holds_for_patches() {
    let law = "relabel::law::a_changed_store_is_the_store_made_anew_for_1_2_and_3_workers_with_a_restart_before_each_run";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([law, "--exact"])
        .envs([("VAPLAN_PLAIN_BYTES", "0"), (PATCHED, "1")])
        .env_remove("VAPLAN_SOAK")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

/// The same scripts every time, or a merge would wait on chance; `VAPLAN_SOAK` draws others in every run.
fn runner(config: ProptestConfig) -> TestRunner {
    if std::env::var_os("VAPLAN_SOAK").is_some() {
        return TestRunner::new(config);
    }
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    TestRunner::new_with_rng(config, rng)
}
