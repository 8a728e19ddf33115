//! What one run of one measurement gave: the form that `quarry bench --json` prints, and the floors and peers as well.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};

use crate::error::{During as _, Outcome};

/// Latencies above ten minutes count as ten minutes, in microseconds.
const LATENCY_MAX_US: u64 = 600_000_000;

/// One run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// What was measured.
    pub case: String,
    /// Operations at once.
    pub concurrency: u32,
    /// Operations in all.
    pub operations: u64,
    /// Payload bytes in all; 0 where there are none.
    pub bytes: u64,
    /// How long all took, in seconds.
    pub seconds: f64,
    /// Of single operations.
    pub latency_us: Latency,
    /// Processor time, in seconds.
    pub cpu_seconds: Option<CpuSeconds>,
}

/// Quantiles, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Half took at most this.
    pub p50: u64,
    /// 90 % did.
    pub p90: u64,
    /// 99 % did.
    pub p99: u64,
    /// 99.9 % did.
    pub p999: u64,
    /// All did.
    pub max: u64,
}

/// Processor time in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct CpuSeconds {
    /// Of who asked.
    pub client: f64,
    /// Of all servers.
    pub others: f64,
}

impl Measured {
    /// Operations per second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.seconds.max(1e-9)
    }

    /// Megabytes (10^6) per second.
    pub fn megabytes(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.seconds.max(1e-9)
    }

    /// Processor seconds per gigabyte (10^9), where bytes were moved.
    pub fn cpu_per_gb(&self) -> Option<f64> {
        let cpu = self.cpu_seconds.filter(|_| self.bytes > 0)?;
        Some((cpu.client + cpu.others) / (self.bytes as f64 / 1e9))
    }
}

/// Latencies of many operations.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    ///
    /// # Errors
    /// Never with these bounds; the library cannot know.
    pub fn new() -> Outcome<Self> {
        Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).map(Latencies).during("keeping latencies")
    }

    /// One more.
    pub fn add(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LATENCY_MAX_US).max(1));
    }

    /// All of another's.
    ///
    /// # Errors
    /// Never between two with the same bounds.
    pub fn merge(&mut self, other: &Latencies) -> Outcome {
        self.0.add(&other.0).during("adding up latencies")
    }

    /// The quantiles.
    pub fn quantiles(&self) -> Latency {
        let at = |share| self.0.value_at_quantile(share);
        Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: self.0.max() }
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len()
    }
}

/// Measures what this process does from its making on.
pub struct Meter {
    began: Instant,
    cpu: f64,
}

impl Meter {
    /// Begins.
    ///
    /// # Errors
    /// When the system does not tell the processor time.
    pub fn begin() -> Outcome<Self> {
        Ok(Meter { cpu: own_cpu()?, began: Instant::now() })
    }

    /// Ends; `others` is the processor time of helpers meanwhile, in seconds.
    ///
    /// # Errors
    /// As [`Meter::begin`].
    pub fn end(
        &self,
        case: &str,
        concurrency: u32,
        bytes: u64,
        latencies: &Latencies,
        others: f64,
    ) -> Outcome<Measured> {
        let seconds = self.began.elapsed().as_secs_f64();
        let cpu = CpuSeconds { client: own_cpu()? - self.cpu, others };
        Ok(Measured {
            case: case.into(),
            concurrency,
            operations: latencies.count(),
            bytes,
            seconds,
            latency_us: latencies.quantiles(),
            cpu_seconds: Some(cpu),
        })
    }

    /// How long it has been.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Processor time of this process so far, in seconds.
fn own_cpu() -> Outcome<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).during("asking for the processor time")?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
