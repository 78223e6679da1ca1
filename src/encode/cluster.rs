//! Encodes media as one of several processes.
//!
//! ```text
//! process 0    lock ─ deals groups of media out by size ─┬─ encodes its share ──┬─ refreshes the cache ─ writes features
//! others                                                 └─ encode their shares ┘
//!                                                             └─ batches ─▶ cache, on the file system that all see
//! ```
//!
//! Each process has its own sessions. A share has whole groups, so that the batches, and with them the last bits of the
//! embeddings, are those of a single process.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use vaplan_schemas::Modality;

use super::cache::Cache;
use super::error::EncodeError;
use super::flow::{self, EncodeResults, EncodeThreads};
use super::media::{Media, Pictures};
use super::operator::SessionPool;
use super::plan::EncodePlan;
use super::read::{GROUP, Reading, SharedMedia};
use super::run::{EncodeListener, EncodeProgress, EncodeRequest, EncodeSummary, locked, reading, sessions};
use crate::engine::cluster::frame::{EncodedPart, Frame};
use crate::engine::cluster::meeting::RequestValues;
use crate::engine::cluster::member::ClusterMember;
use crate::engine::cluster::settings::ClusterSettings;
use crate::engine::flow::Alone;
use crate::error::LabelError;
use crate::error::cluster::ClusterError;

/// The largest number of keys and of rejected rows in one message.
const ROWS: usize = 4096;
/// The file of the output folder by which processes recognise that they see the same folder.
const SEAL: &str = ".cluster";

/// The result of a process of a cluster.
#[derive(Clone, Debug)]
pub enum EncodeOutcome {
    /// This process wrote the features.
    Led(Box<EncodeSummary>),
    /// Process 0 wrote the features.
    Followed {
        /// Number of segments that this process encoded.
        encoded: u64,
        /// Number of rejected rows of all processes.
        rejects: u64,
    },
}

/// Encodes a request as one of several processes. All processes must get the same request.
///
/// A failed run leaves threads that wait, so the process must end after an error.
///
/// # Errors
/// Returns the same errors as [`run`](super::run::run), and [`EncodeError::Label`] if the processes do not meet in time,
/// have different requests or secrets, or lose a process.
pub fn run(
    request: &EncodeRequest,
    settings: &ClusterSettings,
    listener: &EncodeListener,
) -> Result<EncodeOutcome, EncodeError> {
    let plan = EncodePlan::open(request)?;
    let asked = RequestValues::from([("media, models and settings".to_owned(), plan.name.clone())]);
    let mut member = ClusterMember::join(settings, asked).map_err(LabelError::from)?;
    let outcome = match member.leads() {
        true => lead(request, &mut member, listener),
        false => follow(request, plan, &mut member, listener),
    };
    if let Err(error) = &outcome {
        member.fail(&crate::error::chain(error), is_of_cluster(error));
    }
    member.leave();
    outcome
}

fn lead(
    request: &EncodeRequest,
    member: &mut ClusterMember,
    listener: &EncodeListener,
) -> Result<EncodeOutcome, EncodeError> {
    let (summary, _lock) = locked(request, None, member, listener)?;
    member
        .control
        .say_all(&Frame::Committed(0, summary.left_out() as u64));
    // If the file stays, it takes a few bytes, and the next run replaces it.
    let _ = fs::remove_file(request.out.join(SEAL));
    Ok(EncodeOutcome::Led(Box::new(summary)))
}

