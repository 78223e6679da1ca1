//! Early versions of a long run: the labels of the videos that are encoded already, while other videos are being encoded.
//!
//! ```text
//! buckets of the store   │ 0 │ 1 │ 2 │ 3 │ 4 │ 5 │ 6 │ 7 │
//! units of the run       │   0   │   1   │   2   │   3   │     whole buckets, and whole shards of features
//! early version 1        │ new   │ new   │               │     buckets of other units stay as they are
//! early version 2        │       │       │ new           │
//! last version           │ all buckets, as `label` writes them without early versions                   │
//! ```
//!
//! An early version has exactly the rows that the last version has for its videos. The last version is that of an ordinary
//! run, so that early versions cannot change it. Column `inputs` of an early version names the units that it has, so that a
//! run after a kill commits only the others.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vaplan_schemas::bucket_of;
use vaplan_schemas::rows::{RejectRow, TruthRow, VersionRow};
use vaplan_schemas::store::{CommitInfo, Snapshot, Store};
use vaplan_schemas::tables::{Rejects, Truth};

use super::{LabelRequest, STAGE};
use crate::engine::before::VersionBefore;
use crate::engine::commit::VersionWriter;
use crate::engine::flow::{self, Alone, FlowInput};
use crate::engine::passes::{Passes, bucketed_videos};
use crate::engine::plan::{Plan, PlannedShard, weak_hash};
use crate::engine::score::{ReadReport, lock, stage_shards};
use crate::engine::share::BucketShare;
use crate::engine::stage::Stage;
use crate::engine::workers::WorkerGroup;
use crate::engine::{Listener, Progress};
use crate::error::LabelError;
use crate::ingest::seen::SeenInputs;
use crate::world::hash::{feed, hash};
use crate::world::{Both, World};

/// The amount of work after which a run commits an early version.
///
/// ```
/// use std::time::Duration;
/// use vaplan::label::early::CommitEvery;
/// assert_eq!("5000".parse(), Ok(CommitEvery::Videos(5000)));
/// assert_eq!("10m".parse(), Ok(CommitEvery::Time(Duration::from_secs(600))));
/// let wrong = "often".parse::<CommitEvery>().unwrap_err();
/// assert_eq!(wrong, "`often`, expected a number of videos, such as `5000`, or a time, such as `30s`, `10m` or `2h`");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitEvery {
    /// At least this number of videos was finished since the last version.
    Videos(u64),
    /// This time has passed since the last version.
    Time(Duration),
}

impl FromStr for CommitEvery {
    type Err = String;

    fn from_str(text: &str) -> Result<CommitEvery, String> {
        let wrong = || {
            format!(
                "`{text}`, expected a number of videos, such as `5000`, or a time, such as `30s`, `10m` or `2h`"
            )
        };
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let number: u64 = number
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(wrong)?;
        let seconds = match unit {
            "" => return Ok(CommitEvery::Videos(number)),
            "s" => Some(number),
            "m" => number.checked_mul(60),
            "h" => number.checked_mul(3600),
            _ => None,
        };
        Ok(CommitEvery::Time(Duration::from_secs(seconds.ok_or_else(wrong)?)))
    }
}

/// Begins the text of column `inputs` of early versions.
const EARLY: &str = "early";

/// The early versions of a run.
pub(crate) struct EarlyVersions {
    store: Store,
    request: LabelRequest,
    plan: Plan,
    /// The hash of the weak labels, which is part of the staging keys of shards.
    pub(crate) weak: String,
    /// Folder of the scores of finished shards: that of the ordinary run, which reads them again.
    pub(crate) stage: Stage,
    /// The hash of everything that the labels depend on, without features.
    base: String,
    units: u32,
    buckets: u32,
    /// The report of the shards that are not encoded, after they were scored for the first early version.
    given: Mutex<Option<ReadReport>>,
    /// Whether the user was warned that no early version is committed.
    warned: AtomicBool,
}

impl EarlyVersions {
    /// Opens the inputs of a labelling whose features of some modalities do not exist yet.
    ///
    /// # Errors
    /// Returns [`LabelError`] if an input cannot be used at all, or the store cannot be read.
    pub(crate) fn open(request: &LabelRequest, later: Both<bool>) -> Result<EarlyVersions, LabelError> {
        let plan = super::plan::open_without(request, later)?;
        let store = Store::create(&request.store)?;
        let weak = weak_hash(&plan.world.classes, &plan.videos);
        Ok(EarlyVersions {
            stage: Stage::open(&store.staging_dir(STAGE))?,
            buckets: store.next_buckets(bucketed_videos(plan.videos.len()))?,
            base: String::new(),
            units: 1,
            given: Mutex::default(),
            warned: AtomicBool::new(false),
            request: request.clone(),
            store,
            weak,
            plan,
        })
    }

