//! Whether a master may answer a read that is allowed to be a little old.
//!
//! A [`Proof`] says: at an instant of this master's own clock somebody led whom a majority followed, and whoever has applied
//! the log up to an index has everything that was acknowledged before that instant. It is made by asking the leader for
//! its read index, which the leader gives out only after a majority has answered it *since it was asked*. So the instant
//! is the one just before asking: it needs no clock but the asker's, which counts the time in which process or machine
//! stood still (S10), and an answer that was long on its way only makes the proof older, never wrong.
//!
//! What a read may be answered from follows: from a state that has applied a proof's index, while the proof is not older
//! than the read allows.

use std::time::Duration;

/// That a state is not older than something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// An instant of this master's clock; what was acknowledged before it is at or below `index`.
    pub at: Duration,
    /// The index in the log.
    pub index: u64,
}

impl Proof {
    /// How old a state that has applied its index may be at `now`.
    #[must_use]
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.at)
    }

    /// The younger of two. Both are true; the younger one serves for longer.
    #[must_use]
    pub fn younger(self, other: Option<Proof>) -> Proof {
        other.filter(|other| other.at > self.at).unwrap_or(self)
    }
}

/// What a read allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The answer may lack what was acknowledged in so much time before it is made, and nothing older.
    pub within: Duration,
    /// It shows at least the state of this index of the log, which its client has seen the effects of: answers do not go
    /// back in time, whichever master they come from. 0: it has seen none.
    pub seen: u64,
}

/// What to do about a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Answer it: what the answer lacks was acknowledged within this time.
    Serve(Duration),
    /// Wait until this index is applied.
    Apply(u64),
    /// Ask the leader for a new proof.
    Prove,
}

/// What to do at `now` about a read that came at `came`, when the state is applied up to `applied`. Both instants are of
/// the clock that `proof` is by.
#[must_use]
pub fn step(now: Duration, came: Duration, proof: Option<Proof>, applied: u64, allowed: Allowed) -> Step {
    let Some(proof) = proof.filter(|proof| proof.age(now) <= allowed.within) else { return Step::Prove };
    if applied < proof.index {
        return Step::Apply(proof.index);
    }
    // An index that nobody had when this read was under way already is one of another history, before a restore: it
    // means nothing here. An older proof cannot tell that from one that has not come yet.
    if applied < allowed.seen && proof.at < came {
        return Step::Prove;
    }
    Step::Serve(proof.age(now))
}

/// A proof that has used up this part of what a read allows is renewed beside it, so that later reads need not wait and
/// go on for a while when the leader fails: for longer than an election takes, when they allow a few seconds.
const RENEW_PART: u32 = 4;
/// The same for reads that allow much: being fresher costs little.
const RENEW_AFTER_MAX: Duration = Duration::from_secs(5);

/// Whether to ask for a new proof beside a read that is answered with one of this age.
#[must_use]
pub fn renew(age: Duration, within: Duration) -> bool {
    age > (within / RENEW_PART).min(RENEW_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const NOTHING_SEEN: u64 = 0;

    fn allowed(within: u64, seen: u64) -> Allowed {
        Allowed { within: ms(within), seen }
    }

    #[test]
    fn a_proof_serves_until_it_is_as_old_as_the_read_allows() {
        let proof = Some(Proof { at: ms(1000), index: 7 });
        let at = |now, applied| step(ms(now), ms(now), proof, applied, allowed(500, NOTHING_SEEN));
        assert_eq!(at(1000, 7), Step::Serve(ms(0)));
        assert_eq!(at(1500, 7), Step::Serve(ms(500)));
        assert_eq!(at(1501, 7), Step::Prove);
        assert_eq!(at(1400, 6), Step::Apply(7));
        assert_eq!(at(1501, 6), Step::Prove, "what is too old is not waited for");
        assert_eq!(step(ms(1), ms(1), None, 7, allowed(u64::MAX, NOTHING_SEEN)), Step::Prove);
    }

    #[test]
    fn s10_the_time_in_which_a_follower_stood_still_counts() {
        let proof = Some(Proof { at: ms(1000), index: 7 });
        // It was stopped for a minute between two reads, or after one had come.
        assert_eq!(step(ms(61_100), ms(61_100), proof, 7, allowed(5000, NOTHING_SEEN)), Step::Prove);
        assert_eq!(step(ms(61_100), ms(1100), proof, 7, allowed(5000, NOTHING_SEEN)), Step::Prove);
    }

    #[test]
    fn what_a_client_has_seen_is_waited_for_or_found_out_to_be_of_another_history() {
        let (before, since) = (Proof { at: ms(1000), index: 7 }, Proof { at: ms(2000), index: 9 });
        let at = |proof, applied, seen| step(ms(2100), ms(1500), Some(proof), applied, allowed(5000, seen));
        assert_eq!(at(before, 7, 8), Step::Prove, "the client was ahead of this master");
        assert_eq!(at(since, 8, 8), Step::Apply(9));
        assert_eq!(at(since, 9, 8), Step::Serve(ms(100)));
        assert_eq!(at(before, 8, 8), Step::Serve(ms(1100)), "it has what the client has seen");
        assert_eq!(at(since, 9, 1000), Step::Serve(ms(100)), "nobody had that when the client asked");
    }

    #[test]
    fn proofs_are_renewed_before_they_are_needed() {
        assert!(!renew(ms(1250), ms(5000)) && renew(ms(1251), ms(5000)));
        assert!(!renew(ms(5000), ms(3_600_000)) && renew(ms(5001), ms(3_600_000)));
        let (old, young) = (Proof { at: ms(1), index: 9 }, Proof { at: ms(2), index: 8 });
        assert_eq!((old.younger(Some(young)), young.younger(Some(old)), old.younger(None)), (young, young, old));
    }

    proptest! {
        /// A history: command `n` is acknowledged at `acked[n]`. A proof is made at some instant, with an index that covers
        /// what was acknowledged before. Whatever this master has applied by now, an answer never lacks more than allowed.
        #[test]
        fn s4_an_answer_lacks_nothing_that_is_older_than_allowed(
            gaps in prop::collection::vec(0u64..300, 1..40),
            asked in 0u64..8000,
            ahead in 0u64..3,
            since in 0u64..8000,
            within in 0u64..4000,
            applied in 0u64..45,
            seen in 0u64..45,
        ) {
            let acked: Vec<u64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let acknowledged_before = |at: u64| acked.iter().filter(|acked| **acked < at).count() as u64;
            // Of this history, at the time it is used.
            let (now, committed) = (asked + since, acknowledged_before(asked + since + 1));
            let (applied, seen) = (applied.min(committed), seen.min(committed));
            let proof = Proof { at: ms(asked), index: (acknowledged_before(asked) + ahead).min(committed) };
            let read = Allowed { within: ms(within), seen };
            match step(ms(now), ms(now), Some(proof), applied, read) {
                Step::Serve(age) => {
                    prop_assert!(age <= ms(within));
                    let oldest = now - u64::try_from(age.as_millis()).unwrap();
                    prop_assert!(applied >= acknowledged_before(oldest), "{applied} of {}", acknowledged_before(oldest));
                    prop_assert!(applied >= acknowledged_before(now.saturating_sub(within)));
                    prop_assert!(applied >= seen || since == 0);
                }
                Step::Apply(index) => prop_assert!(index <= committed, "it waits for nothing that may never come"),
                Step::Prove => prop_assert!(since > within || applied < seen),
            }
        }
    }
}
