//! The built-in annotation sets: invented videos in LLP's format.
//!
//! All videos have 10 segments and LLP's 25 classes. The sets have two irregularities of the real files on purpose.
//! `assets/make.py` made them.

use std::fs;
use std::path::Path;

use super::SynthError;
use crate::ingest::annotations::{LLP_CLASSES, split_name};

/// An annotation set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnotationSet {
    /// 80 videos (40 train, 16 val, 24 test), for examples and tests.
    Sample,
    /// 1,800 videos (1,200 train, 300 val, 300 test), for the demo.
    Demo,
}

/// Names of the files of a set.
const NAMES: [&str; 6] = [
    "demo_train.csv",
    "demo_val_pd.csv",
    "demo_test_pd.csv",
    "demo_dataset_full.csv",
    "demo_eval_audio.csv",
    "demo_eval_visual.csv",
];

/// Contents of the files of a set, in the order of `NAMES`.
macro_rules! contents {
    ($folder:literal) => {
        [
            include_str!(concat!("../../assets/", $folder, "/demo_train.csv")),
            include_str!(concat!("../../assets/", $folder, "/demo_val_pd.csv")),
            include_str!(concat!("../../assets/", $folder, "/demo_test_pd.csv")),
            include_str!(concat!("../../assets/", $folder, "/demo_dataset_full.csv")),
            include_str!(concat!("../../assets/", $folder, "/demo_eval_audio.csv")),
            include_str!(concat!("../../assets/", $folder, "/demo_eval_visual.csv")),
        ]
    };
}

impl AnnotationSet {
    fn contents(self) -> [&'static str; 6] {
        match self {
            AnnotationSet::Sample => contents!("sample"),
            AnnotationSet::Demo => contents!("demo"),
        }
    }

    /// Writes the files and `classes.txt` into `folder`. The folder is created if it does not exist.
    ///
    /// # Errors
    /// Returns [`SynthError::Ingest`] if the folder or a file cannot be written.
    pub fn write(self, folder: &Path) -> Result<(), SynthError> {
        fs::create_dir_all(folder).map_err(SynthError::io("create", folder))?;
        let classes = LLP_CLASSES.join("\n") + "\n";
        let files = NAMES.into_iter().zip(self.contents());
        for (name, text) in files.chain([("classes.txt", classes.as_str())]) {
            let path = folder.join(name);
            fs::write(&path, text).map_err(SynthError::io("write", &path))?;
        }
        Ok(())
    }

    /// Number of videos of the set.
    pub fn videos(self) -> usize {
        let lines = |text: &str| text.lines().skip(1).filter(|line| named(line)).count();
        self.contents()[..3].iter().map(|text| lines(text)).sum()
    }
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
    fn the_sets_read_with_two_quirks_and_no_reject() {
        reads(AnnotationSet::Sample, [40, 16, 24]);
        reads(AnnotationSet::Demo, [1200, 300, 300]);
    }

    fn reads(set: AnnotationSet, counts: [usize; 3]) {
        let folder = tempfile::tempdir().unwrap();
        set.write(folder.path()).unwrap();
        let annotations = Annotations::read(folder.path()).unwrap();
        let videos = counts.iter().sum::<usize>();
        assert_eq!((annotations.videos.len(), set.videos()), (videos, videos));
        let count = |split| {
            annotations
                .videos
                .iter()
                .filter(|video| video.split == split)
                .count()
        };
        assert_eq!(Split::ALL.map(count), counts);
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
