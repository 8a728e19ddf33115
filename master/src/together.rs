//! Short pieces of blocking work, several in one turn of a thread: handing one over to a thread and back costs more than most look-ups
//! take.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use quarry_env::{
    Blocking,
    blocking::{Job, JobLost},
};
use tokio::sync::oneshot;

/// Threads at once. Look-ups may wait for a disk, and not all of them for each other.
const THREADS_MAX: usize = 8;
/// While some thread is at work, another one begins for so many pieces that wait.
const WORTH_A_THREAD: usize = 4;

/// Work that waits for its turn. Nothing else bounds it here: each piece belongs to a request, and those are bounded.
#[derive(Default)]
pub struct Together {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    threads: usize,
}

impl Together {
    /// Runs `work` in a thread of `blocking`, behind what waits already. What waits when its future is dropped is not done.
    ///
    /// # Errors
    /// [`JobLost`].
    pub async fn run<T: Send + 'static>(
        &self,
        blocking: &dyn Blocking,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobLost> {
        let (tx, rx) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Who went away while it waited does not want it any more.
            if !tx.is_closed() {
                let _gone = tx.send(work());
            }
        });
        if let Some(turn) = self.add(job) {
            // It runs to its end whether or not somebody waits for that.
            drop(blocking.run_job(Box::new(move || turn.run())));
        }
        rx.await.map_err(|_| JobLost)
    }

    /// Adds work; a turn to be run, if it takes another thread.
    fn add(&self, job: Job) -> Option<Turn> {
        let mut queue = lock(&self.queue);
        queue.waiting.push_back(job);
        let idle = queue.threads == 0;
        let worth = queue.threads < THREADS_MAX && queue.waiting.len() >= WORTH_A_THREAD;
        if !idle && !worth {
            return None;
        }
        queue.threads += 1;
        Some(Turn { queue: Arc::clone(&self.queue), ended: false })
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thread's turn: it ends when nothing waits.
struct Turn {
    queue: Arc<Mutex<Queue>>,
    ended: bool,
}

impl Turn {
    fn run(mut self) {
        while let Some(job) = self.next() {
            // The panic has been logged, and whoever waited learns of it by the lost result; the others' work goes on.
            let _panicked = catch_unwind(AssertUnwindSafe(job));
        }
    }

    /// The end is noted under the lock under which nothing was found: work that comes next begins a turn of its own.
    fn next(&mut self) -> Option<Job> {
        let mut queue = lock(&self.queue);
        let job = queue.waiting.pop_front();
        if job.is_none() {
            self.ended = true;
            queue.threads -= 1;
        }
        job
    }
}

impl Drop for Turn {
    /// If it was never run, the process is shutting down, and nobody waits for what it would have done.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut queue = lock(&self.queue);
        queue.threads -= 1;
        let lost = if queue.threads == 0 { std::mem::take(&mut queue.waiting) } else { VecDeque::new() };
        drop(queue);
        drop(lost);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Barrier, mpsc},
        time::Duration,
    };

    use quarry_env::{World, clock::timeout, kv::NoKv, net::BoxFuture};

    use super::*;

    /// Threads of the test's own.
    struct Threads;

    #[expect(clippy::disallowed_methods, reason = "it stands for where the ban points to")]
    impl Blocking for Threads {
        fn run_job(&self, job: Job) -> BoxFuture<'static, ()> {
            std::thread::spawn(job);
            Box::pin(std::future::ready(()))
        }
    }

    /// A process that is shutting down.
    struct Gone;

    impl Blocking for Gone {
        fn run_job(&self, job: Job) -> BoxFuture<'static, ()> {
            drop(job);
            Box::pin(std::future::ready(()))
        }
    }

    #[tokio::test]
    async fn all_work_is_done_and_few_threads_do_it() {
        let together = Together::default();
        let (most, threads) = (Arc::new(Mutex::new(0)), Arc::clone(&together.queue));
        let work = (0..1000_u32).map(|n| {
            let (most, threads) = (Arc::clone(&most), Arc::clone(&threads));
            together.run(&Threads, move || {
                let mut most = most.lock().unwrap();
                *most = (*most).max(lock(&threads).threads);
                n
            })
        });
        let done = futures::future::join_all(work).await;
        assert_eq!(done, (0..1000).map(Ok).collect::<Vec<_>>());
        let most = *most.lock().unwrap();
        assert!((1..=THREADS_MAX).contains(&most), "{most}");
        // A result is sent before its thread looks once more and ends its turn.
        let all_ended = async {
            while lock(&together.queue).threads > 0 {
                tokio::task::yield_now().await;
            }
        };
        let clock = World::real(Arc::new(NoKv)).clock;
        timeout(&*clock, Duration::from_secs(10), all_ended).await.unwrap();
    }

    #[tokio::test]
    async fn what_waits_long_does_not_hold_up_all_others() {
        let together = Together::default();
        let (held, go_on) = (Arc::new(Barrier::new(2)), mpsc::channel::<()>());
        let (tx, rx) = go_on;
        let theirs = Arc::clone(&held);
        let slow = together.run(&Threads, move || {
            theirs.wait();
            rx.recv().is_err()
        });
        let others = async {
            held.wait();
            futures::future::join_all((0..WORTH_A_THREAD).map(|n| together.run(&Threads, move || n))).await
        };
        let (slow, ()) = futures::join!(slow, async {
            let done = others.await;
            assert_eq!(done, (0..WORTH_A_THREAD).map(Ok).collect::<Vec<_>>());
            drop(tx);
        });
        assert_eq!(slow, Ok(true));
    }

    #[tokio::test]
    async fn lost_work_is_told_and_a_panic_is_only_its_own() {
        let together = Together::default();
        assert_eq!(together.run(&Gone, || 1).await, Err(JobLost));
        let (bad, good) = futures::join!(
            together.run(&Threads, || if lock(&Mutex::default()).threads == 0 {
                panic!("on purpose")
            }),
            together.run(&Threads, || 2)
        );
        assert_eq!((bad, good), (Err(JobLost), Ok(2)));
        assert_eq!(together.run(&Threads, || 3).await, Ok(3));
    }
}
