//! Limits of the data port, each with its unit.

use std::time::Duration;

use quarry_types::limits::{CONNECT_DEADLINE, SESSION};

/// Connections at once; a further caller is told to come back.
pub const CONNECTIONS_MAX: usize = 1024;
/// Writes at once. Each owns one packet buffer, so that it always moves on whatever the others do.
pub const WRITES_MAX: usize = 96;
/// Packet buffers of 1 MiB that the writes share beyond their own.
pub const SHARED_BUFFERS: usize = 32;
/// Packets of one write that may wait for the disk.
pub const QUEUED_PACKETS: usize = 7;
/// Flushes of one write that may wait for their reply.
pub const QUEUED_FLUSHES: usize = 64;
/// Reads that hold a buffer at once; further ones wait.
pub const READS_MAX: usize = 32;
/// Of these, reads of other servers that copy, at most.
pub const COPY_READS_MAX: usize = 8;

/// Connections to the local socket at once; a further caller is turned away and reads over the network.
pub const LOCAL_CONNECTIONS_MAX: usize = 64;
/// Longest message of a local caller, in bytes.
pub const LOCAL_MESSAGE_BYTES_MAX: usize = 1024;
/// Files given out to one local caller that count as being read; clients hold no more.
pub const GIVEN_OUT_MAX: usize = 64;
/// A local connection on which nothing is said ends after this. Clients let a file go, and say so, sooner.
pub const LOCAL_IDLE_DEADLINE: Duration = Duration::from_secs(30);

/// A caller must have introduced itself within this.
pub const HANDSHAKE_DEADLINE: Duration = CONNECT_DEADLINE;
/// A connection without a conversation ends after this: clients use one again within half of it, or never.
pub const IDLE_DEADLINE: Duration = Duration::from_secs(10);
/// A write without a frame ends after this; the master seals its chunk when the writer's lease runs out.
pub const WRITE_IDLE_DEADLINE: Duration = SESSION;
/// A packet that began to arrive must have moved on by 256 KiB, or to its end, within this, and a peer must have taken what is sent to it.
pub const STALL_DEADLINE: Duration = Duration::from_secs(20);
/// The last member must have answered within this what it was sent.
pub const MEMBER_DEADLINE: Duration = Duration::from_secs(8);
/// Each member further up waits this much longer, so that the one next to the silent member is first to name it.
pub const MEMBER_DEADLINE_STEP: Duration = Duration::from_secs(2);
/// After a failure was told: how long to take what the caller has under way, so that it can read the failure.
pub const LINGER: Duration = Duration::from_secs(1);
/// After sending to the next member failed: how long to wait for the reason it may have sent.
pub const REASON_DEADLINE: Duration = Duration::from_secs(1);
/// Touching the disks for a probe.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(1);
/// Opening the replica, here and behind, must be done within this for the last member.
pub const OPEN_DEADLINE: Duration = Duration::from_secs(5);

const _: () = {
    assert!(QUEUED_PACKETS >= 4, "at least four packets in flight");
    assert!(COPY_READS_MAX < READS_MAX, "copies never take all reads");
    assert!(WRITES_MAX < CONNECTIONS_MAX);
};
