//! Own training of a watch: a thread that trains on the latest store version, beside the deliveries.
//!
//! ```text
//! latest version ─ data set ─ epoch ─ next.safetensors ─ report ─▶ watch: a version with the epoch, another if PLD reads it
//!       ▲                                                   │
//!       └───────────────── last.safetensors ◀── committed ──┘
//! ```
//!
//! Each epoch learns the labels of the version that is the latest when the epoch begins. After the last epoch the training
//! rests until the data set changes, and then a new training begins from the start. The thread writes checkpoints and nothing
//! else. The checkpoint of an epoch is written before the epoch is committed, and promoted after the commit. If the watch is
//! killed in between and the store has the epoch, the next watch promotes the checkpoint: the labels that the epoch learnt may
//! have changed since, so it cannot be repeated.

use std::cell::RefCell;
use std::fs::{self, File, TryLockError};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use vaplan_schemas::Modality;
use vaplan_schemas::contain::contain;
use vaplan_schemas::rows::{Split, VersionRow};
use vaplan_schemas::storage::is_url;
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{Classes, Labels, Settings, Table as _, Truth, Videos};

use super::batch::Batches;
use super::events::Events;
use super::status::Board;
use super::{BesideTraining, StartTraining, WatchError, WatchProgress};
use crate::engine::resident::delta;
use crate::error::chain;
use crate::ingest::absolute;
use crate::parser::probabilities::VideoProbabilities;
use crate::parser::record::epoch_of;
use crate::parser::train::run_hash;
use crate::parser::trainer::TrainStep;
use crate::parser::training::{Advance, Committed, TrainedEpoch, Training, TrainingDriver, TrainingSpec};
use crate::parser::validate::Truths;
use crate::parser::{Dataset, FeaturePaths, TrainError};
use crate::run::RunError;
use crate::run::config::{Config, Every, Schedule};
use crate::world::World;
use crate::world::changes::DenoiseRequest;
use crate::world::hash::{feed, hash};

/// A training beside a watch, as a caller requests it.
#[derive(Clone, Debug)]
pub struct OwnTrainingRequest {
    /// File of a run. Own training reads its `[train]`, `[train_features]` and `[denoise]`.
    pub config: PathBuf,
    /// Device to compute on.
    pub device: tch::Device,
}

