//! Control links: each process has one link to process 0. Over it, the processes send heartbeats and report the
//! progress of the run.
//!
//! ```text
//! reader thread per link ─┐                  ┌─ frames, in order
//! data links ─────────────┼─ events ─ heed ──┤
//! workers that panic ─────┘                  └─ the error that ends the run
//! heartbeat thread ─ a heartbeat on every link
//! ```
//!
//! Process 0 tells all other processes why a run ends. Each process can then name the process that was lost first, and
//! not a process that gave up because of the loss.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, BufReader};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded, never, select, unbounded};

use super::frame::{self, Frame};
use super::hosts::Hosts;
use crate::engine::flow::Wait;
use crate::engine::score::lock;
use crate::error::LabelError;
use crate::error::cluster::ClusterError;

/// Time after a broken data link in which process 0 can report the cause. After this time, the process reports the
/// broken link itself.
const GRACE: Duration = Duration::from_secs(3);
/// Longest time that a process waits at its end for the other processes to close their links.
const FAREWELL: Duration = Duration::from_secs(2);

/// An event that a process handles while it works or waits.
pub(crate) enum ClusterEvent {
    /// A process sent a frame.
    Frame(usize, Frame),
    /// The control link to a process ended, and why.
    Lost(usize, String),
    /// The data link to a process ended too early, and why.
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
    /// The processes that sent their last frame, so that the end of their link is no error.
    done: BTreeSet<usize>,
    /// Whether the run has several steps, so that only [`Frame::Finished`] is its last frame.
    lasting: bool,
    /// The first data link that ended too early, and the end of the time in which process 0 can report the cause.
    broken: Option<(ClusterError, Receiver<Instant>)>,
}

