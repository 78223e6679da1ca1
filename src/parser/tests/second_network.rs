//! Tests that a network other than HAN works with every command when only its name is given.

use std::fs;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;
use vaplan_schemas::rows::Split;
use vaplan_schemas::store::Store;
use vaplan_schemas::tables::{Epochs, Predictions};

use super::linear_network::LinearNetwork;
use crate::cli::Cli;
use crate::ingest::annotations::key11;
use crate::ingest::features::ColumnNames;
use crate::ingest::npy;
use crate::parser::predict::{self, PredictRequest, PredictTarget};
use crate::parser::probabilities::VideoProbabilities;
use crate::parser::record::Recorder;
use crate::parser::train::{self, TrainProgress, TrainRequest, TrainSummary, run_hash};
use crate::parser::trainer::TrainStep;
use crate::parser::training::{Committed, TrainedEpoch, Training, TrainingDriver, TrainingSpec};
use crate::parser::validate::Truths;
use crate::parser::{Dataset, FeaturePaths, Network as _, TrainError, Weights};

/// A folder with the built-in sample, its features, and three equal stores of its labels.
struct Fixture {
    folder: tempfile::TempDir,
}

/// Writes the annotations of 80 made-up videos.
fn copy_annotations(to: &str) {
    let from = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/sample");
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, PathBuf::from(to).join(path.file_name().unwrap())).unwrap();
    }
}

impl Fixture {
    fn new() -> Fixture {
        let fixture = Fixture {
            folder: tempfile::tempdir().unwrap(),
        };
        let features = fixture.path("features");
        let annotations = fixture.path("annotations");
        copy_annotations(&annotations);
        vaplan(&[
            "synth",
            "--annotations",
            &annotations,
            "--out",
            &features,
            "--dim",
            "16",
        ]);
        let text = |modality: &str| fixture.path(&format!("features/{modality}_text.npy"));
        for store in ["one", "other", "third"] {
            vaplan(
                &[
                    &[
                        "label",
                        "--store",
                        &fixture.path(store),
                        "--annotations",
                        &annotations,
                    ][..],
                    &[
                        "--visual-text",
                        &text("visual"),
                        "--audio-text",
                        &text("audio"),
                        "--workers",
                        "1",
                    ],
                    &[
                        "--visual",
                        &fixture.path("features/visual"),
                        "--audio",
                        &fixture.path("features/audio"),
                    ],
                ]
                .concat(),
            );
        }
        fixture
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn request(&self, store: &str) -> TrainRequest {
        let store = self.folder.path().join(store);
        let out = store.join("_vaplan/train");
        let features = |modality: &str| vec![self.folder.path().join("features").join(modality)];
        TrainRequest {
            version: None,
            features: FeaturePaths {
                audio: features("audio"),
                visual: features("visual"),
                clips: Vec::new(),
                columns: ColumnNames::default(),
                cache: out.join("features"),
            },
            settings: toml::from_str(SETTINGS).unwrap(),
            device: tch::Device::Cpu,
            command: "test".to_owned(),
            store,
            out,
        }
    }

    /// Trains two epochs. With `stop`, only the first epoch is kept, as if the program was killed in the second
    /// epoch.
    fn train(&self, store: &str, stop: bool) -> Option<TrainSummary> {
        let request = self.request(store);
        let mut progress = |progress| {
            let first = matches!(&progress, TrainProgress::Epoch { row, .. } if row.run_epoch == 1);
            assert!(!(stop && first), "stopped after the first epoch");
        };
        catch_unwind(AssertUnwindSafe(|| train::run(&request, &mut progress).unwrap())).ok()
    }

    /// Trains one epoch that is committed and whose checkpoint is not promoted, as if the program was killed in
    /// between.
    fn train_and_stop_after_the_commit(&self, store: &str) {
        let request = self.request(store);
        let store = Store::open(&request.store).unwrap();
        let snapshot = store.at_version(None).unwrap();
        let dataset = Dataset::read(&snapshot, &request.features, &mut |_| ()).unwrap();
        let run = run_hash(&request.settings.identity(), &dataset);
        let spec = TrainingSpec {
            settings: request.settings,
            device: request.device,
            folder: request.out,
            run: run.clone(),
            start: None,
            labels: snapshot.version().version,
            data: run.clone(),
        };
        let mut training = Training::open(spec, &dataset).unwrap();
        let command = request.command;
        let mut driver = StopAfterCommit(Recorder { store, command, run });
        let truths = Truths::read(&snapshot).unwrap();
        let stopped = training.advance(&dataset, &truths, &mut driver);
        assert!(matches!(stopped, Err(TrainError::Stopped)), "{stopped:?}");
    }

    fn checkpoint(&self, store: &str, name: &str) -> PathBuf {
        self.folder.path().join(store).join("_vaplan/train").join(name)
    }
}

/// Commits an epoch and then ends the training.
struct StopAfterCommit(Recorder);

impl TrainingDriver for StopAfterCommit {
    type Error = TrainError;

