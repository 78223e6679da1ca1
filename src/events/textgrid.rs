//! Praat TextGrid: one interval tier per modality and class.

use std::fmt::Write as _;

use super::VideoEvents;

/// A TextGrid in the long text format. Each tier is named `modality/class` and covers the whole video: intervals without
/// the event have an empty text.
///
/// Source: the Praat manual, "TextGrid file formats". A quotation mark in a text is doubled.
pub fn text(video: &VideoEvents) -> String {
    let end = video.duration;
    let mut text = format!(
        "File type = \"ooTextFile\"\nObject class = \"TextGrid\"\n\nxmin = 0\nxmax = {end}\ntiers? <exists>\nsize = {}\nitem []:\n",
        video.tracks.len()
    );
    let mut put = |line: String| text.write_str(&line).expect("a String takes everything");
    for (nth, (modality, class)) in video.tracks.iter().enumerate() {
        let name = video.class(*class);
        let mut intervals: Vec<(f64, f64, &str)> = Vec::new();
        let mut at = 0.0;
        for event in video.of_track(*modality, *class) {
            if event.onset > at {
                intervals.push((at, event.onset, ""));
            }
            intervals.push((event.onset, event.offset, name));
            at = event.offset;
        }
        // Praat refuses a tier without an interval.
        if at < end || intervals.is_empty() {
            intervals.push((at, end, ""));
        }
        put(format!(
            "    item [{}]:\n        class = \"IntervalTier\"\n        name = \"{modality}/{}\"\n        xmin = 0\n        xmax = {end}\n        intervals: size = {}\n",
            nth + 1,
            doubled(name),
            intervals.len()
        ));
        for (nth, (from, to, text)) in intervals.iter().enumerate() {
            put(format!(
                "        intervals [{}]:\n            xmin = {from}\n            xmax = {to}\n            text = \"{}\"\n",
                nth + 1,
                doubled(text)
            ));
        }
    }
    text
}

fn doubled(text: &str) -> String {
    text.replace('"', "\"\"")
}
