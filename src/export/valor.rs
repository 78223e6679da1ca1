//! VALOR's label folders.

use std::collections::BTreeMap;
use std::path::Path;

use vaplan_schemas::Modality;

use super::{Exported, LeftOutVideos, write_classes};
use crate::ingest::IngestError;
use crate::ingest::annotations::key11;
use crate::ingest::npy;

/// Writes `audio/<id>.npy` and `visual/<id>.npy`, `(T, C)` int64, and `classes.txt`. Every video has both files, also a
/// video without a set label.
///
/// The id is the first 11 characters of the name, as the public code opens the files. If several videos have one id, their
/// files have the full names.
///
/// Source (grade C): VALOR, `get_segment_pseudo_labels` in `utils/clip_preprocess.py` writes, and LEAP, MM-CSE, CoLeaF and
/// NREP read, one such file per video and modality.
pub(super) fn write(exported: &Exported, folder: &Path) -> Result<LeftOutVideos, IngestError> {
    let mut of_id: BTreeMap<&str, usize> = BTreeMap::new();
    for video in &exported.videos {
        *of_id.entry(key11(&video.name)).or_default() += 1;
    }
    for modality in Modality::ALL {
        let folder = folder.join(modality.as_str());
        std::fs::create_dir(&folder).map_err(IngestError::io("make", &folder))?;
    }
    let mut left_out = LeftOutVideos::new();
    for video in &exported.videos {
        let id = key11(&video.name);
        let stem = if of_id[id] == 1 { id } else { &*video.name };
        if let Some(problem) = npy::file_name_problem(stem) {
            left_out.push((video.name.clone(), problem));
            continue;
        }
        for modality in Modality::ALL {
            let labels = video.labels[modality.index()].iter();
            let values: Vec<i64> = labels.map(|label| i64::from(*label)).collect();
            let path = folder.join(modality.as_str()).join(format!("{stem}.npy"));
            npy::write_i64(&path, &[video.segments, exported.classes.len()], &values)?;
        }
    }
    write_classes(exported, folder)?;
    Ok(left_out)
}
