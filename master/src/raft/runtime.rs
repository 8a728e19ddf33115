//! The runtime that openraft uses: tokio's clock and scheduler, with chance taken out of it.
//!
//! Random numbers follow from a seed, and those who wait for a value are woken in the order in which they came: tokio's own
//! `watch` draws lots, so that of two followers now one and now the other would be written to first. Under a simulated clock a
//! run repeats exactly.

use std::{io, time::Duration};

use openraft_rt::{AsyncRuntime, OptionalSend, deterministic_rng::DeterministicRng};
use openraft_rt_tokio::TokioRuntime;

use super::in_order::InOrder;

type Seeded = DeterministicRng<TokioRuntime>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Runtime(Seeded);

impl Runtime {
    /// Runs `work`, which may start tasks of openraft, with random numbers that follow from the seed.
    pub(crate) async fn scope<F: Future>(seed: u64, work: F) -> F::Output {
        Seeded::scope(seed, work).await
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = <Seeded as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Seeded as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Seeded as AsyncRuntime>::Sleep;
    type Instant = <Seeded as AsyncRuntime>::Instant;
    type TimeoutError = <Seeded as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Seeded as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Seeded as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <Seeded as AsyncRuntime>::Mpsc;
    type Watch = InOrder;
    type Oneshot = <Seeded as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Seeded as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Seeded::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Seeded::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Seeded::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        Seeded::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        Seeded::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        Seeded::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Seeded::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Runtime(Seeded::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        Seeded::spawn_blocking(work)
    }
}

#[cfg(test)]
mod tests {
    use openraft_rt::testing::Suite;

    use super::Runtime;

    #[test]
    fn openrafts_suite_passes_on_its_runtime() {
        Suite::<Runtime>::test_all();
    }
}
