//! What the processes say to each other beside the dataflow.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vaplan_dataflows::VideoId;
use vaplan_schemas::Modality;
use vaplan_schemas::rows::RejectRow;

/// The first thing said on a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum First {
    /// To process 0, of its control link: who this is, and what it was asked.
    Hello {
        /// Index of who says it.
        process: usize,
        /// What must be the same for all, by what it is called.
        asked: BTreeMap<String, String>,
    },
    /// To any process, of its data link.
    Call {
        /// Index of who says it.
        process: usize,
        /// As in [`Frame::Welcome`].
        session: u64,
    },
}

/// What is said on a control link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Frame {
    /// All are there and were asked the same; a number that no other run has.
    Welcome(u64),
    /// This process is alive.
    Beat,
    /// Another process writes to the store.
    Waiting(String),
    /// Process 0 has the store: positions of the shards that this process reads.
    Go(Vec<u32>),
    /// The store holds the answer already.
    Held(u64),
    /// Something of what reading gave this process.
    ReadFrame(ReadFrame),
    /// All parts were said.
    Ended,
    /// The version, and how many rows it left out.
    Committed(u64, u64),
    /// The run ends, and why.
    Failed(String),
}

/// What reading gave a process beside the candidates; see [`Read`](crate::engine::score::Read).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReadFrame {
    pub(crate) rejects: Vec<RejectRow>,
    pub(crate) sources: Vec<(VideoId, Modality, Arc<str>)>,
    pub(crate) audio_visual: u64,
}

/// Bytes of the longest message that is taken: a stray connection must not make us ask for gigabytes.
const LONGEST: usize = 64 << 20;
/// What every message begins with; the last byte counts versions of this protocol.
const MAGIC: [u8; 4] = *b"vpl\x01";

/// Writes a message in one piece.
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
/// `UnexpectedEof` where the peer is gone, `InvalidData` for anything that is no message of ours.
pub(crate) fn read<M: DeserializeOwned>(from: &mut impl Read) -> io::Result<M> {
    let mut head = [0; 8];
    from.read_exact(&mut head)?;
    let (magic, length) = head.split_at(4);
    let length = length
        .iter()
        .fold(0, |value, &byte| value << 8 | usize::from(byte));
    if magic != MAGIC || length > LONGEST {
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
