//! Label tracks of Audacity.

use std::fmt::Write as _;

use super::VideoEvents;

/// One line per event: onset, offset and `modality: class`, separated by tabs. Times are seconds.
///
/// Source: the Audacity manual, "Importing and Exporting Labels".
pub fn text(video: &VideoEvents) -> String {
    let mut text = String::new();
    for event in video.by_time() {
        let (onset, offset) = (event.onset, event.offset);
        let (modality, class) = (event.modality, video.class(event.class));
        writeln!(text, "{onset:.6}\t{offset:.6}\t{modality}: {class}").expect("a String takes everything");
    }
    text
}
