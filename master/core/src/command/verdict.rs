use quarry_types::{Epoch, ServerId};

use crate::detector::Health;

numbered! {
    /// What those who watch were told of a chunkserver last. A server that is only suspect is not spoken of: most of them
    /// are back a moment later.
    pub enum Verdict {
        /// Nothing yet: as if it were alive.
        None = 0,
        /// Beats come.
        Alive = 1,
        /// Unreachable for the master but not for its peers.
        Partitioned = 2,
        /// Counted as lost.
        Dead = 3,
    }
}

impl Verdict {
    /// The word that users see.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Verdict::None | Verdict::Alive => Health::Alive.word(),
            Verdict::Partitioned => Health::Partitioned.word(),
            Verdict::Dead => Health::Dead.word(),
        }
    }

    /// What is to be told of a server of this health, of which `told` was told last; `None`: nothing now.
    #[must_use]
    pub fn due(told: Verdict, health: Health) -> Option<Self> {
        let verdict = match health {
            Health::Alive => Verdict::Alive,
            Health::Suspect => return None,
            Health::Partitioned => Verdict::Partitioned,
            Health::Dead => Verdict::Dead,
        };
        Some(verdict).filter(|verdict| !told.says_as(*verdict))
    }

    /// Whether it says the same to whoever watches.
    #[must_use]
    pub fn says_as(self, other: Verdict) -> bool {
        let said = |verdict| if verdict == Verdict::None { Verdict::Alive } else { verdict };
        said(self) == said(other)
    }
}

message! {
    /// The verdict on one chunkserver.
    pub struct ServerVerdict as ServerVerdictWire {
        /// Which.
        server: ServerId = (bytes = "vec", tag = "1"),
        /// What is believed of it.
        verdict: Verdict = (uint32, tag = "2"),
    }
}

message! {
    /// See [`super::Kind::Announce`]. Nothing rests on it: one that is lost is made good by the next.
    pub struct Announce as AnnounceWire {
        /// The leadership whose verdicts these are; those of an older one are passed over.
        epoch: Epoch = (uint64, tag = "1"),
        /// At most [`crate::limits::ANNOUNCE_MAX`].
        verdicts: Vec<ServerVerdict> = (message, repeated, tag = "2"),
    }
}