    /// The memory of the inputs that the plan of the run reads.
    pub(crate) fn seen(&self) -> SeenInputs {
        SeenInputs::clone(&self.plan.seen)
    }

    /// Divides the buckets of the store into units. Every modality must have at least `shards` shards, a power of two.
    pub(crate) fn divide(&mut self, shards: u32) {
        self.units = self.buckets.min(shards);
        let world = &self.plan.world;
        let (seconds, units) = (world.segment_seconds.to_string(), self.units.to_string());
        let texts = [
            &*world.settings_hash(),
            &world.models_hash(),
            &self.weak,
            &seconds,
            &units,
        ];
        self.base = hash(|sum| feed(sum, texts));
    }

    /// Number of units.
    pub(crate) fn units(&self) -> u32 {
        self.units
    }

    /// Whether the videos of unit `unit` are in the store already, or no early version can have them.
    pub(crate) fn done(&self, unit: u32) -> Result<bool, LabelError> {
        Ok(self.done_units(self.store.latest()?.as_ref()).contains(&unit))
    }

    /// Whether the store has a version that is no early version of this run.
    pub(crate) fn has_other_version(&self) -> Result<bool, LabelError> {
        let latest = self.store.latest()?;
        Ok(latest.is_some_and(|latest| {
            !latest
                .version()
                .inputs
                .starts_with(&format!("{EARLY} {} ", self.base))
        }))
    }

    /// The plan of the labelling. It has the shards of the modalities that are not encoded.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Number of videos of a unit.
    pub(crate) fn videos(&self, unit: u32) -> u64 {
        let passes = Passes::of_ranges(vec![self.range(unit)], self.buckets);
        passes
            .iter()
            .map(|pass| self.plan.videos.of_ids(pass.ids()).len() as u64)
            .sum()
    }

    fn range(&self, unit: u32) -> Range<u32> {
        let size = self.buckets / self.units;
        unit * size..(unit + 1) * size
    }

    /// The units that the latest version has, if it is an early version of this run.
    fn done_units(&self, latest: Option<&Snapshot>) -> BTreeSet<u32> {
        let inputs = latest
            .map(|latest| latest.version().inputs.as_str())
            .unwrap_or_default();
        let units = inputs.strip_prefix(EARLY).and_then(|rest| {
            rest.strip_prefix(' ')?
                .strip_prefix(&*self.base)?
                .strip_prefix(' ')
        });
        let units = units.into_iter().flat_map(|units| units.split(','));
        units.filter_map(|unit| unit.parse().ok()).collect()
    }

