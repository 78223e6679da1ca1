//! Data links: the streams that the threads of timely read and write instead of plain sockets.
//!
//! If a peer disappears, the receive thread of timely 0.31 panics (`tcp_panic` in `zero_copy/tcp.rs`), and then the
//! workers panic. Joining the remaining threads can then hang, because a third process may wait for this process.
//!
//! A data link avoids this panic. The thread that notices the loss sends [`ClusterEvent::Broken`] and then sleeps until
//! the process ends. [`Control::during`](super::control::Control::during) receives the event and returns an error.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::channel::Sender;
use vaplan_dataflows::timely::communication::allocator::zero_copy::stream::Stream;

use super::control::ClusterEvent;

/// The number of bytes that were sent on the data links of this process.
#[derive(Debug, Default)]
pub(crate) struct LinkTraffic(AtomicU64);

impl LinkTraffic {
    /// The number of bytes so far.
    pub(crate) fn sent(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A socket to one peer that reports when the peer is lost.
pub(crate) struct Link {
    stream: TcpStream,
    peer: usize,
    events: Sender<ClusterEvent>,
    messages: Messages,
    traffic: Arc<LinkTraffic>,
}

impl Link {
    /// Makes the link to process `peer`.
    pub(crate) fn new(
        stream: TcpStream,
        peer: usize,
        events: Sender<ClusterEvent>,
        traffic: Arc<LinkTraffic>,
    ) -> Link {
        Link {
            traffic,
            stream,
            peer,
            events,
            messages: Messages::default(),
        }
    }

    /// Reports that the link broke, and then sleeps until the process ends.
    fn broken(&self, why: String) -> ! {
        // The send fails only if the run is over, so that no one receives events any more.
        let _ = self.events.send(ClusterEvent::Broken(self.peer, why));
        loop {
            std::thread::park();
        }
    }
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(buffer) {
            Ok(0) if self.messages.ended => Ok(0),
            Ok(0) => self.broken("its data connection closed".to_owned()),
            Ok(read) => {
                self.messages.see(&buffer[..read]);
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.read(buffer),
            // The peer reset the connection after its last message, so all data was read.
            Err(_) if self.messages.ended => Ok(0),
            Err(error) => self.broken(format!("its data connection broke: {error}")),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.write(bytes),
            Err(error) => self.broken(format!("its data connection broke: {error}")),
            Ok(written) => {
                self.traffic.0.fetch_add(written as u64, Ordering::Relaxed);
                Ok(written)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Stream for Link {
    fn try_clone(&self) -> io::Result<Link> {
        let stream = self.stream.try_clone()?;
        Ok(Link::new(
            stream,
            self.peer,
            self.events.clone(),
            self.traffic.clone(),
        ))
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.stream.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        // The call fails only if the peer has closed the connection already, and then the peer needs no more data.
        let _ = self.stream.shutdown(how);
        Ok(())
    }
}

/// Follows the messages of timely in a stream of bytes, to tell a clean end from a broken connection.
///
/// Source: `MessageHeader` in `networking.rs` of timely_communication 0.31. A header has six big-endian u64; the fifth
/// is the length of the body that follows. A message of length 0 is the last message.
#[derive(Debug)]
struct Messages {
    header: [u8; HEADER],
    have: usize,
    skip: u64,
    ended: bool,
}

const HEADER: usize = 48;

impl Default for Messages {
    fn default() -> Messages {
        Messages {
            header: [0; HEADER],
            have: 0,
            skip: 0,
            ended: false,
        }
    }
}

impl Messages {
    fn see(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let step = self.skip.min(bytes.len() as u64);
                self.skip -= step;
                bytes = &bytes[step as usize..];
                continue;
            }
            let step = (HEADER - self.have).min(bytes.len());
            self.header[self.have..self.have + step].copy_from_slice(&bytes[..step]);
            self.have += step;
            bytes = &bytes[step..];
            if self.have == HEADER {
                self.have = 0;
                let length = self.header[32..40].iter();
                self.skip = length.fold(0, |value, &byte| value << 8 | u64::from(byte));
                self.ended |= self.skip == 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use vaplan_dataflows::timely::communication::networking::MessageHeader;

    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let header = MessageHeader {
            channel: 3,
            source: 1,
            target_lower: 0,
            target_upper: 1,
            length,
            seqno: 9,
        };
        let mut bytes = Vec::new();
        header.write_to(&mut bytes).unwrap();
        bytes.resize(bytes.len() + length, 0);
        bytes
    }

    #[test]
    fn only_timelys_last_message_is_an_end_however_the_bytes_are_cut() {
        let mut bytes = [message(5), message(300), message(1)].concat();
        let before = bytes.len();
        bytes.extend(message(0));
        for step in 1..=bytes.len() {
            let mut messages = Messages::default();
            let mut seen = 0;
            for piece in bytes.chunks(step) {
                messages.see(piece);
                seen += piece.len();
                assert_eq!(
                    messages.ended,
                    seen == bytes.len(),
                    "{seen} bytes in steps of {step}"
                );
            }
        }
        let mut cut = Messages::default();
        cut.see(&bytes[..before]);
        assert!(!cut.ended);
    }
}
