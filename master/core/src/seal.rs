//! Where an open chunk ends, from what its members say.

use std::time::Duration;

use quarry_types::{ChunkId, Crc32, Receipt, ServerId, limits::SEAL_WAIT, planted};

pub use crate::command::Durability;

/// What to do about an open chunk whose members were fenced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealDecision {
    /// Commit this.
    Seal {
        /// Bytes; 0: nothing is kept.
        length: u64,
        /// Their CRC.
        crc: Crc32,
        /// Members whose durable replica is exactly this. Longer ones count once they have been cut.
        holders: Vec<ServerId>,
    },
    /// The chunk stays open; ask again later.
    Wait(WaitReason),
}

/// Why a chunk cannot be sealed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// No member answered.
    NoReceipt,
    /// Only members that restarted answered, and they may lack what they acknowledged without fsync (S1).
    OnlyRestarted,
    /// Members disagree about the same bytes: one of them is damaged, and nothing says which (S2).
    Disagreement,
}

/// Whether a member may have lost all that it had of a chunk: nothing is there, although the chunk is older than its start.
/// `first_chunk`: see [`crate::rows::Server`]. What a start finds of open chunks it calls restarted, and who was not restarted
/// and has nothing was never asked, or had acknowledged nothing yet, which cannot be told apart.
#[must_use]
pub fn may_have_forgotten(receipt: &Receipt, first_chunk: ChunkId) -> bool {
    receipt.length == 0 && !receipt.restarted && receipt.chunk < first_chunk
}

/// Decides where a chunk ends. `receipts` were verified and tell what fenced members hold; those of `doubted` are of an old
/// image of their disk, or [may have forgotten](may_have_forgotten) the chunk with it, and may lack even what was flushed (S11); `unreachable_for` is how long every member without a receipt
/// has been dead.
#[must_use]
pub fn decide(
    durability: Durability,
    members: &[ServerId],
    receipts: &[Receipt],
    doubted: &[ServerId],
    unreachable_for: Duration,
) -> SealDecision {
    let from_members: Vec<&Receipt> = receipts.iter().filter(|r| members.contains(&r.server)).collect();
    if from_members.is_empty() {
        return SealDecision::Wait(WaitReason::NoReceipt);
    }
    // An ack needs every member, so each member that did not restart has every acknowledged byte: the least of them
    // is enough. A restarted one may have lost bytes that were never flushed, and must not shorten the chunk.
    let is_image = |r: &&Receipt| doubted.contains(&r.server);
    let mut preferred: Vec<&Receipt> = from_members.iter().copied().filter(|r| !r.restarted && !is_image(r)).collect();
    if preferred.is_empty() {
        let proven: Vec<&Receipt> = from_members.iter().copied().filter(|r| !is_image(r)).collect();
        let all_answered = members.iter().all(|m| from_members.iter().any(|r| r.server == *m));
        // Another member may hold what these lost. What was flushed is on all of them, so where durability is
        // `sealed` the others get until they are dead: long enough for those who are just finding a new master. Of an old
        // image not even that is sure.
        let given_up = match durability {
            Durability::Sealed if !proven.is_empty() => !unreachable_for.is_zero(),
            Durability::Sealed | Durability::Buffered => unreachable_for >= SEAL_WAIT,
        };
        if !all_answered && !given_up {
            return SealDecision::Wait(WaitReason::OnlyRestarted);
        }
        preferred = if proven.is_empty() { from_members.clone() } else { proven };
    }
    let longest = || preferred.iter().max_by_key(|r| r.length);
    let end = if planted!("seal-at-longest") { longest() } else { preferred.iter().min_by_key(|r| r.length) };
    let Some(shortest) = end else {
        return SealDecision::Wait(WaitReason::NoReceipt);
    };
    let (length, crc) = (shortest.length, shortest.crc);
    if preferred.iter().any(|r| r.length == length && r.crc != crc) {
        return SealDecision::Wait(WaitReason::Disagreement);
    }
    if length == 0 {
        return SealDecision::Seal { length, crc: Crc32::EMPTY, holders: Vec::new() };
    }
    let mut holders: Vec<ServerId> = Vec::new();
    for receipt in from_members {
        let counts = receipt.durable || durability == Durability::Buffered;
        if counts && receipt.length == length && receipt.crc == crc && !holders.contains(&receipt.server) {
            holders.push(receipt.server);
        }
    }
    SealDecision::Seal { length, crc, holders }
}

#[cfg(test)]
mod tests {
    use quarry_types::{ChunkId, ClusterId};

    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn server(number: u128) -> ServerId {
        ServerId::from_random(number)
    }

    fn receipt(of: u128, length: u64) -> Receipt {
        Receipt {
            cluster: ClusterId::from_random(0),
            server: server(of),
            chunk: ChunkId(1),
            length,
            crc: Crc32(length as u32),
            durable: true,
            restarted: false,
        }
    }

    fn restarted(of: u128, length: u64) -> Receipt {
        Receipt { restarted: true, ..receipt(of, length) }
    }

    fn seal(length: u64, holders: &[u128]) -> SealDecision {
        let holders = holders.iter().map(|h| server(*h)).collect();
        SealDecision::Seal { length, crc: Crc32(length as u32), holders }
    }

    fn members() -> Vec<ServerId> {
        vec![server(1), server(2), server(3)]
    }

