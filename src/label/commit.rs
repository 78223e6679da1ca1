//! Results to rows of tables, and one store version.

use std::collections::BTreeMap;
use std::sync::Arc;

use vaplan_dataflows::admit::{Admitted, Fault};
use vaplan_dataflows::changes::Change;
use vaplan_dataflows::{LabelRecord, SetBy, Track, VideoId};
use vaplan_schemas::rows::{
    LabelCell, LabelChangeRow, LabelRule, LabelTrack, RejectRow, ScoreTrack, Severity, VideoRow,
};
use vaplan_schemas::store::{Commit, CommitInfo, Snapshot, Store, WriteLock};
use vaplan_schemas::tables::{Classes, LabelChanges, Labels, Rejects, Scores, Truth, Videos};
use vaplan_schemas::{ClassId, Modality, StoreError};

use super::flow::Results;
use super::plan::{Plan, PlannedVideo};
use super::{Done, LabelError, Request, Summary};

/// Labels of the version before, in this run's numbers.
#[derive(Debug)]
pub struct Previous {
    tracks: Vec<LabelTrack>,
    names: BTreeMap<VideoId, Arc<str>>,
}

impl Previous {
    /// Reads the labels of a version.
    ///
    /// # Errors
    /// As [`Snapshot::read`].
    pub fn read(snapshot: &Snapshot) -> Result<Previous, StoreError> {
        let tracks = snapshot.read::<Labels>()?;
        let names = tracks
            .iter()
            .map(|track| (VideoId::of(&track.video), track.video.clone()))
            .collect();
        Ok(Previous { tracks, names })
    }

    /// One record per video and modality; classes that the run does not know come after its own.
    pub fn records(&self, classes: &Classification) -> Vec<((VideoId, Modality), Arc<LabelRecord>)> {
        let mut records: BTreeMap<(VideoId, Modality), Vec<Track>> = BTreeMap::new();
        for track in &self.tracks {
            let label = track.cells.iter().map(|cell| cell.label).collect();
            let class = classes
                .id(&track.class)
                .expect("the classification was made with these tracks");
            records
                .entry((VideoId::of(&track.video), track.modality))
                .or_default()
                .push(Track::plg(class, label));
        }
        let record = |(key, mut tracks): (_, Vec<Track>)| {
            tracks.sort();
            (key, Arc::new(LabelRecord { tracks }))
        };
        records.into_iter().map(record).collect()
    }
}

/// Numbers of class names: this run's in order, then those that only the version before knew.
#[derive(Clone, Debug)]
pub struct Classification {
    names: Vec<Arc<str>>,
    ids: BTreeMap<Arc<str>, ClassId>,
}

impl Classification {
    /// Of a run and the version before it.
    pub fn new(classes: &[Arc<str>], previous: Option<&Previous>) -> Classification {
        let mut made = Classification {
            names: Vec::new(),
            ids: BTreeMap::new(),
        };
        let former = previous
            .iter()
            .flat_map(|previous| previous.tracks.iter().map(|track| &track.class));
        for name in classes.iter().chain(former) {
            if !made.ids.contains_key(name) {
                made.ids.insert(name.clone(), ClassId(made.names.len() as u32));
                made.names.push(name.clone());
            }
        }
        made
    }

    fn id(&self, name: &str) -> Option<ClassId> {
        self.ids.get(name).copied()
    }

    /// Of each class, its place in the order of names.
    fn ranks(&self) -> Vec<usize> {
        let mut ranks = vec![0; self.names.len()];
        for (rank, class) in self.ids.values().enumerate() {
            ranks[class.index()] = rank;
        }
        ranks
    }

    fn name(&self, class: ClassId) -> &Arc<str> {
        &self.names[class.index()]
    }
}

/// What the tables say of one video.
#[derive(Default)]
struct Found {
    admitted: [Option<Admitted>; 2],
    labels: [Option<Arc<LabelRecord>>; 2],
}

fn at(modality: Modality) -> usize {
    match modality {
        Modality::Audio => 0,
        Modality::Visual => 1,
    }
}

