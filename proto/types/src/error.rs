//! The one error table: every code that crosses a process boundary, and what the caller should do about it.

use std::fmt;

/// What the caller of a failed call should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Try the same again after a pause.
    Retry,
    /// Try another server.
    RetryElsewhere,
    /// Ask the master again for what was assumed, then retry.
    Refresh,
    /// Trying again cannot help.
    GiveUp,
}

macro_rules! table {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $advice:ident;)*) => {
        /// A code with its number on the wire. Numbers are never used again for something else.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $number,)*
        }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name),*];

            /// From the wire; an unknown number (a newer peer) is [`ErrorCode::Internal`].
            #[must_use]
            pub fn from_number(number: u32) -> Self {
                match number {
                    $($number => ErrorCode::$name,)*
                    _ => ErrorCode::Internal,
                }
            }

            /// The number on the wire.
            #[must_use]
            pub fn number(self) -> u32 {
                self as u32
            }

            /// What the caller should do.
            #[must_use]
            pub fn advice(self) -> Advice {
                match self {
                    $(ErrorCode::$name => Advice::$advice,)*
                }
            }
        }
    };
}

table! {
    /// A bug or an unforeseen failure on the other side.
    Internal = 1, Retry;
    /// The request makes no sense; nothing was done.
    InvalidArgument = 2, GiveUp;
    /// No such file, directory, inode or chunk.
    NotFound = 3, GiveUp;
    /// The name is taken.
    AlreadyExists = 4, GiveUp;
    /// A file stands where a directory is needed.
    NotADirectory = 5, GiveUp;
    /// A directory stands where a file is needed.
    IsADirectory = 6, GiveUp;
    /// The directory has entries.
    NotEmpty = 7, GiveUp;
    /// A condition of the caller (version, unchanged) does not hold.
    Conflict = 8, GiveUp;
    /// Another writer holds the file's lease.
    LeaseHeld = 9, Retry;
    /// The caller's writer lease has ended.
    LeaseLost = 10, GiveUp;
    /// The session is unknown; whether the operation took effect is unknown as well.
    OutcomeUnknown = 11, GiveUp;
    /// A limit is reached; try later.
    Busy = 12, Retry;
    /// No room left.
    NoSpace = 13, RetryElsewhere;
    /// Too few chunkservers can take part.
    NotEnoughServers = 14, Retry;
    /// This master does not lead.
    NotLeader = 15, RetryElsewhere;
    /// The other side is starting, stopping, or cannot reach what it needs.
    Unavailable = 16, Retry;
    /// The call did not end in time; its outcome is unknown.
    DeadlineExceeded = 17, Retry;
    /// The chunk was fenced: it takes no further bytes.
    Fenced = 18, Refresh;
    /// Wrong cluster, server, chunk, length or CRC: the caller's knowledge is old or wrong.
    Mismatch = 19, Refresh;
    /// Stored or received bytes fail their checksum.
    Corrupt = 20, RetryElsewhere;
    /// The signature does not verify.
    Unauthorized = 21, GiveUp;
    /// The other side speaks another version.
    VersionMismatch = 22, GiveUp;
    /// The sender leads no longer, or in a history that this server does not follow.
    StaleLeader = 23, GiveUp;
    /// A disk failed.
    DiskFailed = 24, RetryElsewhere;
    /// A chunk has too few durable replicas yet.
    UnderReplicated = 25, Retry;
    /// The chunkserver has no such replica.
    NoReplica = 26, RetryElsewhere;
    /// Another member of the write pipeline failed.
    PipelineBroken = 27, Refresh;
    /// A directory cannot move below itself.
    Cycle = 28, GiveUp;
    /// A master cannot prove that what it knows is as young as the read asks for.
    TooStale = 29, RetryElsewhere;
    /// The events behind this revision are not kept any more: what changed has to be looked up anew.
    Compacted = 30, GiveUp;
    /// The revision belongs to another history of the cluster, or to another cluster.
    OtherLineage = 31, GiveUp;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), *code);
        }
        assert_eq!(ErrorCode::from_number(9999), ErrorCode::Internal);
    }
}
