//! How the processes connect, and check that all were started with the same request, before any work begins.
//!
//! ```text
//! every process: listen at the address of its line in the hosts file
//!   └─ others ── Hello: index, request ──▶ process 0 ── all connected, all equal? ─┬─ Welcome ──▶ others
//!                                                                                  └─ Failed ───▶ others
//! every process: connect data links to lower indexes, accept data links from higher indexes
//! ```
//!
//! The start-up of timely itself (`networking.rs` in timely_communication 0.31) is not used. It waits without a time
//! limit, prints to standard output while it waits, panics if a foreign program connects, and authenticates nobody. Timely
//! gets the authenticated streams of this module instead (`initialize_networking_from_sockets`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::door::{Door, PATIENCE, Visit};
use super::frame::{self, First, Frame};
use super::secret::{self, Refusal, Secret};
use super::settings::ClusterSettings;
use crate::error::cluster::{ClusterError, Peer};

/// The values that must be equal in all processes, by name.
pub(crate) type RequestValues = BTreeMap<String, String>;

/// The largest number of characters of a value in a message, and of equal characters before those that differ.
const MOST: usize = 300;
const EQUAL: usize = 60;

/// Pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);

/// The connections of this process after all processes have met.
pub(crate) struct ClusterConnections {
    /// Control links. Process 0 has one to every other process; every other process has one to process 0.
    pub(crate) control: BTreeMap<usize, TcpStream>,
    door: Door,
    settings: ClusterSettings,
    pub(crate) session: u64,
}

/// Waits until all processes are connected, and checks that all have equal requests.
///
/// # Errors
/// Returns [`ClusterError`] if a process does not connect within `timeout`, or requests differ. All processes that
/// connected fail with the same message. A process with another secret fails with [`ClusterError::Secret`].
pub(crate) fn meet(
    settings: &ClusterSettings,
    asked: RequestValues,
) -> Result<ClusterConnections, ClusterError> {
    let (hosts, timeout) = (&settings.hosts, settings.timeout);
    let here = hosts.here();
    let bind = settings.bind.as_deref().unwrap_or(&here.address);
    let listener = TcpListener::bind(bind).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    let listener = listener.map_err(|source| ClusterError::Listen {
        bind: settings.bind.clone(),
        here: hosts.here(),
        source,
    })?;
    let door = Door::new(listener, &settings.secret);
    let until = Instant::now() + timeout;
    let (control, session) = if hosts.process() == 0 {
        let session = rand::random();
        (receive(settings, &door, &asked, until, session)?, session)
    } else {
        let (leader, session) = report(settings, asked, until)?;
        (BTreeMap::from([(0, leader)]), session)
    };
    Ok(ClusterConnections {
        control,
        door,
        settings: settings.clone(),
        session,
    })
}

/// In process 0: receives the hellos of all other processes, and answers them.
fn receive(
    settings: &ClusterSettings,
    door: &Door,
    asked: &RequestValues,
    until: Instant,
    session: u64,
) -> Result<BTreeMap<usize, TcpStream>, ClusterError> {
    let (hosts, mut refused) = (&settings.hosts, None);
    let mut came: BTreeMap<usize, TcpStream> = BTreeMap::new();
    let mut differ: BTreeMap<usize, String> = BTreeMap::new();
    let mut failure = None;
    while failure.is_none() && came.len() + 1 < hosts.processes() {
        let (stream, process, theirs) = match door.next(until) {
            Some(Visit::Process(
                stream,
                First::Hello {
                    process,
                    asked: theirs,
                },
            )) => (stream, process, theirs),
            Some(Visit::Refused(why)) => {
                refused = Some(why);
                continue;
            }
            Some(Visit::Process(..)) => continue,
            None => {
                let missing = (1..hosts.processes()).filter(|process| !came.contains_key(process));
                failure = Some(absent(settings, missing, refused.take()));
                continue;
            }
        };
        if process == 0 || process >= hosts.processes() {
            // The hosts file of the sender differs from the hosts file of this process.
            let peer = Peer {
                process,
                address: "of another hosts file".to_owned(),
            };
            let failed = ClusterError::Differ(differences(&peer, &theirs, asked));
            answer(&stream, &Frame::Failed(failed.to_string()));
            failure = Some(failed);
            continue;
        }
        let differing = differences(&hosts.peer(process), &theirs, asked);
        // Overwrite the differences of an earlier process with this index: a process that was started again with an
        // equal request repairs them.
        differ.insert(process, differing);
        if let Some(first) = came.insert(process, stream)
            && !gone(&first)
        {
            let twice = ClusterError::Twice(hosts.peer(process));
            answer(&first, &Frame::Failed(twice.to_string()));
            failure = Some(twice);
        }
    }
    differ.retain(|_, differing| !differing.is_empty());
    if !differ.is_empty() {
        let differing: Vec<String> = differ.into_values().collect();
        failure = Some(ClusterError::Differ(differing.join("; ")));
    }
    let frame = match &failure {
        Some(failure) => Frame::Failed(failure.to_string()),
        None => Frame::Welcome(session),
    };
    came.values().for_each(|stream| answer(stream, &frame));
    failure.map_or(Ok(came), Err)
}

