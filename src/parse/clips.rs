//! Clip features (such as those of R(2+1)D) of the media, which the user computes: vaplan has no encoder for them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tch::{Kind, Tensor};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectKind, RejectRow};

use super::apply::segments_of;
use super::error::ParseError;
use crate::encode::embed::VideoEmbeddings;
use crate::encode::media::Media;
use crate::ingest::annotations::Roster;
use crate::ingest::features::{ColumnNames, FeatureInput};
use crate::ingest::seen::SeenInputs;
use crate::parser::TrainError;
use crate::parser::features::{FeatureTable, Lengths};
use crate::world::hash::hash;

/// The clip features of media, by the names of the media.
#[derive(Debug)]
pub struct ClipFeatures {
    paths: Vec<PathBuf>,
    width: i64,
    fingerprint: String,
    /// Features that are pooled to segments, for the group in progress.
    scratch: tempfile::TempDir,
}

impl ClipFeatures {
    /// Finds the features of these media; `seen` tells which files are the same as before. `None` for a network that takes no clip features.
    ///
    /// # Errors
    /// Returns [`ParseError`] if a path cannot be read.
    pub(crate) fn open(
        paths: &[PathBuf],
        media: &[Media],
        width: Option<i64>,
        seen: &mut SeenInputs,
    ) -> Result<Option<ClipFeatures>, ParseError> {
        let Some(width) = width else { return Ok(None) };
        let roster = Roster::new(media.iter().map(|own| Arc::from(&*own.name)));
        let wanted = |key: &str| roster.knows(key);
        let input = FeatureInput::open_all(paths, Modality::Visual, &ColumnNames::default(), &wanted)?;
        let fingerprint = hash(|sum| {
            use sha2::Digest;
            let shards = input.shards.iter();
            shards.for_each(|shard| sum.update(shard.fingerprint_as(seen)));
        });
        let scratch = tempfile::tempdir().map_err(|source| ParseError::Io {
            action: "make a folder in",
            path: std::env::temp_dir(),
            source,
        })?;
        Ok(Some(ClipFeatures {
            paths: paths.to_vec(),
            width,
            fingerprint,
            scratch,
        }))
    }

    /// A hash of the identities of the files.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Reads the features `[1, T, Dc]` of a group, in its order. A video without pictures gets zeros, like its other visual
    /// features. Each other video without features that can be used is `None`, with a rejected row.
    ///
    /// # Errors
    /// Returns [`ParseError::Model`] if the features cannot be read at all.
    pub fn read(
        &self,
        group: &[Media],
        found: &[[Option<VideoEmbeddings>; 2]],
        rejects: &mut Vec<RejectRow>,
    ) -> Result<Vec<Option<Tensor>>, ParseError> {
        let mut lengths = Lengths::new();
        for (media, found) in group.iter().zip(found) {
            if let Some(segments) = segments_of(found) {
                lengths.insert(Arc::from(&*media.name), segments);
            }
        }
        let names: Vec<Arc<str>> = lengths.keys().cloned().collect();
        let (table, problem) = match names.is_empty() {
            true => (None, None),
            false => self.table(&names, &lengths)?,
        };
        let reasons: BTreeMap<&str, &RejectRow> = table
            .iter()
            .flat_map(FeatureTable::rejects)
            .filter_map(|row| row.video.as_deref().map(|video| (video, row)))
            .collect();
        let mut read = Vec::with_capacity(group.len());
        for (media, found) in group.iter().zip(found) {
            let Some(segments) = segments_of(found) else {
                // The rows of the encoding say why the video has no embeddings.
                read.push(None);
                continue;
            };
            let place = table.as_ref().and_then(|table| table.place(&media.name));
            let own = match (&table, place) {
                (Some(table), Some(place)) if table.width() == self.width => {
                    Ok(table.gather(&[place], segments))
                }
                (Some(table), Some(_)) => Err(format!(
                    "its clip features have the width {}, expected {}, the width of the training",
                    table.width(),
                    self.width
                )),
                _ if found[Modality::Visual.index()].is_none() => {
                    let shape = [1, i64::from(segments), self.width];
                    Ok(Tensor::zeros(shape, (Kind::Float, tch::Device::Cpu)))
                }
                _ if problem.is_some() => Err(problem.clone().unwrap_or_default()),
                _ => Err(reasons.get(&*media.name).map_or_else(
                    || {
                        let paths: Vec<String> = self
                            .paths
                            .iter()
                            .map(|path| format!("`{}`", path.display()))
                            .collect();
                        format!(
                            "has no clip features in {}, expected {}.npy of shape ({segments}, {})",
                            paths.join(", "),
                            media.name,
                            self.width
                        )
                    },
                    |row| format!("its clip features cannot be used: `{}`: {}", row.file, row.reason),
                )),
            };
            read.push(
                own.map_err(|reason| rejects.push(self.reject(media, reason)))
                    .ok(),
            );
        }
        Ok(read)
    }

    fn reject(&self, media: &Media, reason: String) -> RejectRow {
        let file = self
            .paths
            .first()
            .map_or_else(String::new, |path| path.display().to_string());
        RejectRow::reject(RejectKind::MissingFeatures, file, reason)
            .video(&*media.name)
            .modality(Modality::Visual)
    }

    /// The features of these videos, pooled to their segments. Without a video whose features can be used, the reason if files
    /// were found.
    fn table(
        &self,
        names: &[Arc<str>],
        lengths: &Lengths,
    ) -> Result<(Option<FeatureTable>, Option<String>), ParseError> {
        let columns = ColumnNames::default();
        let opened = FeatureTable::open(
            (&self.paths, &columns),
            Modality::Visual,
            (names, lengths),
            self.scratch.path(),
            &mut |_| (),
        );
        match opened {
            Ok(table) => Ok((Some(table), None)),
            Err(TrainError::Settings(problem)) => {
                let reason = problem.split_once("first reject: ");
                let reason = reason.map(|(_, reason)| format!("its clip features cannot be used: {reason}"));
                Ok((None, reason))
            }
            Err(error) => Err(error.into()),
        }
    }
}
