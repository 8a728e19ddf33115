//! What one measurement gave.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::error::{CliError, Outcome};

/// Latencies above this count as this: operations have deadlines that are shorter.
const LATENCY_MAX: Duration = Duration::from_secs(600);
/// Digits of a latency that count.
const DIGITS: u8 = 3;

/// How long each of many operations took, in microseconds.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    ///
    /// # Errors
    /// Never with the bounds above; the library cannot know.
    pub fn new() -> Outcome<Self> {
        let most = u64::try_from(LATENCY_MAX.as_micros()).unwrap_or(u64::MAX);
        let made = Histogram::new_with_bounds(1, most, DIGITS);
        made.map(Latencies).map_err(|error| CliError::local(format!("cannot keep latencies: {error}")))
    }

    /// One more operation.
    pub fn add(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// Everything that `other` has.
    pub fn merge(&mut self, other: &Latencies) -> Outcome {
        self.0.add(&other.0).map_err(|error| CliError::local(format!("cannot add up latencies: {error}")))
    }

    /// Operations counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// So many of all operations, as a share from 0 to 1, took at most this, in microseconds.
    pub fn quantile(&self, share: f64) -> u64 {
        self.0.value_at_quantile(share)
    }

    fn json(&self) -> Value {
        json!({
            "p50": self.quantile(0.5), "p90": self.quantile(0.9), "p99": self.quantile(0.99),
            "p999": self.quantile(0.999), "max": self.0.max(),
        })
    }
}

/// What a measurement gave.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Which one, as in `stream.put`.
    pub name: String,
    /// Operations at once.
    pub concurrency: u32,
    /// Payload bytes moved; 0 where names are all there is.
    pub bytes: u64,
    /// From the first operation's beginning to the last one's end.
    pub took: Duration,
    /// Of each operation.
    pub latencies: Latencies,
    /// Processor time of this process meanwhile, and of the others it was told to watch; absent where /proc does not say.
    pub cpu: Option<(Duration, Duration)>,
}

impl Measured {
    /// Bytes per second; 0 where none were moved.
    pub fn bytes_per_second(&self) -> f64 {
        per_second(self.bytes, self.took)
    }

    /// Operations per second.
    pub fn operations_per_second(&self) -> f64 {
        per_second(self.latencies.count(), self.took)
    }

    /// For programs. Times are in seconds, latencies in microseconds.
    pub fn json(&self) -> Value {
        json!({
            "case": self.name,
            "concurrency": self.concurrency,
            "operations": self.latencies.count(),
            "bytes": self.bytes,
            "seconds": self.took.as_secs_f64(),
            "operations_per_second": self.operations_per_second(),
            "bytes_per_second": self.bytes_per_second(),
            "latency_us": self.latencies.json(),
            "cpu_seconds": self.cpu.map(|(client, others)| {
                json!({"client": client.as_secs_f64(), "others": others.as_secs_f64()})
            }),
        })
    }

    /// The cells of its line for people: name, at once, MB/s or operations per second, latencies, processor time.
    pub fn cells(&self) -> Vec<String> {
        let rate = if self.bytes > 0 { format!("{:.1}", self.bytes_per_second() / 1e6) } else { "-".into() };
        let latency =
            |share| format!("{:.2}", Duration::from_micros(self.latencies.quantile(share)).as_secs_f64() * 1e3);
        vec![
            self.name.clone(),
            self.concurrency.to_string(),
            format!("{:.0}", self.operations_per_second()),
            rate,
            latency(0.5),
            latency(0.99),
            self.cpu.map_or_else(|| "-".into(), |(client, others)| format!("{:.2}", (client + others).as_secs_f64())),
        ]
    }
}

/// The heads of [`Measured::cells`].
pub const HEADS: [&str; 7] = ["CASE", "AT ONCE", "OPS/S", "MB/S", "P50 MS", "P99 MS", "CPU S"];

fn per_second(count: u64, took: Duration) -> f64 {
    // Counts are far below 2^52.
    count as f64 / took.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_quantiles_are_those_of_what_was_added() {
        let mut latencies = Latencies::new().unwrap();
        (1..=100).for_each(|ms| latencies.add(Duration::from_millis(ms)));
        let mut more = Latencies::new().unwrap();
        more.add(Duration::from_secs(100_000));
        latencies.merge(&more).unwrap();
        let took = Duration::from_secs(2);
        let name = "x".into();
        let measured = Measured { name, concurrency: 1, bytes: 4_000_000, took, latencies, cpu: None };
        let json = measured.json();
        assert_eq!((json["operations"].as_u64(), json["bytes_per_second"].as_f64()), (Some(101), Some(2_000_000.0)));
        let p50 = json["latency_us"]["p50"].as_u64().unwrap();
        assert!((50_900..51_100).contains(&p50), "{p50}");
        assert_eq!(
            json["latency_us"]["max"].as_u64().unwrap() >> 20,
            600_000_000 >> 20,
            "longer ones count as the longest"
        );
        assert_eq!(measured.cells().len(), HEADS.len());
    }
}
