//! The stage keeps the scores of finished shards on disk until the commit. The passes of a run read the scores from the
//! stage, and the next run after a kill need not score these shards again.
//!
//! Each shard has one file (see `sections.rs`). The name of the file is a hash of all inputs that the scores depend on.
//! The head has the rejected rows of the shard. The sections have its candidates, one section per group of videos (see
//! [`passes`](super::passes)), so that a pass reads its own candidates only.
//!
//! The writer writes a temporary file and renames it. The writer does not sync the file, because a sync costs more time
//! than scoring a shard. After a power failure, a damaged file fails the test of its checksums, and the shard is scored
//! again.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vaplan_dataflows::similarity::Scored;
use vaplan_dataflows::{Candidate, FeatureHash, ScoreRecord, VideoId};
use vaplan_schemas::Modality;
use vaplan_schemas::rows::{RejectKind, RejectRow, Severity};

use super::passes::{Pass, group_bits, top_bits};
use super::plan::Plan;
use super::score::LeftOut;
use super::sections::{self, SectionFile};
use super::unknown::UnknownVideos;
use crate::error::LabelError;
use crate::world::Meaning;

/// The scored features of a shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StagedShard {
    /// Candidates of the videos in the shard.
    pub candidates: Vec<(VideoId, Candidate)>,
    /// The rest of the shard.
    pub head: ShardHead,
}

/// The rejected rows and counts of a shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardHead {
    /// Rejected rows and notes.
    pub rejects: Vec<RejectRow>,
    /// Features that belong to no annotated video.
    pub unknown: UnknownVideos,
    /// Number of segments that were scored.
    pub segments: u64,
    /// The file has one section for each of 2^`group_bits` groups of videos.
    group_bits: u32,
}

/// The candidates of one group in one shard.
#[derive(Serialize, Deserialize)]
struct StagedGroup<R> {
    /// The feature files of the candidates, each once.
    sources: Vec<Arc<str>>,
    candidates: Vec<StagedCandidate<R>>,
}

/// A [`Candidate`]. The writer refers to a score record, and the reader owns it.
#[derive(Serialize, Deserialize)]
struct StagedCandidate<R> {
    video: VideoId,
    modality: Modality,
    /// Position in [`StagedGroup::sources`].
    source: u32,
    record: R,
    features: FeatureHash,
}

