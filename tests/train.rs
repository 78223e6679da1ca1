//! `vaplan train`, `predict` and `eval --epoch`, on the built-in sample.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use vaplan_schemas::rows::EpochRow;
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Epochs, Predictions, VideoPredictions, Videos};

use crate::support::{assert_status, run, sample_annotations, scratch, stderr, stdout, vaplan};

/// Annotated videos with simulated features, labelled.
pub(crate) struct TrainingSample {
    pub(crate) folder: tempfile::TempDir,
}

impl TrainingSample {
    /// The built-in sample: 40 videos to learn from, 16 to choose by, 24 to test with, each simulated so many times.
    pub(crate) fn new(repeat: &str) -> TrainingSample {
        let folder = scratch();
        let dir = folder.path().to_str().unwrap();
        sample_annotations(dir);
        TrainingSample::of(folder, repeat)
    }

    /// The videos of `annotations` in this folder.
    pub(crate) fn of(folder: tempfile::TempDir, repeat: &str) -> TrainingSample {
        let sample = TrainingSample { folder };
        let (given, features) = (sample.path("annotations"), sample.path("features"));
        let synth = [
            "synth",
            "--annotations",
            &given,
            "--out",
            &features,
            "--dim",
            "32",
        ];
        assert_status(&run([&synth[..], &["--repeat", repeat]].concat()), 0);
        assert_status(&sample.label("store"), 0);
        sample
    }

    /// Labels anew, there and back, with the predictions that count: two versions.
    pub(crate) fn label_anew(&self, store: &str) {
        self.label_anew_with(store, &["--quiet"]);
    }

    /// The same, with these flags the second time.
    pub(crate) fn label_anew_with(&self, store: &str, flags: &[&str]) {
        for more in [&["--quiet", "--visual-threshold", "1.2"][..], flags] {
            assert_status(&self.label_with(store, more), 0);
        }
    }

    fn label(&self, store: &str) -> Output {
        self.label_with(store, &[])
    }

