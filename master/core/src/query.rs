//! Reads of the replicated state.

mod chunks;
mod events;
mod files;
mod group;
mod trash;
mod usage;

pub(crate) use chunks::rows_from;
pub use chunks::{ChunkView, LocatedRows, chunk, doomed, open_chunks, open_watermark, rows};
pub use events::{EventView, EventsPage, WatchFilter, WatchFrom, events, events_begun};
pub use files::{ListPage, inode, list, path_of, resolve, stat};
pub use group::{
    LeaseView, ServerView, cluster, counters, hold, is_in_maintenance, leadership, lease, leases, log_marks, server,
    servers, session_ended, session_exists, sessions, settings, totals,
};
pub use trash::{TrashPage, TrashView, trash};
pub use usage::{Usage, UsageWalk};

/// A chunk's record.
pub use crate::rows::Chunk as ChunkRecord;
pub use crate::{reply::FileView, state::Fault};
