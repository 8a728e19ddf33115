//! What the tables hold, one row type a file. Each is a version byte and a protobuf message.

mod chunk;
mod entry;
mod event;
mod hold;
mod inode;
mod lease;
mod mark;
mod meta;
mod row;
mod server;
mod session;
mod trash;
mod wanted;

pub use chunk::{Chunk, ChunkState};
pub use entry::Entry;
pub use event::{
    Change, EpochBegun, Event, Events, FileState, HoldReleased, LineageBegun, Move, Place, ReplicasSet, ServerJudged,
    ServerRegistered, ServerTrusted, ServerWished, SettingChange, SettingsChanged, Takeaway,
};
pub use hold::Hold;
pub use inode::{Inode, InodeState};
pub use lease::Lease;
pub use mark::Mark;
pub use meta::{Cluster, Counters, FeatureLevel, LogMarks, Totals};
pub use row::Row;
pub use server::Server;
pub use session::{Nonce, OpResult, Session};
pub use trash::Trash;
pub use wanted::Wanted;

pub use crate::{command::Settings, wire::Record};
