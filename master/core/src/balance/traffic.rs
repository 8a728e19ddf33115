//! Servers that are asked for much more than the others.

use quarry_types::ServerId;

/// Below this a server is not busy, however idle the others are, in bytes per second.
const FLOOR: f64 = 20e6;
/// So many standard deviations above the mean of the others.
const DEVIATIONS: f64 = 2.0;
/// With fewer others there is no telling what is usual.
const OTHERS_MIN: usize = 2;

/// The servers whose traffic (bytes per second) is more than two standard deviations above the mean of the others, and over
/// a floor.
#[must_use]
pub fn busy(traffic: &[(ServerId, f64)]) -> Vec<ServerId> {
    let others = traffic.len().saturating_sub(1);
    if others < OTHERS_MIN {
        return Vec::new();
    }
    let (sum, squares) =
        traffic.iter().fold((0.0, 0.0), |(sum, squares), (_, rate)| (sum + rate, squares + rate * rate));
    let is_busy = |rate: f64| {
        let mean = (sum - rate) / others as f64;
        let variance = ((squares - rate * rate) / others as f64 - mean * mean).max(0.0);
        rate > FLOOR && rate > mean + DEVIATIONS * variance.sqrt()
    };
    traffic.iter().filter(|(_, rate)| is_busy(*rate)).map(|(server, _)| *server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy_of(rates: &[f64]) -> Vec<u128> {
        let traffic: Vec<_> =
            rates.iter().enumerate().map(|(n, rate)| (ServerId::from_random(n as u128), rate * 1e6)).collect();
        let of = |server: &ServerId| traffic.iter().position(|(s, _)| s == server).unwrap() as u128;
        busy(&traffic).iter().map(of).collect()
    }

    #[test]
    fn a_server_is_busy_against_the_others_and_over_a_floor() {
        assert_eq!(busy_of(&[10.0, 12.0, 8.0, 90.0]), [3]);
        assert_eq!(busy_of(&[80.0, 95.0, 88.0, 90.0]), [1], "its own traffic does not count among the others");
        assert_eq!(busy_of(&[0.1, 0.1, 0.1, 15.0]), [], "below the floor");
        assert_eq!(busy_of(&[50.0, 100.0, 150.0, 170.0]), [], "within what is usual");
        assert_eq!(busy_of(&[1.0, 90.0]), [], "one other is no measure");
        assert_eq!(busy_of(&[]), []);
    }
}
