//! All results of a run of the suite.

use serde::{Deserialize, Serialize};

use crate::{machine::Machine, measured::Measured};

/// Quarry in a [`Row::system`].
pub const QUARRY: &str = "quarry";
/// The floor in a [`Row::system`].
pub const FLOOR: &str = "floor";

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// 10^6 bytes per second.
    #[serde(rename = "MB/s")]
    Megabytes,
    /// Operations per second.
    #[serde(rename = "ops/s")]
    Operations,
    /// Median time of an operation, in microseconds.
    #[serde(rename = "µs")]
    Microseconds,
    /// Seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Bytes.
    #[serde(rename = "bytes")]
    Bytes,
    /// Times something else.
    #[serde(rename = "×")]
    Times,
}

impl Unit {
    /// As it stands behind a number.
    pub fn text(self) -> &'static str {
        match self {
            Unit::Megabytes => "MB/s",
            Unit::Operations => "ops/s",
            Unit::Microseconds => "µs",
            Unit::Seconds => "s",
            Unit::Bytes => "bytes",
            Unit::Times => "×",
        }
    }

    /// Whether more is better.
    pub fn more_is_better(self) -> bool {
        matches!(self, Unit::Megabytes | Unit::Operations)
    }
}

/// One case of one system, with every run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// As in `sealed.disk.put`.
    pub case: String,
    /// `quarry`, `floor`, or the name of a peer.
    pub system: String,
    /// Of the values.
    pub unit: Unit,
    /// One for each run, in their order: the n-th of Quarry belongs to the n-th of the floor.
    pub values: Vec<f64>,
    /// Median time of an operation in each run, in microseconds.
    #[serde(default)]
    pub p50_us: Vec<f64>,
    /// 99 % took at most this.
    #[serde(default)]
    pub p99_us: Vec<f64>,
    /// Processor seconds of all processes per 10^9 bytes.
    #[serde(default)]
    pub cpu_s_per_gb: Vec<f64>,
    /// Processor microseconds of all processes per operation.
    #[serde(default)]
    pub cpu_us_per_operation: Vec<f64>,
}

/// All of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Book {
    /// Where and with what.
    pub machine: Machine,
    /// In the order in which they were measured.
    pub rows: Vec<Row>,
    /// What was left out, and what else a reader must know.
    pub notes: Vec<String>,
}

impl Book {
    /// One run of a case.
    pub fn add(&mut self, case: &str, system: &str, unit: Unit, measured: &Measured) {
        let value = match unit {
            Unit::Megabytes => measured.megabytes(),
            Unit::Microseconds => measured.latency_us.p50 as f64,
            Unit::Seconds => measured.seconds,
            Unit::Operations | Unit::Bytes | Unit::Times => measured.rate(),
        };
        let row = self.row_of(case, system, unit);
        row.values.push(value);
        row.p50_us.push(measured.latency_us.p50 as f64);
        row.p99_us.push(measured.latency_us.p99 as f64);
        row.cpu_s_per_gb.extend(measured.cpu_per_gb());
        let cpu = measured.cpu_seconds.map(|cpu| (cpu.client + cpu.others) * 1e6);
        row.cpu_us_per_operation.extend(cpu.map(|cpu| cpu / measured.operations.max(1) as f64));
    }

    /// One value of a case that is no run of operations.
    pub fn value(&mut self, case: &str, system: &str, unit: Unit, value: f64) {
        self.row_of(case, system, unit).values.push(value);
    }

    /// A maximum over everything: the largest value stays.
    pub fn most(&mut self, case: &str, system: &str, unit: Unit, value: f64) {
        let values = &mut self.row_of(case, system, unit).values;
        let most = values.iter().copied().fold(value, f64::max);
        *values = vec![most];
    }

    /// Something a reader must know; the same only once.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// What was measured, if it was.
    pub fn row(&self, case: &str, system: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.case == case && row.system == system && !row.values.is_empty())
    }

    /// The cases, each once, in order.
    pub fn cases(&self) -> Vec<&str> {
        let mut cases: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !cases.contains(&row.case.as_str()) {
                cases.push(&row.case);
            }
        }
        cases
    }

    fn row_of(&mut self, case: &str, system: &str, unit: Unit) -> &mut Row {
        let at = self.rows.iter().position(|row| row.case == case && row.system == system).unwrap_or_else(|| {
            self.rows.push(Row {
                case: case.into(),
                system: system.into(),
                unit,
                values: Vec::new(),
                p50_us: Vec::new(),
                p99_us: Vec::new(),
                cpu_s_per_gb: Vec::new(),
                cpu_us_per_operation: Vec::new(),
            });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }
}

/// The value in the middle; of none: NaN.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (n, half) if n % 2 == 0 => f64::midpoint(sorted[half - 1], sorted[half]),
        (_, half) => sorted[half],
    }
}

/// The median of the ratios of runs that belong together; of the medians, where there are not as many of both.
pub fn ratio(of: &Row, to: &Row) -> f64 {
    if of.values.len() != to.values.len() {
        return median(&of.values) / median(&to.values);
    }
    let paired: Vec<f64> = of.values.iter().zip(&to.values).map(|(a, b)| a / b).collect();
    median(&paired)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_paired_ratios() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0])), (2.0, 2.5));
        assert!(median(&[]).is_nan());
        let mut book = Book::default();
        for (ours, floor) in [(1.0, 2.0), (30.0, 40.0), (100.0, 100.0)] {
            book.value("x", QUARRY, Unit::Operations, ours);
            book.value("x", FLOOR, Unit::Operations, floor);
        }
        let (ours, floor) = (book.row("x", QUARRY).unwrap(), book.row("x", FLOOR).unwrap());
        assert!((ratio(ours, floor) - 0.75).abs() < 1e-9, "the middle pair, whatever the machine did meanwhile");
        book.most("m", QUARRY, Unit::Bytes, 5.0);
        book.most("m", QUARRY, Unit::Bytes, 3.0);
        assert_eq!(book.row("m", QUARRY).unwrap().values, [5.0]);
        assert_eq!(book.cases(), ["x", "m"]);
    }
}