/// Writes all tables as one store version.
///
/// # Errors
/// [`LabelError::Store`]; the version before is then still the latest.
pub fn commit(
    store: &Store,
    lock: &WriteLock,
    plan: &Plan,
    request: &Request,
    mut results: Results,
    previous: Option<&Previous>,
) -> Result<Summary, LabelError> {
    let mut done = Done {
        videos: plan.videos.len() as u64,
        records: results.labels.len() as u64,
        audio_visual: results.audio_visual,
        changes: results.changes.len() as u64,
        ..Done::default()
    };
    for (_, modality, record) in &results.labels {
        let set = record.ones();
        match modality {
            Modality::Audio => done.audio += set,
            Modality::Visual => done.visual += set,
        }
        done.cells += record
            .tracks
            .iter()
            .map(|track| track.label.len() as u64)
            .sum::<u64>();
    }
    let rejects = reject_rows(plan, request, &mut results);
    let mut commit = store.begin(
        lock,
        CommitInfo {
            command: request.command.clone(),
            epoch: None,
            settings: plan.settings_hash.clone(),
            models: plan.models_hash.clone(),
            inputs: plan.inputs.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            videos: plan.videos.len(),
        },
    )?;
    commit.replace_all::<Classes>(&plan.class_rows)?;
    commit.replace_all::<Truth>(&plan.truth)?;
    commit.replace_all::<Rejects>(&rejects)?;
    append_changes(&mut commit, plan, std::mem::take(&mut results.changes), previous)?;

    let mut found: BTreeMap<VideoId, Found> = BTreeMap::new();
    for (video, modality, admitted) in results.admitted {
        found.entry(video).or_default().admitted[at(modality)] = Some(admitted);
    }
    for (video, modality, record) in results.labels {
        found.entry(video).or_default().labels[at(modality)] = Some(record);
    }
    let buckets = commit.buckets();
    let mut by_bucket: Vec<Vec<&PlannedVideo>> = vec![Vec::new(); buckets as usize];
    for video in &plan.videos {
        by_bucket[vaplan_schemas::bucket_of(&video.name, buckets) as usize].push(video);
    }
    for videos in &mut by_bucket {
        videos.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let nothing = Found::default();
    let rows = |video: &PlannedVideo| found.get(&video.id).unwrap_or(&nothing);
    let of = |bucket: u32| by_bucket[bucket as usize].iter();
    commit.replace_buckets::<Videos>(|bucket| {
        of(bucket)
            .map(|video| video_row(plan, request, video, rows(video)))
            .collect()
    })?;
    commit.replace_buckets::<Scores>(|bucket| {
        of(bucket)
            .flat_map(|video| score_tracks(plan, video, rows(video)))
            .collect()
    })?;
    commit.replace_buckets::<Labels>(|bucket| {
        of(bucket)
            .flat_map(|video| label_tracks(plan, video, rows(video)))
            .collect()
    })?;
    tracing::debug!(buckets, "tables written");
    let version = commit.finish()?;
    done.count_rejects(rejects);
    Ok(Summary {
        version,
        done: Some(done),
    })
}

fn video_row(plan: &Plan, request: &Request, video: &PlannedVideo, found: &Found) -> VideoRow {
    let source = |modality| {
        found.admitted[at(modality)]
            .as_ref()
            .map(|admitted| admitted.source.clone())
    };
    VideoRow {
        video: video.name.clone(),
        split: video.split,
        segments: found
            .admitted
            .iter()
            .flatten()
            .map(|admitted| admitted.record.segments())
            .max()
            .unwrap_or(0),
        segment_seconds: request.segment_seconds,
        weak_labels: video
            .weak
            .iter()
            .map(|class| plan.classes[class.index()].clone())
            .collect(),
        source: video.source.clone(),
        audio_source: source(Modality::Audio),
        visual_source: source(Modality::Visual),
    }
}

/// In the order of the tables: modality, then class by name.
fn score_tracks(plan: &Plan, video: &PlannedVideo, found: &Found) -> Vec<ScoreTrack> {
    let mut tracks = Vec::new();
    for modality in Modality::ALL {
        let Some(admitted) = &found.admitted[at(modality)] else {
            continue;
        };
        tracks.extend(admitted.record.tracks().map(|(class, cosine, score)| ScoreTrack {
            video: video.name.clone(),
            modality,
            class: plan.classes[class.index()].clone(),
            cosine: cosine.iter().map(|cosine| cosine.get()).collect(),
            score: score.iter().map(|score| score.get()).collect(),
        }));
    }
    tracks.sort_by(|a, b| (a.modality, &a.class).cmp(&(b.modality, &b.class)));
    tracks
}

fn label_tracks(plan: &Plan, video: &PlannedVideo, found: &Found) -> Vec<LabelTrack> {
    let mut tracks = Vec::new();
    for modality in Modality::ALL {
        let (Some(admitted), Some(labels)) = (&found.admitted[at(modality)], &found.labels[at(modality)])
        else {
            continue;
        };
        let settings = plan.settings.of(modality);
        tracks.extend(admitted.record.tracks().filter_map(|(class, _, scores)| {
            let bits = &labels.track(class)?.label;
            let threshold = settings.cutoff(class);
            let cell = |(label, score): (bool, &vaplan_dataflows::Score)| LabelCell {
                label,
                rule: LabelRule::Plg,
                score: Some(score.get()),
                threshold: Some(threshold),
                loss: None,
                epoch: None,
            };
            Some(LabelTrack {
                video: video.name.clone(),
                modality,
                class: plan.classes[class.index()].clone(),
                cells: bits.iter().zip(scores).map(cell).collect(),
            })
        }));
    }
    tracks.sort_by(|a, b| (a.modality, &a.class).cmp(&(b.modality, &b.class)));
    tracks
}

/// Rows of `label_changes` per file, about: what is held of them in memory.
const CHANGE_ROWS: usize = 1 << 17;

/// Appends changed cells by video, modality and class, in the order of their names.
fn append_changes(
    commit: &mut Commit<'_>,
    plan: &Plan,
    mut changes: Vec<Change>,
    previous: Option<&Previous>,
) -> Result<(), StoreError> {
    let version = commit.version().0;
    let classes = Classification::new(&plan.classes, previous);
    let rank = classes.ranks();
    let name = |video| {
        plan.name(video)
            .or_else(|| previous.and_then(|previous| previous.names.get(&video)))
            .expect("a change is of a video of this version or the one before")
    };
    // Names are compared once a video, not once a cell: there are a hundred times as many of those.
    changes.sort_unstable_by_key(|change| {
        (
            change.video,
            change.modality,
            rank[change.class.index()],
            change.segment,
        )
    });
    let mut videos: Vec<(&Arc<str>, &[Change])> = changes
        .chunk_by(|a, b| a.video == b.video)
        .map(|own| (name(own[0].video), own))
        .collect();
    videos.sort_unstable_by_key(|(name, _)| *name);
    let row = |video: &Arc<str>, change: &Change| LabelChangeRow {
        version,
        video: video.clone(),
        modality: change.modality,
        class: classes.name(change.class).clone(),
        segment: change.segment,
        from: !change.to,
        to: change.to,
        rule: match change.rule {
            SetBy::Plg => LabelRule::Plg,
            SetBy::Pld => LabelRule::Pld,
            SetBy::User => LabelRule::User,
        },
        epoch: None,
    };
    // As many videos a part as makes files of about the rows wanted.
    let parts = changes.len().div_ceil(CHANGE_ROWS).max(1);
    let share = videos.len().div_ceil(parts).max(1);
    let parts: Vec<&[(&Arc<str>, &[Change])]> = videos.chunks(share).collect();
    commit.append_parts::<LabelChanges>(parts.len() as u32, |part| {
        let own = parts[part as usize].iter();
        own.flat_map(|(video, changes)| changes.iter().map(|change| row(video, change)))
            .collect()
    })
}

/// Of the annotations, of reading and scoring, and of bringing both modalities together; sorted, each once.
fn reject_rows(plan: &Plan, request: &Request, results: &mut Results) -> Vec<RejectRow> {
    let mut rows = plan.rejects.clone();
    rows.append(&mut results.rejects);
    for (video, fault) in &results.faults {
        let video = plan.name(*video).expect("faults are of planned videos");
        rows.extend(fault_rows(request, plan, video, fault));
    }
    rows.sort();
    rows.dedup();
    rows
}

fn fault_rows(request: &Request, plan: &Plan, video: &Arc<str>, fault: &Fault) -> Vec<RejectRow> {
    let path = |modality| match modality {
        Modality::Audio => request.audio.display().to_string(),
        Modality::Visual => request.visual.display().to_string(),
    };
    let row = |file: String, reason: String| RejectRow {
        file,
        row: None,
        video: Some(video.to_string()),
        severity: Severity::Reject,
        reason,
    };
    match fault {
        Fault::Missing(modality) => {
            vec![row(
                path(*modality),
                format!("video `{video}` has no {modality} features that can be used"),
            )]
        }
        Fault::Conflict(modality, sources) => {
            let reason = format!(
                "video `{video}` has {modality} features that differ in `{}`, expected one or equal copies: none is used",
                sources.join("`, `")
            );
            sources
                .iter()
                .map(|source| row(source.to_string(), reason.clone()))
                .collect()
        }
        Fault::Lengths { audio, visual } => vec![row(
            path(Modality::Visual),
            format!(
                "video `{video}` has {audio} audio and {visual} visual segments, expected equally many: none is used"
            ),
        )],
        Fault::Unscored(modality, class) => vec![row(
            path(*modality),
            format!(
                "video `{video}` has no {modality} score of class `{}`",
                plan.classes[class.index()]
            ),
        )],
        other => vec![row(path(Modality::Visual), format!("video `{video}`: {other:?}"))],
    }
}
