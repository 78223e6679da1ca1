//! Accepts the connections of other processes, each in a thread of its own, so that a foreign program that connects and
//! sends nothing does not delay a process.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, unbounded};

use super::frame::First;
use super::secret::{Refusal, Secret, answer};

/// Pause between two checks for new connections.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest time for a new connection to complete the handshake.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Largest number of connections in their handshake. Further connections are closed.
const HANDSHAKES: usize = 64;

/// A connection that completed its handshake, or the reason why it did not.
pub(super) enum Visit {
    /// A process of the cluster, and its first message.
    Process(TcpStream, First),
    /// A program without the secret, for example a process that was started with another one.
    Refused(String),
}

/// Listens until it is dropped.
pub(super) struct Door {
    visits: Receiver<Visit>,
    open: Arc<AtomicBool>,
}

impl Door {
    /// Begins to accept connections from a listener that does not block.
    pub(super) fn new(listener: TcpListener, secret: &Secret) -> Door {
        let (to, visits) = unbounded();
        let open = Arc::new(AtomicBool::new(true));
        let (still, secret) = (open.clone(), secret.clone());
        let busy = Arc::new(AtomicUsize::new(0));
        std::thread::spawn(move || {
            while still.load(Ordering::Relaxed) {
                let Ok((mut stream, from)) = listener.accept() else {
                    std::thread::sleep(PAUSE);
                    continue;
                };
                if busy.fetch_add(1, Ordering::Relaxed) >= HANDSHAKES {
                    busy.fetch_sub(1, Ordering::Relaxed);
                    tracing::warn!(%from, "a connection was closed, because {HANDSHAKES} others are being checked");
                    continue;
                }
                let (to, secret, busy) = (to.clone(), secret.clone(), busy.clone());
                std::thread::spawn(move || {
                    let first = stream
                        .set_nonblocking(false)
                        .and_then(|()| stream.set_nodelay(true))
                        .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
                        .map_err(Refusal::from)
                        .and_then(|()| answer(&mut stream, &secret));
                    busy.fetch_sub(1, Ordering::Relaxed);
                    let visit = match first {
                        Ok(first) => Visit::Process(stream, first),
                        Err(Refusal::Secret) => {
                            let refused = format!(
                                "a connection from {from} was refused, because its secret differs from the secret of \
                                 this process"
                            );
                            tracing::warn!(
                                "{refused}: give every process the same --secret-file or VAPLAN_SECRET"
                            );
                            Visit::Refused(refused)
                        }
                        Err(Refusal::Broken(error)) => {
                            tracing::debug!(%from, %error, "a connection that is none of ours");
                            return;
                        }
                    };
                    // The send fails only if the door was dropped meanwhile.
                    let _ = to.send(visit);
                });
            }
        });
        Door { visits, open }
    }

    /// Waits for the next visit; `None` if none comes before `until`.
    pub(super) fn next(&self, until: Instant) -> Option<Visit> {
        self.visits.recv_deadline(until).ok()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.open.store(false, Ordering::Relaxed);
    }
}
