//! Whether a server is well enough to be given something new.

/// What beats say about a server's disks and processors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Disks whose I/O is slow, by path.
    pub slow_disks: Vec<String>,
    /// I/O errors of the last minute.
    pub errors: u64,
    /// Use of the processors, in percent.
    pub cpu_percent: u32,
    /// How long clients wait for it, in microseconds.
    pub latency_us: u64,
}

/// I/O errors within a minute past which a server counts as unhealthy.
const ERRORS_MAX: u64 = 3;
/// Use of the processors past which it does, in percent.
const CPU_MAX: u32 = 98;
/// Latency past which it does, in microseconds.
const LATENCY_MAX_US: u64 = 2_000_000;

impl Vitals {
    /// Why the server should be given nothing new while others can take it.
    #[must_use]
    pub fn sickness(&self) -> Option<String> {
        if let Some(disk) = self.slow_disks.first() {
            return Some(format!("disk {disk} is slow"));
        }
        if self.errors > ERRORS_MAX {
            return Some(format!("{} disk errors within a minute", self.errors));
        }
        if self.latency_us > LATENCY_MAX_US {
            return Some(format!("clients wait {} ms for it", self.latency_us / 1000));
        }
        (self.cpu_percent > CPU_MAX).then(|| format!("its processors are {} % busy", self.cpu_percent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_threshold_makes_a_server_unhealthy() {
        let well = Vitals { errors: ERRORS_MAX, cpu_percent: CPU_MAX, latency_us: LATENCY_MAX_US, ..Vitals::default() };
        assert_eq!(well.sickness(), None);
        let sick = |vitals: Vitals| vitals.sickness().unwrap();
        assert!(sick(Vitals { slow_disks: vec!["/d".into()], ..well.clone() }).contains("/d is slow"));
        assert!(sick(Vitals { errors: 4, ..well.clone() }).contains("4 disk errors"));
        assert!(sick(Vitals { cpu_percent: 99, ..well.clone() }).contains("99 %"));
        assert!(sick(Vitals { latency_us: 2_000_001, ..well }).contains("2000 ms"));
    }
}
