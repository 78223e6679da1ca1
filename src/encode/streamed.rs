//! Scores the media of a store in the dataflow that encodes them, and commits early versions on request.
//!
//! ```text
//! units ── shards ─ writes the feature files of a unit ── read ── similarity ── stage ─ a unit is scored ═ channel ═┐
//!                                                                                                                   ▼
//!                                                     early version ◀── label ◀── every N videos or minutes ── committer
//! ```
//!
//! A unit has whole feature files and whole buckets of the store. Videos are read in order of unit, so the first units are scored
//! and can be committed while the media of later units are decoded. The features pass through their files, because a later change
//! reads these files again and must get the same scores, bit for bit.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use vaplan_dataflows::timely::dataflow::Stream;
use vaplan_dataflows::timely::dataflow::channels::pact::Pipeline;
use vaplan_dataflows::timely::dataflow::operators::generic::Operator;
use vaplan_schemas::Modality;
use vaplan_schemas::ids::bucket_of;

use super::cache::Cache;
use super::error::EncodeError;
use super::flow::{AfterUnits, EncodeState};
use super::media::Media;
use super::run::{EncodeListener, EncodeProgress};
use super::write::{ShardSet, WrittenShards};
use crate::engine::Listener;
use crate::engine::plan::{PlannedShard, planned};
use crate::engine::score::{GivenShards, lock};
use crate::error::LabelError;
use crate::ingest::features::FeatureInput;
use crate::label::LabelRequest;
use crate::label::early::{CommitEvery, EarlyVersions};
use crate::world::Both;

/// What follows the encoding of media into a store.
#[derive(Clone, Debug)]
pub struct StreamedLabelling {
    /// The labelling that the caller makes of the features afterwards.
    pub request: LabelRequest,
    /// After how much work an early version is committed. `None`: never.
    pub commit_every: Option<CommitEvery>,
}

/// The units of a run, and the operators that score them.
pub(super) struct Streamed {
    units: u32,
    shards: Both<Option<Arc<ShardSet>>>,
    early: Arc<EarlyVersions>,
    media: Arc<Vec<Media>>,
    cache: Arc<Cache>,
    scoring: GivenShards,
    /// Whether the store has a version whose labels come from features of another run.
    other_version: bool,
    progress: Arc<Mutex<UnitProgress>>,
    committed: CommitError,
    written: Mutex<WrittenShards>,
}

/// The shards of each unit that are not scored yet.
#[derive(Default)]
struct UnitProgress {
    /// The unit of each shard that is being scored, by its staging key.
    unit_of: BTreeMap<String, u32>,
    /// All shards of each unit, and the number of those that are not scored.
    units: BTreeMap<u32, (Vec<PlannedShard>, usize)>,
    scored: Option<Sender<(u32, Vec<PlannedShard>)>>,
}

impl UnitProgress {
    fn scored(&mut self, key: &str) {
        if let Some(unit) = self.unit_of.remove(key)
            && let Some((_, left)) = self.units.get_mut(&unit)
        {
            *left -= 1;
            self.end(unit);
        }
    }

    /// Reports the unit if all its shards are scored.
    fn end(&mut self, unit: u32) {
        if self.units.get(&unit).is_some_and(|(_, left)| *left == 0)
            && let (Some((shards, _)), Some(scored)) = (self.units.remove(&unit), &self.scored)
        {
            // The send fails only if the committer has ended with an error, which it has reported.
            let _ = scored.send((unit, shards));
        }
    }
}

/// The thread that commits early versions, and its error.
pub(super) struct Committer {
    thread: Option<JoinHandle<()>>,
    error: CommitError,
}

/// The error of the committer, until the run has taken it.
type CommitError = Arc<Mutex<Option<LabelError>>>;

impl Committer {
    /// Waits until the thread has ended. [`Streamed::close`] must be called before.
    ///
    /// # Errors
    /// Returns the error of a commit.
    pub(super) fn join(self) -> Result<(), EncodeError> {
        let ended = self.thread.map_or(Ok(()), JoinHandle::join);
        match (lock(&self.error).take(), ended) {
            (Some(error), _) => Err(error.into()),
            (None, Err(_)) => {
                let problem = "the thread that commits early versions panicked";
                Err(EncodeError::Stopped(problem.to_owned()))
            }
            (None, Ok(())) => Ok(()),
        }
    }
}

impl Streamed {
    /// Plans the units. `shards` describes the feature files of each modality that is encoded.
    ///
    /// # Errors
    /// Returns [`EncodeError::Label`] if the labelling cannot be made of its inputs.
    pub(super) fn new(
        labelling: &StreamedLabelling,
        shards: Both<Option<Arc<ShardSet>>>,
        mut media: Vec<Media>,
        cache: &Arc<Cache>,
        listener: &EncodeListener,
    ) -> Result<(Streamed, Committer), EncodeError> {
        let later = [shards[0].is_some(), shards[1].is_some()];
        let mut early = EarlyVersions::open(&labelling.request, later)?;
        let fewest = shards.iter().flatten().map(|own| own.buckets).min();
        early.divide(fewest.unwrap_or(1));
        let units = early.units();
        media.sort_by(|a, b| {
            let unit = |media: &Media| bucket_of(&media.name, units);
            (unit(a), &a.name).cmp(&(unit(b), &b.name))
        });
        let early = Arc::new(early);
        let progress: Arc<Mutex<UnitProgress>> = Arc::default();
        let own = progress.clone();
        let plan = Arc::new(early.plan().clone());
        let scoring = GivenShards::new(&plan, &early.stage, &Listener::silent(), move |key| {
            lock(&own).scored(key)
        });
        let committed = CommitError::default();
        let thread = labelling.commit_every.map(|every| {
            let (scored, heard) = unbounded();
            lock(&progress).scored = Some(scored);
            let (early, scoring, listener) = (early.clone(), scoring.clone(), listener.clone());
            let error = committed.clone();
            std::thread::spawn(move || {
                if let Err(failed) = commit_early(every, &heard, &early, &scoring, &listener) {
                    *lock(&error) = Some(failed);
                }
            })
        });
        let committer = Committer {
            thread,
            error: committed.clone(),
        };
        let streamed = Streamed {
            units,
            shards,
            other_version: early.has_other_version()?,
            early,
            media: Arc::new(media),
            cache: cache.clone(),
            scoring,
            progress,
            committed,
            written: Mutex::default(),
        };
        Ok((streamed, committer))
    }

