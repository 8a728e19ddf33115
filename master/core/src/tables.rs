//! The sorted tables that the replicated state lives in.

mod mem;
mod overlay;

pub use mem::MemTables;
pub use overlay::{Overlay, Savepoint};

macro_rules! tables {
    ($($(#[$doc:meta])* $table:ident = $name:literal,)*) => {
        /// A table. New ones are added at the end; names are those of the stored column families.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Table {
            $($(#[$doc])* $table,)*
        }

        impl Table {
            /// All tables.
            pub const ALL: &'static [Table] = &[$(Table::$table,)*];

            /// Its name in storage.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Table::$table => $name,)*
                }
            }
        }
    };
}

tables! {
    /// The cluster's identity, settings, counters and totals.
    Meta = "meta",
    /// Files and directories by inode id.
    Inode = "inode",
    /// (directory, name) → inode.
    Entry = "entry",
    /// (file, offset) → chunk.
    Row = "row",
    /// Chunk records by chunk id.
    Chunk = "chunk",
    /// Writer leases by lease id.
    Lease = "lease",
    /// Sessions by session id.
    Session = "session",
    /// Removed inodes by (when they may go, inode).
    Removed = "removed",
    /// Chunks to be deleted, by chunk id.
    Doomed = "doomed",
    /// Chunkservers by server id.
    Server = "server",
    /// (session, sequence) → what the operation answered.
    Result = "result",
    /// The random number that opened a session → the session.
    Nonce = "nonce",
    /// Open chunks, by chunk id.
    Open = "open",
    /// What was removed and can be taken back, by (directory, name, the last removal first).
    Trash = "trash",
    /// Files whose chunks follow a changed number of wanted replicas, by inode id.
    Wanted = "wanted",
    /// What changed of late, for those who watch, by (index in the log, position among the events of one command).
    Event = "event",
}

/// Storage failed, or a row does not decode. Fatal for apply: a replica that goes on would differ from the others.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TableError(pub String);

/// A key with its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A changed key: its new value, or `None` when it is gone.
pub type Change = (Table, Vec<u8>, Option<Vec<u8>>);

/// Reads of the tables at one point of the log.
pub trait ReadTables: Send + Sync {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`TableError`] when storage fails.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, TableError>;

    /// The first `limit` pairs with `from <= key < to` (`to` absent: to the table's end), in key order.
    ///
    /// # Errors
    /// [`TableError`] when storage fails.
    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, TableError>;
}
