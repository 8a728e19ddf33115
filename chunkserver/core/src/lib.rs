//! The chunkserver's decisions and formats, as plain data in and plain data out.
//!
//! | module | holds |
//! |---|---|
//! | [`layout`] | the chunk file: header, page of block CRCs, data |
//! | [`identity`] | the file that says which cluster and server a data directory belongs to |
//! | [`record`] | what the index keeps about a replica, and how it may change |
//! | [`sealing`] | what a replica does when the master's committed seal reaches it |
//! | [`recovery`] | what of an open replica is still proven after a crash |
//! | [`inventory`] | all replicas of a server, their numbered changes and their digest |
//! | [`assembly`] | a chunk that is put together from replicas of which none need be whole |
//! | [`capacity`] | how much of a disk may be used |
//! | [`disk_health`] | when a disk is out of service, and when it is slow |
//! | [`scrub`] | which replica is read again next, and how fast |
//!
//! This crate must not know files, sockets, clocks, threads or the messages of the wire.

pub mod assembly;
pub mod capacity;
pub mod disk_health;
pub mod identity;
pub mod inventory;
pub mod layout;
pub mod record;
pub mod recovery;
pub mod scrub;
pub mod sealing;

/// What an acknowledgement of this server promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A flush and a seal are on the disk before they are acknowledged.
    #[default]
    Sealed,
    /// They are acknowledged while still in the page cache: a power loss of all members can lose them.
    Buffered,
}
