//! Annotation files in LLP's format.

use std::fmt::Write as _;
use std::path::Path;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::Split;

use super::{Exported, LeftOutVideos, write_classes, write_text};
use crate::ingest::IngestError;

/// Writes the weak labels of each split (`AVVP_train.csv`, `AVVP_val_pd.csv`, `AVVP_test_pd.csv`), the labels as dense
/// events (`AVVP_eval_audio.csv`, `AVVP_eval_visual.csv`), and `classes.txt`. Fields are separated by tabs, as in LLP.
/// Onset and offset are segments; with segments of 1 s they are seconds, as in LLP.
///
/// Names and classes hold no tab or line break, because the reader of annotations refuses them.
pub(super) fn write(exported: &Exported, folder: &Path) -> Result<LeftOutVideos, IngestError> {
    for split in Split::ALL {
        let mut text = "filename\tevent_labels\n".to_owned();
        for video in exported.videos.iter().filter(|video| video.split == split) {
            let classes: Vec<&str> = video
                .weak
                .iter()
                .map(|class| &*exported.classes[*class])
                .collect();
            let _ = writeln!(text, "{}\t{}", video.name, classes.join(","));
        }
        let name = match split {
            Split::Train => "AVVP_train.csv",
            Split::Val => "AVVP_val_pd.csv",
            Split::Test => "AVVP_test_pd.csv",
        };
        write_text(&folder.join(name), &text)?;
    }
    for modality in Modality::ALL {
        let mut text = "filename\tonset\toffset\tevent_labels\n".to_owned();
        for video in &exported.videos {
            for event in video.events(modality, &exported.classes) {
                let _ = writeln!(
                    text,
                    "{}\t{}\t{}\t{}",
                    video.name, event.onset, event.offset, event.class
                );
            }
        }
        write_text(&folder.join(format!("AVVP_eval_{modality}.csv")), &text)?;
    }
    write_classes(exported, folder)?;
    Ok(LeftOutVideos::new())
}