/// Report of the training thread to the watch.
#[derive(Debug)]
pub enum OwnTrainingReport {
    /// An epoch to commit.
    Epoch {
        /// [`TrainingSpec::run`] of the training.
        run: String,
        /// Number of epochs of the training.
        of: u64,
        /// Row, predictions and parameters of the epoch.
        trained: Box<TrainedEpoch>,
    },
    /// PLD has to read the predictions of an epoch that is in the store.
    Denoise {
        /// [`TrainingSpec::run`] of the training.
        run: String,
        /// Epoch of the training, counted from 1.
        epoch: u64,
        /// Settings of PLD.
        denoising: DenoiseRequest,
    },
    /// A training is complete.
    Trained {
        /// [`TrainingSpec::run`] of the training.
        run: String,
        /// Best epoch of the training, counted from 1.
        best: u64,
        /// Predictions of that epoch.
        predicted: Vec<VideoProbabilities>,
    },
    /// The training rests, for this reason.
    Rests(&'static str),
    /// The training cannot continue, for this reason.
    Failed(String),
}

/// Folder in [`Store::own_dir`] with the checkpoints of own trainings. Each training has a folder, named by the store version
/// that it began at.
pub const FOLDER: &str = "train/watch";

impl BesideTraining for OwnTrainingRequest {
    /// # Errors
    /// Returns [`WatchError::Config`] if the file cannot be used, or names another store or schedule `once`.
    fn prepare(&self, store: &Store) -> Result<StartTraining, WatchError> {
        let (config, _) = Config::read(&self.config)?;
        let bad = |problem: String| RunError::Config {
            path: self.config.clone(),
            problem,
        };
        let same = |path: &Path| match is_url(path) {
            true => absolute(path).ok(),
            false => fs::canonicalize(path).ok(),
        };
        if same(&config.store) != same(store.root()) {
            let (found, expected) = (config.store.display(), store.root().display());
            return Err(bad(format!(
                "store is `{found}`, expected the one that is watched, `{expected}`"
            ))
            .into());
        }
        if config.denoise.schedule == Schedule::Once {
            let problem = "[denoise] schedule is `once`, expected `every` or `off`: a training beside a watch has no end";
            return Err(bad(problem.to_owned()).into());
        }
        let prepared = PreparedTraining {
            device: self.device,
            config,
            store: store.clone(),
            _lock: lock(&store.own_dir().join(FOLDER))?,
        };
        Ok(Box::new(move |wake| prepared.start(wake)))
    }
}

/// A training beside a watch that is ready to begin, and holds the lock of its checkpoints.
#[derive(Debug)]
struct PreparedTraining {
    device: tch::Device,
    config: Config,
    store: Store,
    /// Locked, so that no other watch writes the same checkpoints.
    _lock: File,
}

/// Locks the folder of the checkpoints for as long as the file is open.
fn lock(folder: &Path) -> Result<File, WatchError> {
    fs::create_dir_all(folder).map_err(WatchError::io("make", folder))?;
    let path = folder.join("lock");
    let file = File::create(&path).map_err(WatchError::io("write", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TrainError::Settings(format!(
            "`{}` is locked by another `watch --train`, expected one per store at a time",
            folder.display()
        ))
        .into()),
        Err(TryLockError::Error(error)) => Err(WatchError::io("lock", &path)(error)),
    }
}

/// The training thread, as the watch sees it. Dropping it ends the thread.
#[derive(Debug)]
pub struct TrainingThread {
    reports: Receiver<OwnTrainingReport>,
    answers: Option<Sender<()>>,
    news: Option<Sender<()>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PreparedTraining {
    fn start(self, wake: Box<dyn Fn() + Send>) -> TrainingThread {
        // At most one report, one answer and one notice of a new version are on the way.
        let (report, reports) = bounded(1);
        let (answers, answered) = bounded(1);
        let (news, heard) = bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let own = OwnTraining {
            folder: self.store.own_dir().join(FOLDER),
            prepared: self,
            stop: stop.clone(),
            report,
            answered,
            wake,
            seen: RefCell::default(),
        };
        let thread = std::thread::spawn(move || own.run(&heard));
        TrainingThread {
            reports,
            answers: Some(answers),
            news: Some(news),
            stop,
            thread: Some(thread),
        }
    }
}

impl TrainingThread {
    /// Commits the next report of the training, if there is one. Returns false if the watch has to stop.
    ///
    /// # Errors
    /// Returns [`WatchError`] if the store cannot be written.
    pub(super) fn commit_report(
        &self,
        batches: &mut Batches<'_>,
        events: &mut Events,
        board: &mut Board,
        on_progress: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<bool, WatchError> {
        let Ok(report) = self.reports.try_recv() else {
            return Ok(true);
        };
        let goes_on = batches.learnt(report, events, board, on_progress)?;
        // The thread waits until its report is committed.
        if let Some(answers) = self.answers.as_ref().filter(|_| goes_on) {
            let _ = answers.try_send(());
        }
        Ok(goes_on)
    }

    /// Tells the training that the store has a new version.
    pub(super) fn news(&self) {
        if let Some(news) = &self.news {
            let _ = news.try_send(());
        }
    }
}

impl Drop for TrainingThread {
    /// Ends the thread after the current step. The next watch repeats the epoch under way.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        (self.answers, self.news) = (None, None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Tables that a data set is read from.
const TABLES: [&str; 5] = [
    Classes::NAME,
    Labels::NAME,
    Settings::NAME,
    Truth::NAME,
    Videos::NAME,
];

/// Returns whether two store versions have the same data set.
fn same(a: &VersionRow, b: &VersionRow) -> bool {
    TABLES.into_iter().all(|table| delta(a, table) == delta(b, table))
}

/// Time between two looks of a resting training whether another process changed its data set.
const LOOK: Duration = Duration::from_secs(10);

/// The data set of a store version.
struct TrainingData {
    version: VersionRow,
    dataset: Dataset,
    truths: Truths,
    /// SHA-256, hex, of the content.
    hash: String,
}

/// State of the training thread.
struct OwnTraining {
    prepared: PreparedTraining,
    folder: PathBuf,
    stop: Arc<AtomicBool>,
    report: Sender<OwnTrainingReport>,
    answered: Receiver<()>,
    wake: Box<dyn Fn() + Send>,
    /// The store version that was read last.
    seen: RefCell<Option<VersionRow>>,
}

impl OwnTraining {
    fn run(&self, news: &Receiver<()>) {
        loop {
            let report = match contain(|| self.train()) {
                Ok(Ok(())) => OwnTrainingReport::Rests("all there is was learnt"),
                Ok(Err(TrainError::Stopped)) => return,
                // The next delivery may bring the first train video.
                Ok(Err(TrainError::NoVideos { .. })) => {
                    OwnTrainingReport::Rests("no train video has labels and all features")
                }
                Ok(Err(error)) => OwnTrainingReport::Failed(chain(&error)),
                Err(panic) => OwnTrainingReport::Failed(format!("training panicked: {panic}")),
            };
            if self.tell(report).is_err() || !self.rest(news) {
                return;
            }
        }
    }

