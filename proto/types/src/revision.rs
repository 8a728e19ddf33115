//! A place in the stream of changes.

use std::{fmt, str::FromStr};

use crate::Lineage;

/// A place in the stream of a cluster's changes: behind the event of this position (from 1) among those of the command at
/// this index of the log, and behind all before. Revisions of one lineage are ordered as the changes are; those of different
/// lineages cannot be compared.
///
/// It is written as `number-uuid:index:position`:
///
/// ```
/// use quarry_types::Revision;
///
/// let revision: Revision = "1-67e55044-10b1-426f-9247-bb680e5fe0c8:4711:1".parse()?;
/// assert_eq!((revision.lineage.number, revision.index, revision.position), (1, 4711, 1));
/// assert_eq!(revision.to_string(), "1-67e55044-10b1-426f-9247-bb680e5fe0c8:4711:1");
/// # Ok::<(), quarry_types::RevisionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision {
    /// Which history.
    pub lineage: Lineage,
    /// Index in the masters' log.
    pub index: u64,
    /// Among the events of that command; 0: before the first.
    pub position: u64,
}

/// The text is no revision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no revision; one looks like 1-67e55044-10b1-426f-9247-bb680e5fe0c8:4711:1")]
pub struct RevisionError(String);

impl Revision {
    /// Where in its lineage, to be compared.
    #[must_use]
    pub fn place(&self) -> (u64, u64) {
        (self.index, self.position)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}:{}:{}", self.lineage.number, self.lineage.id, self.index, self.position)
    }
}

impl FromStr for Revision {
    type Err = RevisionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let mut parts = text.split(':');
            let (number, id) = parts.next()?.split_once('-')?;
            let lineage = Lineage { number: number.parse().ok()?, id: id.parse().ok()? };
            let revision =
                Revision { lineage, index: parts.next()?.parse().ok()?, position: parts.next()?.parse().ok()? };
            parts.next().is_none().then_some(revision)
        };
        read().ok_or_else(|| RevisionError(text.chars().take(200).collect()))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_revision_reads_back() {
        for (number, id, index, position) in [(1, 1, 0, 0), (u64::MAX, u128::MAX, u64::MAX, u64::MAX), (3, 7, 4711, 2)]
        {
            let lineage = Lineage { number, id: Uuid::from_u128(id) };
            let revision = Revision { lineage, index, position };
            assert_eq!(revision.to_string().parse(), Ok(revision));
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let id = Uuid::from_u128(7);
        for text in ["", "now", "5", &format!("1-{id}"), &format!("1-{id}:5"), &format!("1-{id}:5:1:2"), "1-x:5:1"] {
            assert!(text.parse::<Revision>().unwrap_err().to_string().contains("is no revision"), "{text}");
        }
        assert!(format!("-1-{id}:5:1").parse::<Revision>().is_err());
        assert!(format!("1-{id}:5:-1").parse::<Revision>().is_err());
    }
}
