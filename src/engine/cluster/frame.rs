//! The messages that the processes exchange besides the data of the dataflow.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use vaplan_schemas::Modality;
use vaplan_schemas::rows::RejectRow;
use vaplan_schemas::store::PartFiles;

use crate::engine::commit::PassTotals;
use crate::engine::group::TracksOfVersion;
use crate::engine::passes::Passes;
use crate::engine::plan::DenoisingState;
use crate::engine::score::ReadReport;
use crate::engine::tracks::TrackCounts;

/// The first message of a process, which it sends in the handshake of a connection (see [`secret`](super::secret)).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum First {
    /// Opens a control link to process 0: tells who the sender is, and with which request it was started.
    Hello {
        /// Index of the sending process.
        process: usize,
        /// The values that must be equal in all processes, by name.
        asked: BTreeMap<String, String>,
    },
    /// Opens a data link to another process.
    Call {
        /// Index of the sending process.
        process: usize,
        /// The number of [`Frame::Welcome`], so that a process of another run is not taken for a peer.
        session: u64,
        /// Which dataflow of the run the link is for, counted from 0.
        dataflow: u64,
    },
}

/// A message on a control link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Frame {
    /// All processes are connected and have equal requests. The random number identifies this run.
    Welcome(u64),
    /// A heartbeat: the sender is alive.
    Beat,
    /// Process 0 waits, because a process outside the cluster holds the write lock of the store. The text names it.
    Waiting(String),
    /// Process 0 holds the write lock, and the receiver can begin.
    Go(Go),
    /// The store already has the labels of exactly this request, in this version.
    Held(u64),
    /// A part of the report of the files that the sender read.
    Report(ReadReport),
    /// The sender has staged its shards and has sent all parts of its report.
    Staged,
    /// All processes have staged their shards, and process 0 has begun the commit. All processes label these passes.
    Passes(PassesOfVersion),
    /// Process 0 holds the write lock and has begun a commit of tracks. All processes label the tracks of their buckets.
    Tracks(TracksOfVersion),
    /// The sender predicted this number of videos.
    Predicted(u64),
    /// Process 0 has begun the commit of an epoch. The receiver writes its predictions.
    Record(RecordedEpoch),
    /// The receiver encodes these groups of media.
    Encode(Vec<u32>),
    /// A part of what the sender encoded.
    Encoded(EncodedPart),
    /// The sender has labelled the tracks of its buckets, and has written and synced these buckets.
    WroteTracks(Box<(TrackCounts, PartFiles)>),
    /// The sender has labelled, written and synced its part of all passes. Reports with its rejected rows came before.
    Wrote(Box<WrittenPart>),
    /// Process 0 starts a graph that stays in memory. The receiver runs its workers of the graph.
    Graph {
        /// Whether a learner is in the graph.
        learning: bool,
        /// The number of workers of process 0.
        workers: u32,
    },
    /// The graph that stays in memory has ended.
    GraphEnded,
    /// The run of several steps has ended. The version is the latest one.
    Finished(u64),
    /// Process 0 has committed this version. The second number is the number of rejected rows.
    Committed(u64, u64),
    /// The run ends with an error, for this reason.
    Failed(String),
}

/// The share of a process in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Go {
    /// The version before; `None` if the run makes the first version.
    pub(crate) before: Option<u64>,
    /// Hash of the plan of process 0. The plan of every process must have the same hash.
    pub(crate) plan: String,
    /// Positions in the plan of the shards that the receiver reads.
    pub(crate) shards: Vec<u32>,
    /// The denoising rules and the predictions that count.
    pub(crate) denoised: DenoisingState,
}

/// An epoch of predictions that is being committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordedEpoch {
    pub(crate) version: u64,
    pub(crate) buckets: u32,
    pub(crate) epoch: u64,
}

/// A part of what a process encoded. The embeddings are in the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EncodedPart {
    /// Position of a video in the list of media, modality, and key in the cache.
    pub(crate) keys: Vec<(u32, Modality, String)>,
    pub(crate) rejects: Vec<RejectRow>,
    /// Number of segments and of batches.
    pub(crate) encoded: u64,
    pub(crate) batches: u64,
    /// Whether this is the last part of the sender.
    pub(crate) last: bool,
}

/// The passes of a run, and the version that the run makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PassesOfVersion {
    pub(crate) passes: Passes,
    pub(crate) buckets: u32,
    pub(crate) version: u64,
}

/// The part of a version that a process wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WrittenPart {
    /// Counts, without the rejected rows.
    pub(crate) totals: PassTotals,
    /// Names and statistics of the data files.
    pub(crate) files: PartFiles,
}

/// Largest length of a message: 64 MiB. Without a limit, a connection from a foreign program could make this process
/// allocate gigabytes.
const LONGEST: usize = 64 << 20;
/// Largest length of a message before the sender has proved that it knows the secret: 1 MiB.
const LONGEST_SHORT: usize = 1 << 20;
/// The first bytes of every message. The last byte is the version of this protocol.
const MAGIC: [u8; 4] = *b"vpl\x05";

/// Writes a message with a single `write_all`.
pub(crate) fn write(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(8 + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&body);
    to.write_all(&bytes)
}

/// Reads a message.
///
/// # Errors
/// Returns `UnexpectedEof` if the peer has closed the connection, and `InvalidData` if the bytes are not a message of
/// this version of the protocol.
pub(crate) fn read<M: DeserializeOwned>(from: &mut impl Read) -> io::Result<M> {
    read_most(from, LONGEST)
}

/// Reads a message of a sender that has not proved yet that it knows the secret.
///
/// # Errors
/// Returns the errors of [`read`], for a shorter limit of the length.
pub(crate) fn read_short<M: DeserializeOwned>(from: &mut impl Read) -> io::Result<M> {
    read_most(from, LONGEST_SHORT)
}

fn read_most<M: DeserializeOwned>(from: &mut impl Read, longest: usize) -> io::Result<M> {
    let mut head = [0; 8];
    from.read_exact(&mut head)?;
    let (magic, length) = head.split_at(4);
    let length = length
        .iter()
        .fold(0, |value, &byte| value << 8 | usize::from(byte));
    if magic != MAGIC || length > longest {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "its first bytes are not of this version of vaplan",
        ));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    postcard::from_bytes(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_back_and_strangers_are_refused() {
        let hello = First::Hello {
            process: 2,
            asked: BTreeMap::from([("workers".to_owned(), "4".to_owned())]),
        };
        let mut bytes = Vec::new();
        write(&mut bytes, &hello).unwrap();
        assert_eq!(read::<First>(&mut &bytes[..]).unwrap(), hello);
        for cut in 0..bytes.len() {
            let error = read::<First>(&mut &bytes[..cut]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "cut at {cut}");
        }
        for stranger in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"vpl\x01\xff\xff\xff\xff........"] {
            let error = read::<First>(&mut &stranger[..]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
