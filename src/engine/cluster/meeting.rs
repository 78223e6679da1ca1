//! How the processes find each other and agree on what is asked, before any work.
//!
//! ```text
//! each: listen at its own line
//!   └─ others ── Hello: index, what is asked ──▶ process 0 ── all there, all the same? ─┬─ Welcome ──▶ others
//!                                                                                        └─ why not ─▶ others
//! each: data links to those before it, from those after it
//! ```
//!
//! timely's own way (`networking.rs` in timely_communication 0.31) waits without end, prints to standard output while
//! it does, and panics at a stranger's connection.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::frame::{self, First, Frame};
use super::hosts::Hosts;
use crate::error::cluster::{ClusterError, Peer};

/// What must be the same for all, by what it is called.
pub(crate) type Asked = BTreeMap<String, String>;

/// Between attempts to connect, or looks for who came.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a connection has to say who it is, and one attempt to connect.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process among the others.
pub(crate) struct Meeting {
    /// Control links: to all others in process 0, to process 0 in the others.
    pub(crate) control: BTreeMap<usize, TcpStream>,
    listener: TcpListener,
    hosts: Hosts,
    pub(crate) session: u64,
    timeout: Duration,
}

/// Waits until all processes are there, and sees that all were asked the same.
///
/// # Errors
/// [`ClusterError`]; the same for all processes that came.
pub(crate) fn meet(hosts: &Hosts, asked: Asked, timeout: Duration) -> Result<Meeting, ClusterError> {
    let here = hosts.here();
    let listener = TcpListener::bind(&*here.address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    let listener = listener.map_err(|source| ClusterError::Listen { here, source })?;
    let until = Instant::now() + timeout;
    let (control, session) = if hosts.process() == 0 {
        let session = rand::random();
        (
            receive(hosts, &listener, &asked, until, timeout, session)?,
            session,
        )
    } else {
        let (leader, session) = report(hosts, asked, until, timeout)?;
        (BTreeMap::from([(0, leader)]), session)
    };
    Ok(Meeting {
        control,
        listener,
        hosts: hosts.clone(),
        session,
        timeout,
    })
}

/// Process 0: takes the hellos of all others and answers them.
fn receive(
    hosts: &Hosts,
    listener: &TcpListener,
    asked: &Asked,
    until: Instant,
    timeout: Duration,
    session: u64,
) -> Result<BTreeMap<usize, TcpStream>, ClusterError> {
    let mut came: BTreeMap<usize, TcpStream> = BTreeMap::new();
    let mut differ: BTreeMap<usize, String> = BTreeMap::new();
    let mut failure = None;
    while failure.is_none() && came.len() + 1 < hosts.processes() {
        let stranger = match accept(listener, until) {
            Some(Ok((
                stream,
                First::Hello {
                    process,
                    asked: theirs,
                },
            ))) => Some((stream, process, theirs)),
            Some(_) => None,
            None => {
                failure = Some(absent(
                    hosts,
                    (1..hosts.processes()).filter(|p| !came.contains_key(p)),
                    timeout,
                ));
                None
            }
        };
        let Some((stream, process, theirs)) = stranger else {
            continue;
        };
        if process == 0 || process >= hosts.processes() {
            // Its hosts file has more lines than ours.
            let peer = Peer {
                process,
                address: "of another hosts file".to_owned(),
            };
            let failed = ClusterError::Differ(differences(&peer, &theirs, asked));
            answer(&stream, &Frame::Failed(failed.to_string()));
            failure = Some(failed);
            continue;
        }
        let told = differences(&hosts.peer(process), &theirs, asked);
        // One that was started again, and right, mends it.
        differ.insert(process, told);
        if let Some(first) = came.insert(process, stream)
            && !gone(&first)
        {
            let twice = ClusterError::Twice(hosts.peer(process));
            answer(&first, &Frame::Failed(twice.to_string()));
            failure = Some(twice);
        }
    }
    differ.retain(|_, told| !told.is_empty());
    if !differ.is_empty() {
        let told: Vec<String> = differ.into_values().collect();
        failure = Some(ClusterError::Differ(told.join("; ")));
    }
    let frame = match &failure {
        Some(failure) => Frame::Failed(failure.to_string()),
        None => Frame::Welcome(session),
    };
    came.values().for_each(|stream| answer(stream, &frame));
    failure.map_or(Ok(came), Err)
}

/// All others: say hello to process 0 and hear what it says.
fn report(
    hosts: &Hosts,
    asked: Asked,
    until: Instant,
    timeout: Duration,
) -> Result<(TcpStream, u64), ClusterError> {
    let leader = hosts.peer(0);
    let lost = |why: String| ClusterError::Lost {
        peer: leader.clone(),
        why,
    };
    let mut stream = loop {
        match connect(&leader.address) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() >= until => {
                return Err(ClusterError::Absent {
                    who: leader.to_string(),
                    seconds: timeout.as_secs(),
                    last: Some(error.to_string()),
                });
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    };
    let hello = First::Hello {
        process: hosts.process(),
        asked,
    };
    // It waits for the others as long as it was told to, from when it started.
    let answered = stream
        .set_read_timeout(Some(timeout + PATIENCE))
        .and_then(|()| frame::write(&mut stream, &hello))
        .and_then(|()| frame::read(&mut stream));
    match answered {
        Ok(Frame::Welcome(session)) => Ok((stream, session)),
        Ok(Frame::Failed(why)) => Err(ClusterError::Told(why)),
        Ok(other) => Err(lost(format!("it said {other:?}, expected Welcome"))),
        Err(error) => Err(lost(error.to_string())),
    }
}

impl Meeting {
    /// Connects the data links: none to this process itself.
    ///
    /// # Errors
    /// [`ClusterError::Lost`], [`ClusterError::Absent`].
    pub(crate) fn data_links(self) -> Result<Vec<Option<TcpStream>>, ClusterError> {
        let (here, processes) = (self.hosts.process(), self.hosts.processes());
        let until = Instant::now() + self.timeout;
        let mut links: Vec<Option<TcpStream>> = (0..processes).map(|_| None).collect();
        for (process, link) in links.iter_mut().enumerate().take(here) {
            let peer = self.hosts.peer(process);
            let call = First::Call {
                process: here,
                session: self.session,
            };
            // It listens since before it said hello.
            let called = connect(&peer.address).and_then(|mut stream| {
                frame::write(&mut stream, &call)?;
                Ok(stream)
            });
            *link = Some(called.map_err(|error| ClusterError::Lost {
                peer,
                why: format!("no data connection: {error}"),
            })?);
        }
        while let Some(missing) = (here + 1..processes).find(|&process| links[process].is_none()) {
            match accept(&self.listener, until) {
                Some(Ok((stream, First::Call { process, session }))) if session == self.session => {
                    if process > here && process < processes {
                        links[process].get_or_insert(stream);
                    }
                }
                Some(_) => {}
                None => return Err(absent(&self.hosts, [missing], self.timeout)),
            }
        }
        for stream in links.iter().flatten() {
            let plain = stream
                .set_read_timeout(None)
                .and_then(|()| stream.set_nodelay(true));
            plain.map_err(|source| ClusterError::Listen {
                here: self.hosts.here(),
                source,
            })?;
        }
        Ok(links)
    }
}

/// The next connection, and what it says first; none: the time is over.
fn accept(listener: &TcpListener, until: Instant) -> Option<io::Result<(TcpStream, First)>> {
    loop {
        match listener.accept() {
            Ok((mut stream, from)) => {
                let first = stream
                    .set_nonblocking(false)
                    .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
                    .and_then(|()| frame::read(&mut stream));
                if let Err(error) = &first {
                    tracing::debug!(%from, %error, "a connection that is none of ours");
                }
                return Some(first.map(|first| (stream, first)));
            }
            Err(_) if Instant::now() >= until => return None,
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Connects to the first of a name's addresses that answers.
fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn answer(mut stream: &TcpStream, frame: &Frame) {
    // Where it is gone, its link will tell.
    let _ = frame::write(&mut stream, frame);
}

/// Has the other end closed?
fn gone(stream: &TcpStream) -> bool {
    let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    // It has nothing to say before it is answered.
    !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn absent(hosts: &Hosts, missing: impl IntoIterator<Item = usize>, timeout: Duration) -> ClusterError {
    let who: Vec<String> = missing
        .into_iter()
        .map(|process| hosts.peer(process).to_string())
        .collect();
    ClusterError::Absent {
        who: who.join(", "),
        seconds: timeout.as_secs(),
        last: None,
    }
}

/// In what `theirs` differs from `ours`, that of process 0; empty where it does not.
fn differences(peer: &Peer, theirs: &Asked, ours: &Asked) -> String {
    const NONE: &str = "nothing";
    let mut told = String::new();
    let names = ours
        .keys()
        .chain(theirs.keys().filter(|name| !ours.contains_key(*name)));
    for name in names {
        let (their, our) = (theirs.get(name), ours.get(name));
        if their != our {
            let say = |value: Option<&String>| value.map_or(NONE.to_owned(), |value| short(value).to_owned());
            let comma = if told.is_empty() { "" } else { ", " };
            write!(told, "{comma}{name} ({}, process 0 has {})", say(their), say(our))
                .expect("a String takes everything");
        }
    }
    if told.is_empty() {
        return told;
    }
    format!("{peer} differs in {told}")
}

/// Enough of a hash to tell two apart.
fn short(value: &str) -> &str {
    value.get(..12).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_each_thing_and_both_values() {
        let asked = |pairs: &[(&str, &str)]| -> Asked {
            pairs
                .iter()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        };
        let peer = Peer {
            process: 1,
            address: "b:2".to_owned(),
        };
        let ours = asked(&[
            ("splits", "train"),
            ("workers", "2"),
            ("features", "0123456789abcdef"),
        ]);
        assert_eq!(differences(&peer, &ours, &ours), "");
        let theirs = asked(&[
            ("splits", "train"),
            ("workers", "3"),
            ("features", "0123456789abcdee"),
            ("x", "y"),
        ]);
        assert_eq!(
            differences(&peer, &theirs, &ours),
            "process 1 (b:2) differs in features (0123456789ab, process 0 has 0123456789ab), \
             workers (3, process 0 has 2), x (y, process 0 has nothing)"
        );
    }
}
