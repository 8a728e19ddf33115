//! One question for many who want to know the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quarry_env::net::BoxFuture;
use tokio::sync::oneshot;

/// Asks again and again, one at a time, as long as somebody wants an answer. Cheap to clone.
///
/// Whoever comes while a question is under way waits for the next one, which serves all who have come until it begins: an
/// answer is to a question that was asked after its receiver came, unless that is not needed.
pub(super) struct Rounds<T> {
    ask: Arc<dyn Fn() -> BoxFuture<'static, T> + Send + Sync>,
    waiting: Arc<Mutex<Waiting<T>>>,
}

/// Who waits. The number is bounded by that of the requests that the server takes.
struct Waiting<T> {
    /// A task asks.
    asking: bool,
    /// For the answer to the question that is under way.
    now: Vec<oneshot::Sender<T>>,
    /// For that to the next one.
    next: Vec<oneshot::Sender<T>>,
}

/// Which question is good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// One that begins from here on.
    FromNow,
    /// One that is under way already, too.
    Before,
}

impl<T> Clone for Rounds<T> {
    fn clone(&self) -> Self {
        Rounds { ask: Arc::clone(&self.ask), waiting: Arc::clone(&self.waiting) }
    }
}

impl<T: Clone + Send + 'static> Rounds<T> {
    /// Over a question, which must end by itself.
    pub fn new(ask: impl Fn() -> BoxFuture<'static, T> + Send + Sync + 'static) -> Self {
        let waiting = Waiting { asking: false, now: Vec::new(), next: Vec::new() };
        Rounds { ask: Arc::new(ask), waiting: Arc::new(Mutex::new(waiting)) }
    }

    /// The answer; `None` when the process stops. Cancel-safe: the question goes on for the others.
    pub async fn answer(&self, begun: Begun) -> Option<T> {
        self.join(begun).await.ok()
    }

    /// Asks, unless that is under way. Nobody waits for it.
    pub fn begin(&self) {
        drop(self.join(Begun::Before));
    }

    fn join(&self, begun: Begun) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        if waiting.asking && begun == Begun::Before {
            waiting.now.push(sender);
        } else {
            waiting.next.push(sender);
        }
        if !std::mem::replace(&mut waiting.asking, true) {
            tokio::spawn(run(Arc::clone(&self.ask), Asking(Arc::clone(&self.waiting))));
        }
        receiver
    }
}

fn lock<T>(waiting: &Mutex<Waiting<T>>) -> MutexGuard<'_, Waiting<T>> {
    // Nothing under the lock panics half-way.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task that asks. Should it be ended from outside, those who wait hear of it, and the next one begins anew.
struct Asking<T>(Arc<Mutex<Waiting<T>>>);

impl<T> Drop for Asking<T> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.0);
        (waiting.asking, waiting.now, waiting.next) = (false, Vec::new(), Vec::new());
    }
}

impl<T> Asking<T> {
    /// Those who waited for the next question wait for this one. `false`: there is nobody, and this task is not needed.
    fn next(&self) -> bool {
        let mut waiting = lock(&self.0);
        waiting.now = std::mem::take(&mut waiting.next);
        waiting.asking = !waiting.now.is_empty();
        waiting.asking
    }
}

async fn run<T: Clone>(ask: Arc<dyn Fn() -> BoxFuture<'static, T> + Send + Sync>, asking: Asking<T>) {
    while asking.next() {
        let answer = ask().await;
        let waited = std::mem::take(&mut lock(&asking.0).now);
        for one in waited {
            // Who has gone needs no answer.
            let _gone = one.send(answer.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::FutureExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    /// Questions that are answered with their number, each once the test lets it.
    fn numbered() -> (Rounds<u32>, Arc<Semaphore>, Arc<AtomicU32>) {
        let (let_go, asked) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU32::new(0)));
        let (gate, count) = (Arc::clone(&let_go), Arc::clone(&asked));
        let rounds = Rounds::new(move || {
            let (gate, number) = (Arc::clone(&gate), count.fetch_add(1, Ordering::SeqCst) + 1);
            async move {
                gate.acquire().await.unwrap().forget();
                number
            }
            .boxed()
        });
        (rounds, let_go, asked)
    }

    /// Lets the task that asks come as far as it can.
    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn s4_who_comes_while_a_question_is_under_way_gets_the_answer_to_a_later_one() {
        let (rounds, let_go, asked) = numbered();
        let first = rounds.join(Begun::FromNow);
        settle().await;
        let later: Vec<_> = (0..50).map(|_| rounds.join(Begun::FromNow)).collect();
        let content = rounds.join(Begun::Before);
        settle().await;
        assert_eq!(asked.load(Ordering::SeqCst), 1, "one at a time");
        let_go.add_permits(1);
        assert_eq!((first.await, content.await), (Ok(1), Ok(1)));
        let_go.add_permits(1);
        for one in later {
            assert_eq!(one.await, Ok(2));
        }
        settle().await;
        assert_eq!(asked.load(Ordering::SeqCst), 2, "one question for all, and none when nobody wants to know");
        let_go.add_permits(1);
        assert_eq!(rounds.answer(Begun::FromNow).await, Some(3));
    }

    #[tokio::test]
    async fn a_question_goes_on_when_one_who_waits_has_gone_and_needs_nobody_to_begin() {
        let (rounds, let_go, asked) = numbered();
        rounds.begin();
        settle().await;
        rounds.begin();
        let_go.add_permits(1);
        settle().await;
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let (gone, stays) = (rounds.join(Begun::FromNow), rounds.join(Begun::FromNow));
        drop(gone);
        let_go.add_permits(1);
        assert_eq!(stays.await, Ok(2));
    }

    #[tokio::test]
    async fn a_question_that_panics_leaves_nobody_waiting() {
        let rounds: Rounds<u32> = Rounds::new(|| async { panic!("as a test") }.boxed());
        assert_eq!(rounds.answer(Begun::FromNow).await, None);
        assert_eq!(rounds.answer(Begun::FromNow).await, None);
    }
}
