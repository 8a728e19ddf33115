//! Blocking work on the caller's own thread, at once or late.
//!
//! A simulation has one thread, and work handed to another would finish at an arbitrary point of it. A job that
//! waits for something another task must do never ends here; such a job is a mistake in the real world too, where it
//! holds one of few threads.

#![expect(clippy::disallowed_methods, reason = "this is one of the two places that the ban points to")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quarry_env::{Blocking, Random, blocking::Job, net::BoxFuture};

use crate::SimRandom;

/// Runs each job to its end inside [`Blocking::run_job`], before the future is returned.
#[derive(Clone, Copy, Debug, Default)]
pub struct InlineBlocking;

impl Blocking for InlineBlocking {
    fn run_job(&self, job: Job) -> BoxFuture<'static, ()> {
        job();
        Box::pin(std::future::ready(()))
    }
}

/// Lets jobs wait before they run, each for a time of its own, as where a disk is busy or hangs for a while. What a job does
/// is done in one moment all the same.
pub struct LateBlocking {
    most_ms: Arc<AtomicU64>,
    random: SimRandom,
}

impl LateBlocking {
    /// Jobs wait for less than what `most_ms` holds when they come; with 0 they run at once.
    #[must_use]
    pub fn new(most_ms: Arc<AtomicU64>, random: SimRandom) -> Self {
        LateBlocking { most_ms, random }
    }
}

impl Blocking for LateBlocking {
    fn run_job(&self, job: Job) -> BoxFuture<'static, ()> {
        let most_ms = self.most_ms.load(Ordering::Relaxed);
        if most_ms == 0 {
            return InlineBlocking.run_job(job);
        }
        let wait = Duration::from_millis(self.random.below(most_ms));
        // A task of its own: the job runs even if nobody waits.
        let late = tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            job();
        });
        // Whoever waits learns of a panic by the lost result.
        Box::pin(async move { drop(late.await) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[tokio::test]
    async fn the_job_runs_even_if_nobody_waits() {
        let ran = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ran);
        drop(InlineBlocking.run_job(Box::new(move || flag.store(true, Ordering::SeqCst))));
        assert!(ran.load(Ordering::SeqCst));
        let blocking: Arc<dyn Blocking> = Arc::new(InlineBlocking);
        assert_eq!(blocking.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_late_job_runs_later_and_even_if_nobody_waits() {
        tokio::time::pause();
        let late = LateBlocking::new(Arc::new(AtomicU64::new(1000)), SimRandom::of(1, "late", 0));
        let ran = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ran);
        drop(late.run_job(Box::new(move || flag.store(true, Ordering::SeqCst))));
        assert!(!ran.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(ran.load(Ordering::SeqCst));
        let blocking: Arc<dyn Blocking> = Arc::new(late);
        assert_eq!(blocking.run(|| 7).await, Ok(7));
    }
}