    #[test]
    fn the_least_length_of_those_that_answered_is_the_seal() {
        let receipts = [receipt(1, 30), receipt(2, 20), receipt(3, 20)];
        assert_eq!(decide(Durability::Sealed, &members(), &receipts, &[], NOW), seal(20, &[2, 3]));
        assert_eq!(decide(Durability::Sealed, &members(), &receipts[..1], &[], NOW), seal(30, &[1]));
        assert_eq!(decide(Durability::Sealed, &members(), &[], &[], NOW), SealDecision::Wait(WaitReason::NoReceipt));
        assert_eq!(decide(Durability::Sealed, &members(), &[receipt(1, 0), receipt(2, 9)], &[], NOW), seal(0, &[]));
    }

    #[test]
    fn s1_a_restarted_member_does_not_shorten_the_chunk() {
        let receipts = [restarted(1, 10), receipt(2, 30), restarted(3, 30)];
        assert_eq!(decide(Durability::Sealed, &members(), &receipts, &[], NOW), seal(30, &[2, 3]));
        let longer = [restarted(1, 40), receipt(2, 30)];
        assert_eq!(decide(Durability::Buffered, &members(), &longer, &[], NOW), seal(30, &[2]));
    }

    #[test]
    fn s1_where_only_restarted_members_answer_buffered_chunks_wait_for_the_others() {
        let receipts = [restarted(1, 10), restarted(2, 20)];
        let wait = SealDecision::Wait(WaitReason::OnlyRestarted);
        assert_eq!(decide(Durability::Buffered, &members(), &receipts, &[], NOW), wait);
        assert_eq!(decide(Durability::Buffered, &members(), &receipts, &[], SEAL_WAIT), seal(10, &[1]));
        let all = [restarted(1, 10), restarted(2, 20), restarted(3, 20)];
        assert_eq!(
            decide(Durability::Buffered, &members(), &all, &[], NOW),
            seal(10, &[1]),
            "nobody is left to wait for"
        );
    }

    #[test]
    fn where_only_restarted_members_answer_sealed_chunks_wait_until_the_others_are_dead() {
        let receipts = [restarted(1, 10), restarted(2, 20)];
        let wait = SealDecision::Wait(WaitReason::OnlyRestarted);
        assert_eq!(decide(Durability::Sealed, &members(), &receipts, &[], NOW), wait);
        assert_eq!(decide(Durability::Sealed, &members(), &receipts, &[], Duration::from_millis(1)), seal(10, &[1]));
        let all = [restarted(1, 10), restarted(2, 20), restarted(3, 20)];
        assert_eq!(decide(Durability::Sealed, &members(), &all, &[], NOW), seal(10, &[1]));
    }

    #[test]
    fn s2_members_that_disagree_about_the_same_bytes_are_not_sealed() {
        let odd = Receipt { crc: Crc32(7), ..receipt(2, 20) };
        let wait = SealDecision::Wait(WaitReason::Disagreement);
        assert_eq!(decide(Durability::Sealed, &members(), &[receipt(1, 20), odd], &[], NOW), wait);
        assert_eq!(
            decide(Durability::Sealed, &members(), &[receipt(1, 20), Receipt { restarted: true, ..odd }], &[], NOW),
            seal(20, &[1])
        );
    }

    #[test]
    fn s11_an_old_image_never_shortens_what_another_member_has() {
        // Of a chunk that is not in the image, or was shorter there, all others restarted.
        let receipts = [restarted(1, 0), restarted(2, 30), restarted(3, 40)];
        assert_eq!(decide(Durability::Sealed, &members(), &receipts, &[server(1)], NOW), seal(30, &[2]));
        let one = [restarted(1, 0), restarted(2, 30)];
        let dead = Duration::from_millis(1);
        assert_eq!(decide(Durability::Sealed, &members(), &one, &[server(1)], dead), seal(30, &[2]));
        // It alone answers: the others may come back with what was flushed.
        let wait = SealDecision::Wait(WaitReason::OnlyRestarted);
        assert_eq!(decide(Durability::Sealed, &members(), &one[..1], &[server(1)], dead), wait);
        let short = [receipt(1, 10)];
        assert_eq!(
            decide(Durability::Sealed, &members(), &short, &[server(1)], dead),
            wait,
            "whatever it says of itself"
        );
        assert_eq!(decide(Durability::Sealed, &members(), &short, &[server(1)], SEAL_WAIT), seal(10, &[1]));
    }

    #[test]
    fn s11_who_knows_nothing_of_a_chunk_that_is_older_than_its_start_may_have_forgotten_it() {
        let forgotten = |receipt: Receipt, first| may_have_forgotten(&receipt, ChunkId(first));
        assert!(forgotten(receipt(1, 0), 2), "placed before it started");
        assert!(!forgotten(receipt(1, 0), 1), "placed in this life: it was never asked");
        assert!(!forgotten(receipt(1, 5), 2) && !forgotten(restarted(1, 0), 2), "it knows the chunk");
    }

    #[test]
    fn s1_only_durable_replicas_of_members_are_holders() {
        let volatile = Receipt { durable: false, ..receipt(2, 20) };
        let receipts = [receipt(1, 20), volatile, receipt(9, 5), receipt(1, 20)];
        assert_eq!(decide(Durability::Sealed, &members(), &receipts, &[], NOW), seal(20, &[1]));
        assert_eq!(decide(Durability::Buffered, &members(), &receipts, &[], NOW), seal(20, &[1, 2]));
    }
}