impl StagedShard {
    /// Adds the scores of a batch.
    pub fn take(&mut self, scored: Vec<Scored>, plan: &Plan) {
        for scored in scored {
            match scored {
                Scored::Candidate(video, candidate) => {
                    self.head.segments += u64::from(candidate.record.segments());
                    self.candidates.push((video, candidate));
                }
                Scored::Rejection(video, modality, file, row, rejection) => {
                    let reason = format!("{modality} {rejection}");
                    let reject = RejectRow::reject(RejectKind::FeatureRow, &*file, reason);
                    let reject = reject.row(row).modality(modality);
                    self.head.rejects.push(RejectRow {
                        video: plan.name(video).map(str::to_owned),
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
                bad.insert((plan.videos.at(position).id, &row.file));
            }
        }
        self.candidates
            .retain(|(video, candidate)| !bad.contains(&(*video, &*candidate.source)));
        self.head.rejects.extend(rejects);
        self.head.unknown.add(unknown);
    }
}

impl ShardHead {
    fn decode(bytes: &[u8]) -> io::Result<ShardHead> {
        postcard::from_bytes(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// The folder of staged shards.
#[derive(Clone, Debug)]
pub struct Stage {
    folder: PathBuf,
}

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

    /// The folder, in which a run can keep other files until its commit.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.scores"))
    }

    /// Returns whether a file of this key exists.
    pub fn has(&self, key: &str) -> bool {
        self.path(key).exists()
    }

    /// Checks the whole file of this key, and returns its head. Returns `None` if no file of the key exists, the file is
    /// damaged, or the file has other groups than a plan of this number of videos.
    pub fn check(&self, key: &str, videos: usize) -> Option<ShardHead> {
        let (file, head) = SectionFile::open(&self.path(key)).ok()?;
        let head = ShardHead::decode(&head).ok()?;
        if head.group_bits != group_bits(videos) {
            return None;
        }
        file.read(0..1 << head.group_bits, |_| Ok(())).ok()?;
        Some(head)
    }

    /// Calls `take` with each candidate of a pass in the shard of this key, in order of video.
    ///
    /// # Errors
    /// Returns [`LabelError::Stage`] if the file cannot be read or is damaged. The next run then scores the shard again.
    pub fn candidates(
        &self,
        key: &str,
        pass: &Pass,
        mut take: impl FnMut(VideoId, Candidate),
    ) -> Result<(), LabelError> {
        let path = self.path(key);
        // A pass of an early version can be smaller than a group.
        let ids = pass.ids();
        let mut take = |video: VideoId, candidate| {
            if ids.contains(&video) {
                take(video, candidate);
            }
        };
        let mut read = || {
            let (file, head) = SectionFile::open(&path)?;
            let head = ShardHead::decode(&head)?;
            file.read(pass.groups(head.group_bits), |section| {
                decode_group(section, &mut take)
            })
        };
        read().map_err(|error| {
            let remedy = format!("{error}: run the command again, which scores the shard again");
            failed("read", &path)(io::Error::new(error.kind(), remedy))
        })
    }

    /// Writes a shard of a plan of this number of videos.
    ///
    /// # Errors
    /// Returns [`LabelError::Stage`] if the file cannot be written, for example on a full disk. No temporary file
    /// remains.
    pub fn keep(&self, key: &str, shard: &mut StagedShard, videos: usize) -> Result<(), LabelError> {
        let path = self.path(key);
        shard.head.group_bits = group_bits(videos);
        let head = postcard::to_stdvec(&shard.head)
            .map_err(io::Error::other)
            .map_err(failed("encode", &path))?;
        let groups =
            encode_groups(&mut shard.candidates, shard.head.group_bits).map_err(failed("encode", &path))?;
        let write = || {
            let mut file = BufWriter::new(tempfile::NamedTempFile::new_in(&self.folder)?);
            sections::write(&mut file, &head, &groups)?;
            file.flush()?;
            let file = file.into_inner().map_err(|error| error.into_error())?;
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

/// Sorts candidates by video, and encodes those of each group.
fn encode_groups(candidates: &mut [(VideoId, Candidate)], bits: u32) -> io::Result<Vec<Vec<u8>>> {
    candidates.sort_by_key(|(video, _)| *video);
    let mut groups = vec![Vec::new(); 1 << bits];
    for own in candidates.chunk_by(|a, b| top_bits(a.0, bits) == top_bits(b.0, bits)) {
        let mut group = StagedGroup {
            sources: Vec::new(),
            candidates: Vec::with_capacity(own.len()),
        };
        let mut places = std::collections::BTreeMap::new();
        for (video, candidate) in own {
            let source = *places.entry(&candidate.source).or_insert_with(|| {
                group.sources.push(candidate.source.clone());
                group.sources.len() as u32 - 1
            });
            group.candidates.push(StagedCandidate {
                video: *video,
                modality: candidate.modality,
                source,
                record: &*candidate.record,
                features: candidate.features,
            });
        }
        groups[top_bits(own[0].0, bits) as usize] = postcard::to_stdvec(&group).map_err(io::Error::other)?;
    }
    Ok(groups)
}

fn decode_group(section: &[u8], take: &mut impl FnMut(VideoId, Candidate)) -> io::Result<()> {
    if section.is_empty() {
        return Ok(());
    }
    let wrong = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let group: StagedGroup<ScoreRecord> = postcard::from_bytes(section).map_err(|error| wrong(&error))?;
    for staged in group.candidates {
        let source = group.sources.get(staged.source as usize);
        let candidate = Candidate {
            modality: staged.modality,
            source: source.ok_or_else(|| wrong(&"a candidate has no source"))?.clone(),
            record: Arc::new(staged.record),
            features: staged.features,
        };
        take(staged.video, candidate);
    }
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> LabelError {
    let path = path.to_owned();
    move |source| LabelError::Stage { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vaplan_dataflows::{Cosine, Score};
    use vaplan_schemas::ClassId;

    use super::*;
    use crate::engine::passes::Passes;

    /// A number of videos for which a shard has 4 groups.
    const VIDEOS: usize = 8000;

    fn candidate(video: VideoId, source: &str) -> (VideoId, Candidate) {
        let score = vec![Score::new(0.25).unwrap(), Score::new(-1.5).unwrap()];
        let record = ScoreRecord::new(2, vec![ClassId(7)], vec![Cosine::new(0.5); 2], score);
        let candidate = Candidate {
            modality: Modality::Visual,
            source: source.into(),
            record: Arc::new(record),
            features: FeatureHash::of(&[0.5, video.0 as f32]),
        };
        (video, candidate)
    }

    /// A shard of four videos, of which two are in group 1, one in group 3 and one in group 0.
    fn shard() -> StagedShard {
        StagedShard {
            candidates: vec![
                candidate(VideoId(1 << 62), "a.npy"),
                candidate(VideoId(u64::MAX), "b.npy"),
                candidate(VideoId(3), "a.npy"),
                candidate(VideoId((1 << 62) + 1), "b.npy"),
            ],
            head: ShardHead {
                rejects: Vec::new(),
                unknown: UnknownVideos {
                    count: 1,
                    example: Some(("clip".into(), "a.parquet".into())),
                },
                segments: 8,
                group_bits: 0,
            },
        }
    }

    /// The candidates of each pass of a store with so many buckets.
    fn by_pass(stage: &Stage, buckets: u32) -> Result<Vec<Vec<(VideoId, Candidate)>>, LabelError> {
        let passes = Passes::in_tests(buckets);
        let of = |pass| {
            let mut found = Vec::new();
            stage.candidates("k", &pass, |video, own| found.push((video, own)))?;
            Ok(found)
        };
        passes.iter().map(of).collect()
    }

    #[test]
    fn each_pass_reads_its_own_candidates() {
        let folder = tempfile::tempdir().unwrap();
        let stage = Stage::open(&folder.path().join("stage")).unwrap();
        let mut kept = shard();
        stage.keep("k", &mut kept, VIDEOS).unwrap();
        assert_eq!(stage.check("k", VIDEOS), Some(kept.head.clone()));
        assert_eq!(stage.check("k", 1), None, "another number of groups");
        assert_eq!(stage.check("other", VIDEOS), None);
        let sorted: BTreeMap<VideoId, Candidate> = shard().candidates.into_iter().collect();
        let all: Vec<_> = sorted.into_iter().collect();
        for buckets in [1, 2, 4] {
            let found = by_pass(&stage, buckets).unwrap();
            assert_eq!(found.len(), buckets as usize);
            assert_eq!(found.concat(), all, "{buckets} buckets");
        }
        let four = by_pass(&stage, 4).unwrap();
        assert_eq!(four.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 0, 1]);
        stage.clear();
        assert!(!stage.has("k"));
    }

    #[test]
    fn a_damaged_byte_is_found_by_the_check_and_by_the_pass_that_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let stage = Stage::open(&folder.path().join("stage")).unwrap();
        stage.keep("k", &mut shard(), VIDEOS).unwrap();
        let path = stage.path("k");
        let bytes = fs::read(&path).unwrap();
        let whole = by_pass(&stage, 1).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert_eq!(stage.check("k", VIDEOS), None, "bit of byte {at} flipped");
            assert!(by_pass(&stage, 1).is_err(), "bit of byte {at} flipped");
            fs::write(&path, &bytes[..at]).unwrap();
            assert_eq!(stage.check("k", VIDEOS), None, "cut at {at}");
        }
        fs::write(&path, &bytes).unwrap();
        assert_eq!(by_pass(&stage, 1).unwrap(), whole);
        // Damage in the last section is of no concern to a pass of other sections.
        let mut damaged = bytes.clone();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(&path, &damaged).unwrap();
        let first = Passes::in_tests(2).iter().next().unwrap();
        stage.candidates("k", &first, |_, _| ()).unwrap();
        let error = by_pass(&stage, 2).unwrap_err();
        let told = crate::error::chain(&error);
        assert!(told.contains("k.scores") && told.contains("section 3"), "{told}");
    }
}
