//! Simulated videos of AVE (Audio-Visual Event localization), and their annotations in AVE's format.
//!
//! Every video has one event that is audible and visible at the same time. Outside the event, the object may stay in the
//! picture, or its sound may go on: these segments are background, because the event is not audible and visible there.
//!
//! The names of the classes, the format of the files and the sizes of the splits are those of YapengTian/AVE-ECCV18
//! (grade C). When events happen is our own definition (grade D): docs/synth.md has the shares.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::RngExt;
use vaplan_schemas::rows::Split;
use vaplan_schemas::{ClassId, Modality};

use super::videos::copy_name;
use super::{SynthError, generator};
use crate::ingest::annotations::{AnnotatedVideos, Annotations, DenseEvent, VideoLabel};

/// The categories of AVE.
pub const AVE_CLASSES: [&str; 28] = [
    "Church bell",
    "Male speech, man speaking",
    "Bark",
    "Fixed-wing aircraft, airplane",
    "Race car, auto racing",
    "Female speech, woman speaking",
    "Helicopter",
    "Violin, fiddle",
    "Flute",
    "Ukulele",
    "Frying (food)",
    "Truck",
    "Shofar",
    "Motorcycle",
    "Acoustic guitar",
    "Train horn",
    "Clock",
    "Banjo",
    "Goat",
    "Baby cry, infant cry",
    "Bus",
    "Chainsaw",
    "Cat",
    "Horse",
    "Toilet flush",
    "Rodents, rats, mice",
    "Accordion",
    "Mandolin",
];
/// Number of videos of AVE's splits.
const SPLITS: [(Split, usize, &str); 3] = [
    (Split::Train, 3339, "trainSet.txt"),
    (Split::Val, 402, "valSet.txt"),
    (Split::Test, 402, "testSet.txt"),
];
/// Number of videos of AVE.
pub const AVE_VIDEOS: usize = 4143;
/// Share of the events that last the whole video.
const WHOLE: f64 = 0.66;
/// Of the events that do not last the whole video: the share whose object is visible in the whole video, and the share whose
/// sound is audible in the whole video. Of the rest, nothing is audible or visible outside the event.
const BEYOND: [f64; 2] = [0.4, 0.2];
/// Shortest event in segments.
const LEAST: u32 = 2;

/// A video of the simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AveVideo {
    /// Name: 11 characters.
    pub name: String,
    /// Split of the video.
    pub split: Split,
    /// Category of the event.
    pub class: &'static str,
    /// First segment in which the event is audible and visible.
    pub onset: u32,
    /// First segment after the event.
    pub offset: u32,
    /// First segment with the sound, and first segment after the sound; then the same of the picture.
    tracks: [(u32, u32); 2],
}

/// Draws this number of videos. A video depends only on its number and the seed.
pub fn ave_videos(count: usize, segments: u32, seed: u64) -> Vec<AveVideo> {
    let least = LEAST.min(segments);
    let mut names = BTreeSet::new();
    let mut videos = Vec::with_capacity(count);
    let first = |split: usize| {
        let before: usize = SPLITS[..split].iter().map(|(_, size, _)| size).sum();
        (count * before + AVE_VIDEOS / 2) / AVE_VIDEOS
    };
    for nth in 0..count {
        let split = (0..SPLITS.len()).rfind(|split| first(*split) <= nth).unwrap_or(0);
        // Two of a million names are equal by chance.
        let name = (0..)
            .map(|attempt| copy_name(&format!("ave{nth}"), attempt))
            .find(|name| names.insert(name.clone()))
            .expect("there are 64^11 names");
        let mut rng = generator(seed, "ave", &name);
        let (onset, offset) = match rng.random_bool(WHOLE) || segments <= least {
            true => (0, segments),
            false => {
                let length = rng.random_range(least..segments);
                let onset = rng.random_range(0..=segments - length);
                (onset, onset + length)
            }
        };
        let beyond: f64 = rng.random();
        let whole = [
            (BEYOND[0]..BEYOND[0] + BEYOND[1]).contains(&beyond),
            beyond < BEYOND[0],
        ];
        videos.push(AveVideo {
            name,
            split: SPLITS[split].0,
            class: AVE_CLASSES[nth % AVE_CLASSES.len()],
            onset,
            offset,
            tracks: whole.map(|whole| if whole { (0, segments) } else { (onset, offset) }),
        });
    }
    videos
}

