//! Makes stores of simulated scores, and times the full relabelling that an incremental change is compared with. Every
//! mode prints one JSON object.
//!
//! - `relabel_store make STORE VIDEOS` makes a store of VIDEOS videos with T = 10, 25 classes, 1.6 weak labels per
//!   video, and scores around the threshold.
//! - `relabel_store full STORE [EPOCH]` labels all scores again with other thresholds in one run of the graph, and
//!   commits all labels. With EPOCH, it keeps the thresholds and denoises the labels by that epoch.
//! - `relabel_store predict STORE EPOCH` adds an epoch. Its visual predictions contradict two of ten labels in a tenth
//!   of the tracks.
//! - `relabel_store epoch STORE EPOCH` denoises by an epoch in a resident graph, as a step of `vaplan run` does, and
//!   commits the rows of labels that changed. Only the step and the commit are timed, without loading the graph.
//! - `relabel_store rewrite STORE EPOCH` is like `epoch`, but commits all rows of labels.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use vaplan::engine::Listener;
use vaplan::engine::resident::whole;
use vaplan::engine::rows::{label_tracks, score_tracks, video_row};
use vaplan::run::graph::Graph;
use vaplan::run::learner::active;
use vaplan::world::evidence::{counting, latest};
use vaplan::world::settings::{LabelSettings, SettingsRequest};
use vaplan::world::{PromptSet, Video, World};
use vaplan_dataflows::admit::Admitted;
use vaplan_dataflows::denoising::DenoisingRule;
use vaplan_dataflows::outcome::VideoOutcome;
use vaplan_dataflows::session::{GraphSession, Rows};
use vaplan_dataflows::train::{Learner, Learnt, Predicted, RecordChanges as EpochInput};
use vaplan_dataflows::{
    Bits, Candidate, Cosine, FeatureHash, LabelRecord, Score, ScoreRecord, Track, VideoId,
};
use vaplan_schemas::rows::{LabelChangeTrack, LabelRule, LabelTrack, PredictionTrack, Split};
use vaplan_schemas::store::{CommitInfo, Filter, Snapshot, Store, VersionRows};
use vaplan_schemas::tables::{
    Classes, LabelChanges, Labels, Predictions, Prompts, Scores, Settings as SettingsTable, Videos,
};
use vaplan_schemas::{ClassId, Modality, bucket_of};

const CLASSES: u32 = 25;
const SEGMENTS: u32 = 10;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let start = Instant::now();
    let report = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", store, videos] => make(Path::new(store), videos.parse()?)?,
        ["full", store] => full(Path::new(store), None)?,
        ["full", store, epoch] => full(Path::new(store), Some(epoch.parse()?))?,
        [what @ ("epoch" | "rewrite"), store, epoch] => {
            let seconds = resident(Path::new(store), epoch.parse()?, what == "rewrite")?;
            println!("{}", serde_json::json!({"seconds": seconds}));
            return Ok(());
        }
        ["predict", store, epoch] => predict(Path::new(store), epoch.parse()?)?,
        _ => return Err("relabel_store make STORE VIDEOS | full STORE [EPOCH] | predict STORE EPOCH | epoch STORE EPOCH | \
                     rewrite STORE EPOCH".into()),
    };
    let seconds = start.elapsed().as_secs_f64();
    println!("{}", serde_json::json!({"seconds": seconds, "rows": report}));
    Ok(())
}

fn world() -> Fallible<World> {
    let classes: Vec<Arc<str>> = (0..CLASSES)
        .map(|class| format!("class {class:02}").into())
        .collect();
    let prompts = || PromptSet {
        width: 2,
        data: (0..CLASSES).flat_map(|class| [1.0, class as f32]).collect(),
        texts: vec![None; CLASSES as usize],
    };
    Ok(World {
        settings: LabelSettings::resolve(&SettingsRequest::default(), &classes)?,
        prompts: [prompts(), prompts()],
        features: [vec![PathBuf::from("simulated")], vec![PathBuf::from("simulated")]],
        label_folders: Default::default(),
        columns: Default::default(),
        segment_seconds: 1.0,
        denoising: [None, None],
        active: None,
        delivered: Vec::new(),
        run: Default::default(),
        fitted: None,
        classes,
    })
}

/// Returns a pseudo-random number that depends only on `parts`, so that every run makes the same store.
fn noise(parts: [u64; 4]) -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for part in parts {
        state = (state ^ part).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state ^= state >> 29;
        state = state.wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 32;
    }
    state
}

