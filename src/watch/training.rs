//! A parser that learns beside a watch, in a thread of its own.
//!
//! ```text
//! latest version ─ data set ─ epoch ─ report ─▶ watch: a version with the epoch, another where it denoises
//!       ▲                                │
//!       └──────── checkpoint ◀── done ───┘
//! ```
//!
//! Each epoch learns the labels there are when it begins. After its last epoch a training rests until what it learns from
//! is another, and the next begins from the start. The thread writes checkpoints and nothing else. A checkpoint is written
//! before its epoch is in the store, and counts once it is there: killed before that, the epoch is done again; after that,
//! when the labels it learnt may be others, it is not.

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
use vaplan_schemas::rows::VersionRow;
use vaplan_schemas::store::{Snapshot, Store};
use vaplan_schemas::tables::{Classes, Labels, Settings, Table as _, Truth, Videos};

use super::WatchError;
use crate::engine::resident::delta;
use crate::error::chain;
use crate::parser::probabilities::VideoProbabilities;
use crate::parser::record::epoch_of;
use crate::parser::train::run_hash;
use crate::parser::training::{Brief, Course, Learned};
use crate::parser::validate::Truths;
use crate::parser::{Dataset, FeaturePaths, TrainError};
use crate::run::RunError;
use crate::run::config::{Config, Schedule};
use crate::world::changes::DenoiseRequest;
use crate::world::hash::{feed, hash};
use crate::world::{World, at};

/// What is asked of own training.
#[derive(Clone, Debug)]
pub struct Asked {
    /// File of a run: of it count `[train]`, `[train_features]` and `[denoise]`.
    pub config: PathBuf,
    /// Threads of libtorch.
    pub threads: usize,
    /// Where to compute.
    pub device: tch::Device,
}

/// What became of a step of the training.
#[derive(Debug)]
pub enum Report {
    /// An epoch is learnt.
    Epoch {
        /// Names the training.
        run: String,
        /// Epochs of the training.
        of: u64,
        /// What it gave.
        learned: Box<Learned>,
    },
    /// Labels are to be denoised by an epoch that is in the store.
    Denoise {
        /// Names the training.
        run: String,
        /// Epoch of the training.
        epoch: u64,
        /// How.
        denoising: DenoiseRequest,
    },
    /// A training is done.
    Trained {
        /// Names it.
        run: String,
        /// Its best epoch.
        best: u64,
        /// Predictions of that epoch.
        predicted: Vec<VideoProbabilities>,
    },
    /// There is nothing to learn now, and why.
    Rests(&'static str),
    /// It cannot go on.
    Failed(String),
}

/// Where a store has the checkpoints of a watch: a folder a training, named by the version that it began at.
pub const FOLDER: &str = "_vaplan/train/watch";

impl Asked {
    /// Reads the file.
    ///
    /// # Errors
    /// [`WatchError::Config`] for one that cannot be used, or asks for another store or schedule.
    pub fn read(&self, store: &Store) -> Result<Ready, WatchError> {
        let (config, _) = Config::read(&self.config)?;
        let bad = |problem: String| RunError::Config {
            path: self.config.clone(),
            problem,
        };
        let same = |path: &Path| fs::canonicalize(path).ok();
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
        Ok(Ready {
            asked: self.clone(),
            config,
            store: store.clone(),
            _alone: alone(&store.root().join(FOLDER))?,
        })
    }
}

/// A training that can begin.
#[derive(Debug)]
pub struct Ready {
    asked: Asked,
    config: Config,
    store: Store,
    /// Locked: two would write the same checkpoints.
    _alone: File,
}

/// Takes the folder of the checkpoints, as long as the file is open.
fn alone(folder: &Path) -> Result<File, WatchError> {
    fs::create_dir_all(folder).map_err(WatchError::io("make", folder))?;
    let path = folder.join("lock");
    let file = File::create(&path).map_err(WatchError::io("write", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TrainError::Settings(format!(
            "`{}` is another watch's, expected one `watch --train` of a store at a time",
            folder.display()
        ))
        .into()),
        Err(TryLockError::Error(error)) => Err(WatchError::io("lock", &path)(error)),
    }
}

/// A training under way.
#[derive(Debug)]
pub struct Training {
    reports: Receiver<Report>,
    answers: Option<Sender<()>>,
    news: Option<Sender<()>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Training {
    /// Starts the thread; `wake` is called when there is a report.
    pub fn start(ready: Ready, wake: impl Fn() + Send + 'static) -> Training {
        // One of each is on the way at most.
        let (report, reports) = bounded(1);
        let (answers, answered) = bounded(1);
        let (news, heard) = bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let mut pupil = Pupil {
            folder: ready.store.root().join(FOLDER),
            ready,
            stop: stop.clone(),
            report,
            answered,
            wake: Box::new(wake),
            seen: RefCell::default(),
        };
        let thread = std::thread::spawn(move || pupil.go(&heard));
        Training {
            reports,
            answers: Some(answers),
            news: Some(news),
            stop,
            thread: Some(thread),
        }
    }

    /// What there is to be done with an epoch; it goes on when it is told to.
    pub fn report(&self) -> Option<Report> {
        self.reports.try_recv().ok()
    }

    /// The last report is done.
    pub fn go_on(&self) {
        if let Some(answers) = &self.answers {
            let _ = answers.try_send(());
        }
    }

    /// A version came that may be another to learn from. Several are one.
    pub fn news(&self) {
        if let Some(news) = &self.news {
            let _ = news.try_send(());
        }
    }
}

impl Drop for Training {
    /// Ends it, after the step it is at; the epoch under way is begun again by the next watch.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        (self.answers, self.news) = (None, None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Tables that a lesson is of.
const LEARNT: [&str; 5] = [
    Classes::NAME,
    Labels::NAME,
    Settings::NAME,
    Truth::NAME,
    Videos::NAME,
];

fn same(a: &VersionRow, b: &VersionRow) -> bool {
    LEARNT.into_iter().all(|table| delta(a, table) == delta(b, table))
}

/// As often a training at rest looks whether another process changed what it learns from.
const LOOK: Duration = Duration::from_secs(10);

/// What is learnt from: a version.
struct Lesson {
    version: VersionRow,
    dataset: Dataset,
    truths: Truths,
    /// Names the content.
    name: String,
}

/// The thread's own.
struct Pupil {
    ready: Ready,
    folder: PathBuf,
    stop: Arc<AtomicBool>,
    report: Sender<Report>,
    answered: Receiver<()>,
    wake: Box<dyn Fn() + Send>,
    /// The version that was read last.
    seen: RefCell<Option<VersionRow>>,
}

impl Pupil {
    fn go(&mut self, news: &Receiver<()>) {
        crate::parser::set_threads(self.ready.asked.threads);
        loop {
            let done = contain(|| self.learn());
            let report = match done {
                Ok(Ok(())) => Report::Rests("all there is was learnt"),
                Ok(Err(TrainError::Stopped)) => return,
                // The next video may be the first.
                Ok(Err(TrainError::NoVideos { .. })) => {
                    Report::Rests("no train video has labels and all features")
                }
                Ok(Err(error)) => Report::Failed(chain(&error)),
                Err(panic) => Report::Failed(format!("training panicked: {panic}")),
            };
            if self.tell(report).is_err() || !self.rest(news) {
                return;
            }
        }
    }