    /// Waits until the data set may have changed. Returns false if the watch ends.
    fn rest(&self, news: &Receiver<()>) -> bool {
        loop {
            match news.recv_timeout(LOOK) {
                Ok(()) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
                // This thread gets no notice of the commits of other processes.
                Err(RecvTimeoutError::Timeout) => {
                    let latest = self.prepared.store.at_version(None);
                    let moved = |latest: Snapshot| {
                        let seen = self.seen.borrow();
                        seen.as_ref().is_some_and(|seen| !same(seen, latest.version()))
                    };
                    if latest.is_ok_and(moved) {
                        return true;
                    }
                }
            }
        }
    }

    /// Trains until every epoch is trained, and the latest data set equals the one that the last epoch learnt.
    fn train(&self) -> Result<(), TrainError> {
        let mut data = self.data()?;
        let mut training = self.resume(&data)?;
        loop {
            let own = match &mut training {
                Some(own) => own,
                None => training.insert(self.begin(&data)?),
            };
            if own.done() < own.spec().settings.epochs {
                let before = (data.dataset.classes.clone(), widths(&data.dataset));
                self.renew(&mut data)?;
                // Other classes or widths need another network, which cannot continue from these parameters.
                if before != (data.dataset.classes.clone(), widths(&data.dataset)) {
                    training = None;
                    continue;
                }
                own.learn_from(&data.dataset, data.version.version, data.hash.clone())?;
            }
            let mut driver = WatchDriver { own: self };
            match own.advance(&data.dataset, &data.truths, &mut driver)? {
                Advance::Epoch => {}
                Advance::Best | Advance::Done => {
                    self.renew(&mut data)?;
                    if data.hash == own.spec().data {
                        return Ok(());
                    }
                    training = None;
                }
            }
        }
    }

    /// Returns the epochs after which PLD reads new predictions. `None`: never.
    fn every(&self) -> Option<Every> {
        self.prepared.config.denoise.every()
    }

    /// Requests that the labels are denoised by an epoch of a training, if that is due. Returns [`Committed::Later`] if
    /// the store does not have the epoch.
    fn denoise(&self, spec: &TrainingSpec, epoch: u64) -> Result<Committed, TrainError> {
        let latest = self.prepared.store.at_version(None)?;
        if epoch_of(&latest, &spec.run, epoch)?.is_none() {
            return Ok(Committed::Later);
        }
        let epochs = spec.settings.epochs;
        if self.every().is_some_and(|every| every.due(epoch, epochs)) {
            let denoise = &self.prepared.config.denoise;
            let rule = denoise.rule().expect("the file was checked when it was read");
            self.tell(OwnTrainingReport::Denoise {
                run: spec.run.clone(),
                epoch,
                denoising: DenoiseRequest {
                    rule: Some(rule.name().to_owned()),
                    // All of them: a parameter that the file does not name has its default, not the value of the store.
                    parameters: rule.parameters(),
                    modalities: Some(denoise.modalities.clone()),
                },
            })?;
        }
        Ok(Committed::Now)
    }

    /// Sends a report to the watch, and waits until the watch has committed it.
    fn tell(&self, report: OwnTrainingReport) -> Result<(), TrainError> {
        self.report.send(report).map_err(|_| TrainError::Stopped)?;
        (self.wake)();
        self.answered.recv().map_err(|_| TrainError::Stopped)
    }

    /// Opens the training of an earlier watch, to continue it. Returns `None` if there is none with the same settings,
    /// classes and widths.
    fn resume(&self, data: &TrainingData) -> Result<Option<Training>, TrainError> {
        let Some(began) = self.trainings()?.pop() else {
            return Ok(None);
        };
        let spec = self.spec(began, data);
        if let Some(epoch) = Training::unpromoted(&spec.folder, &spec.run)?
            && self.denoise(&spec, epoch)? == Committed::Now
        {
            Training::promote_in(&spec.folder)?;
        }
        // A watch that was killed in a training's first epoch left no checkpoint.
        let fresh = !Training::began(&spec.folder);
        let training = Training::open(spec, &data.dataset)?;
        Ok((fresh || training.resumed().is_some()).then_some(training))
    }

    /// Begins a training. The folder of the last one before it is kept, and older ones are removed.
    fn begin(&self, data: &TrainingData) -> Result<Training, TrainError> {
        let mut before = self.trainings()?;
        before.pop();
        for began in before {
            let folder = self.folder.join(began.to_string());
            fs::remove_dir_all(&folder).map_err(TrainError::io("remove", &folder))?;
        }
        let own = self.folder.join(data.version.version.to_string());
        // A training with other settings began at the same version.
        if own.exists() {
            fs::remove_dir_all(&own).map_err(TrainError::io("remove", &own))?;
        }
        Training::open(self.spec(data.version.version, data), &data.dataset)
    }

