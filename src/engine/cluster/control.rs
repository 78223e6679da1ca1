//! Control links: a star around process 0, on which processes show that they are alive and tell how the run goes.
//!
//! ```text
//! reader thread per link ─┐                  ┌─ frames, in order
//! data links ─────────────┼─ events ─ heed ──┤
//! workers that panic ─────┘                  └─ the error that ends the run
//! beat thread ─ a beat on every link
//! ```
//!
//! Process 0 tells all others why a run ends, so that each names the process that was lost and not one that gave up
//! because of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, BufReader};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded, never, select, unbounded};

use super::frame::{self, Frame};
use super::hosts::Hosts;
use crate::engine::score::lock;
use crate::error::cluster::ClusterError;

/// How long process 0 has to say why before a broken data link is an error of its own.
const GRACE: Duration = Duration::from_secs(3);
/// How long the end of a run waits for the others to have heard of it.
const FAREWELL: Duration = Duration::from_secs(2);

/// What happens beside the work.
pub(crate) enum ClusterEvent {
    /// A process said something.
    Frame(usize, Frame),
    /// A control link ended, and how.
    Lost(usize, String),
    /// A data link ended too soon, and how.
    Broken(usize, String),
    /// A worker of this process panicked.
    Panicked,
}

type Writer = Arc<Mutex<TcpStream>>;

/// The control links of this process.
pub(crate) struct Control {
    hosts: Hosts,
    writers: BTreeMap<usize, Writer>,
    sender: Sender<ClusterEvent>,
    events: Receiver<ClusterEvent>,
    early: VecDeque<(usize, Frame)>,
    open: BTreeSet<usize>,
    /// Processes that owe nothing more: their end is no loss.
    settled: BTreeSet<usize>,
}

