//! Names of things.

use std::{fmt, num::ParseIntError, str::FromStr};

use uuid::Uuid;

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
        )]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.strip_prefix($prefix).unwrap_or(text).parse().map($name)
            }
        }
    };
}

number_id!(
    /// A chunk. Never used twice in a lineage; the number comes from a replicated counter.
    ChunkId, "c");
number_id!(
    /// A file or directory, independent of its name.
    InodeId, "i");
number_id!(
    /// One client's numbered conversation with the master group.
    SessionId, "s");
number_id!(
    /// A writer lease: the right to write one file.
    LeaseId, "l");
number_id!(
    /// Raised by a command whenever a master process begins to lead.
    Epoch, "e");
number_id!(
    /// A master in the Raft group.
    NodeId, "m");

/// The root directory's inode.
pub const ROOT: InodeId = InodeId(1);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// From 128 random bits.
            #[must_use]
            pub fn from_random(bits: u128) -> Self {
                Self(uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid())
            }

            /// From the 16 bytes of the wire; `None` when the length is another.
            #[must_use]
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }

            /// The 16 bytes of the wire.
            #[must_use]
            pub fn to_bytes(self) -> Vec<u8> {
                self.0.as_bytes().to_vec()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize<'de>>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id!(
    /// A cluster, made when it is created.
    ClusterId);
uuid_id!(
    /// A chunkserver, made when its first data directory is.
    ServerId);

/// A stretch of a cluster's history: a restored backup or a forced recovery begins a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lineage {
    /// Counts the lineages of a cluster, from 1.
    pub number: u64,
    /// Tells siblings (two lineages with one number) apart.
    pub id: Uuid,
}

/// What fences an old master: its lineage and epoch. See [`Leadership::accepts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Leadership {
    /// The lineage.
    pub lineage: Lineage,
    /// The epoch within it.
    pub epoch: Epoch,
}

/// Why a chunkserver refuses a master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeadershipRefusal {
    /// It led in the past.
    Older,
    /// Its history forked off from the one this server follows.
    Sibling,
}

impl LeadershipRefusal {
    /// What a server that follows `followed` does about `offered`, and what remains to be done, to follow its name.
    #[must_use]
    pub fn explain(self, followed: &Leadership, offered: &Leadership) -> String {
        let (what, remedy) = match self {
            LeadershipRefusal::Older => ("an older leader", ""),
            LeadershipRefusal::Sibling => (
                "a leader of another history",
                "; a backup that is restored again needs a lineage above: `quarry-master restore --lineage N`",
            ),
        };
        format!(
            "follows lineage {} epoch {} and refuses {what} (lineage {} epoch {}){remedy}",
            followed.lineage.number, followed.epoch.0, offered.lineage.number, offered.epoch.0
        )
    }
}

impl Leadership {
    /// Whether a server that follows `self` may obey `offered`, and must then persist it first.
    ///
    /// # Errors
    /// Says why not.
    pub fn accepts(&self, offered: &Leadership) -> Result<(), LeadershipRefusal> {
        let (ours, theirs) = (&self.lineage, &offered.lineage);
        if theirs.number < ours.number {
            return Err(LeadershipRefusal::Older);
        }
        if theirs.number == ours.number {
            if theirs.id != ours.id {
                return Err(LeadershipRefusal::Sibling);
            }
            if offered.epoch < self.epoch {
                return Err(LeadershipRefusal::Older);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64, id: u128, epoch: u64) -> Leadership {
        Leadership { lineage: Lineage { number, id: Uuid::from_u128(id) }, epoch: Epoch(epoch) }
    }

    #[test]
    fn s5_older_epochs_and_siblings_are_refused() {
        let ours = at(2, 7, 5);
        assert_eq!(ours.accepts(&at(2, 7, 5)), Ok(()));
        assert_eq!(ours.accepts(&at(2, 7, 6)), Ok(()));
        assert_eq!(ours.accepts(&at(2, 7, 4)), Err(LeadershipRefusal::Older));
        assert_eq!(ours.accepts(&at(1, 7, 9)), Err(LeadershipRefusal::Older));
        assert_eq!(ours.accepts(&at(2, 8, 9)), Err(LeadershipRefusal::Sibling));
        assert_eq!(ours.accepts(&at(3, 8, 1)), Ok(()));
    }

    #[test]
    fn ids_read_back_with_and_without_prefix() {
        assert_eq!("c17".parse(), Ok(ChunkId(17)));
        assert_eq!("17".parse(), Ok(ChunkId(17)));
        assert!("c-1".parse::<ChunkId>().is_err());
    }
}