    fn on_step(&mut self, _step: TrainStep) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn commit_epoch(&mut self, _spec: &TrainingSpec, trained: TrainedEpoch) -> Result<Committed, TrainError> {
        self.0.record(trained.row, &trained.predicted, &mut |_| ())?;
        Err(TrainError::Stopped)
    }

    fn commit_best(
        &mut self,
        _spec: &TrainingSpec,
        _epoch: u64,
        _predicted: Vec<(Split, Vec<VideoProbabilities>)>,
    ) -> Result<Committed, TrainError> {
        unreachable!("the first epoch ends the training")
    }
}

/// Names a network that is not HAN, and sets one of its own settings.
const SETTINGS: &str = "network = 'linear'\ninput_dropout = 0.2\nlearning_rate = 0.01\nepochs = 2\n";

/// Runs a command of the program and asserts that its exit status is 0.
fn vaplan(words: &[&str]) {
    let cli = Cli::try_parse_from([&["vaplan", "--quiet"], words].concat()).unwrap();
    let status = cli.run(&mut Vec::new()).unwrap();
    assert_eq!(
        format!("{status:?}"),
        format!("{:?}", ExitCode::SUCCESS),
        "{words:?}"
    );
}

#[test]
fn a_second_network_trains_resumes_bit_for_bit_and_predicts() {
    tch::set_num_threads(1);
    let fixture = Fixture::new();
    let summary = fixture.train("one", false).unwrap();
    assert_eq!((summary.epochs, summary.resumed), (2, None));
    let last = fixture.checkpoint("one", "last.safetensors");
    let saved = Weights::read(&last).unwrap();
    assert_eq!(saved.metadata["network"], LinearNetwork::NAME);
    assert!(
        saved.tensors.contains_key("audio.weight") && saved.tensors.contains_key("adam.mean.audio.weight")
    );

    assert!(fixture.train("other", true).is_none(), "it was stopped");
    let summary = fixture.train("other", false).unwrap();
    assert_eq!((summary.epochs, summary.resumed), (2, Some(1)));
    let resumed = fixture.checkpoint("other", "last.safetensors");
    assert!(
        fs::read(&last).unwrap() == fs::read(&resumed).unwrap(),
        "the checkpoints differ"
    );

    // An epoch that was committed without its checkpoint is repeated, and is not committed twice.
    fixture.train_and_stop_after_the_commit("third");
    let summary = fixture.train("third", false).unwrap();
    assert_eq!((summary.epochs, summary.resumed), (2, None));
    let repeated = fixture.checkpoint("third", "last.safetensors");
    // The metadata differs: it names the store version of the epoch that was committed before. So compare the tensors
    // only.
    assert!(
        Weights::read(&repeated).unwrap().tensors == saved.tensors,
        "the weights differ"
    );
    let third = Store::open(&fixture.folder.path().join("third")).unwrap();
    let epochs = third.at_version(None).unwrap().read::<Epochs>().unwrap();
    let numbers: Vec<(u64, u64)> = epochs.iter().map(|row| (row.epoch, row.run_epoch)).collect();
    assert_eq!(numbers, [(1, 1), (2, 2)]);

    // `predict` computes from the checkpoint the same probabilities that the store holds for the best epoch.
    let store = Store::open(&fixture.folder.path().join("one")).unwrap();
    let snapshot = store.at_version(None).unwrap();
    assert_eq!(snapshot.read::<Epochs>().unwrap().len(), 2);
    let (epoch, _) = summary.best.unwrap();
    let tracks = snapshot.read::<Predictions>().unwrap();
    let track = tracks.iter().find(|track| track.epoch == epoch).unwrap();
    let request = PredictRequest {
        checkpoint: fixture.checkpoint("one", "best.safetensors"),
        audio: vec![fixture.path("features/audio").into()],
        visual: vec![fixture.path("features/visual").into()],
        clips: Vec::new(),
        columns: ColumnNames::default(),
        target: PredictTarget::Npy(fixture.path("npy").into()),
        heads: None,
        device: tch::Device::Cpu,
        command: "test".to_owned(),
    };
    assert_eq!(predict::run(&request, &mut |_, _| ()).unwrap().left_out, 0);
    let folder = fixture.folder.path().join("npy").join(track.modality.as_str());
    let file = [key11(&track.video), &*track.video]
        .map(|name| folder.join(format!("{name}.npy")))
        .into_iter()
        .find(|path| path.exists())
        .unwrap();
    let matrix = npy::read_floats(&file).unwrap().into_matrix(&file).unwrap();
    assert_eq!(matrix.data.len(), track.probability.len());
    for (found, expected) in matrix.data.iter().zip(&track.probability) {
        assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
    }
}