    /// Returns the store versions that trainings began at, in ascending order.
    fn trainings(&self) -> Result<Vec<u64>, TrainError> {
        let mut began = Vec::new();
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(began),
            Err(error) => return Err(TrainError::io("list", &self.folder)(error)),
        };
        for entry in entries {
            let name = entry.map_err(TrainError::io("list", &self.folder))?.file_name();
            began.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        began.sort_unstable();
        Ok(began)
    }

    fn spec(&self, began: u64, data: &TrainingData) -> TrainingSpec {
        let settings = &self.prepared.config.train;
        let run = hash(|sum| {
            feed(sum, ["watch", &settings.identity(), &began.to_string()]);
            feed(sum, data.dataset.classes.iter().map(|class| &**class));
            feed(sum, [&*format!("{:?}", widths(&data.dataset))]);
        });
        TrainingSpec {
            settings: settings.clone(),
            device: self.prepared.device,
            folder: self.folder.join(began.to_string()),
            run,
            start: None,
            labels: data.version.version,
            data: data.hash.clone(),
        }
    }

    /// Reads the data set of the latest store version.
    fn data(&self) -> Result<TrainingData, TrainError> {
        let snapshot = self.prepared.store.at_version(None)?;
        *self.seen.borrow_mut() = Some(snapshot.version().clone());
        let paths = self.paths(&World::read(&snapshot)?);
        let mut dataset = Dataset::read(&snapshot, &paths, &mut |_| ())?;
        if self.prepared.config.train.soft_labels > 0.0 {
            dataset.read_margins(&snapshot)?;
        }
        // A new video changes the fingerprint of all features, so they are pooled again. Older copies are of no use.
        dataset.features.keep_only(&paths.cache)?;
        let settings = self.prepared.config.train.identity();
        Ok(TrainingData {
            version: snapshot.version().clone(),
            truths: Truths::read(&snapshot)?,
            hash: run_hash(&settings, &dataset),
            dataset,
        })
    }

    /// Reads the data set again if one of its tables changed.
    fn renew(&self, data: &mut TrainingData) -> Result<(), TrainError> {
        let latest = self.prepared.store.at_version(None)?;
        if !same(latest.version(), &data.version) {
            *data = self.data()?;
        }
        Ok(())
    }

    /// Returns the features that the file names. If it names none, returns the inputs of the store, including
    /// deliveries.
    fn paths(&self, world: &World) -> FeaturePaths {
        let named = &self.prepared.config.train_features;
        let of = |named: &Option<PathBuf>, modality: Modality| match named {
            Some(path) => vec![path.clone()],
            None => world.features[modality.index()].clone(),
        };
        FeaturePaths {
            audio: of(&named.audio, Modality::Audio),
            visual: of(&named.visual, Modality::Visual),
            clips: named.clips.iter().cloned().collect(),
            columns: named.columns.clone().unwrap_or_else(|| world.columns.clone()),
            cache: self.folder.join("features"),
        }
    }
}

/// Driver that sends the results of a training to the watch, which commits them.
struct WatchDriver<'a> {
    own: &'a OwnTraining,
}

impl TrainingDriver for WatchDriver<'_> {
    type Error = TrainError;

    fn more_splits(&self, epoch: u64) -> Vec<Split> {
        let train = &self.own.prepared.config.train;
        let due = self
            .own
            .every()
            .is_some_and(|every| every.due(epoch, train.epochs));
        match due {
            true => train.best_predictions.clone(),
            false => Vec::new(),
        }
    }

    fn on_step(&mut self, _step: TrainStep) -> ControlFlow<()> {
        match self.own.stop.load(Ordering::SeqCst) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn commit_epoch(&mut self, spec: &TrainingSpec, trained: TrainedEpoch) -> Result<Committed, TrainError> {
        let epoch = trained.row.run_epoch;
        self.own.tell(OwnTrainingReport::Epoch {
            run: spec.run.clone(),
            of: spec.settings.epochs,
            trained: Box::new(trained),
        })?;
        self.own.denoise(spec, epoch)
    }

    fn commit_best(
        &mut self,
        spec: &TrainingSpec,
        epoch: u64,
        predicted: Vec<(Split, Vec<VideoProbabilities>)>,
    ) -> Result<Committed, TrainError> {
        self.own.tell(OwnTrainingReport::Trained {
            run: spec.run.clone(),
            best: epoch,
            predicted: predicted.into_iter().flat_map(|(_, videos)| videos).collect(),
        })?;
        Ok(Committed::Now)
    }
}

fn widths(dataset: &Dataset) -> [i64; 3] {
    let features = &dataset.features;
    let clips = features.clips.as_ref().map_or(0, |clips| clips.width());
    [features.audio.width(), features.visual.width(), clips]
}
