//! Where blocking work runs.

use crate::net::BoxFuture;

/// A piece of blocking work.
pub type Job = Box<dyn FnOnce() + Send>;

/// Runs blocking work without holding up the asynchronous tasks. The real one has a bounded number of threads;
/// further jobs wait.
pub trait Blocking: Send + Sync {
    /// Runs `job` to its end, even if the returned future is dropped.
    fn run_job(&self, job: Job) -> BoxFuture<'static, ()>;
}

/// The process is shutting down and the job was not run, or it panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("blocking work did not finish: the process is shutting down or the job panicked (see the log)")]
pub struct JobLost;

impl dyn Blocking {
    /// Runs `work` and returns its result. Dropping the future does not stop the work.
    ///
    /// # Errors
    /// [`JobLost`] when the work was not run to its end.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, JobLost> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        self.run_job(Box::new(move || {
            // A receiver that went away does not want the result; the work itself is done.
            let _gone = tx.send(work());
        }))
        .await;
        rx.await.map_err(|_| JobLost)
    }
}