    /// Commits the finished units that the store lacks, with their shards. Returns `None` if there are none, or if the latest
    /// version has other settings, classes or prompts: its other labels would then contradict the tables of settings.
    ///
    /// # Errors
    /// Returns [`LabelError`] if staged scores cannot be read, or the store cannot be written.
    pub(crate) fn commit(
        &self,
        finished: &BTreeMap<u32, Vec<PlannedShard>>,
        mut report: ReadReport,
        listener: &Listener,
    ) -> Result<Option<VersionRow>, LabelError> {
        if self.request.settings.fit {
            if !self.warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "no early version is committed, because the thresholds are fitted to all videos; the run commits one \
                     version at its end"
                );
            }
            return Ok(None);
        }
        report.add(self.given(listener)?);
        let waiting = &mut |holder: &str| listener.tell(Progress::Waiting(holder.to_owned()));
        let lock = self.store.lock(waiting)?;
        let latest = self.store.latest()?;
        let done = self.done_units(latest.as_ref());
        let new: BTreeSet<u32> = finished
            .keys()
            .copied()
            .filter(|unit| !done.contains(unit))
            .collect();
        if new.is_empty() || self.store.next_buckets(bucketed_videos(self.plan.videos.len()))? != self.buckets
        {
            return Ok(None);
        }
        let before = latest.as_ref().map(World::read).transpose()?;
        let mut plan = self.plan.clone();
        if let Some(before) = &before {
            if !same_labels(before, &plan.world) {
                if self.warned.swap(true, Ordering::Relaxed) {
                    return Ok(None);
                }
                tracing::warn!(
                    "no early version is committed, because the latest version has other settings, classes or prompts; the \
                     run commits one version at its end"
                );
                return Ok(None);
            }
            // User labels and predictions stay valid, as in an ordinary run.
            plan.world.denoising = before.denoising;
            plan.world.active = before.active.clone();
            plan.world.delivered = before.delivered.clone();
            plan.world.run = before.run.clone();
        }
        let new_shards = new.iter().flat_map(|unit| finished[unit].iter().cloned());
        plan.shards.extend(new_shards);
        // A pass has one bucket: a unit can have many, if few videos of a large store have media.
        let buckets = new.iter().flat_map(|unit| self.range(*unit));
        let ranges: Vec<Range<u32>> = buckets.map(|bucket| bucket..bucket + 1).collect();
        let size = self.buckets / self.units;
        let own = |video: &str| new.contains(&(bucket_of(video, self.buckets) / size));
        let truth = self.truth(latest.as_ref(), &own)?;
        let kept = self.kept_rejects(latest.as_ref(), &plan, &own)?;
        let plan = Arc::new(plan);
        let before = match (&latest, &before) {
            (Some(latest), Some(world)) => VersionBefore::open(
                latest,
                &world.classes,
                &plan,
                &self.stage,
                self.buckets,
                BucketShare::ALL,
            )?,
            _ => VersionBefore::none(&plan, &self.stage, self.buckets, BucketShare::ALL),
        };
        let before = Arc::new(before);
        let units: Vec<String> = done.iter().chain(&new).map(u32::to_string).collect();
        let info = CommitInfo {
            command: self.request.command.clone(),
            settings: plan.world.settings_hash(),
            models: plan.world.models_hash(),
            inputs: format!("{EARLY} {} {}", self.base, units.join(",")),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            videos: bucketed_videos(plan.videos.len()),
            ..CommitInfo::default()
        };
        let mut writer = VersionWriter::begin_early(&self.store, &lock, info, &plan, before.classes())?;
        writer.keep_rejects(kept);
        let input = FlowInput {
            share: BucketShare::ALL,
            plan: plan.clone(),
            stage: self.stage.clone(),
            shards: (0..plan.shards.len()).collect(),
            passes: Passes::of_ranges(ranges, self.buckets),
            before: before.clone(),
        };
        flow::label(
            input,
            WorkerGroup::alone(self.request.workers),
            &mut Alone,
            &mut |pass| {
                listener.check()?;
                writer.write(pass)
            },
        )?;
        let done = writer.finish(report, self.request.allow_missing, |commit| {
            commit.replace_all::<Truth>(&truth)
        })?;
        Ok(Some(done.version))
    }

    /// Scores and stages the shards of the modalities that are not encoded, once, and returns their report.
    fn given(&self, listener: &Listener) -> Result<ReadReport, LabelError> {
        let mut given = lock(&self.given);
        if let Some(report) = &*given {
            return Ok(report.clone());
        }
        let shards: Vec<usize> = (0..self.plan.shards.len()).collect();
        let plan = Arc::new(self.plan.clone());
        let report = stage_shards(&plan, &self.stage, &shards, self.request.workers, listener)?;
        Ok(given.insert(report).clone())
    }

    /// The dense truth of the new videos, and that of the version before of all other videos.
    fn truth(
        &self,
        latest: Option<&Snapshot>,
        own: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<TruthRow>, LabelError> {
        let mut rows = match latest {
            Some(latest) => latest.read::<Truth>()?,
            None => Vec::new(),
        };
        rows.retain(|row| !own(&row.video));
        rows.extend(self.plan.truth.iter().filter(|row| own(&row.video)).cloned());
        Ok(rows)
    }

    /// The rejected rows of the version before that stay: those of other videos, and those of files that were not read again.
    fn kept_rejects(
        &self,
        latest: Option<&Snapshot>,
        plan: &Plan,
        own: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<RejectRow>, LabelError> {
        let mut rows = match latest {
            Some(latest) => latest.read::<Rejects>()?,
            None => Vec::new(),
        };
        let files = plan.shards.iter().flat_map(|shard| shard.shard.files());
        let read: BTreeSet<&Path> = files.map(|file| file.as_path()).collect();
        rows.retain(|row| match row.kind.is_of_graph() {
            true => !row.video.as_deref().is_some_and(own),
            false => !read.contains(Path::new(&row.file)),
        });
        Ok(rows)
    }
}

/// Whether equal features get equal labels in both worlds.
fn same_labels(a: &World, b: &World) -> bool {
    a.settings == b.settings
        && a.classes == b.classes
        && a.prompts == b.prompts
        && a.columns == b.columns
        && a.segment_seconds == b.segment_seconds
}
