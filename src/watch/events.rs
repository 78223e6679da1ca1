//! The events that wake a watch: a change of the inbox, a report of the training, the lock of the store, and a request
//! to stop.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vaplan_schemas::StoreError;
use vaplan_schemas::store::{Store, WriteLock};

use super::{WatchError, WatchProgress};

/// An event that wakes a watch.
#[derive(Debug)]
pub enum WatchEvent {
    /// Something appeared in the inbox, or the training has a report.
    Look,
    /// The thread of [`Events::lock`] has the lock of the store, or an error.
    Locked(Box<Result<WriteLock, StoreError>>),
    /// [`StopHandle::stop`] was called.
    Stop,
}

enum Message {
    Event(WatchEvent),
    Waiting(String),
}

/// Queue of the events. Other threads wait for the events and send them.
#[derive(Debug)]
pub struct Events {
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    stop: Arc<AtomicBool>,
    notified: bool,
    /// Whether an event [`WatchEvent::Look`] came while the watch waited for the lock of the store.
    changed: bool,
}

/// Handle that ends a watch, from any thread. Clones end the same watch.
///
/// The watch finishes a batch that it has begun to commit, and leaves every other delivery in the inbox.
#[derive(Clone, Debug, Default)]
pub struct StopHandle {
    stopped: Arc<AtomicBool>,
    wake: Arc<Mutex<Option<Sender<Message>>>>,
}

impl StopHandle {
    /// Ends the watch, even if it has not begun to listen yet.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        let wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*wake {
            // The send fails only if the watch has ended.
            drop(sender.send(Message::Event(WatchEvent::Stop)));
        }
    }

    fn listen(&self, sender: Sender<Message>) {
        *self.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Message::Event(event) => event.fmt(f),
            Message::Waiting(holder) => f.debug_tuple("Waiting").field(holder).finish(),
        }
    }
}

impl Events {
    /// Begins to listen to the inbox and to `stop`.
    pub fn start(inbox: &Path, stop: &StopHandle) -> Events {
        let (sender, receiver) = channel();
        stop.listen(sender.clone());
        let stop = stop.stopped.clone();
        let notified = match notify(inbox, sender.clone()) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(
                    "the system cannot report changes of the inbox, so `watch` looks every second: {error}"
                );
                false
            }
        };
        Events {
            sender,
            receiver,
            stop,
            notified,
            changed: false,
        }
    }

    /// Returns whether the system reports changes of the inbox.
    pub fn notified(&self) -> bool {
        self.notified
    }

    /// Returns a function that sends [`WatchEvent::Look`], so that the watch looks again.
    #[cfg(feature = "train")]
    pub fn waker(&self) -> impl Fn() + Send + 'static {
        let sender = self.sender.clone();
        // Sending fails only if the watch has ended.
        move || drop(sender.send(Message::Event(WatchEvent::Look)))
    }

    /// Returns whether the watch has to stop.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Waits for the next event, at most for the time `most`. Returns `None` if there was no event. Several changes of
    /// the inbox count as one event. An event that came while the watch waited for the lock is returned immediately.
    pub fn wait(&mut self, most: Duration) -> Option<WatchEvent> {
        if self.stopped() {
            return Some(WatchEvent::Stop);
        }
        if std::mem::take(&mut self.changed) {
            return Some(WatchEvent::Look);
        }
        let first = match self.receiver.recv_timeout(most) {
            Ok(Message::Event(event)) => event,
            Ok(Message::Waiting(_)) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return None;
            }
        };
        while let (WatchEvent::Look, Ok(next)) = (&first, self.receiver.try_recv()) {
            if let Message::Event(event @ WatchEvent::Stop) = next {
                return Some(event);
            }
        }
        Some(first)
    }

    /// Waits for the write lock of the store. Returns `None` if the watch has to stop before it has the lock.
    ///
    /// # Errors
    /// Returns the errors of [`Store::lock`].
    pub fn lock(
        &mut self,
        store: &Store,
        on_progress: &mut dyn FnMut(WatchProgress<'_>),
    ) -> Result<Option<WriteLock>, WatchError> {
        // An earlier wait may have taken the message to stop out of the queue, so look at the flag as well.
        if self.stopped() {
            return Ok(None);
        }
        let (store, sender) = (store.clone(), self.sender.clone());
        // A wait for a lock cannot be interrupted. The wait has a thread of its own, which is left behind if the watch
        // stops.
        std::thread::spawn(move || {
            let lock = store.lock(&mut |holder| drop(sender.send(Message::Waiting(holder.to_owned()))));
            drop(sender.send(Message::Event(WatchEvent::Locked(Box::new(lock)))));
        });
        // `self` holds a sender, so `recv` waits and does not fail.
        while let Ok(message) = self.receiver.recv() {
            match message {
                Message::Event(WatchEvent::Locked(lock)) => return Ok(Some((*lock)?)),
                Message::Event(WatchEvent::Stop) => return Ok(None),
                // The caller listed the inbox before it waited for the lock, so remember to look again.
                Message::Event(WatchEvent::Look) => self.changed = true,
                Message::Waiting(holder) => on_progress(WatchProgress::Waiting(holder)),
            }
        }
        Ok(None)
    }
}

#[cfg(target_os = "linux")]
fn notify(inbox: &Path, sender: Sender<Message>) -> std::io::Result<()> {
    use rustix::fs::inotify;
    let queue = inotify::init(inotify::CreateFlags::CLOEXEC)?;
    // A file that is written in place counts when it is closed. Deliveries should be renamed instead, so that they are
    // complete.
    let what =
        inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::ONLYDIR;
    inotify::add_watch(&queue, inbox, what)?;
    std::thread::Builder::new()
        .name("inbox".to_owned())
        .spawn(move || {
            let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(queue, &mut buffer);
            loop {
                match reader.next() {
                    Ok(_) if sender.send(Message::Event(WatchEvent::Look)).is_ok() => {}
                    Err(rustix::io::Errno::INTR) => {}
                    Ok(_) | Err(_) => return,
                }
            }
        })?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn notify(_inbox: &Path, _tell: Sender<Message>) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_while_the_store_was_waited_for_is_not_waited_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&folder.path().join("store")).unwrap();
        let (sender, receiver) = channel();
        let mut events = Events {
            sender: sender.clone(),
            receiver,
            stop: Arc::default(),
            notified: true,
            changed: false,
        };
        let nothing = Duration::from_millis(1);
        sender.send(Message::Event(WatchEvent::Look)).unwrap();
        let held = events.lock(&store, &mut |_| ()).unwrap();
        assert!(held.is_some());
        assert!(matches!(events.wait(nothing), Some(WatchEvent::Look)));
        assert!(events.wait(nothing).is_none(), "once");
        // Stop as a signal does, while another lock of the store is held.
        events.stop.store(true, Ordering::SeqCst);
        sender.send(Message::Event(WatchEvent::Stop)).unwrap();
        assert!(events.lock(&store, &mut |_| ()).unwrap().is_none());
        assert!(matches!(events.wait(nothing), Some(WatchEvent::Stop)));
    }
}