impl Control {
    /// Of connected sockets: to all others in process 0, to process 0 in the others. A link without a sign of life
    /// for `silence` counts as lost.
    pub(crate) fn new(
        hosts: &Hosts,
        streams: BTreeMap<usize, TcpStream>,
        silence: Duration,
    ) -> io::Result<Control> {
        let (sender, events) = unbounded();
        let mut writers = BTreeMap::new();
        for (&process, stream) in &streams {
            stream.set_read_timeout(Some(silence))?;
            stream.set_write_timeout(Some(silence))?;
            let (reader, to) = (BufReader::new(stream.try_clone()?), sender.clone());
            std::thread::spawn(move || listen(process, reader, &to, silence));
            writers.insert(process, Arc::new(Mutex::new(stream.try_clone()?)));
        }
        let beating: Vec<_> = writers.values().map(Arc::downgrade).collect();
        let every = (silence / 5).min(Duration::from_secs(1));
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(every);
                let writers: Vec<Writer> = beating.iter().filter_map(|writer| writer.upgrade()).collect();
                if writers.is_empty() {
                    return;
                }
                for writer in writers {
                    // A link that cannot be written to is told by its reader.
                    let _ = frame::write(&mut *lock(&writer), &Frame::Beat);
                }
            }
        });
        Ok(Control {
            hosts: hosts.clone(),
            open: writers.keys().copied().collect(),
            writers,
            sender,
            events,
            early: VecDeque::new(),
            settled: BTreeSet::new(),
        })
    }

    /// Where others tell what happens.
    pub(crate) fn sender(&self) -> Sender<ClusterEvent> {
        self.sender.clone()
    }

    /// Says something to one process.
    pub(crate) fn say(&self, process: usize, frame: &Frame) {
        // A link that cannot be written to is told by its reader.
        let _ = frame::write(&mut *lock(&self.writers[&process]), frame);
    }

    /// Says something on every link.
    pub(crate) fn say_all(&self, frame: &Frame) {
        for process in self.writers.keys() {
            self.say(*process, frame);
        }
    }

    /// Says something on every link, from another thread.
    pub(crate) fn teller(&self) -> impl Fn(&Frame) + Send + use<> {
        let writers: Vec<Writer> = self.writers.values().cloned().collect();
        move |frame| {
            for writer in &writers {
                let _ = frame::write(&mut *lock(writer), frame);
            }
        }
    }

    /// Nothing more is expected of a process.
    pub(crate) fn settle(&mut self, process: usize) {
        self.settled.insert(process);
    }

    /// Does work in a thread of its own, and gives it up when the run ends meanwhile: the thread then goes with the
    /// process.
    pub(crate) fn during<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ClusterError> {
        let (done, result) = bounded(1);
        std::thread::spawn(move || {
            // Nobody listens where the run ended meanwhile.
            let _ = done.send(work());
        });
        let mut broken: Option<(ClusterError, Receiver<Instant>)> = None;
        loop {
            let waited = broken.as_ref().map_or_else(never, |(_, waited)| waited.clone());
            select! {
                recv(result) -> value => return value.map_err(|_| ClusterError::Panicked),
                recv(self.events) -> event => match event.expect("this holds a sender") {
                    ClusterEvent::Broken(process, why) => {
                        let lost = ClusterError::Lost { peer: self.hosts.peer(process), why };
                        broken.get_or_insert((lost, crossbeam::channel::after(GRACE)));
                    }
                    event => self.heed(event)?,
                },
                recv(waited) -> _ => if let Some((lost, _)) = broken {
                    return Err(lost);
                },
            }
        }
    }

    /// The next thing that a process says.
    pub(crate) fn next(&mut self) -> Result<(usize, Frame), ClusterError> {
        loop {
            if let Some(frame) = self.early.pop_front() {
                return Ok(frame);
            }
            let event = self.events.recv().expect("this holds a sender");
            self.heed(event)?;
        }
    }

    fn heed(&mut self, event: ClusterEvent) -> Result<(), ClusterError> {
        match event {
            ClusterEvent::Frame(0, Frame::Failed(reason)) => Err(ClusterError::Told(reason)),
            ClusterEvent::Frame(process, Frame::Failed(reason)) => Err(ClusterError::Failed {
                peer: self.hosts.peer(process),
                reason,
            }),
            ClusterEvent::Frame(process, frame) => {
                self.early.push_back((process, frame));
                Ok(())
            }
            ClusterEvent::Lost(process, why) => {
                self.open.remove(&process);
                // What it said before it ended is still to be heard.
                if self.settled.contains(&process)
                    || self.early.iter().any(|(by, frame)| *by == process && last(frame))
                {
                    return Ok(());
                }
                Err(ClusterError::Lost {
                    peer: self.hosts.peer(process),
                    why,
                })
            }
            // Only the dataflow needs the data links.
            ClusterEvent::Broken(..) => Ok(()),
            ClusterEvent::Panicked => Err(ClusterError::Panicked),
        }
    }

    /// Ends the links, when the others have heard all that was said or a moment has passed.
    pub(crate) fn farewell(mut self) {
        for writer in self.writers.values() {
            // Fails where the peer has closed already.
            let _ = lock(writer).shutdown(Shutdown::Write);
        }
        let until = Instant::now() + FAREWELL;
        while !self.open.is_empty() {
            match self.events.recv_deadline(until) {
                Ok(ClusterEvent::Lost(process, _)) => drop(self.open.remove(&process)),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }
}

/// Is it the last thing that a process says?
fn last(frame: &Frame) -> bool {
    matches!(frame, Frame::Ended | Frame::Held(_) | Frame::Committed(..))
}

/// Turns a link into events, to its end.
fn listen(process: usize, mut reader: BufReader<TcpStream>, to: &Sender<ClusterEvent>, silence: Duration) {
    loop {
        let event = match frame::read(&mut reader) {
            Ok(Frame::Beat) => continue,
            Ok(frame) => ClusterEvent::Frame(process, frame),
            Err(error) => ClusterEvent::Lost(
                process,
                match error.kind() {
                    io::ErrorKind::UnexpectedEof => "its connection closed".to_owned(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                        format!("no sign of life for {} s", silence.as_secs())
                    }
                    _ => format!("its connection broke: {error}"),
                },
            ),
        };
        let ended = matches!(event, ClusterEvent::Lost(..));
        if to.send(event).is_err() || ended {
            return;
        }
    }
}
