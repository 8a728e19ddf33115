//! The choice among the best few.

use quarry_types::ServerId;

/// Among how many of the best one is drawn: a new empty server must not be buried under everything at once.
pub const DRAW_AMONG: usize = 4;

/// The best few of many, in one pass over them. Ties go to the lower id, so that the outcome does not depend on the
/// order in which servers were listed.
#[derive(Clone, Debug, Default)]
pub struct Best {
    best: Vec<(f64, ServerId)>,
}

impl Best {
    /// Looks at one more.
    pub fn offer(&mut self, score: f64, server: ServerId) {
        let behind = |other: &(f64, ServerId)| other.0.total_cmp(&score).then(server.cmp(&other.1)).is_gt();
        let at = self.best.iter().take_while(|other| behind(other)).count();
        if at < DRAW_AMONG {
            self.best.insert(at, (score, server));
            self.best.truncate(DRAW_AMONG);
        }
    }

    /// Whether none was offered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.best.is_empty()
    }

    /// Draws one, each as likely as its score says; `chance` is a uniform random number.
    #[must_use]
    pub fn draw(&self, chance: u64) -> Option<ServerId> {
        let sum: f64 = self.best.iter().map(|(score, _)| score).sum();
        // 53 bits fit a double exactly.
        let mut at = (chance >> 11) as f64 / (1u64 << 53) as f64 * sum;
        for (score, server) in &self.best {
            if at < *score {
                return Some(*server);
            }
            at -= score;
        }
        self.best.last().map(|(_, server)| *server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(n: u128) -> ServerId {
        ServerId::from_random(n)
    }

    #[test]
    fn the_best_few_are_kept_whatever_the_order() {
        let scores = [0.5, 0.9, 0.1, 0.7, 0.7, 0.8];
        let (mut forwards, mut backwards) = (Best::default(), Best::default());
        for (n, score) in scores.iter().enumerate() {
            forwards.offer(*score, server(n as u128));
        }
        for (n, score) in scores.iter().enumerate().rev() {
            backwards.offer(*score, server(n as u128));
        }
        assert_eq!(forwards.best, backwards.best);
        assert_eq!(forwards.best.iter().map(|(s, _)| *s).collect::<Vec<_>>(), [0.9, 0.8, 0.7, 0.7]);
    }

    #[test]
    fn the_draw_follows_the_scores() {
        let mut best = Best::default();
        assert_eq!(best.draw(0), None);
        best.offer(0.75, server(1));
        best.offer(0.25, server(2));
        let mut first = 0;
        for step in 0..1000u64 {
            first += usize::from(best.draw(step * (u64::MAX / 1000)) == Some(server(1)));
        }
        assert!((740..=760).contains(&first), "drawn {first} times of 1000");
        assert_eq!(best.draw(u64::MAX), Some(server(2)));
    }
}