/// In all other processes: sends a hello to process 0, and waits for its answer.
fn report(
    settings: &ClusterSettings,
    asked: RequestValues,
    until: Instant,
) -> Result<(TcpStream, u64), ClusterError> {
    let (hosts, timeout) = (&settings.hosts, settings.timeout);
    let hello = First::Hello {
        process: hosts.process(),
        asked,
    };
    let leader = hosts.peer(0);
    let lost = |why: String| ClusterError::Lost {
        peer: leader.clone(),
        why,
    };
    let mut stream = loop {
        match connect(&leader.address, &settings.secret, &hello) {
            Ok(stream) => break stream,
            Err(Refusal::Secret) => return Err(ClusterError::Secret { peer: leader }),
            Err(Refusal::Broken(error)) if Instant::now() >= until => {
                return Err(ClusterError::Absent {
                    who: leader.to_string(),
                    seconds: timeout.as_secs(),
                    last: Some(broken(&error)),
                });
            }
            Err(Refusal::Broken(_)) => std::thread::sleep(PAUSE),
        }
    };
    // Process 0 answers when all processes have connected, or when its own timeout ends, so wait a little longer than
    // that.
    let answered = stream
        .set_read_timeout(Some(timeout + PATIENCE))
        .and_then(|()| frame::read(&mut stream));
    match answered {
        Ok(Frame::Welcome(session)) => Ok((stream, session)),
        Ok(Frame::Failed(why)) => Err(ClusterError::EndedByLeader(why)),
        Ok(other) => Err(lost(format!("it said {other:?}, expected Welcome"))),
        Err(error) => Err(lost(broken(&error))),
    }
}

/// What ended a connection before the processes have met.
fn broken(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the program at this address closed the connection".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "nothing at this address answers".to_owned(),
        _ => error.to_string(),
    }
}

impl ClusterConnections {
    /// Connects the data links of a dataflow to all other processes. The entry of this process is `None`. Every dataflow has
    /// links of its own, because timely closes them when the dataflow ends.
    ///
    /// # Errors
    /// Returns [`ClusterError::Lost`] if a process does not accept the connection, [`ClusterError::Absent`] if a
    /// process does not connect in time, and [`ClusterError::Listen`] if a socket option cannot be set.
    pub(crate) fn data_links(&self, dataflow: u64) -> Result<Vec<Option<TcpStream>>, ClusterError> {
        let hosts = &self.settings.hosts;
        let (here, processes) = (hosts.process(), hosts.processes());
        let until = Instant::now() + self.settings.timeout;
        let mut links: Vec<Option<TcpStream>> = (0..processes).map(|_| None).collect();
        for (process, link) in links.iter_mut().enumerate().take(here) {
            let peer = hosts.peer(process);
            let call = First::Call {
                process: here,
                session: self.session,
                dataflow,
            };
            // The peer listens already, because every process listens before it sends its hello.
            let called = connect(&peer.address, &self.settings.secret, &call);
            *link = Some(called.map_err(|refusal| match refusal {
                Refusal::Secret => ClusterError::Secret { peer },
                Refusal::Broken(error) => ClusterError::Lost {
                    peer,
                    why: format!("no data connection: {}", broken(&error)),
                },
            })?);
        }
        while let Some(missing) = (here + 1..processes).find(|&process| links[process].is_none()) {
            match self.door.next(until) {
                Some(Visit::Process(
                    stream,
                    First::Call {
                        process,
                        session,
                        dataflow: theirs,
                    },
                )) if session == self.session && theirs == dataflow => {
                    if process > here && process < processes {
                        links[process].get_or_insert(stream);
                    }
                }
                Some(_) => {}
                None => return Err(absent(&self.settings, [missing], None)),
            }
        }
        for stream in links.iter().flatten() {
            let plain = stream
                .set_read_timeout(None)
                .and_then(|()| stream.set_nodelay(true));
            plain.map_err(|source| ClusterError::Listen {
                bind: None,
                here: hosts.here(),
                source,
            })?;
        }
        Ok(links)
    }
}

