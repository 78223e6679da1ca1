//! Reads the media of a group of videos into batches of prepared segments.
//!
//! A group is a list of consecutive videos that one thread reads. Pictures and sound go into separate batches.
//! If all segments of a file are in the cache, the reader does not decode the file. If only some segments are in the
//! cache, the reader decodes the file, but does not prepare these segments again.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};
use vaplan_schemas::Modality;
use vaplan_schemas::contain::contain;
use vaplan_schemas::rows::{RejectKind, RejectRow, Severity};

use super::batch::{Batch, Batcher};
use super::cache::{Cache, CacheKey};
use super::error::MediaError;
use super::image::{ImageSettings, Rgb};
use super::media::frames::FrameList;
use super::media::{Cut, Media, Pictures, ffmpeg, frames};
use super::model::encoder::Preparation;
use super::sound::{Patches, SoundFeatures, Wave, patch};
use super::sum::{hex, of_file};
use crate::ingest::IngestError;

/// The version of the way in which media are read. It is part of the key of every embedding in the cache. A change of
/// the reading must increase this version; otherwise a run would take embeddings of media that were read differently.
pub(super) const READING: &str = "3";

/// The model that the media of a modality are prepared for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelTarget {
    /// SHA-256 of the model, in hexadecimal.
    pub model: String,
    /// How media are prepared for the model.
    pub preparation: Preparation,
}

/// The settings of reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The vision model; if `None`, pictures are not encoded.
    pub visual: Option<ModelTarget>,
    /// The audio model; if `None`, sound is not encoded.
    pub audio: Option<ModelTarget>,
    /// How videos are cut into segments.
    pub cut: Cut,
    /// Number of segments in a batch.
    pub batch: usize,
    /// Path or name of the ffmpeg program.
    pub ffmpeg: PathBuf,
}

/// The events that reading a group gives, in order.
#[derive(Debug)]
pub enum ReadEvent {
    /// A batch for the model of this modality.
    Batch(Modality, Batch),
    /// The key of a video (by its position in the list of media) and modality. The cache has the embeddings under this
    /// key when all batches of the video are encoded.
    Key(usize, Modality, CacheKey),
    /// A rejected row if the modality of a video cannot be read, or a note if its media are odd.
    Row(RejectRow),
}

/// The function that receives the events.
pub type OnReadEvent<'a> = &'a mut dyn FnMut(ReadEvent);

/// Reads the videos of a group; `first` is the position of the first one in the list of media.
pub fn read_group(reading: &Reading, cache: &Cache, first: usize, group: &[Media], sink: OnReadEvent<'_>) {
    // Both batchers call the same sink, so a `RefCell` shares it; the calls never overlap.
    let mut events: Vec<ReadEvent> = Vec::new();
    let sink = std::cell::RefCell::new(sink);
    let mut send_visual = |modality, batch| (sink.borrow_mut())(ReadEvent::Batch(modality, batch));
    let mut send_audio = |modality, batch| (sink.borrow_mut())(ReadEvent::Batch(modality, batch));
    let mut visual = Batcher::new(Modality::Visual, reading.batch, &mut send_visual);
    let mut audio = Batcher::new(Modality::Audio, reading.batch, &mut send_audio);
    let mut reader = Reader {
        reading,
        cache,
        front: match reading.audio.as_ref().map(|target| &target.preparation) {
            Some(Preparation::Sound(settings)) => Some(Front::Clap(Box::new(SoundFeatures::new(settings)))),
            Some(Preparation::Patch(_)) => Some(Front::Yamnet(Box::default())),
            _ => None,
        },
        samples: Vec::new(),
    };
    for (at, media) in group.iter().enumerate() {
        let mut segments_of_pictures = None;
        if media.ambiguous && media.pictures.is_none() && media.sound.is_none() {
            // `find` has already made a rejected row that names the two files.
            continue;
        }
        if let Some(target) = &reading.visual
            && !(media.ambiguous && media.pictures.is_none())
        {
            let done = contained(|| reader.pictures(media, target, &mut visual, &mut events));
            match done {
                Ok((key, segments)) => {
                    segments_of_pictures = Some(segments);
                    events.push(ReadEvent::Key(first + at, Modality::Visual, key));
                }
                Err(reason) => events.push(reject(media, Modality::Visual, Severity::Reject, reason)),
            }
        }
        if let Some(target) = &reading.audio
            && !(media.ambiguous && media.sound.is_none())
        {
            let segments_of_pictures = segments_of_pictures.or_else(|| reader.frames_tell(media));
            match contained(|| reader.sound(media, target, segments_of_pictures, &mut audio, &mut events)) {
                Ok(key) => events.push(ReadEvent::Key(first + at, Modality::Audio, key)),
                Err(reason) => events.push(reject(media, Modality::Audio, Severity::Reject, reason)),
            }
        }
        events.drain(..).for_each(|event| (sink.borrow_mut())(event));
    }
    visual.finish();
    audio.finish();
}

