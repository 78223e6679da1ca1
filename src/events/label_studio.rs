//! Names and units of our tasks in Label Studio, which `export` writes and `relabel --user` reads.

use vaplan_schemas::Modality;

/// Name of the tag that shows the pictures.
pub const VISUAL_OBJECT: &str = "video";
/// Name of the tag with the labels of the pictures.
pub const VISUAL_CONTROL: &str = "visual_labels";
/// Name of the tag that plays the sound.
pub const AUDIO_OBJECT: &str = "audio";
/// Name of the tag with the labels of the sound.
pub const AUDIO_CONTROL: &str = "audio_labels";

/// The name of the track of a modality and class, in `data.tracks` of a task.
pub fn track_name(modality: Modality, class: &str) -> String {
    format!("{modality}/{class}")
}

/// The modality and class of a track name; `None` if the name has no modality.
pub fn track_of(name: &str) -> Option<(Modality, &str)> {
    let (modality, class) = name.split_once('/')?;
    Some((modality.parse().ok()?, class))
}

/// The first and the last frame of a span in seconds. Label Studio counts frames from 1, and the last frame belongs to the
/// range.
///
/// ```
/// use vaplan::events::label_studio::{frames, seconds};
/// assert_eq!(frames(1.0, 3.0, 24.0), (25, 72));
/// assert_eq!(seconds(25.0, 72.0, 24.0), (1.0, 3.0));
/// ```
pub fn frames(onset: f64, offset: f64, frame_rate: f64) -> (u64, u64) {
    let first = (onset * frame_rate).round() as u64 + 1;
    let last = (offset * frame_rate).round() as u64;
    (first, last.max(first))
}

/// The span in seconds of a range of frames.
pub fn seconds(first: f64, last: f64, frame_rate: f64) -> (f64, f64) {
    ((first - 1.0) / frame_rate, last / frame_rate)
}
