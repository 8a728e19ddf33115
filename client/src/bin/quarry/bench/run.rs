//! Runs an operation many times, several at once, and measures.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use quarry_env::Clock;
use tokio::task::JoinSet;

use super::{
    result::{Latencies, Measured},
    usage::Cpu,
};
use crate::error::{CliError, Outcome};

/// How operations are run.
pub struct Run<'a> {
    /// Says how long they take.
    pub clock: &'a Arc<dyn Clock>,
    /// Other processes whose time counts.
    pub processes: &'a [u32],
    /// Operations at once, at least 1.
    pub concurrency: u32,
}

impl Run<'_> {
    /// Runs `operation` for each number below `count` and measures. Each says how many payload bytes it moved. Ends with
    /// the first failure. Dropping the future stops the operations.
    ///
    /// # Errors
    /// The first of an operation.
    pub async fn measure<F, W>(&self, name: impl Into<String>, count: u64, operation: F) -> Outcome<Measured>
    where
        F: Fn(u64) -> W + Clone + Send + 'static,
        W: Future<Output = Outcome<u64>> + Send + 'static,
    {
        let next = Arc::new(AtomicU64::new(0));
        let mut workers = JoinSet::new();
        let (cpu, began) = (Cpu::now(self.processes), self.clock.now());
        for _ in 0..self.concurrency {
            let (next, operation, clock) = (Arc::clone(&next), operation.clone(), Arc::clone(self.clock));
            workers.spawn(async move {
                let (mut latencies, mut bytes) = (Latencies::new()?, 0);
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return Ok::<_, CliError>((latencies, bytes));
                    }
                    let began = clock.now();
                    bytes += operation(number).await?;
                    latencies.add(clock.now().since(began));
                }
            });
        }
        let (mut latencies, mut bytes) = (Latencies::new()?, 0);
        while let Some(ended) = workers.join_next().await {
            let (of_worker, moved) = ended.map_err(|error| CliError::local(format!("a worker ended: {error}")))??;
            latencies.merge(&of_worker)?;
            bytes += moved;
        }
        let took = self.clock.now().since(began);
        let cpu = Cpu::now(self.processes).since(cpu);
        Ok(Measured { name: name.into(), concurrency: self.concurrency, bytes, took, latencies, cpu })
    }

    /// Runs `operation` for each number below `count`, one after the other, and measures as [`Run::measure`] does.
    ///
    /// # Errors
    /// The first of an operation.
    pub async fn one_by_one(
        &self,
        name: &str,
        count: u64,
        mut operation: impl AsyncFnMut(u64) -> Outcome<u64>,
    ) -> Outcome<Measured> {
        let (mut latencies, mut bytes) = (Latencies::new()?, 0);
        let (cpu, all) = (Cpu::now(self.processes), self.clock.now());
        for number in 0..count {
            let began = self.clock.now();
            bytes += operation(number).await?;
            latencies.add(self.clock.now().since(began));
        }
        let took = self.clock.now().since(all);
        let cpu = Cpu::now(self.processes).since(cpu);
        Ok(Measured { name: name.into(), concurrency: 1, bytes, took, latencies, cpu })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use quarry_env::{World, kv::NoKv};

    use super::*;

    #[tokio::test]
    async fn each_number_is_run_once_and_a_failure_ends_it() {
        let clock = World::real(Arc::new(NoKv)).clock;
        let run = Run { clock: &clock, processes: &[], concurrency: 7 };
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = Arc::clone(&seen);
        let operation = move |n| {
            note.lock().unwrap_or_else(PoisonError::into_inner).push(n);
            async { Ok(10) }
        };
        let measured = run.measure("x", 100, operation).await.unwrap();
        assert_eq!((measured.latencies.count(), measured.bytes), (100, 1000));
        let mut seen = seen.lock().unwrap().clone();
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<u64>>());

        let failing = |n| async move { if n == 3 { Err(CliError::local("third")) } else { Ok(0) } };
        assert!(run.measure("x", 100, failing).await.unwrap_err().to_string().contains("third"));
    }
}