/// Turns an error or a panic of a decoder into a text, so that it affects only one video and modality.
fn contained<T>(work: impl FnOnce() -> Result<T, MediaError>) -> Result<T, String> {
    match contain(work) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(match error {
            MediaError::Open(error) => error.chain(),
            other => other.to_string(),
        }),
        Err(panic) => Err(format!("its decoder panicked: {panic}")),
    }
}

fn reject(media: &Media, modality: Modality, severity: Severity, reason: String) -> ReadEvent {
    let pictures = media.pictures.as_ref().map(Pictures::path);
    let own = match modality {
        Modality::Visual => pictures.or(media.sound.as_deref()),
        Modality::Audio => media.sound.as_deref().or(pictures),
    };
    let file = own.map(|path| path.display().to_string()).unwrap_or_default();
    let row = RejectRow::reject(RejectKind::Media, file, format!("{modality}: {reason}"));
    ReadEvent::Row(RejectRow {
        severity,
        ..row.video(&*media.name).modality(modality)
    })
}

/// The preparation of sound for CLAP or for YAMNet.
enum Front {
    Clap(Box<SoundFeatures>),
    Yamnet(Box<Patches>),
}

impl Front {
    fn append(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        match self {
            Front::Clap(features) => features.append(samples, out),
            Front::Yamnet(patches) => patches.append(samples, out),
        }
    }
}

/// The state with which a thread reads a group.
struct Reader<'a> {
    reading: &'a Reading,
    cache: &'a Cache,
    front: Option<Front>,
    samples: Vec<f32>,
}

