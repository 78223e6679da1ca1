//! The stage keeps the scores of finished shards on disk until the commit, so that the next run after a kill need not
//! score these shards again.
//!
//! Each shard has one file. The name of the file is a hash of all inputs that the scores depend on. The file has the
//! SHA-256 of its body, and then the body. The writer writes a temporary file and renames it. The writer does not sync
//! the file, because a sync costs more time than scoring a shard. After a power failure, a damaged file fails the test
//! of its SHA-256, and the shard is scored again.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vaplan_dataflows::similarity::Scored;
use vaplan_dataflows::{Candidate, VideoId};
use vaplan_schemas::rows::{RejectKind, RejectRow, Severity};

use super::plan::Plan;
use super::score::LeftOut;
use super::unknown::UnknownVideos;
use crate::error::LabelError;
use crate::world::Meaning;

/// The scored features of a shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StagedShard {
    /// Candidates of the videos in the shard.
    pub candidates: Vec<(VideoId, Candidate)>,
    /// Rejected rows and notes.
    pub rejects: Vec<RejectRow>,
    /// Features that belong to no annotated video.
    pub unknown: UnknownVideos,
    /// Number of segments that were scored.
    pub segments: u64,
}

impl StagedShard {
    /// Adds the scores of a batch.
    pub fn take(&mut self, scored: Vec<Scored>, plan: &Plan) {
        for scored in scored {
            match scored {
                Scored::Candidate(video, candidate) => {
                    self.segments += u64::from(candidate.record.segments());
                    self.candidates.push((video, candidate));
                }
                Scored::Rejection(video, modality, file, row, rejection) => {
                    let reason = format!("{modality} {rejection}");
                    let reject = RejectRow::reject(RejectKind::FeatureRow, &*file, reason);
                    let reject = reject.row(row).modality(modality);
                    self.rejects.push(RejectRow {
                        video: plan.name(video).map(|name| name.to_string()),
                        ..reject
                    });
                }
            }
        }
    }

    /// Completes the shard with the rows that the reader did not emit. If a file has a rejected row of a video, the shard
    /// drops the candidate of that video in that file. A copy in another file is not affected.
    pub fn end(&mut self, left_out: LeftOut, plan: &Plan) {
        let LeftOut { rejects, unknown } = left_out;
        let mut bad: BTreeSet<(VideoId, &str)> = BTreeSet::new();
        for row in rejects.iter().filter(|row| row.severity == Severity::Reject) {
            if let Some(Meaning::Video(position)) = row.video.as_deref().map(|key| plan.meaning(key)) {
                bad.insert((plan.videos[position].id, &row.file));
            }
        }
        self.candidates
            .retain(|(video, candidate)| !bad.contains(&(*video, &*candidate.source)));
        self.rejects.extend(rejects);
        self.unknown.add(unknown);
    }
}

/// The folder of staged shards.
#[derive(Clone, Debug)]
pub struct Stage {
    folder: PathBuf,
}

const SUM: usize = 32;

impl Stage {
    /// Opens or makes the folder.
    ///
    /// # Errors
    /// Returns [`LabelError::Stage`] if the folder cannot be made.
    pub fn open(folder: &Path) -> Result<Stage, LabelError> {
        fs::create_dir_all(folder).map_err(failed("make", folder))?;
        Ok(Stage {
            folder: folder.to_owned(),
        })
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.scores"))
    }

    /// Returns whether a file of this key exists.
    pub fn has(&self, key: &str) -> bool {
        self.path(key).exists()
    }

    /// Loads the shard of this key. Returns `None` if no file of the key exists, or the file is damaged.
    pub fn load(&self, key: &str) -> Option<StagedShard> {
        let bytes = fs::read(self.path(key)).ok()?;
        let (sum, body) = bytes.split_at_checked(SUM)?;
        if Sha256::digest(body).as_slice() != sum {
            return None;
        }
        postcard::from_bytes(body).ok()
    }

    /// Writes a shard.
    ///
    /// # Errors
    /// Returns [`LabelError::Stage`] if the file cannot be written, for example on a full disk. No temporary file
    /// remains.
    pub fn keep(&self, key: &str, shard: &StagedShard) -> Result<(), LabelError> {
        let path = self.path(key);
        let body = postcard::to_stdvec(shard)
            .map_err(std::io::Error::other)
            .map_err(failed("encode", &path))?;
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(&Sha256::digest(&body))?;
            file.write_all(&body)?;
            file.persist(&path).map(drop).map_err(|error| error.error)
        };
        write().map_err(failed("write", &path))
    }

    /// Removes all shards after their version was committed.
    ///
    /// If the folder cannot be removed, this function logs a warning and returns no error, because the version exists:
    /// an error would tell the caller that the run failed. The shards then use disk space until `vacuum` removes them.
    pub fn clear(&self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            let folder = self.folder.display();
            tracing::warn!(%folder, %error, "the version is committed, but its staged shards could not be removed; `vaplan vacuum` removes them");
        }
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> LabelError {
    let path = path.to_owned();
    move |source| LabelError::Stage { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vaplan_dataflows::{Cosine, FeatureHash, Score, ScoreRecord};
    use vaplan_schemas::{ClassId, Modality};

    use super::*;

    fn shard() -> StagedShard {
        let score = vec![Score::new(0.25).unwrap(), Score::new(-1.5).unwrap()];
        let record = ScoreRecord::new(2, vec![ClassId(7)], vec![Cosine::new(0.5); 2], score);
        let candidate = Candidate {
            modality: Modality::Visual,
            source: "a.npy".into(),
            record: Arc::new(record),
            features: FeatureHash::of(&[0.5, 1.0]),
        };
        StagedShard {
            candidates: vec![(VideoId(3), candidate)],
            rejects: Vec::new(),
            unknown: UnknownVideos {
                count: 1,
                example: Some(("clip".into(), "a.parquet".into())),
            },
            segments: 2,
        }
    }

    #[test]
    fn a_shard_reads_back_and_a_damaged_one_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let stage = Stage::open(&folder.path().join("stage")).unwrap();
        stage.keep("k", &shard()).unwrap();
        assert_eq!(stage.load("k"), Some(shard()));
        assert_eq!(stage.load("other"), None);
        let path = stage.path("k");
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert_eq!(stage.load("k"), None, "bit of byte {at} flipped");
            fs::write(&path, &bytes[..at]).unwrap();
            assert_eq!(stage.load("k"), None, "cut at {at}");
        }
        stage.clear();
        assert!(!path.exists());
    }
}