/// The annotations that the features are simulated for: the sound and the picture of each video as dense events, also of
/// split train. The classes are the categories of the videos in alphabetical order, as the reader of AVE's files numbers them.
pub fn simulated(videos: &[AveVideo]) -> Annotations {
    let classes: BTreeSet<&str> = videos.iter().map(|video| video.class).collect();
    let classes: Vec<Arc<str>> = classes.into_iter().map(Arc::from).collect();
    let id = |class: &str| {
        let position = classes.iter().position(|known| **known == *class);
        ClassId(position.expect("the classes are those of the videos") as u32)
    };
    let mut events = Vec::new();
    for modality in Modality::ALL {
        for (nth, video) in videos.iter().enumerate() {
            let (onset, offset) = video.tracks[modality.index()];
            events.push(DenseEvent {
                video: nth,
                modality,
                class: id(video.class),
                onset,
                offset,
            });
        }
    }
    let label = |video: &AveVideo| {
        let label = VideoLabel {
            split: video.split,
            weak: [id(video.class)].into(),
            source: "Annotations.txt".into(),
        };
        (video.name.clone(), label)
    };
    let all: AnnotatedVideos = videos.iter().map(label).collect();
    Annotations {
        videos: all,
        classes: classes.clone(),
        events,
        rejects: Vec::new(),
    }
}

/// Writes the annotation folder `out/annotations` in AVE's format: `Annotations.txt` with all videos, and a list for each
/// split. Returns the folder.
///
/// # Errors
/// Returns [`SynthError::Ingest`] if a file cannot be written.
pub fn write(out: &Path, videos: &[AveVideo]) -> Result<PathBuf, SynthError> {
    let folder = out.join("annotations");
    fs::create_dir_all(&folder).map_err(SynthError::io("create", &folder))?;
    let lines = |split: Option<Split>| {
        let mut text = String::new();
        let own = videos
            .iter()
            .filter(|video| split.is_none_or(|split| video.split == split));
        for AveVideo {
            name,
            class,
            onset,
            offset,
            ..
        } in own
        {
            writeln!(text, "{class}&{name}&good&{onset}&{offset}").expect("a String takes every text");
        }
        text
    };
    let header = "Category&VideoID&Quality&StartTime&EndTime\n".to_owned();
    let all = [("Annotations.txt", header + &lines(None))];
    let splits = SPLITS.map(|(split, _, name)| (name, lines(Some(split))));
    for (name, text) in all.into_iter().chain(splits) {
        let path = folder.join(name);
        fs::write(&path, text).map_err(SynthError::io("write", &path))?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn videos_have_the_splits_categories_and_shares_that_the_documentation_tells() {
        let videos = ave_videos(AVE_VIDEOS, 10, 1);
        let of = |split| videos.iter().filter(|video| video.split == split).count();
        assert_eq!(SPLITS.map(|(split, ..)| of(split)), [3339, 402, 402]);
        let names: BTreeSet<&str> = videos.iter().map(|video| video.name.as_str()).collect();
        assert_eq!(names.len(), AVE_VIDEOS);
        assert!(names.iter().all(|name| name.len() == 11));
        let share = |holds: &dyn Fn(&AveVideo) -> bool| {
            videos.iter().filter(|video| holds(video)).count() as f64 / AVE_VIDEOS as f64
        };
        let whole = share(&|video| video.offset - video.onset == 10);
        assert!((whole - WHOLE).abs() < 0.03, "{whole}");
        let part = 1.0 - whole;
        let seen = share(&|video| video.tracks[1] == (0, 10) && video.onset + 10 > video.offset);
        assert!((seen / part - BEYOND[0]).abs() < 0.05, "{seen}");
        for video in &videos {
            let [audio, visual] = video.tracks;
            let both = (audio.0.max(visual.0), audio.1.min(visual.1));
            assert_eq!(both, (video.onset, video.offset), "{video:?}");
            assert!(video.offset - video.onset >= LEAST);
        }
        assert_eq!(ave_videos(100, 10, 1)[..20], ave_videos(100, 10, 1)[..20]);
        assert_ne!(ave_videos(100, 10, 1), ave_videos(100, 10, 2));
        assert_eq!(ave_videos(1, 1, 1)[0].offset, 1, "a video of one segment");
    }
}