    /// The media in order of unit.
    pub(super) fn media(&self) -> &Arc<Vec<Media>> {
        &self.media
    }

    /// Ends the committer after its current version. The ordinary run commits the other units.
    pub(super) fn close(&self) {
        lock(&self.progress).scored = None;
    }

    /// The feature files that were written.
    pub(super) fn take_written(&self) -> WrittenShards {
        std::mem::take(&mut *lock(&self.written))
    }

    /// Writes the feature files of a unit. Returns those that are to be scored.
    fn write(&self, unit: u32, state: &EncodeState) -> Result<Vec<PlannedShard>, EncodeError> {
        if let Some(error) = lock(&self.committed).take() {
            return Err(error.into());
        }
        let (mut files, mut changed): (Vec<(Modality, PathBuf)>, bool) = (Vec::new(), false);
        for (modality, set) in Modality::ALL.into_iter().zip(&self.shards) {
            let Some(set) = set else { continue };
            let of_unit = set.buckets / self.units;
            for bucket in unit * of_unit..(unit + 1) * of_unit {
                let written = set.write(bucket, &self.media, &self.cache, &mut state.results())?;
                let Some(written) = written else { continue };
                changed |= written.changed;
                files.push((modality, written.path.clone()));
                lock(&self.written).insert((modality, bucket), written);
            }
        }
        // Unchanged files of a store that has other versions were scored for these versions. The ordinary run scores them
        // again only if it has to.
        if self.other_version && !changed {
            return Ok(Vec::new());
        }
        let plan = self.early.plan();
        // The final labelling uses the same memory, so that the shards get the same keys.
        let mut seen = self.early.seen();
        let mut shards = Vec::new();
        for (modality, path) in files {
            let input = FeatureInput::open(&path, modality, &plan.world.columns, &|_| true);
            let input = input.map_err(LabelError::from)?;
            shards.extend(planned(input, &plan.world, &self.early.weak, &mut seen));
        }
        let all = shards.clone();
        shards.retain(|shard| !self.scoring.has_staged(shard));
        let mut progress = lock(&self.progress);
        let keys = shards.iter().map(|shard| (shard.key.clone(), unit));
        progress.unit_of.extend(keys);
        progress.units.insert(unit, (all, shards.len()));
        progress.end(unit);
        Ok(shards)
    }
}

impl AfterUnits for Arc<Streamed> {
    fn units(&self) -> u32 {
        self.units
    }

    fn unit_of(&self, name: &str) -> u32 {
        bucket_of(name, self.units)
    }

    fn follow<'scope>(&self, units: Stream<'scope, u64, Vec<u32>>, state: &Arc<EncodeState>) {
        let (streamed, state) = (self.clone(), state.clone());
        let shards = units.unary(Pipeline, "Shards", move |_capability, _info| {
            move |input, output| {
                input.for_each_time(|time, units| {
                    let mut session = output.session(&time);
                    for unit in units.flat_map(|units| units.drain(..)) {
                        match streamed.write(unit, &state) {
                            _ if state.is_cancelled() => streamed.scoring.cancel(),
                            Ok(shards) => session.give_iterator(shards.into_iter()),
                            Err(error) => {
                                streamed.scoring.cancel();
                                state.fail(error);
                            }
                        }
                    }
                });
            }
        });
        self.scoring.score(shards);
    }
}

/// Commits early versions until the channel is closed.
fn commit_early(
    every: CommitEvery,
    scored: &Receiver<(u32, Vec<PlannedShard>)>,
    early: &EarlyVersions,
    scoring: &GivenShards,
    listener: &EncodeListener,
) -> Result<(), LabelError> {
    let mut finished: BTreeMap<u32, Vec<PlannedShard>> = BTreeMap::new();
    let (mut videos, mut since) = (0, Instant::now());
    loop {
        let wait = match every {
            CommitEvery::Time(time) if videos > 0 => time.saturating_sub(since.elapsed()),
            CommitEvery::Time(_) | CommitEvery::Videos(_) => Duration::MAX,
        };
        let ended = match scored.recv_timeout(wait.min(Duration::from_secs(3600))) {
            Ok((unit, shards)) => {
                finished.insert(unit, shards);
                if !early.done(unit)? {
                    videos += early.videos(unit);
                }
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        // The ordinary run commits what is left.
        if ended {
            return Ok(());
        }
        let due = match every {
            CommitEvery::Videos(wanted) => videos >= wanted,
            CommitEvery::Time(time) => videos > 0 && since.elapsed() >= time,
        };
        if due {
            let version = early.commit(&finished, scoring.report()?, &Listener::silent())?;
            if let Some(version) = version {
                listener(EncodeProgress::Committed {
                    version: version.version,
                    videos,
                });
            }
            (videos, since) = (0, Instant::now());
        }
    }
}