fn video(number: u64) -> Video {
    let name: Arc<str> = format!("v{number:010}_0_10").into();
    // A video has 1.6 weak labels on average: one, a second with probability 0.5, and a third with probability 0.1. Two
    // of them may be the same class.
    let draw = noise([number, 1, 0, 0]) % 10;
    let count = 1 + u64::from(draw < 5) + u64::from(draw < 1);
    let mut weak: Vec<ClassId> = (0..count)
        .map(|nth| ClassId((noise([number, 2, nth, 0]) % u64::from(CLASSES)) as u32))
        .collect();
    weak.sort_unstable();
    weak.dedup();
    Video {
        id: VideoId::of(&name),
        name,
        split: Split::Train,
        weak: weak.into(),
        guessed: false,
        source: "simulated".into(),
    }
}

fn found(world: &World, number: u64, video: &Video) -> VideoOutcome {
    let mut found = VideoOutcome::default();
    for (at, modality) in Modality::ALL.into_iter().enumerate() {
        let cells = || {
            video.weak.iter().flat_map(move |class| {
                (0..u64::from(SEGMENTS))
                    .map(move |segment| noise([number, 3 + at as u64, u64::from(class.0), segment]))
            })
        };
        let share = |bits: u64| (bits >> 11) as f64 / (1_u64 << 53) as f64;
        let cosines = cells().map(|bits| Cosine::new(share(bits) as f32 - 0.5));
        let scores = cells().map(|bits| Score::new(0.030 + 0.02 * share(bits)).expect("finite"));
        let record = ScoreRecord::new(SEGMENTS, video.weak.to_vec(), cosines.collect(), scores.collect());
        let settings = world.settings.of(modality);
        let tracks = record.tracks().map(|(class, _, scores)| {
            let score_threshold = settings.score_threshold(class);
            let bits: Bits = scores.iter().map(|score| score.get() > score_threshold).collect();
            Track::plg(class, bits)
        });
        found.labels[at] = Some(Arc::new(LabelRecord {
            tracks: tracks.collect(),
        }));
        found.admitted[at] = Some(Admitted {
            source: "simulated".into(),
            record: Arc::new(record),
        });
    }
    found
}

