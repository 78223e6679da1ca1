//! Finds the files of an annotation folder, and determines the order of its classes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vaplan_schemas::Modality;
use vaplan_schemas::rows::Split;

use super::classes::{LLP_CLASSES, nearest, read_classes};
use super::{dense, position, weak};
use crate::ingest::error::IngestError;
use crate::ingest::remote;

/// An unknown class with at least this similarity to a class of LLP counts as a misspelling (D).
const MISSPELT: f64 = 0.8;
/// If at least one label in this many has an unknown class, and an unknown class is no misspelling, the folder counts
/// as another data set than LLP (D).
const FOREIGN: u64 = 10;

/// The files of an annotation folder.
pub(super) struct Files {
    pub(super) splits: Vec<(Split, PathBuf)>,
    pub(super) dense: Vec<(Modality, PathBuf)>,
    pub(super) full: Option<PathBuf>,
    pub(super) classes: Option<PathBuf>,
}

const SPLITS: [(Split, &str); 3] = [
    (Split::Train, "train.csv"),
    (Split::Val, "val_pd.csv"),
    (Split::Test, "test_pd.csv"),
];
const DENSE: [(Modality, &str); 2] = [
    (Modality::Audio, "eval_audio.csv"),
    (Modality::Visual, "eval_visual.csv"),
];
const FULL: &str = "dataset_full.csv";
const CLASSES: &str = "classes.txt";

impl Files {
    pub(super) fn find(folder: &Path) -> Result<Files, IngestError> {
        // Ignore names that are not UTF-8, which no annotation file has, and hidden files, which editors and copy
        // programs leave.
        let mut names = remote::names(folder)?;
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        let one = |suffix: &'static str| -> Result<Option<PathBuf>, IngestError> {
            let mut found = names.iter().filter(|name| name.ends_with(suffix));
            let (first, second) = (found.next(), found.next());
            if let (Some(first), Some(second)) = (first, second) {
                return Err(IngestError::RoleTwice {
                    folder: folder.to_owned(),
                    suffix,
                    first: first.clone(),
                    second: second.clone(),
                });
            }
            Ok(first.map(|name| folder.join(name)))
        };
        let mut files = Files {
            splits: Vec::new(),
            dense: Vec::new(),
            full: one(FULL)?,
            classes: None,
        };
        for (split, suffix) in SPLITS {
            files.splits.extend(one(suffix)?.map(|path| (split, path)));
        }
        for (modality, suffix) in DENSE {
            files.dense.extend(one(suffix)?.map(|path| (modality, path)));
        }
        if names.iter().any(|name| name == CLASSES) {
            files.classes = Some(folder.join(CLASSES));
        }
        if files.splits.is_empty() {
            names.retain(|name| name.ends_with(".csv"));
            names.truncate(10);
            return Err(IngestError::NoSplit {
                folder: folder.to_owned(),
                found: names,
            });
        }
        Ok(files)
    }
}

/// The order of `classes.txt`. Without this file, LLP's order, if the classes are LLP's.
pub(super) fn class_order(
    files: &Files,
    lists: &[weak::LabelList],
    dense_rows: &[dense::DenseRow],
) -> Result<Vec<Arc<str>>, IngestError> {
    if let Some(path) = &files.classes {
        return read_classes(path);
    }
    let llp: Vec<Arc<str>> = LLP_CLASSES.into_iter().map(Arc::from).collect();
    let weak = lists.iter().flat_map(|list| {
        let (file, line) = list.first;
        let path = &files.splits[file].1;
        let labels = list.labels.iter();
        labels.map(move |label| (path, line, label.as_str(), list.rows))
    });
    let dense = dense_rows
        .iter()
        .map(|row| (&files.dense[row.file].1, row.line, row.label.as_str(), 1));
    let (mut total, mut unknown, mut foreign) = (0_u64, 0_u64, None);
    for (path, line, label, rows) in weak.chain(dense) {
        total += rows;
        if position(&llp, label).is_some() {
            continue;
        }
        unknown += rows;
        // One foreign class is enough, and comparing each of many unknown labels would take long.
        if foreign.is_some() {
            continue;
        }
        let (near, similarity) = nearest(label, &llp);
        if similarity < MISSPELT {
            foreign = Some(IngestError::ForeignClasses {
                path: path.clone(),
                row: line,
                class: label.chars().take(80).collect(),
                nearest: near.to_owned(),
            });
        }
    }
    match foreign {
        Some(error) if unknown.saturating_mul(FOREIGN) >= total => Err(error),
        _ => Ok(llp),
    }
}
