//! **S11, members are never confused.**
//!
//! *Observes* every vote that a master makes durable, the epoch in every change of the replicated state, every start counter of
//! a chunkserver, and at the end the whole states of all masters. *From* the metadata stores: a master votes once in a term, also
//! across the loss of its power; who calls itself elected has a majority of votes that are durable; a term has one leader; epochs only rise; a start counter never goes back, except where the
//! simulation itself put an old image back; and masters that applied the same entry hold the same, byte for byte.
//!
//! *Cannot see* a vote that was sent before it was written and did not decide the election. Old images of masters and
//! masters that are replaced are not part of these runs (`tests/tests/old_image.rs`, `masters.rs`).

use std::collections::BTreeMap;

use prost::Message;
use quarry_env_sim::kv::Rows;

/// A vote as it lies in a log, behind its version byte.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct VoteRecord {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    node: u64,
    #[prost(bool, tag = "3")]
    committed: bool,
}

/// Everything that was voted.
#[derive(Debug, Default)]
pub struct Votes {
    by: BTreeMap<(usize, u64), u64>,
    elected: BTreeMap<u64, u64>,
}

impl Votes {
    /// What is wrong with a master having made this vote durable.
    pub fn cast(&mut self, master: usize, row: &[u8]) -> Option<String> {
        let Some(VoteRecord { term, node, committed }) = read(row) else {
            return Some("S11: a vote does not decode".into());
        };
        // A vote that is committed is no choice: it says who was elected.
        let first = if committed { node } else { *self.by.entry((master, term)).or_insert(node) };
        if first != node {
            return Some(format!("S11: master {} votes for {node} in term {term}, and did for {first}", master + 1));
        }
        if !committed {
            return None;
        }
        let leader = *self.elected.entry(term).or_insert(node);
        (leader != node).then(|| format!("S11: term {term} has two leaders, {leader} and {node}"))
    }
}

fn read(row: &[u8]) -> Option<VoteRecord> {
    row.get(1..).and_then(|bytes| VoteRecord::decode(bytes).ok())
}

/// What is wrong with a master calling itself elected while these votes of all masters would outlast a power loss: a majority must
/// have voted for it, or for somebody in a later term since.
pub fn elected(master: usize, row: &[u8], durable: &[Option<Vec<u8>>]) -> Option<String> {
    let vote = read(row).filter(|vote| vote.committed && vote.node == master as u64 + 1)?;
    let stands = |of: &VoteRecord| of.term > vote.term || (of.term, of.node) == (vote.term, vote.node);
    let standing = durable.iter().flatten().filter_map(|row| read(row)).filter(stands).count();
    let why = || format!("S11: master {} leads in term {} by {standing} durable votes", master + 1, vote.term);
    (standing <= durable.len() / 2).then(why)
}

/// What is wrong with an epoch after another.
pub fn epoch(before: u64, after: u64) -> Option<String> {
    (after < before).then(|| format!("S11: the epoch goes back from {before} to {after}"))
}

/// What is wrong with a start counter after another.
pub fn start(before: Option<u64>, after: u64) -> Option<String> {
    let before = before.filter(|before| after <= *before)?;
    Some(format!("S11: a start counter goes from {before} to {after}"))
}

/// What is wrong with two masters' rows of a table, at the same entry.
pub fn same(table: &str, one: &Rows, other: &Rows) -> Option<String> {
    if one == other {
        return None;
    }
    let differs = one.iter().find(|(key, value)| other.get(*key) != Some(value));
    let key = differs.map(|(key, _)| key).or_else(|| other.keys().find(|key| !one.contains_key(*key)));
    Some(format!("S11: two masters hold different rows of {table}, the first with key {key:02x?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(term: u64, node: u64, committed: bool) -> Vec<u8> {
        [vec![1], VoteRecord { term, node, committed }.encode_to_vec()].concat()
    }

    #[test]
    fn a_second_vote_in_a_term_is_refused_and_a_second_leader_too() {
        let mut votes = Votes::default();
        assert_eq!(votes.cast(0, &vote(1, 1, false)), None);
        assert_eq!(votes.cast(0, &vote(1, 1, true)), None);
        assert!(votes.cast(0, &vote(1, 2, false)).is_some());
        assert!(votes.cast(1, &vote(1, 2, true)).is_some());
        assert_eq!(votes.cast(1, &vote(2, 2, true)), None);
        let durable = |votes: [Option<(u64, u64)>; 3]| {
            votes.map(|vote| vote.map(|(term, node)| super::tests::vote(term, node, false)))
        };
        assert_eq!(elected(1, &vote(2, 2, true), &durable([Some((2, 2)), Some((2, 2)), Some((1, 1))])), None);
        assert_eq!(elected(1, &vote(2, 2, true), &durable([Some((3, 1)), Some((2, 2)), None])), None);
        assert!(elected(1, &vote(2, 2, true), &durable([Some((1, 1)), Some((2, 2)), None])).is_some());
        assert!(elected(1, &vote(2, 2, true), &durable([Some((2, 1)), Some((2, 2)), Some((2, 3))])).is_some());
        assert_eq!(elected(0, &vote(2, 2, true), &durable([None; 3])), None, "it only heard of it");
        assert!(epoch(2, 1).is_some() && start(Some(2), 2).is_some() && start(Some(2), 3).is_none());
        let rows = |value: u8| Rows::from([(vec![1], vec![value])]);
        assert_eq!(same("chunk", &rows(1), &rows(1)), None);
        assert!(same("chunk", &rows(1), &rows(2)).is_some() && same("chunk", &Rows::new(), &rows(2)).is_some());
    }
}