fn make(store: &Path, videos: u64) -> Fallible<u64> {
    let world = world()?;
    let store = Store::create(store)?;
    let lock = store.lock(&mut |_| {})?;
    let mut commit = store.begin(
        &lock,
        CommitInfo {
            command: "relabel_store make".to_owned(),
            inputs: "simulated".to_owned(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            videos: videos as usize,
            ..CommitInfo::default()
        },
    )?;
    let buckets = commit.buckets();
    let mut of: Vec<Vec<u64>> = vec![Vec::new(); buckets as usize];
    for number in 0..videos {
        of[bucket_of(&video(number).name, buckets) as usize].push(number);
    }
    commit.replace_all::<SettingsTable>(&world.setting_rows())?;
    commit.replace_all::<Classes>(&world.class_rows())?;
    commit.replace_all::<Prompts>(&world.prompt_rows())?;
    let own = |bucket: u32| of[bucket as usize].iter().map(|number| (*number, video(*number)));
    commit.replace_buckets::<Videos>(|bucket| {
        own(bucket)
            .map(|(number, video)| video_row(&world, &video, &found(&world, number, &video)))
            .collect()
    })?;
    commit.replace_buckets::<Scores>(|bucket| {
        own(bucket)
            .flat_map(|(number, video)| score_tracks(&world, &video.name, &found(&world, number, &video)))
            .collect()
    })?;
    commit.replace_buckets::<Labels>(|bucket| {
        own(bucket)
            .flat_map(|(number, video)| label_tracks(&world, &video.name, &found(&world, number, &video)))
            .collect()
    })?;
    let version = commit.version().0;
    commit.append_parts::<LabelChanges>(buckets, |bucket| {
        let labels = own(bucket)
            .flat_map(|(number, video)| label_tracks(&world, &video.name, &found(&world, number, &video)));
        let set = |track: LabelTrack| LabelChangeTrack {
            version,
            segments: (0..)
                .zip(&track.labels)
                .filter(|(_, label)| **label)
                .map(|(segment, _)| segment)
                .collect(),
            video: track.video,
            modality: track.modality,
            class: track.class,
            to: true,
            rule: LabelRule::Plg,
            why: Vec::new(),
        };
        labels.map(set).filter(|row| !row.segments.is_empty()).collect()
    })?;
    commit.finish()?;
    Ok(videos)
}

/// Adds visual predictions of all videos. A prediction is 0.03 away from its label, or 0.03 away from the opposite
/// label if it contradicts the label.
fn predict(store: &Path, epoch: u64) -> Fallible<u64> {
    let store = Store::open(store)?;
    let lock = store.lock(&mut |_| {})?;
    let snapshot = store.at_version(None)?;
    let world = World::read(&snapshot)?;
    let mut by_video: std::collections::BTreeMap<Arc<str>, Vec<f32>> = std::collections::BTreeMap::new();
    for track in snapshot.read::<Labels>()? {
        if track.modality != Modality::Visual {
            continue;
        }
        let class = world.class_id(&track.class).ok_or("a class that there is not")?;
        let cells = (SEGMENTS * CLASSES) as usize;
        let own = by_video
            .entry(track.video.clone())
            .or_insert_with(|| vec![0.01; cells]);
        let seed = [VideoId::of(&track.video).0, 9, u64::from(class.0), 0];
        let contradicted = noise(seed).is_multiple_of(10);
        for (segment, &label) in track.labels.iter().enumerate() {
            let likely = label != (contradicted && segment < 2);
            own[segment * CLASSES as usize + class.index()] = if likely { 0.97 } else { 0.03 };
        }
    }
    let tracks = by_video.into_iter().map(|(video, probability)| PredictionTrack {
        epoch,
        video,
        modality: Modality::Visual,
        classes: CLASSES,
        probability,
    });
    let tracks: Vec<PredictionTrack> = tracks.collect();
    let info = CommitInfo {
        command: "relabel_store predict".to_owned(),
        epoch: Some(epoch),
        models: snapshot.version().models.clone(),
        inputs: format!("epoch {epoch}"),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        ..CommitInfo::default()
    };
    let mut commit = store.begin(&lock, info)?;
    let parts: Vec<&[PredictionTrack]> = tracks.chunks(2000).collect();
    commit.append_parts::<Predictions>(parts.len() as u32, |part| parts[part as usize].to_vec())?;
    commit.finish()?;
    Ok(tracks.len() as u64)
}

/// Activates the predictions of an epoch in `world`, and returns them as PLD reads them: for the classes of each video.
fn by_epoch(snapshot: &Snapshot, world: &mut World, epoch: u64) -> Fallible<Vec<Predicted>> {
    world.active = Some(active(world, epoch));
    world.denoising = [None, Some(DenoisingRule::default())];
    let rows = counting(snapshot, world.active.as_ref(), &Filter::all())?;
    let videos = snapshot.read::<Videos>()?.into_iter();
    let weak: std::collections::BTreeMap<Arc<str>, Arc<[ClassId]>> = videos
        .map(|row| {
            let classes = row.weak_labels.iter().filter_map(|class| world.class_id(class));
            (row.video, classes.collect())
        })
        .collect();
    Ok(latest(rows, world, &|video| weak.get(video).cloned()))
}

/// Learner with one step, which gives these predictions.
struct Once(Vec<Predicted>);

impl Learner for Once {
    fn epoch(&mut self, _step: u64, _labels: EpochInput) -> Result<Learnt, String> {
        Ok(Learnt {
            predictions: Some(std::mem::take(&mut self.0)),
            more: false,
        })
    }
}

/// Denoises by an epoch in a resident graph, and returns the seconds of the step and its commit.
fn resident(store: &Path, epoch: u64, all: bool) -> Fallible<f64> {
    let store = Store::open(store)?;
    let lock = store.lock(&mut |_| {})?;
    let snapshot = store.at_version(None)?;
    let mut world = World::read(&snapshot)?;
    let workers = std::thread::available_parallelism()?.get();
    let part = whole(&store, &snapshot, workers, &Listener::silent())?;
    let learner = Once(by_epoch(&snapshot, &mut world, epoch)?);
    let names: Vec<Arc<str>> = snapshot
        .read::<Videos>()?
        .into_iter()
        .map(|row| row.video)
        .collect();
    let (mut graph, _) = Graph::start(&part, world.denoising, false, workers.into(), Box::new(learner))?;
    drop(part);
    let start = Instant::now();
    let stepped = graph.step(Some(world.denoising))?;
    let info = CommitInfo {
        command: "relabel_store epoch".to_owned(),
        inputs: format!("epoch {epoch}"),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        ..CommitInfo::default()
    };
    let mut commit = store.begin(&lock, info)?;
    commit.replace_all::<SettingsTable>(&world.setting_rows())?;
    if all {
        let buckets = commit.buckets();
        let mut of: Vec<Vec<&Arc<str>>> = vec![Vec::new(); buckets as usize];
        for name in &names {
            of[bucket_of(name, buckets) as usize].push(name);
        }
        let outcome = graph.outcome();
        commit.replace_buckets::<Labels>(|bucket| {
            let own = of[bucket as usize].iter();
            own.flat_map(|name| label_tracks(&world, name, outcome.video(VideoId::of(name))))
                .collect()
        })?;
    } else {
        graph.write(&mut commit, &snapshot, &world, stepped)?;
    }
    commit.finish()?;
    let seconds = start.elapsed().as_secs_f64();
    graph.finish()?;
    Ok(seconds)
}

/// Reads all scores, labels them again, and commits all labels: the work of a program without increments.
fn full(store: &Path, epoch: Option<u64>) -> Fallible<u64> {
    let store = Store::open(store)?;
    let lock = store.lock(&mut |_| {})?;
    let snapshot = store.at_version(None)?;
    let mut world = World::read(&snapshot)?;
    let predictions = match epoch {
        Some(epoch) => by_epoch(&snapshot, &mut world, epoch)?,
        None => {
            for modality in [&mut world.settings.audio, &mut world.settings.visual] {
                modality
                    .thresholds
                    .iter_mut()
                    .for_each(|threshold| *threshold *= 1.01);
            }
            Vec::new()
        }
    };
    let videos = snapshot.read::<Videos>()?;
    let mut rows = Rows {
        thresholds: world.thresholds(),
        predictions,
        denoising: Modality::ALL
            .into_iter()
            .zip(world.denoising)
            .filter_map(|(modality, pld)| Some((modality, pld?)))
            .collect(),
        ..Rows::default()
    };
    let id = |name: &str| world.class_id(name).ok_or_else(|| format!("no class {name}"));
    let mut names = std::collections::BTreeMap::new();
    for video in &videos {
        let classes = video.weak_labels.iter().map(|class| id(class));
        let weak: Vec<ClassId> = classes.collect::<Result<_, _>>()?;
        let video_id = VideoId::of(&video.video);
        rows.weak.push((video_id, weak.into()));
        names.insert(video_id, video.video.clone());
    }
    let tracks = snapshot.read::<Scores>()?;
    for own in tracks.chunk_by(|a, b| a.video == b.video && a.modality == b.modality) {
        let mut own: Vec<_> = own
            .iter()
            .map(|track| Ok((id(&track.class)?, track)))
            .collect::<Fallible<_>>()?;
        own.sort_by_key(|(class, _)| *class);
        let cosine = own
            .iter()
            .flat_map(|(_, track)| track.cosine.iter().map(|value| Cosine::new(*value)));
        let scores = own.iter().flat_map(|(_, track)| &track.score);
        let scores: Option<Vec<Score>> = scores.map(|value| Score::new(*value)).collect();
        let record = ScoreRecord::new(
            SEGMENTS,
            own.iter().map(|(class, _)| *class).collect(),
            cosine.collect(),
            scores.ok_or("a score is NaN")?,
        );
        let candidate = Candidate {
            modality: own[0].1.modality,
            source: "simulated".into(),
            record: Arc::new(record),
            features: FeatureHash::default(),
        };
        rows.scored.push((VideoId::of(&own[0].1.video), candidate));
    }
    drop(tracks);
    let session = GraphSession::start(std::thread::available_parallelism()?.get(), rows, Vec::new())?;
    let outcome = session.finish()?;
    let mut commit = store.begin(
        &lock,
        CommitInfo {
            command: "relabel_store full".to_owned(),
            inputs: format!("full of {}", snapshot.version().version),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            ..CommitInfo::default()
        },
    )?;
    let buckets = commit.buckets();
    let mut of: Vec<Vec<VideoId>> = vec![Vec::new(); buckets as usize];
    for (video, name) in &names {
        of[bucket_of(name, buckets) as usize].push(*video);
    }
    commit.replace_all::<Classes>(&world.class_rows())?;
    commit.replace_buckets::<Labels>(|bucket| {
        let own = of[bucket as usize].iter();
        own.flat_map(|video| label_tracks(&world, &names[video], outcome.video(*video)))
            .collect()
    })?;
    commit.finish()?;
    Ok(names.len() as u64)
}
