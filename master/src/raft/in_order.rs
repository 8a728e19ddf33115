//! A channel of the last value, whose receivers are woken in the order in which they began to wait.

use std::{
    ops::Deref,
    pin::pin,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use openraft_rt::{
    OptionalSend, OptionalSync,
    watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender},
};
use tokio::sync::Notify;

/// See the module.
pub(crate) struct InOrder;

struct Shared<T> {
    /// The value, and how often it was changed.
    value: RwLock<(u64, T)>,
    changed: Notify,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

impl<T> Shared<T> {
    fn read(&self) -> RwLockReadGuard<'_, (u64, T)> {
        // The value is whole also where whoever changed it panicked.
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those who wait when `change` says that it changed the value.
    fn change(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let changed = {
            let mut value = self.value.write().unwrap_or_else(PoisonError::into_inner);
            let changed = change(&mut value.1);
            value.0 += u64::from(changed);
            changed
        };
        if changed {
            self.changed.notify_waiters();
        }
        changed
    }
}

/// Keeps the value locked for reading.
pub(crate) struct Ref<'a, T>(RwLockReadGuard<'a, (u64, T)>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.1
    }
}

/// Changes the value.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::AcqRel);
        Sender(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

/// Waits for changes.
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Receiver<T> {
    fn new(shared: &Arc<Shared<T>>, seen: u64) -> Self {
        shared.receivers.fetch_add(1, Ordering::AcqRel);
        Receiver { shared: Arc::clone(shared), seen }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Receiver::new(&self.shared, self.seen)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Watch for InOrder {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let (senders, receivers) = (AtomicUsize::new(1), AtomicUsize::new(0));
        let shared = Arc::new(Shared { value: RwLock::new((0, init)), changed: Notify::new(), senders, receivers });
        let receiver = Receiver::new(&shared, 0);
        (Sender(shared), receiver)
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<InOrder, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.receivers.load(Ordering::Acquire) == 0 {
            return Err(SendError(value));
        }
        self.0.change(|old| {
            *old = value;
            true
        });
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.0.change(modify)
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        Ref(self.0.read())
    }

    fn subscribe(&self) -> Receiver<T> {
        let seen = self.0.read().0;
        Receiver::new(&self.0, seen)
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<InOrder, T> for Receiver<T> {
    /// Cancel-safe.
    async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            let mut woken = pin!(self.shared.changed.notified());
            // It waits from here on: a change between the look and the wait is not missed.
            woken.as_mut().enable();
            // Asked first: what the last sender sent before it went is still told.
            let no_sender = self.shared.senders.load(Ordering::Acquire) == 0;
            let is = self.shared.read().0;
            if is != self.seen {
                self.seen = is;
                return Ok(());
            }
            if no_sender {
                return Err(RecvError(()));
            }
            woken.await;
        }
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        Ref(self.shared.read())
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.read();
        self.seen = value.0;
        Ref(value)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_are_woken_in_the_order_in_which_they_came() {
        const WAITING: usize = 32;
        let (sender, receiver) = InOrder::channel(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for n in 0..WAITING {
            let (mut receiver, woken) = (receiver.clone(), Arc::clone(&woken));
            tasks.push(tokio::spawn(async move {
                receiver.changed().await.unwrap();
                woken.lock().unwrap().push(n);
            }));
        }
        // One thread takes them in turn: until all of them wait.
        for _ in 0..=WAITING {
            tokio::task::yield_now().await;
        }
        sender.send(1).unwrap();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*woken.lock().unwrap(), (0..WAITING).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn who_waits_when_the_last_sender_goes_is_told() {
        let (sender, mut receiver) = InOrder::channel(0);
        let other = sender.clone();
        let waits = tokio::spawn(async move { (receiver.changed().await, receiver.changed().await) });
        other.send(1).unwrap();
        drop((sender, other));
        assert_eq!(waits.await.unwrap(), (Ok(()), Err(RecvError(()))));
    }
}
