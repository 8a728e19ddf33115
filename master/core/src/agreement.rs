//! Whether the masters have the same state.
//!
//! Every replica hashes what it holds right after the same entry of the log ([`Digest`]); [`compare`] says who differs.

use std::collections::BTreeMap;

use quarry_types::NodeId;
use sha2::{Digest as _, Sha256};

use crate::tables::Table;

/// What is hashed and how. Digests of different formats are not compared. Raised with every change of either.
///
/// Format 1: SHA-256 over the rows of all tables, table by table in the order of [`Table::ALL`], each in key order: the
/// lengths of the table's name, key and value as 32-bit little-endian numbers, then the three. Nothing else is hashed: the
/// mark of what was applied is the same by the choice of the moment, and log, vote and RocksDB's own files are each
/// member's own.
pub const FORMAT: u32 = 1;
/// Bytes of a digest.
pub const DIGEST_BYTES: usize = 32;

/// A hash of the replicated state on its way: feed it every row, in the order of [`FORMAT`].
#[derive(Clone, Debug, Default)]
pub struct Hashing {
    hash: Sha256,
    rows: u64,
}

impl Hashing {
    /// The next row.
    pub fn row(&mut self, table: Table, key: &[u8], value: &[u8]) {
        let parts = [table.name().as_bytes(), key, value];
        for part in parts {
            self.hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        for part in parts {
            self.hash.update(part);
        }
        self.rows += 1;
    }

    /// The digest of all rows.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest { format: FORMAT, hash: self.hash.finalize().into(), rows: self.rows }
    }
}

/// What one replica holds at one entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest {
    /// See [`FORMAT`]; another build may have another.
    pub format: u32,
    /// The hash.
    pub hash: [u8; DIGEST_BYTES],
    /// Rows hashed, for people.
    pub rows: u64,
}

/// What a comparison found of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It has what most have.
    Agrees,
    /// It has something else than most, and they agree.
    Differs,
    /// Not all have the same, and no majority of those that answered does: one of them is wrong.
    Disputed,
    /// It did not answer, had no digest of that entry, or one of a format of its own. That says nothing.
    Unknown,
}

impl Finding {
    /// The word that users see.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Finding::Agrees => "agrees",
            Finding::Differs => "differs",
            Finding::Disputed => "disputed",
            Finding::Unknown => "unknown",
        }
    }

    /// Whether an operator must act.
    #[must_use]
    pub fn is_alarm(self) -> bool {
        matches!(self, Finding::Differs | Finding::Disputed)
    }
}

/// Compares what replicas said of the same entry of the log. Formats are taken apart: the one that most have counts, and
/// who has another is [`Finding::Unknown`].
#[must_use]
pub fn compare(said: &BTreeMap<NodeId, Option<Digest>>) -> BTreeMap<NodeId, Finding> {
    let mut formats: BTreeMap<u32, usize> = BTreeMap::new();
    for digest in said.values().flatten() {
        *formats.entry(digest.format).or_default() += 1;
    }
    let format = formats.iter().max_by_key(|(format, count)| (**count, **format)).map(|(format, _)| *format);
    let comparable = |digest: &Digest| Some(digest.format) == format;
    let mut votes: BTreeMap<Digest, usize> = BTreeMap::new();
    for digest in said.values().flatten().filter(|digest| comparable(digest)) {
        *votes.entry(*digest).or_default() += 1;
    }
    let answered: usize = votes.values().sum();
    let right = votes.iter().find(|(_, count)| **count * 2 > answered).map(|(digest, _)| *digest);
    let finding = |digest: &Option<Digest>| match (digest.filter(comparable), right) {
        // With nobody to compare with there is no agreement.
        (None, _) => Finding::Unknown,
        (Some(_), _) if answered < 2 => Finding::Unknown,
        (Some(own), Some(right)) if own == right => Finding::Agrees,
        (Some(_), Some(_)) => Finding::Differs,
        (Some(_), None) => Finding::Disputed,
    };
    said.iter().map(|(node, digest)| (*node, finding(digest))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(format: u32, byte: u8) -> Option<Digest> {
        Some(Digest { format, hash: [byte; DIGEST_BYTES], rows: 1 })
    }

    fn found(said: &[Option<Digest>]) -> Vec<&'static str> {
        let said = said.iter().zip(1..).map(|(digest, node)| (NodeId(node), *digest)).collect();
        compare(&said).into_values().map(Finding::word).collect()
    }

    #[test]
    fn the_one_that_differs_from_a_majority_is_named_whoever_it_is() {
        let (a, b) = (digest(1, 1), digest(1, 2));
        assert_eq!(found(&[a, a, a]), ["agrees"; 3]);
        assert_eq!(found(&[b, a, a]), ["differs", "agrees", "agrees"]);
        assert_eq!(found(&[a, a, b, None]), ["agrees", "agrees", "differs", "unknown"]);
        assert_eq!(found(&[a, b, None]), ["disputed", "disputed", "unknown"], "nobody knows which");
    }

    #[test]
    fn no_answer_and_another_format_are_no_difference() {
        let a = digest(1, 1);
        assert_eq!(found(&[a, None, None]), ["unknown"; 3], "one alone agrees with nobody");
        assert_eq!(found(&[a, a, digest(2, 1)]), ["agrees", "agrees", "unknown"]);
        assert_eq!(found(&[]), [""; 0]);
    }

    #[test]
    fn rows_count_by_table_key_and_value_and_their_borders() {
        let hash = |rows: &[(Table, &str, &str)]| {
            let mut hashing = Hashing::default();
            for (table, key, value) in rows {
                hashing.row(*table, key.as_bytes(), value.as_bytes());
            }
            hashing.finish().hash
        };
        let all = [
            hash(&[]),
            hash(&[(Table::Meta, "ab", "c")]),
            hash(&[(Table::Meta, "a", "bc")]),
            hash(&[(Table::Inode, "ab", "c")]),
            hash(&[(Table::Meta, "ab", "c"), (Table::Meta, "", "")]),
            hash(&[(Table::Meta, "ab", "d")]),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn golden_digest_of_format_1() {
        let mut hashing = Hashing::default();
        hashing.row(Table::Meta, b"k", b"v");
        let digest = hashing.finish();
        let hex: String = digest.hash.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            (digest.format, digest.rows, hex.as_str()),
            (1, 1, "e590984dd07549e9d8c252d619b2af12e4f651535f46aca18b83cc8aab01f206")
        );
    }
}
