//! The replicated state on disk.
//!
//! ```text
//! <dir>/GROUP                 format of this directory; written last when the group is created
//! <dir>/log/                  store of log and vote: synced before anything is acknowledged
//! <dir>/CURRENT               name of the state directory in use, replaced atomically
//! <dir>/state-<name>/         store of the applied state: behind the log after a power loss, never ahead of it
//! <dir>/snapshot-<name>/kv/   checkpoint of a state; shares its tables' files by hard links
//! <dir>/snapshot-<name>/META  what the checkpoint holds; written last: without it the directory is refuse
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `layout` | the names above, the format, and sweeping up what an interrupted step left |
//! | `state` | `State`: the tables and how far they are applied, changed by one batch at a time |
//! | `snapshot` | `Snapshot`: taking one, the newest one, installing one beside the old state |
//! | `view` | `View`: reads of the state |
//!
//! This module must not know Raft: how far the state is applied is a `Mark` whose meaning is `raft`'s.

mod layout;
mod snapshot;
mod state;
mod view;

pub(crate) use layout::Layout;
pub(crate) use snapshot::Snapshot;
pub(crate) use state::{Mark, State, open_checkpoint};
pub(crate) use view::KvTables;
pub use view::View;