fn follow(
    request: &EncodeRequest,
    plan: EncodePlan,
    member: &mut ClusterMember,
    listener: &EncodeListener,
) -> Result<EncodeOutcome, EncodeError> {
    let groups = match member.control.next().map_err(LabelError::from)? {
        (_, Frame::Encode(groups)) => groups,
        (process, frame) => return Err(member.unexpected(process, &frame).into()),
    };
    if fs::read_to_string(request.out.join(SEAL)).unwrap_or_default() != member.session() {
        return Err(LabelError::from(member.elsewhere(request.out.clone())).into());
    }
    let (open, sessions) = sessions(request, &plan.models)?;
    let cache = Arc::new(Cache::open(&request.cache_folder())?);
    let work = EncodeWork {
        reading: reading(request, &open),
        pool: SessionPool::start(sessions, &cache),
        cache,
        media: Arc::new(plan.media),
        threads: request.threads,
        listener: listener.clone(),
    };
    let results = member.control.during(move || work.share(groups));
    let results = results.map_err(LabelError::from)??;
    let encoded = results.encoded;
    for part in parts(results) {
        member.control.say(0, &Frame::Encoded(part));
    }
    match member.control.next().map_err(LabelError::from)? {
        (_, Frame::Committed(_, rejects)) => Ok(EncodeOutcome::Followed { encoded, rejects }),
        (process, frame) => Err(member.unexpected(process, &frame).into()),
    }
}

/// Media to encode, and what encodes them.
pub(super) struct EncodeWork {
    pub(super) reading: Reading,
    pub(super) cache: Arc<Cache>,
    pub(super) media: SharedMedia,
    pub(super) pool: SessionPool,
    pub(super) threads: EncodeThreads,
    pub(super) listener: EncodeListener,
}

impl EncodeWork {
    fn all(self) -> Result<EncodeResults, EncodeError> {
        flow::run(
            self.reading,
            &self.cache,
            &self.media,
            self.pool,
            self.threads,
            &self.listener,
        )
    }

    /// Encodes some groups of the media. The keys of the results have the positions in the list of all media.
    fn share(mut self, groups: Vec<u32>) -> Result<EncodeResults, EncodeError> {
        let all = self.media.clone();
        let positions: Vec<usize> = groups
            .iter()
            .flat_map(|group| {
                let first = *group as usize * GROUP;
                first..(first + GROUP).min(all.len())
            })
            .collect();
        self.media = Arc::new(positions.iter().map(|at| all[*at].clone()).collect());
        // A process reports the progress of its share.
        (self.listener)(EncodeProgress::Planned {
            videos: positions.len() as u64,
        });
        let mut results = self.all()?;
        let keys = std::mem::take(&mut results.keys).into_iter();
        results.keys = keys
            .map(|((at, modality), key)| ((positions[at], modality), key))
            .collect();
        Ok(results)
    }
}

/// The processes that encode together, as the process that writes the features sees them.
pub(super) trait EncodeGroup {
    /// Encodes all media. All embeddings are in the cache afterwards.
    fn encode(&mut self, work: EncodeWork, out: &Path) -> Result<EncodeResults, EncodeError>;
}

impl EncodeGroup for Alone {
    fn encode(&mut self, work: EncodeWork, _out: &Path) -> Result<EncodeResults, EncodeError> {
        work.all()
    }
}

impl EncodeGroup for ClusterMember {
    fn encode(&mut self, work: EncodeWork, out: &Path) -> Result<EncodeResults, EncodeError> {
        let seal = out.join(SEAL);
        fs::write(&seal, self.session()).map_err(EncodeError::write("write", &seal))?;
        let processes = self.hosts().processes();
        let mut shares = deal(&work.media, processes);
        for (process, share) in shares.iter().enumerate().skip(1) {
            self.control.say(process, &Frame::Encode(share.clone()));
        }
        let own = std::mem::take(&mut shares[0]);
        let cache = work.cache.clone();
        let results = self.control.during(move || work.share(own));
        let mut results = results.map_err(LabelError::from)??;
        let mut missing = processes - 1;
        while missing > 0 {
            match self.control.next().map_err(LabelError::from)? {
                (_, Frame::Encoded(part)) => {
                    missing -= usize::from(part.last);
                    add(&mut results, part);
                }
                (process, frame) => return Err(self.unexpected(process, &frame).into()),
            }
        }
        results.rejects.sort();
        results.rejects.dedup();
        cache.refresh()?;
        Ok(results)
    }
}

