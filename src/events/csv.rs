//! CSV: one row per event.

use super::VideoEvents;

/// One row per event. The columns are those of `relabel --user`, so that the file can be edited and read back; `score` is
/// empty if the source has none.
pub fn text<'a>(videos: impl IntoIterator<Item = &'a VideoEvents>) -> String {
    let mut rows = csv::Writer::from_writer(Vec::new());
    let header = [
        "video",
        "modality",
        "class",
        "start_seconds",
        "end_seconds",
        "label",
        "score",
    ];
    rows.write_record(header).expect("a Vec takes everything");
    for video in videos {
        for event in &video.events {
            let score = event
                .score
                .map_or_else(String::new, |score| format!("{score:.6}"));
            let row = [
                &video.video,
                event.modality.as_str(),
                video.class(event.class),
                &event.onset.to_string(),
                &event.offset.to_string(),
                "1",
                &score,
            ];
            rows.write_record(row).expect("a Vec takes everything");
        }
    }
    let bytes = rows.into_inner().expect("a Vec takes everything");
    String::from_utf8(bytes).expect("all fields are UTF-8")
}