impl Reader<'_> {
    /// Reads the pictures of a video. Returns their key and the number of segments.
    fn pictures(
        &mut self,
        media: &Media,
        target: &ModelTarget,
        batcher: &mut Batcher<'_>,
        events: &mut Vec<ReadEvent>,
    ) -> Result<(CacheKey, u32), MediaError> {
        let Preparation::Image(settings) = &target.preparation else {
            unreachable!("a vision model wants pictures");
        };
        let cut = &self.reading.cut;
        match &media.pictures {
            None => Err(MediaError::NoPictures {
                name: media.name.clone(),
                sound: media.sound.clone().unwrap_or_default(),
            }),
            Some(Pictures::Frames(folder)) => {
                let FrameList { paths: chosen, note } = frames::chosen(folder, cut)?;
                if let Some(note) = note {
                    events.push(reject(media, Modality::Visual, Severity::Note, note));
                }
                let sums = chosen
                    .iter()
                    .map(|path| of_file(path))
                    .collect::<Result<Vec<String>, IngestError>>()?;
                let key = key(&["frames", READING, &json(target)], &sums);
                for (segment, path) in chosen.iter().enumerate() {
                    let segment = segment as u32;
                    if self.cache.has(&key, segment) {
                        batcher.skip();
                        continue;
                    }
                    let picture = frames::picture(path, &frames::bytes(path)?)?;
                    add(batcher, settings, media, &key, segment, &picture);
                }
                let segments = chosen.len() as u32;
                self.end(batcher, &key, segments);
                Ok((key, segments))
            }
            Some(Pictures::Video(file)) => {
                let key = key(&["video", READING, &json(target), &json(cut)], &[of_file(file)?]);
                if let Some(segments) = self.cache.whole(&key) {
                    (0..segments).for_each(|_| batcher.skip());
                    return Ok((key, segments));
                }
                let cache = self.cache;
                let segments = ffmpeg::pictures(&self.reading.ffmpeg, file, cut, &mut |segment, picture| {
                    let segment = segment as u32;
                    if cache.has(&key, segment) {
                        batcher.skip();
                    } else {
                        add(batcher, settings, media, &key, segment, &picture);
                    }
                })? as u32;
                if segments == 0 {
                    events.push(reject(
                        media,
                        Modality::Visual,
                        Severity::Note,
                        "has no segment".to_owned(),
                    ));
                }
                self.end(batcher, &key, segments);
                Ok((key, segments))
            }
        }
    }

    /// Returns the number of segments of a video's folder of frames. The sound gets this number if the pictures are not
    /// encoded or were rejected.
    fn frames_tell(&self, media: &Media) -> Option<u32> {
        let Some(Pictures::Frames(folder)) = &media.pictures else {
            return None;
        };
        let frames = frames::list(folder).ok()?.paths.len();
        (frames > 0).then(|| self.reading.cut.segments_of_frames(frames) as u32)
    }

    /// Reads the sound of a video, and returns its key. `segments_of_pictures` is the number of segments of the video's pictures.
    fn sound(
        &mut self,
        media: &Media,
        target: &ModelTarget,
        segments_of_pictures: Option<u32>,
        batcher: &mut Batcher<'_>,
        events: &mut Vec<ReadEvent>,
    ) -> Result<CacheKey, MediaError> {
        let Some(front) = &mut self.front else {
            unreachable!("an audio model wants sound");
        };
        let rate = match &target.preparation {
            Preparation::Sound(settings) => settings.rate,
            _ => patch::RATE,
        };
        let Some(path) = &media.sound else {
            return Err(MediaError::NoSound {
                path: media
                    .pictures
                    .as_ref()
                    .map(|pictures| pictures.path().to_owned())
                    .unwrap_or_default(),
            });
        };
        let cut = &self.reading.cut;
        let segments_of_pictures = segments_of_pictures.or(cut.count.map(|count| count as u32));
        let key = key(
            &[
                "sound",
                READING,
                &json(target),
                &json(&cut.seconds),
                &json(&segments_of_pictures),
            ],
            &[of_file(path)?],
        );
        if let Some(segments) = self.cache.whole(&key) {
            (0..segments).for_each(|_| batcher.skip());
            return Ok(key);
        }
        let mut wave = Wave::open(path, rate, &self.reading.ffmpeg)?;
        let (mut segment, mut silent) = (0, 0);
        loop {
            let (from, to) = (
                cut.sample(segment as usize, rate),
                cut.sample(segment as usize + 1, rate),
            );
            self.samples.clear();
            wave.piece(from, to, &mut self.samples)?;
            let there = self.samples.len() as u64;
            if segment == 0 && there == 0 {
                return Err(MediaError::Sound {
                    path: path.clone(),
                    problem: "has no samples".to_owned(),
                });
            }
            let more = match segments_of_pictures {
                Some(segments_of_pictures) => segment < segments_of_pictures,
                // The same rule as for frames: the last segment must have at least half of its samples.
                None => segment == 0 || there * 2 >= to - from,
            };
            if !more {
                break;
            }
            silent += u32::from(there == 0);
            if self.cache.has(&key, segment) {
                batcher.skip();
            } else {
                batcher.add(&media.name, &key, segment, |values| {
                    front.append(&self.samples, values)
                });
            }
            segment += 1;
        }
        if silent > 0 {
            let reason = format!(
                "sound ends before segment {}: the last {silent} are silence",
                segment - silent
            );
            events.push(reject(media, Modality::Audio, Severity::Note, reason));
        }
        if wave.broken() > 0 {
            let reason = format!("{} packets cannot be decoded, and are silence", wave.broken());
            events.push(reject(media, Modality::Audio, Severity::Note, reason));
        }
        self.end(batcher, &key, segment);
        Ok(key)
    }

    fn end(&self, batcher: &mut Batcher<'_>, key: &str, segments: u32) {
        if self.cache.total(key) != Some(segments) {
            batcher.total(key, segments);
        }
    }
}

fn add(
    batcher: &mut Batcher<'_>,
    settings: &ImageSettings,
    media: &Media,
    key: &str,
    segment: u32,
    picture: &Rgb,
) {
    let square = settings.square(picture);
    batcher.add(&media.name, key, segment, |values| {
        settings.normalise(&square, values)
    });
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("settings are plain numbers and names")
}

/// Returns the SHA-256 (in hexadecimal) of these texts. Each text is hashed after its length, so that no two different
/// lists have the same bytes.
pub fn key(settings: &[&str], contents: &[String]) -> CacheKey {
    let mut sum = Sha256::new();
    for text in settings
        .iter()
        .copied()
        .chain(contents.iter().map(String::as_str))
    {
        sum.update((text.len() as u64).to_le_bytes());
        sum.update(text);
    }
    hex(&sum.finalize())
}

/// Number of videos in a group. A larger group leaves fewer batches that are not full; a smaller group lets the reader
/// threads end at about the same time.
pub const GROUP: usize = 16;

/// Splits the list of media into groups; each group comes with the position of its first video.
pub fn groups(media: &[Media]) -> impl Iterator<Item = (usize, &[Media])> {
    media
        .chunks(GROUP)
        .enumerate()
        .map(|(at, group)| (at * GROUP, group))
}

/// The list of all media, shared by the reader threads.
pub type SharedMedia = Arc<Vec<Media>>;
