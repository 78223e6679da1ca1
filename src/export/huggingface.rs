//! A dataset that `datasets.load_dataset` opens: one Parquet file per split, and a card that names the files.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int8Builder, Int32Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::Split;

use super::{ExportError, Exported, ExportedVideo, LeftOutVideos, write_classes, write_text};
use crate::ingest::IngestError;

/// The name of a split as `datasets` uses it.
fn split_name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Val => "validation",
        Split::Test => "test",
    }
}

/// Writes `data/<split>-00000-of-00001.parquet` of each split that has videos, `classes.txt`, and the card `README.md`.
///
/// Columns: `video`, `segments`, `segment_seconds`, `weak_labels` (names), `audio_labels` and `visual_labels` (lists
/// `[T][C]` of 0 and 1).
pub(super) fn write(exported: &Exported, folder: &Path) -> Result<LeftOutVideos, ExportError> {
    let data = folder.join("data");
    std::fs::create_dir(&data).map_err(IngestError::io("make", &data))?;
    let mut files = String::new();
    for split in Split::ALL {
        let videos: Vec<&ExportedVideo> = exported
            .videos
            .iter()
            .filter(|video| video.split == split)
            .collect();
        if videos.is_empty() {
            continue;
        }
        let name = format!("data/{}-00000-of-00001.parquet", split_name(split));
        let path = folder.join(&name);
        write_parquet(&path, &batch(&videos, &exported.classes))?;
        let _ = write!(files, "  - split: {}\n    path: {name}\n", split_name(split));
    }
    let card = format!(
        "---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n\nPseudo labels of vaplan {}, store version {}. The \
         columns `audio_labels` and `visual_labels` have one list per segment, with 0 or 1 for each class of `classes.txt`.\n",
        env!("CARGO_PKG_VERSION"),
        exported.version
    );
    write_text(&folder.join("README.md"), &card)?;
    write_classes(exported, folder)?;
    Ok(LeftOutVideos::new())
}

fn batch(videos: &[&ExportedVideo], classes: &[Arc<str>]) -> RecordBatch {
    let mut weak = ListBuilder::new(StringBuilder::new());
    for video in videos {
        video
            .weak
            .iter()
            .for_each(|class| weak.values().append_value(&classes[*class]));
        weak.append(true);
    }
    let labels = |modality: Modality| -> ArrayRef {
        let mut lists = ListBuilder::new(ListBuilder::new(Int8Builder::new()));
        for video in videos {
            // A video without classes has segments without values.
            for segment in 0..video.segments {
                let cells = segment * classes.len()..(segment + 1) * classes.len();
                let own = &video.labels[modality.index()][cells];
                own.iter()
                    .for_each(|cell| lists.values().values().append_value(*cell as i8));
                lists.values().append(true);
            }
            lists.append(true);
        }
        Arc::new(lists.finish())
    };
    let names = StringArray::from_iter_values(videos.iter().map(|video| &*video.name));
    let segments = Int32Array::from_iter_values(videos.iter().map(|video| video.segments as i32));
    let seconds = Float64Array::from_iter_values(videos.iter().map(|video| video.seconds));
    let columns: [(&str, ArrayRef); 6] = [
        ("video", Arc::new(names)),
        ("segments", Arc::new(segments)),
        ("segment_seconds", Arc::new(seconds)),
        ("weak_labels", Arc::new(weak.finish())),
        ("audio_labels", labels(Modality::Audio)),
        ("visual_labels", labels(Modality::Visual)),
    ];
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

fn write_parquet(path: &Path, batch: &RecordBatch) -> Result<(), ExportError> {
    let file = File::create_new(path).map_err(IngestError::io("write", path))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let written = || -> Result<(), ParquetError> {
        let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties))?;
        writer.write(batch)?;
        writer.close()?;
        Ok(())
    };
    written().map_err(|source| ExportError::Parquet {
        path: path.to_owned(),
        source,
    })
}
