//! The built-in annotation set: invented videos in LLP's format.
//!
//! The set has 80 videos of 10 segments (40 train, 16 val, 24 test) with LLP's 25 classes. It has two irregularities
//! of the real files on purpose. `assets/demo/make.py` made the set.

use std::fs;
use std::path::Path;

use super::SynthError;
use crate::ingest::annotations::{LLP_CLASSES, split_name};

/// Name and contents of every file.
pub const FILES: [(&str, &str); 6] = [
    ("demo_train.csv", include_str!("../../assets/demo/demo_train.csv")),
    (
        "demo_val_pd.csv",
        include_str!("../../assets/demo/demo_val_pd.csv"),
    ),
    (
        "demo_test_pd.csv",
        include_str!("../../assets/demo/demo_test_pd.csv"),
    ),
    (
        "demo_dataset_full.csv",
        include_str!("../../assets/demo/demo_dataset_full.csv"),
    ),
    (
        "demo_eval_audio.csv",
        include_str!("../../assets/demo/demo_eval_audio.csv"),
    ),
    (
        "demo_eval_visual.csv",
        include_str!("../../assets/demo/demo_eval_visual.csv"),
    ),
];

/// Writes the files and `classes.txt` into `folder`. The folder is created if it does not exist.
///
/// # Errors
/// Returns [`SynthError::Ingest`] if the folder or a file cannot be written.
pub fn write(folder: &Path) -> Result<(), SynthError> {
    fs::create_dir_all(folder).map_err(SynthError::io("create", folder))?;
    let classes = LLP_CLASSES.join("\n") + "\n";
    for (name, text) in FILES.into_iter().chain([("classes.txt", classes.as_str())]) {
        let path = folder.join(name);
        fs::write(&path, text).map_err(SynthError::io("write", &path))?;
    }
    Ok(())
}

/// Number of videos of the set.
pub fn videos() -> usize {
    FILES[..3]
        .iter()
        .map(|(_, text)| text.lines().skip(1).filter(|line| named(line)).count())
        .sum()
}

fn named(line: &str) -> bool {
    line.split('\t')
        .next()
        .is_some_and(|name| split_name(name).is_some())
}

#[cfg(test)]
mod tests {
    use vaplan_schemas::rows::{Severity, Split};

    use super::*;
    use crate::ingest::annotations::{Annotations, key11};

    #[test]
    fn it_reads_with_two_quirks_and_no_reject() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path()).unwrap();
        let annotations = Annotations::read(folder.path()).unwrap();
        assert_eq!(annotations.videos.len(), 80);
        assert_eq!(videos(), 80);
        let count = |split| {
            annotations
                .videos
                .iter()
                .filter(|video| video.split == split)
                .count()
        };
        assert_eq!(Split::ALL.map(count), [40, 16, 24]);
        let reasons: Vec<&str> = annotations
            .rejects
            .iter()
            .map(|row| row.reason.as_str())
            .collect();
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert!(
            annotations
                .rejects
                .iter()
                .all(|row| row.severity == Severity::Note),
            "{reasons:?}"
        );
        for video in annotations.videos.iter() {
            assert!(
                key11(video.name).contains("demo"),
                "{} looks like a real id",
                video.name
            );
        }
        for event in &annotations.events {
            let video = annotations.videos.get(event.video);
            assert!(video.split != Split::Train && video.weak.contains(&event.class) && event.offset <= 10);
        }
    }
}