/// Divides results into messages.
fn parts(results: EncodeResults) -> Vec<EncodedPart> {
    let keys: Vec<(u32, Modality, String)> = results
        .keys
        .into_iter()
        .map(|((at, modality), key)| (at as u32, modality, key))
        .collect();
    let mut parts: Vec<EncodedPart> = keys
        .chunks(ROWS)
        .map(|keys| EncodedPart {
            keys: keys.to_vec(),
            ..EncodedPart::default()
        })
        .collect();
    parts.extend(results.rejects.chunks(ROWS).map(|rejects| EncodedPart {
        rejects: rejects.to_vec(),
        ..EncodedPart::default()
    }));
    parts.push(EncodedPart {
        encoded: results.encoded,
        batches: results.batches,
        last: true,
        ..EncodedPart::default()
    });
    parts
}

fn add(results: &mut EncodeResults, part: EncodedPart) {
    let keys = part.keys.into_iter();
    results
        .keys
        .extend(keys.map(|(at, modality, key)| ((at as usize, modality), key)));
    results.rejects.extend(part.rejects);
    results.encoded += part.encoded;
    results.batches += part.batches;
}

/// Deals groups of media out to processes, the largest group first, each to the process with the least to do. The groups of
/// a share ascend.
fn deal(media: &[Media], processes: usize) -> Vec<Vec<u32>> {
    let sizes = media
        .chunks(GROUP)
        .map(|group| group.iter().map(size).sum::<u64>());
    let mut groups: Vec<(u64, u32)> = sizes.zip(0..).collect();
    groups.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut shares = vec![(0_u64, Vec::new()); processes];
    for (size, group) in groups {
        let least = shares
            .iter_mut()
            .min_by_key(|(load, groups)| (*load, groups.len()));
        let (load, groups) = least.expect("there is at least one process");
        *load += size;
        groups.push(group);
    }
    let shares = shares.into_iter().map(|(_, mut groups)| {
        groups.sort_unstable();
        groups
    });
    shares.collect()
}

/// The size of the files of a video in bytes; 0 for files that cannot be read, which become rejected rows later.
fn size(media: &Media) -> u64 {
    let of_file = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
    let pictures = match &media.pictures {
        Some(Pictures::Video(path)) => of_file(path),
        Some(Pictures::Frames(folder)) => {
            let frames = fs::read_dir(folder).into_iter().flatten().flatten();
            frames.map(|frame| of_file(&frame.path())).sum()
        }
        None => 0,
    };
    pictures + media.sound.as_deref().map_or(0, of_file)
}

/// Whether the text of the error names the process that failed.
fn is_of_cluster(error: &EncodeError) -> bool {
    let named = |error: &ClusterError| {
        matches!(
            error,
            ClusterError::Lost { .. } | ClusterError::Failed { .. } | ClusterError::Absent { .. }
        )
    };
    matches!(error, EncodeError::Label(LabelError::Cluster(error)) if named(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_is_dealt_once_and_shares_have_about_equal_sizes() {
        let folder = tempfile::tempdir().unwrap();
        let media: Vec<Media> = (0..GROUP * 20 + 3)
            .map(|nth| {
                let sound = folder.path().join(format!("{nth:04}.wav"));
                fs::write(&sound, vec![0; 1 + nth % 97]).unwrap();
                Media {
                    name: format!("{nth}").into(),
                    pictures: None,
                    sound: Some(sound),
                    ambiguous: false,
                }
            })
            .collect();
        for processes in 1..5 {
            let shares = deal(&media, processes);
            let mut all = shares.concat();
            all.sort_unstable();
            assert_eq!(all, (0..21).collect::<Vec<u32>>());
            assert!(shares.iter().all(|share| share.is_sorted()));
            let load = |share: &Vec<u32>| -> u64 {
                let groups = share.iter().map(|group| *group as usize * GROUP);
                let of = groups.flat_map(|first| first..(first + GROUP).min(media.len()));
                of.map(|at| size(&media[at])).sum()
            };
            let loads: Vec<u64> = shares.iter().map(load).collect();
            let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            assert!(most - least < 1_000, "{loads:?}");
        }
    }
}
