//! Blocking work on the caller's own thread.
//!
//! A simulation has one thread, and work handed to another would finish at an arbitrary point of it. A job that
//! waits for something another task must do never ends here; such a job is a mistake in the real world too, where it
//! holds one of few threads.

use quarry_env::{Blocking, blocking::Job, net::BoxFuture};

/// Runs each job to its end inside [`Blocking::run_job`], before the future is returned.
#[derive(Clone, Copy, Debug, Default)]
pub struct InlineBlocking;

impl Blocking for InlineBlocking {
    fn run_job(&self, job: Job) -> BoxFuture<'static, ()> {
        job();
        Box::pin(std::future::ready(()))
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
}