    /// Waits until there may be something else to learn; false: that is of no interest any more.
    fn rest(&self, news: &Receiver<()>) -> bool {
        loop {
            match news.recv_timeout(LOOK) {
                Ok(()) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
                // Others tell nobody what they commit.
                Err(RecvTimeoutError::Timeout) => {
                    let latest = self.ready.store.at_version(None);
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

    /// Learns until there is nothing left that it has not learnt.
    fn learn(&self) -> Result<(), TrainError> {
        let mut lesson = self.lesson()?;
        let mut course = self.left(&lesson)?;
        loop {
            let Some(own) = &mut course else {
                course = Some(self.begin(&lesson)?);
                continue;
            };
            if own.done() >= self.ready.config.train.epochs {
                self.finish(own, &lesson)?;
                self.renew(&mut lesson)?;
                if lesson.name == own.brief().learnt {
                    return Ok(());
                }
                course = None;
                continue;
            }
            let classes = (lesson.dataset.classes.clone(), widths(&lesson.dataset));
            self.renew(&mut lesson)?;
            // Another network: what was learnt is of no use to it.
            if classes != (lesson.dataset.classes.clone(), widths(&lesson.dataset)) {
                course = None;
                continue;
            }
            own.learn_from(&lesson.dataset, lesson.version.version, lesson.name.clone())?;
            self.epoch(own, &lesson)?;
        }
    }

    fn epoch(&self, course: &mut Course, lesson: &Lesson) -> Result<(), TrainError> {
        let config = &self.ready.config;
        let (next, of) = (course.done() + 1, config.train.epochs);
        let denoises = config.denoise.every().is_some_and(|every| every.due(next, of));
        let also = if denoises {
            &config.train.best_predictions[..]
        } else {
            &[]
        };
        let stop = |_| match self.stop.load(Ordering::SeqCst) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let learned = course.epoch(&lesson.dataset, &lesson.truths, also, stop)?;
        course.save_next(&lesson.dataset)?;
        let (run, learned) = (course.brief().run.clone(), Box::new(learned));
        self.tell(Report::Epoch { run, of, learned })?;
        self.settle(course.brief())
    }

    /// Goes on from an epoch that is in the store: denoises by it where that is due, and keeps the checkpoint.
    fn settle(&self, brief: &Brief) -> Result<(), TrainError> {
        let Some(epoch) = Course::next(&brief.folder, &brief.run)? else {
            return Ok(());
        };
        let latest = self.ready.store.at_version(None)?;
        if epoch_of(&latest, &brief.run, epoch)?.is_none() {
            return Ok(());
        }
        let denoise = &self.ready.config.denoise;
        if denoise
            .every()
            .is_some_and(|every| every.due(epoch, brief.settings.epochs))
        {
            let run = brief.run.clone();
            let denoising = DenoiseRequest {
                k: Some(denoise.k),
                alpha: Some(denoise.alpha),
                guard: Some(denoise.guard),
                modalities: Some(denoise.modalities.clone()),
            };
            self.tell(Report::Denoise {
                run,
                epoch,
                denoising,
            })?;
        }
        Course::settle(&brief.folder)
    }

    /// The best epoch's predictions, once.
    fn finish(&self, course: &mut Course, lesson: &Lesson) -> Result<(), TrainError> {
        if course.finished() {
            return Ok(());
        }
        if let Some((best, _)) = course.best() {
            let left = self.ready.config.train.left_to_best();
            let predicted = course.by_best(&lesson.dataset, left)?;
            let run = course.brief().run.clone();
            self.tell(Report::Trained { run, best, predicted })?;
        }
        course.finish(&lesson.dataset)
    }

    /// Hands a report over, and waits until it is done.
    fn tell(&self, report: Report) -> Result<(), TrainError> {
        self.report.send(report).map_err(|_| TrainError::Stopped)?;
        (self.wake)();
        self.answered.recv().map_err(|_| TrainError::Stopped)
    }

    /// The training that was under way last, or is at rest; none: of other settings, classes or widths, or there is none.
    fn left(&self, lesson: &Lesson) -> Result<Option<Course>, TrainError> {
        let Some(began) = self.trainings()?.pop() else {
            return Ok(None);
        };
        let brief = self.brief(began, lesson);
        self.settle(&brief)?;
        // Killed in its first epoch, it left no checkpoint.
        let fresh = !Course::began(&brief.folder);
        let course = Course::open(brief, &lesson.dataset)?;
        Ok((fresh || course.resumed().is_some()).then_some(course))
    }

    /// Begins a training; of those before, the last is kept.
    fn begin(&self, lesson: &Lesson) -> Result<Course, TrainError> {
        let mut before = self.trainings()?;
        before.pop();
        for began in before {
            let folder = self.folder.join(began.to_string());
            fs::remove_dir_all(&folder).map_err(TrainError::io("remove", &folder))?;
        }
        let own = self.folder.join(lesson.version.version.to_string());
        // Of other settings, at the same version.
        if own.exists() {
            fs::remove_dir_all(&own).map_err(TrainError::io("remove", &own))?;
        }
        Course::open(self.brief(lesson.version.version, lesson), &lesson.dataset)
    }

    /// Versions that trainings began at, ascending.
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

    fn brief(&self, began: u64, lesson: &Lesson) -> Brief {
        let settings = &self.ready.config.train;
        let text = serde_json::to_string(settings).expect("settings are JSON");
        let run = hash(|sum| {
            feed(sum, ["watch", &text, &began.to_string()]);
            feed(sum, lesson.dataset.classes.iter().map(|class| &**class));
            feed(sum, [&*format!("{:?}", widths(&lesson.dataset))]);
        });
        Brief {
            settings: settings.clone(),
            device: self.ready.asked.device,
            folder: self.folder.join(began.to_string()),
            run,
            labels: lesson.version.version,
            learnt: lesson.name.clone(),
        }
    }

    /// What there is to learn from now.
    fn lesson(&self) -> Result<Lesson, TrainError> {
        let snapshot = self.ready.store.at_version(None)?;
        *self.seen.borrow_mut() = Some(snapshot.version().clone());
        let paths = self.paths(&World::read(&snapshot)?);
        let dataset = Dataset::read(&snapshot, &paths, &mut |_| ())?;
        // A video that comes has all pooled anew: what no one maps any more goes.
        dataset.features.keep_only(&paths.cache)?;
        let settings = serde_json::to_string(&self.ready.config.train).expect("settings are JSON");
        Ok(Lesson {
            version: snapshot.version().clone(),
            truths: Truths::read(&snapshot)?,
            name: run_hash(&settings, &dataset),
            dataset,
        })
    }

    /// The same where no table of it moved.
    fn renew(&self, lesson: &mut Lesson) -> Result<(), TrainError> {
        let latest = self.ready.store.at_version(None)?;
        if !same(latest.version(), &lesson.version) {
            *lesson = self.lesson()?;
        }
        Ok(())
    }

    /// What the file names, or else what is labelled, deliveries among it.
    fn paths(&self, world: &World) -> FeaturePaths {
        let named = &self.ready.config.train_features;
        let of = |named: &Option<PathBuf>, modality| match named {
            Some(path) => vec![path.clone()],
            None => world.features[at(modality)].clone(),
        };
        FeaturePaths {
            audio: of(&named.audio, Modality::Audio),
            visual: of(&named.visual, Modality::Visual),
            clips: named.clips.iter().cloned().collect(),
            cache: self.folder.join("features"),
        }
    }
}

fn widths(dataset: &Dataset) -> [i64; 3] {
    let features = &dataset.features;
    let clips = features.clips.as_ref().map_or(0, |clips| clips.width());
    [features.audio.width(), features.visual.width(), clips]
}