impl Control {
    /// Makes the control links from connected sockets. Process 0 has one socket to every other process; every other
    /// process has one socket to process 0. A link on which nothing arrives for the time `silence` counts as lost.
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
                    // Ignore the error: if the link is broken, its reader thread reports that.
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
            done: BTreeSet::new(),
            lasting: false,
            broken: None,
        })
    }

    /// Returns a sender, with which other threads report events.
    pub(crate) fn sender(&self) -> Sender<ClusterEvent> {
        self.sender.clone()
    }

    /// Sends a frame to one process.
    pub(crate) fn say(&self, process: usize, frame: &Frame) {
        // Ignore the error: if the link is broken, its reader thread reports that.
        let _ = frame::write(&mut *lock(&self.writers[&process]), frame);
    }

    /// Sends a frame on every link.
    pub(crate) fn say_all(&self, frame: &Frame) {
        for process in self.writers.keys() {
            self.say(*process, frame);
        }
    }

    /// Returns a function that sends a frame on every link and that another thread can call.
    pub(crate) fn broadcaster(&self) -> impl Fn(&Frame) + Send + use<> {
        let writers: Vec<Writer> = self.writers.values().cloned().collect();
        move |frame| {
            for writer in &writers {
                let _ = frame::write(&mut *lock(writer), frame);
            }
        }
    }

    /// Runs `work` in a new thread, and handles events until it is done.
    ///
    /// If an event ends the run, the function returns the error and leaves the thread running; the thread ends with the
    /// process.
    pub(crate) fn during<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ClusterError> {
        let (done, result) = bounded(1);
        std::thread::spawn(move || {
            // The send fails only if the run ended meanwhile, so that no one needs the result.
            let _ = done.send(work());
        });
        self.wait(&result)?.ok_or(ClusterError::Panicked)
    }

    /// Waits for the next message of a thread of this process, and handles events until it comes. Returns `None` if the
    /// sender is gone.
    pub(crate) fn wait<T>(&mut self, from: &Receiver<T>) -> Result<Option<T>, ClusterError> {
        loop {
            let waited = self
                .broken
                .as_ref()
                .map_or_else(never, |(_, waited)| waited.clone());
            select! {
                recv(from) -> message => return Ok(message.ok()),
                recv(self.events) -> event => match event.expect("this holds a sender") {
                    ClusterEvent::Broken(process, why) => self.note_broken(process, why),
                    event => self.heed(event)?,
                },
                recv(waited) -> _ => if let Some((lost, _)) = self.broken.take() {
                    return Err(lost);
                },
            }
        }
    }

    /// Waits for the next frame from any process.
    pub(crate) fn next(&mut self) -> Result<(usize, Frame), ClusterError> {
        loop {
            if let Some(frame) = self.early.pop_front() {
                return Ok(frame);
            }
            let event = self.events.recv().expect("this holds a sender");
            self.heed(event)?;
        }
    }

    /// Like [`Control::next`], while a dataflow runs in other threads: a data link that breaks is an error, too.
    ///
    /// # Errors
    /// Returns [`ClusterError`] if a process failed or is lost.
    pub(crate) fn next_during(&mut self) -> Result<(usize, Frame), ClusterError> {
        loop {
            if let Some(frame) = self.early.pop_front() {
                return Ok(frame);
            }
            // `wait` would handle frames without returning them, so wait for the next event here.
            match self.events.recv_timeout(GRACE / 4) {
                Ok(ClusterEvent::Broken(process, why)) => self.note_broken(process, why),
                Ok(event) => self.heed(event)?,
                Err(_) => self.poll()?,
            }
        }
    }

    /// Says that the run has several steps, and ends with [`Frame::Finished`].
    pub(crate) fn lasts(&mut self) {
        self.lasting = true;
    }

    /// Handles the events until now, without waiting.
    ///
    /// # Errors
    /// Returns [`ClusterError`] if a process failed or is lost.
    pub(crate) fn poll(&mut self) -> Result<(), ClusterError> {
        while let Ok(event) = self.events.try_recv() {
            match event {
                ClusterEvent::Broken(process, why) => self.note_broken(process, why),
                event => self.heed(event)?,
            }
        }
        let grace_ended = |(_, waited): &(ClusterError, Receiver<Instant>)| waited.try_recv().is_ok();
        match self.broken.take_if(|broken| grace_ended(broken)) {
            Some((lost, _)) => Err(lost),
            None => Ok(()),
        }
    }

    fn note_broken(&mut self, process: usize, why: String) {
        let lost = ClusterError::Lost {
            peer: self.hosts.peer(process),
            why,
        };
        self.broken
            .get_or_insert((lost, crossbeam::channel::after(GRACE)));
    }

    fn heed(&mut self, event: ClusterEvent) -> Result<(), ClusterError> {
        match event {
            ClusterEvent::Frame(0, Frame::Failed(reason)) => Err(ClusterError::EndedByLeader(reason)),
            ClusterEvent::Frame(process, Frame::Failed(reason)) => Err(ClusterError::Failed {
                peer: self.hosts.peer(process),
                reason,
            }),
            ClusterEvent::Frame(process, frame) => {
                let last = match self.lasting {
                    true => matches!(frame, Frame::Finished(_)),
                    false => last(&frame),
                };
                if last {
                    self.done.insert(process);
                }
                self.early.push_back((process, frame));
                Ok(())
            }
            ClusterEvent::Lost(process, why) => {
                self.open.remove(&process);
                if self.done.contains(&process) {
                    return Ok(());
                }
                Err(ClusterError::Lost {
                    peer: self.hosts.peer(process),
                    why,
                })
            }
            // Broken data links matter only while a dataflow runs, and `wait` handles them there.
            ClusterEvent::Broken(..) => Ok(()),
            ClusterEvent::Panicked => Err(ClusterError::Panicked),
        }
    }

    /// Closes the links. Waits until the other processes have closed theirs, but at most for [`FAREWELL`], so that
    /// frames in flight are not lost.
    pub(crate) fn farewell(mut self) {
        for writer in self.writers.values() {
            // The call fails only if the peer has closed the link already.
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

impl Wait for Control {
    fn next<T>(&mut self, from: &Receiver<T>) -> Result<Option<T>, LabelError> {
        Ok(self.wait(from)?)
    }

    fn ends_after_error(&self) -> bool {
        // The threads of timely wait for the other processes, and end with this process.
        false
    }
}

/// Returns whether a process sends no other frame after this one.
fn last(frame: &Frame) -> bool {
    matches!(frame, Frame::Encoded(part) if part.last)
        || matches!(
            frame,
            Frame::Wrote(_) | Frame::WroteTracks(_) | Frame::Held(_) | Frame::Committed(..)
        )
}

/// Reads frames from a link and turns them into events, until the link ends.
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
