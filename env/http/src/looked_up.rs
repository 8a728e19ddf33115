//! Metrics whose values are looked up at each scrape.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder},
    metrics::MetricType,
    registry::Registry,
};

/// A metric with all its values as they are now.
#[derive(Clone, Debug)]
pub struct Sample {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    values: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Sample {
    /// Something that goes up and down. Its name is without the registry's prefix.
    #[must_use]
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Sample { name, help, kind: MetricType::Gauge, values: Vec::new() }
    }

    /// Something that only grows while the process lives. The format appends `_total` to its name.
    #[must_use]
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        Sample { name, help, kind: MetricType::Counter, values: Vec::new() }
    }

    /// Adds its one value.
    #[must_use]
    pub fn value(self, value: f64) -> Self {
        self.labelled([], value)
    }

    /// Adds the value with these labels.
    #[must_use]
    pub fn labelled(mut self, labels: impl IntoIterator<Item = (&'static str, String)>, value: f64) -> Self {
        self.values.push((labels.into_iter().collect(), value));
        self
    }
}

struct LookedUp<F>(F);

impl<F> fmt::Debug for LookedUp<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LookedUp")
    }
}

impl<F: Fn() -> Vec<Sample> + Send + Sync + 'static> Collector for LookedUp<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for sample in (self.0)() {
            let mut metric = encoder.encode_descriptor(sample.name, sample.help, None, sample.kind)?;
            for (labels, value) in &sample.values {
                if labels.is_empty() {
                    // The braces of an empty family are not what people search for.
                    one(sample.kind, *value, &mut metric)?;
                } else {
                    one(sample.kind, *value, &mut metric.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}

fn one(kind: MetricType, value: f64, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    match kind {
        MetricType::Counter => encoder.encode_counter::<[(&str, &str); 0], f64, f64>(&value, None),
        _ => encoder.encode_gauge(&value),
    }
}

/// Adds metrics that `look_up` gives at each scrape; it must not block.
pub fn register_looked_up(registry: &mut Registry, look_up: impl Fn() -> Vec<Sample> + Send + Sync + 'static) {
    registry.register_collector(Box::new(LookedUp(look_up)));
}