/// Resolves the name, connects to the first of its addresses that answers, and sends the first message in a handshake.
fn connect(address: &str, secret: &Secret, first: &First) -> Result<TcpStream, Refusal> {
    let mut stream = reach(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    secret::call(&mut stream, secret, first)?;
    Ok(stream)
}

fn reach(address: &str) -> io::Result<TcpStream> {
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
    // Ignore the error: if the process is lost, its control link reports that.
    let _ = frame::write(&mut stream, frame);
}

/// Returns whether the peer has closed the connection.
fn gone(stream: &TcpStream) -> bool {
    let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    // A peer sends nothing between its hello and the answer, so data to read can only be the end of the stream.
    !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

fn absent(
    settings: &ClusterSettings,
    missing: impl IntoIterator<Item = usize>,
    last: Option<String>,
) -> ClusterError {
    let (hosts, timeout) = (&settings.hosts, settings.timeout);
    let who: Vec<String> = missing
        .into_iter()
        .map(|process| hosts.peer(process).to_string())
        .collect();
    ClusterError::Absent {
        who: who.join(", "),
        seconds: timeout.as_secs(),
        last,
    }
}

/// Describes in which values `theirs` differs from `ours`, the values of process 0. Empty if all values are equal.
fn differences(peer: &Peer, theirs: &RequestValues, ours: &RequestValues) -> String {
    const NONE: &str = "nothing";
    let mut differing = String::new();
    let names = ours
        .keys()
        .chain(theirs.keys().filter(|name| !ours.contains_key(*name)));
    for name in names {
        let (their, our) = (theirs.get(name), ours.get(name));
        if their != our {
            let say = |value: Option<&String>, other: Option<&String>| {
                value.map_or(NONE.to_owned(), |value| {
                    short(value, other.map_or("", |other| other))
                })
            };
            let comma = if differing.is_empty() { "" } else { ", " };
            write!(
                differing,
                "{comma}{name} ({}, process 0 has {})",
                say(their, our),
                say(our, their)
            )
            .expect("a String takes everything");
        }
    }
    if differing.is_empty() {
        return differing;
    }
    format!("{peer} differs in {differing}")
}

/// Shortens a hash to its first 12 characters. Any other value keeps at most [`MOST`] characters, and no more than [`EQUAL`] before
/// the first one in which it differs from `other`.
fn short(value: &str, other: &str) -> String {
    if value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return value[..12].to_owned();
    }
    let equal = value.chars().zip(other.chars()).take_while(|(a, b)| a == b);
    let first = match equal.count().saturating_sub(EQUAL) {
        _ if value.chars().count() <= MOST => 0,
        first => first,
    };
    let kept: String = value.chars().skip(first).take(MOST).collect();
    let before = if first > 0 { "..." } else { "" };
    let after = if value.chars().count() > first + MOST {
        "..."
    } else {
        ""
    };
    format!("{before}{kept}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_each_thing_and_both_values() {
        let asked = |pairs: &[(&str, &str)]| -> RequestValues {
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
            ("features", &"0123456789abcdef".repeat(4)),
            ("hosts", "a:1,b:2"),
        ]);
        assert_eq!(differences(&peer, &ours, &ours), "");
        let theirs = asked(&[
            ("splits", "train"),
            ("workers", "3"),
            ("features", &"0123456789abcdee".repeat(4)),
            ("hosts", "a:1,b:3"),
            ("x", "y"),
        ]);
        assert_eq!(
            differences(&peer, &theirs, &ours),
            "process 1 (b:2) differs in features (0123456789ab, process 0 has 0123456789ab), \
             hosts (a:1,b:3, process 0 has a:1,b:2), workers (3, process 0 has 2), x (y, process 0 has nothing)"
        );
        // Long lists of hosts are shown from where they differ.
        let hosts = |last: &str| format!("{}{last}:2101", "node:2101,".repeat(100));
        let shown = short(&hosts("ä"), &hosts("b"));
        assert_eq!(shown, format!("...{}ä:2101", "node:2101,".repeat(6)));
        assert_eq!(short(&hosts("b"), ""), format!("{}...", &hosts("b")[..MOST]));
    }
}