    fn label_with(&self, store: &str, more: &[&str]) -> Output {
        let (given, own) = (self.path("annotations"), self.path("features/annotations"));
        let annotations = if Path::new(&own).exists() { own } else { given };
        let store = self.path(store);
        let visual_text = self.path("features/visual_text.npy");
        let audio_text = self.path("features/audio_text.npy");
        let label = [
            &["label", "--store", &store, "--annotations", &annotations][..],
            &["--visual-text", &visual_text, "--audio-text", &audio_text],
            more,
        ];
        run(self.features(label.concat()))
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn features(&self, words: Vec<&str>) -> Vec<String> {
        let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        for modality in ["visual", "audio"] {
            words.extend([
                format!("--{modality}"),
                self.path(&format!("features/{modality}")),
            ]);
        }
        words
    }

    /// `ablate` on one thread, with a small network and more settings and flags.
    pub(crate) fn ablate(&self, store: &str, settings: &str, more: &[&str]) -> Output {
        let (file, store) = (self.path("train.toml"), self.path(store));
        fs::write(&file, format!("hidden = 16\nfeedforward = 16\n{settings}")).unwrap();
        let words = ["ablate", "--store", &store, "--config", &file, "--threads", "1"];
        run(self.features([&words[..], more].concat()))
    }

    /// [`TrainingSample::ablate`], and the runs that it tells.
    pub(crate) fn ablated(&self, store: &str, settings: &str, more: &[&str]) -> Vec<serde_json::Value> {
        let output = self.ablate(store, settings, &[more, &["--format", "json"]].concat());
        assert_status(&output, 0);
        let report: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
        report["runs"].as_array().unwrap().clone()
    }

    /// `train` with settings that take seconds.
    fn train_words(&self, store: &str, config: &str, epochs: &str) -> Vec<String> {
        let file = self.path("train.toml");
        fs::write(&file, format!("hidden = 64\nfeedforward = 64\n{config}")).unwrap();
        let store = self.path(store);
        let words = vec![
            "train",
            "--store",
            &store,
            "--config",
            &file,
            "--epochs",
            epochs,
            "--threads",
            "1",
        ];
        self.features(words)
    }

    pub(crate) fn train(&self, store: &str, config: &str, epochs: &str) -> Output {
        run(self.train_words(store, config, epochs))
    }

    /// A copy of the labelled store.
    pub(crate) fn copy(&self, name: &str) {
        copy(&self.folder.path().join("store"), &self.folder.path().join(name));
    }

    pub(crate) fn epochs(&self, store: &str) -> Vec<EpochRow> {
        let store = Store::open(&self.folder.path().join(store)).unwrap();
        store.at_version(None).unwrap().read::<Epochs>().unwrap()
    }

    /// Kills a training of five epochs in the middle.
    fn kill_in_the_third_epoch(&self, store: &str) {
        self.kill_in_the_third_epoch_with(store, "");
    }

    /// The same, of a training with these settings.
    pub(crate) fn kill_in_the_third_epoch_with(&self, store: &str, config: &str) {
        let mut child = vaplan()
            .args(self.train_words(store, config, "5"))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Killed once the second epoch is done: somewhere in the third.
        while self.epochs(store).len() < 2 {
            assert!(
                child.try_wait().unwrap().is_none(),
                "it ended before it could be killed"
            );
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let before = self.epochs(store).len();
        assert!(before < 5, "killed in the middle, after {before} epochs");
    }

    pub(crate) fn checkpoint(&self, store: &str) -> PathBuf {
        self.folder
            .path()
            .join(store)
            .join("_vaplan/train/last.safetensors")
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

pub(crate) fn metric(row: &EpochRow, name: &str) -> f64 {
    row.metrics.iter().find(|(found, _)| **found == *name).unwrap().1
}

#[test]
fn a_small_model_learns_the_sample_and_its_epochs_are_in_the_store() {
    let sample = TrainingSample::new("20");
    let config = "learning_rate = 0.002\n";
    let output = sample.train("store", config, "10");
    assert_status(&output, 0);
    let rows = sample.epochs("store");
    assert_eq!(rows.len(), 10);
    let total = |row: &EpochRow| row.losses.iter().find(|(name, _)| &**name == "total").unwrap().1;
    let (first, last) = (total(&rows[0]), total(&rows[9]));
    assert!(last < 0.6 * first, "loss {first} at first, {last} at last");
    let best = rows
        .iter()
        .map(|row| metric(row, "val.fused.segment.type_av"))
        .fold(0.0, f64::max);
    let first = metric(&rows[0], "val.fused.segment.type_av");
    assert!(
        best > 15.0 && best > first + 5.0,
        "segment Type@AV {first} at first, {best} at best"
    );
    let told = stdout(&output);
    assert!(
        told.contains(&format!("segment.type_av {best:.2} on val, protocol fused")),
        "{told}"
    );

    // One version an epoch; the best epoch has all splits.
    let store = Store::open(&sample.folder.path().join("store")).unwrap();
    let snapshot = store.at_version(None).unwrap();
    assert_eq!(snapshot.version().version, 1 + 10 + 1);
    let number = snapshot.version().epoch.unwrap();
    let videos = snapshot.read::<Videos>().unwrap().len();
    let predicted = snapshot.read::<VideoPredictions>().unwrap();
    let of = |epoch: u64| predicted.iter().filter(|row| row.epoch == epoch).count();
    assert_eq!(of(number), videos);
    let other = if number == 1 { 2 } else { 1 };
    assert_eq!(of(other), 320, "of val alone");
    assert_eq!(snapshot.read::<Predictions>().unwrap().len(), 2 * predicted.len());
    assert_status(&run(["check", "--store", &sample.path("store")]), 0);

    // `eval` scores what training scored.
    let epoch = number.to_string();
    let eval = |protocol: &str| {
        let store = sample.path("store");
        let words = ["eval", "--store", &store, "--split", "val", "--format", "json"];
        let output = run([&words[..], &["--epoch", &epoch, "--protocol", protocol]].concat());
        assert_status(&output, 0);
        stdout(&output).to_owned()
    };
    // serde_json's default parser can be one bit off, so the number is parsed by the standard library.
    let event_av = |json: &str| -> f64 {
        let (_, events) = json.split_once("\"event\":").unwrap();
        let (_, number) = events.split_once("\"event_av\":").unwrap();
        number.split([',', '}']).next().unwrap().trim().parse().unwrap()
    };
    let row = &rows[number as usize - 1];
    for protocol in ["fused", "own"] {
        let json = eval(protocol);
        let report: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(report["protocol"], protocol);
        let expected = metric(row, &format!("val.{protocol}.event.event_av"));
        assert_eq!(event_av(&json), expected);
    }

    // Again: nothing to do.
    let again = sample.train("store", config, "10");
    assert_status(&again, 0);
    assert!(
        stdout(&again).starts_with("nothing to do: these 10 epochs are done"),
        "{}",
        stdout(&again)
    );
    assert_eq!(store.at_version(None).unwrap().version().version, 12);

    // The checkpoint on the features alone gives the same probabilities.
    let (npy, best) = (
        sample.path("npy"),
        sample.path("store/_vaplan/train/best.safetensors"),
    );
    let words = vec!["predict", "--checkpoint", &best, "--npy", &npy, "--threads", "1"];
    let output = run(sample.features(words));
    assert_status(&output, 0);
    let video = &predicted.iter().find(|row| row.epoch == number).unwrap().video;
    let tracks = snapshot.read::<Predictions>().unwrap();
    let track = tracks
        .iter()
        .find(|track| track.epoch == number && track.video == *video)
        .unwrap();
    let key = vaplan::ingest::annotations::key11(video);
    let folder = Path::new(&npy).join(track.modality.as_str());
    let path = [
        folder.join(format!("{key}.npy")),
        folder.join(format!("{video}.npy")),
    ];
    let path = path.iter().find(|path| path.exists()).unwrap();
    let matrix = vaplan::ingest::npy::read_floats(path)
        .unwrap()
        .into_matrix(path)
        .unwrap();
    assert_eq!(
        (matrix.rows as u32, matrix.cols as u32),
        (track.segments(), track.classes)
    );
    for (found, expected) in matrix.data.iter().zip(&track.probability) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
    assert_eq!(fs::read_dir(folder).unwrap().count(), videos);
}

#[test]
fn killed_in_epoch_3_of_5_and_begun_again_it_ends_in_the_same_bytes() {
    let sample = TrainingSample::new("1");
    sample.copy("other");
    assert_status(&sample.train("store", "", "5"), 0);

    sample.kill_in_the_third_epoch("other");
    let output = sample.train("other", "", "5");
    assert_status(&output, 0);
    assert!(
        stderr(&output).contains("continuing after epoch"),
        "{}",
        stderr(&output)
    );
    let (one, other) = (sample.checkpoint("store"), sample.checkpoint("other"));
    assert!(
        fs::read(one).unwrap() == fs::read(other).unwrap(),
        "the checkpoints differ"
    );
    let bare = |store| -> Vec<EpochRow> {
        let mut rows = sample.epochs(store);
        rows.iter_mut().for_each(|row| row.seconds = 0.0);
        rows
    };
    assert_eq!(bare("store"), bare("other"));
    assert_status(&run(["check", "--store", &sample.path("other")]), 0);
}

#[test]
fn a_training_goes_on_whatever_else_is_done_to_the_store_meanwhile() {
    let sample = TrainingSample::new("1");
    sample.copy("other");
    assert_status(&sample.train("store", "", "5"), 0);
    sample.kill_in_the_third_epoch("other");
    let (other, done) = (sample.path("other"), sample.epochs("other").len() as u64);
    // Its files get other names, and someone takes the number of its next epoch.
    assert_status(&run(["optimize", "--store", &other]), 0);
    let best = sample.path("other/_vaplan/train/best.safetensors");
    let predict = ["predict", "--store", &other, "--checkpoint", &best];
    assert_status(
        &run(sample.features([&predict[..], &["--threads", "1"]].concat())),
        0,
    );
    assert_status(&sample.train("other", "", "5"), 0);
    assert!(
        fs::read(sample.checkpoint("store")).unwrap() == fs::read(sample.checkpoint("other")).unwrap(),
        "the checkpoints differ"
    );
    let rows = sample.epochs("other");
    let own = rows.iter().filter(|row| row.learning_rate > 0.0);
    let numbers: Vec<(u64, u64)> = own.map(|row| (row.run_epoch, row.epoch)).collect();
    let expected = (1..=5).map(|epoch| (epoch, epoch + u64::from(epoch > done)));
    assert_eq!(numbers, expected.collect::<Vec<_>>());

    // Predictions are found in joined files, too; the same training and the same labels have nothing to do.
    assert_status(&run(["optimize", "--store", &other]), 0);
    let eval = [
        "eval", "--store", &other, "--split", "val", "--epoch", "1", "--format", "json",
    ];
    assert_status(&run(eval), 0);
    assert!(stdout(&sample.train("other", "", "5")).starts_with("nothing to do"));
    let again = sample.label("other");
    assert!(stdout(&again).contains("nothing to do"), "{}", stdout(&again));
    assert_status(&run(["check", "--store", &other]), 0);
}

#[test]
fn a_loss_that_is_no_number_stops_with_the_batch_named_and_the_last_checkpoint_kept() {
    let sample = TrainingSample::new("1");
    assert_status(&sample.train("store", "", "1"), 0);
    let kept = fs::read(sample.checkpoint("store")).unwrap();
    let output = sample.train("store", "learning_rate = 1e30\nbatch = 8\n", "2");
    assert_status(&output, 2);
    let said = stderr(&output);
    assert!(
        said.contains("epoch 1, batch ") && said.contains("videos of the batch: "),
        "{said}"
    );
    assert_eq!(fs::read(sample.checkpoint("store")).unwrap(), kept);
    assert_eq!(sample.epochs("store").len(), 1);
}

#[test]
fn what_cannot_be_trained_is_refused_with_what_would_do() {
    let sample = TrainingSample::new("1");
    let refused = |output: Output, text: &str| {
        assert_status(&output, 2);
        assert!(stderr(&output).contains(text), "{}", stderr(&output));
    };
    refused(sample.train("store", "epoch = 3\n", "1"), "unknown field `epoch`");
    refused(
        sample.train("store", "heads = 5\n", "1"),
        "5 heads do not divide the hidden size 64",
    );
    refused(
        sample.train("store", "", "0"),
        "epochs is 0, expected 1 to 1000000",
    );
    let store = sample.path("store");
    let words = ["eval", "--store", &store, "--split", "val", "--epoch", "7"];
    refused(run(words), "has no predictions of epoch 7 (epochs: none)");
    let evil = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch/evil.pt");
    let words = vec![
        "predict",
        "--checkpoint",
        evil.to_str().unwrap(),
        "--store",
        &store,
    ];
    refused(
        run(sample.features(words)),
        "asks for `posix.system`, expected only tensors",
    );
}

#[test]
fn a_line_that_denoises_leaves_the_labels_of_the_next_line_as_they_were() {
    let sample = TrainingSample::new("2");
    sample.copy("other");
    let runs = |store: &str, lines: &str, epochs: &str| {
        let more = ["--epochs", epochs, "--seeds", "1", "--lines", lines];
        sample.ablated(store, "learning_rate = 0.01\n", &more)
    };
    let denoised = "pseudo+richness+pld,pseudo+richness+pld-on,pseudo+richness+pld-every";
    let after = runs("store", &format!("{denoised},pseudo+richness"), "4");
    let names: Vec<&str> = after.iter().map(|run| run["line"].as_str().unwrap()).collect();
    assert_eq!(names.join(","), format!("{denoised},pseudo+richness"));
    let alone = runs("other", "pseudo+richness", "4");
    assert_eq!(after[3], alone[0]);
    // A second half that goes on from a trained network ends with a lower loss than a half that begins anew.
    let half = runs("other", "pseudo+richness", "2");
    assert!(
        after[1]["loss"].as_f64() < half[0]["loss"].as_f64(),
        "{after:?} {half:?}"
    );
}

#[test]
fn an_ablation_trains_every_line_with_every_seed_and_leaves_the_store_as_it_was() {
    let sample = TrainingSample::new("1");
    let store = sample.path("store");
    let settings = "best_split = \"val\"\n";
    let words = |lines| ["--epochs", "2", "--seeds", "1,2", "--lines", lines];
    let output = sample.ablate("store", settings, &words("weak,pseudo+richness"));
    assert_status(&output, 0);
    let told = stdout(&output);
    assert!(
        told.contains("split test, 40 videos learnt from, 2 epochs, mean and deviation over 2 seeds"),
        "{told}"
    );
    for line in ["weak ", "pseudo+richness "] {
        assert_eq!(
            told.lines().filter(|told| told.starts_with(line)).count(),
            3,
            "one for each protocol, and one for the score on val: {told}"
        );
    }
    // Asked again for one line more, only that is trained.
    let kept = Path::new(&store).join("_vaplan/train/ablate");
    let times = || {
        let files = fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap());
        files
            .map(|file| (file.path(), file.metadata().unwrap().modified().unwrap()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = times();
    assert_eq!(before.len(), 4);
    let again = sample.ablate("store", settings, &words("weak,pseudo,pseudo+richness"));
    assert_status(&again, 0);
    let after = times();
    assert_eq!(after.len(), 6);
    assert!(before.iter().all(|(path, time)| after[path] == *time));
    let mut same = told
        .lines()
        .filter(|line| line.starts_with("weak ") || line.starts_with("pseudo+"));
    assert!(
        same.all(|line| stdout(&again).contains(line)),
        "{}",
        stdout(&again)
    );

    let runs = sample.ablated("store", settings, &words("weak,pseudo+richness"));
    let of = |run: usize, key: &str| runs[run][key].clone();
    assert_eq!(runs.len(), 4);
    assert_eq!(
        (of(0, "line"), of(3, "line")),
        ("weak".into(), "pseudo+richness".into())
    );
    assert_eq!((of(2, "seed"), of(3, "seed")), (1.into(), 2.into()));
    assert_ne!(of(0, "loss"), of(1, "loss"), "another seed is another network");
    let on_val = of(0, "score").as_f64().unwrap();
    assert!(
        (0.0..=100.0).contains(&on_val)
            && told.contains("score that chose the epoch, val.fused.segment.type_av"),
        "{on_val} {told}"
    );
    assert_ne!(
        of(0, "loss"),
        of(2, "loss"),
        "another supervision is another loss"
    );
    let store = Store::open(Path::new(&store)).unwrap();
    assert_eq!(store.at_version(None).unwrap().version().version, 1);
}
