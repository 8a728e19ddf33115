//! How many copies at once, and how many bytes.

use std::{collections::BTreeMap, time::Duration};

use quarry_types::ServerId;

use super::Policy;

/// A bucket holds what its rate brings in this time, so that a pause is not paid back by a burst.
const BURST: Duration = Duration::from_secs(1);
/// However slow clients are served, copies keep this share of their rate: what is endangered must not wait for ever.
const SHARE_MIN: f64 = 0.1;

/// A token bucket that may go into debt: who finds it above zero may take, however much.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    level: f64,
    at: Duration,
}

impl Bucket {
    fn level(&self, rate: f64, now: Duration) -> f64 {
        let brought = now.saturating_sub(self.at).as_secs_f64() * rate;
        (self.level + brought).min(rate * BURST.as_secs_f64())
    }

    fn take(&mut self, bytes: f64, rate: f64, now: Duration) {
        *self = Bucket { level: self.level(rate, now) - bytes, at: now };
    }
}

#[derive(Clone, Debug, Default)]
struct Lane {
    copies_in: u32,
    copies_out: u32,
    bytes_in: Option<Bucket>,
    bytes_out: Option<Bucket>,
}

/// What copies use of servers and of the cluster: in flight, and in bytes per second.
#[derive(Clone, Debug)]
pub struct Budget {
    lanes: BTreeMap<ServerId, Lane>,
    cluster: Option<Bucket>,
    share: f64,
}

/// What a server may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Copies to it.
    pub copies_in: u32,
    /// Copies from it.
    pub copies_out: u32,
    /// Bytes to it; not positive: it waits.
    pub bytes_in: i64,
    /// Bytes from it.
    pub bytes_out: i64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { lanes: BTreeMap::new(), cluster: None, share: 1.0 }
    }
}

/// The share of their rate that copies get while clients are served in `latency`: all up to what is allowed, then the less
/// the slower. A tenth is always left.
#[must_use]
pub fn share(latency: Duration, allowed: Duration) -> f64 {
    if latency <= allowed {
        return 1.0;
    }
    (allowed.as_secs_f64() / latency.as_secs_f64()).max(SHARE_MIN)
}

impl Budget {
    /// Clients are served in `latency` now.
    pub fn observe(&mut self, latency: Duration, policy: &Policy) {
        self.share = share(latency, policy.latency);
    }

    /// The share of their rate that copies have now.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.share
    }

    fn rate(&self, policy: &Policy) -> f64 {
        policy.rate as f64 * self.share
    }

    fn rate_cluster(&self, policy: &Policy) -> f64 {
        policy.rate_cluster as f64 * self.share
    }

    /// What a server may do now.
    #[must_use]
    pub fn room(&self, server: ServerId, policy: &Policy, now: Duration) -> Room {
        let rate = self.rate(policy);
        let level = |bucket: Option<Bucket>| bucket.map_or(rate, |b| b.level(rate, now)) as i64;
        let none = Lane::default();
        let lane = self.lanes.get(&server).unwrap_or(&none);
        Room {
            copies_in: lane.copies_in,
            copies_out: lane.copies_out,
            bytes_in: level(lane.bytes_in),
            bytes_out: level(lane.bytes_out),
        }
    }

    /// Bytes that the cluster may copy now; not positive: everyone waits.
    #[must_use]
    pub fn cluster(&self, policy: &Policy, now: Duration) -> i64 {
        let rate = self.rate_cluster(policy);
        self.cluster.map_or(rate, |bucket| bucket.level(rate, now)) as i64
    }

    /// Bytes per second at which one copy may go.
    #[must_use]
    pub fn pace(&self, urgent: bool, policy: &Policy) -> u64 {
        let rate = self.rate(policy) as u64;
        if urgent { rate.saturating_mul(2) } else { rate }
    }

    /// A copy starts. A chunk with one replica left counts half, which doubles its rate.
    pub fn start(
        &mut self,
        source: ServerId,
        target: ServerId,
        bytes: u64,
        urgent: bool,
        policy: &Policy,
        now: Duration,
    ) {
        let bytes = if urgent { bytes as f64 / 2.0 } else { bytes as f64 };
        let (rate, rate_cluster) = (self.rate(policy), self.rate_cluster(policy));
        let full = |rate| Bucket { level: rate, at: now };
        let out = self.lanes.entry(source).or_default();
        out.copies_out += 1;
        out.bytes_out.get_or_insert(full(rate)).take(bytes, rate, now);
        let lane = self.lanes.entry(target).or_default();
        lane.copies_in += 1;
        lane.bytes_in.get_or_insert(full(rate)).take(bytes, rate, now);
        self.cluster.get_or_insert(full(rate_cluster)).take(bytes, rate_cluster, now);
    }

    /// A copy ended, well or not.
    pub fn end(&mut self, source: ServerId, target: ServerId) {
        if let Some(lane) = self.lanes.get_mut(&source) {
            lane.copies_out = lane.copies_out.saturating_sub(1);
        }
        if let Some(lane) = self.lanes.get_mut(&target) {
            lane.copies_in = lane.copies_in.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_servers_copies_keep_to_its_rate_over_time() {
        let (mut budget, policy) = (Budget::default(), Policy::default());
        let (a, b) = (ServerId::from_random(1), ServerId::from_random(2));
        let (mut now, mut copied) = (at(0), 0);
        while now < at(60_000) {
            if budget.room(b, &policy, now).bytes_in > 0 {
                budget.start(a, b, 64 * MB, false, &policy, now);
                budget.end(a, b);
                copied += 64 * MB;
            }
            now += at(100);
        }
        let allowed = 60 * policy.rate;
        assert!((allowed - 64 * MB..=allowed + 2 * 64 * MB).contains(&copied), "{copied} of {allowed}");
        assert_eq!(budget.room(a, &policy, now).copies_out, 0);
    }

    #[test]
    fn what_is_urgent_goes_twice_as_fast() {
        let (mut budget, policy) = (Budget::default(), Policy::default());
        let (a, b) = (ServerId::from_random(1), ServerId::from_random(2));
        budget.start(a, b, 100 * MB, true, &policy, at(0));
        assert_eq!(budget.room(b, &policy, at(0)).bytes_in, 0);
        assert_eq!(budget.pace(true, &policy), 100 * MB);
        assert_eq!(budget.room(b, &policy, at(0)).copies_in, 1);
    }

    #[test]
    fn copies_slow_down_as_clients_do_but_never_stop() {
        assert!((share(at(50), at(50)) - 1.0).abs() < 1e-9);
        assert!((share(at(100), at(50)) - 0.5).abs() < 1e-9);
        assert!((share(at(60_000), at(50)) - 0.1).abs() < 1e-9);
        let (mut budget, policy) = (Budget::default(), Policy::default());
        budget.observe(at(100), &policy);
        assert_eq!(budget.pace(false, &policy), 25 * MB);
    }

    #[test]
    fn the_clusters_rate_holds_for_all_together() {
        let (mut budget, policy) = (Budget::default(), Policy { rate_cluster: 10 * MB, ..Policy::default() });
        let (a, b) = (ServerId::from_random(1), ServerId::from_random(2));
        budget.start(a, b, 64 * MB, false, &policy, at(0));
        assert!(budget.cluster(&policy, at(5000)) < 0);
        assert!(budget.cluster(&policy, at(5500)) > 0);
    }
}
