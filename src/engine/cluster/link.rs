//! Data links: what timely's threads read from and write to instead of a bare socket.
//!
//! Where a peer goes away, timely 0.31's receive thread panics (`tcp_panic` in `zero_copy/tcp.rs`), which panics the
//! workers, and joining the rest of the threads may wait for ever for a third process that waits for us. Here it is
//! told instead, once, and the thread that noticed sleeps until the process ends: whoever waits for the run hears it
//! and gives up.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use crossbeam::channel::Sender;
use vaplan_dataflows::timely::communication::allocator::zero_copy::stream::Stream;

use super::control::ClusterEvent;

/// A socket to one peer that tells when the peer is gone.
pub(crate) struct Link {
    stream: TcpStream,
    peer: usize,
    events: Sender<ClusterEvent>,
    messages: Messages,
}

impl Link {
    /// To the process `peer`.
    pub(crate) fn new(stream: TcpStream, peer: usize, events: Sender<ClusterEvent>) -> Link {
        Link {
            stream,
            peer,
            events,
            messages: Messages::default(),
        }
    }

    /// Tells that the link broke; does not return.
    fn broken(&self, why: String) -> ! {
        // Nobody listens: the run is over.
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
            // Reset after its end: all was read.
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
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl Stream for Link {
    fn try_clone(&self) -> io::Result<Link> {
        let stream = self.stream.try_clone()?;
        Ok(Link::new(stream, self.peer, self.events.clone()))
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.stream.set_nonblocking(nonblocking)
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        // Fails where the peer has closed already: it wants nothing more.
        let _ = self.stream.shutdown(how);
        Ok(())
    }
}

/// Follows timely's messages through a stream of bytes, to know a clean end from a cut.
///
/// Source: `MessageHeader` in timely_communication 0.31, `networking.rs`: six big-endian u64, the fifth the length of
/// what follows; a message of length 0 is the last.
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
