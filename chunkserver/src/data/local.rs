//! A write's steps on this server's disk, in the order in which they came. The last bytes and the seal behind them are one, if
//! both are here: that takes fewer threads and, of a chunk that is one packet, fewer syncs.

use bytes::Bytes;
use quarry_proto::{WireError, signed, v1};
use quarry_types::{Crc32, Receipt};
use tokio::sync::mpsc;

use super::streams::WriteState;
use crate::{server::Context, store::ReplicaWriter};

/// What is to be done next.
pub(super) enum Step {
    /// Write verified bytes.
    Append(Append),
    /// Make everything up to here durable.
    Flush(u64),
    /// End the chunk.
    Seal(Seal),
}

/// Verified bytes.
pub(super) struct Append {
    /// Where in the chunk.
    pub(super) offset: u64,
    /// Each piece's CRC, as the writer computed it, and its length.
    pub(super) pieces: Vec<(Crc32, u64)>,
    /// The bytes.
    pub(super) bytes: Bytes,
}

/// The end of a chunk.
pub(super) struct Seal {
    /// Its length.
    pub(super) length: u64,
    /// Its CRC.
    pub(super) crc: Crc32,
}

/// Carries out steps until there are no more, the chunk is sealed, or the write has failed.
pub(super) async fn run(
    context: &Context,
    state: &WriteState,
    replica: &ReplicaWriter,
    mut steps: mpsc::Receiver<Step>,
) {
    let local = Local { context, state, replica };
    let mut next = None;
    loop {
        let step = match next.take() {
            Some(step) => step,
            None => match state.unless_failed(steps.recv()).await {
                Ok(Some(step)) => step,
                _ => return,
            },
        };
        let done = match step {
            Step::Append(append) => match steps.try_recv() {
                Ok(Step::Seal(seal)) => local.append_last(append, seal).await.map(|()| true),
                then => {
                    next = then.ok();
                    local.append(append).await.map(|()| false)
                }
            },
            Step::Flush(length) => local.flush(length).await.map(|()| false),
            Step::Seal(seal) => local.seal(seal).await.map(|()| true),
        };
        match done {
            Ok(false) => {}
            Ok(true) => return,
            Err(error) => return state.fail(error.of_server(context.server)),
        }
    }
}

/// This server's part of a write.
struct Local<'a> {
    context: &'a Context,
    state: &'a WriteState,
    replica: &'a ReplicaWriter,
}

impl Local<'_> {
    async fn append(&self, Append { offset, pieces, bytes }: Append) -> Result<(), WireError> {
        let (end, length, began) = (offset + bytes.len() as u64, bytes.len() as u64, self.context.world.clock.now());
        self.replica.append(offset, pieces, bytes).await?;
        let traffic = &self.context.traffic;
        traffic.served(&traffic.writes, length, began, self.context.world.clock.now());
        self.state.update(|progress| progress.wrote(end));
        Ok(())
    }

    async fn append_last(&self, Append { offset, pieces, bytes }: Append, seal: Seal) -> Result<(), WireError> {
        let length = bytes.len() as u64;
        let receipt = self.replica.append_last(offset, pieces, bytes, seal.length, seal.crc).await?;
        self.context.traffic.wrote_last(length, self.context.world.clock.now());
        self.state.update(|progress| progress.wrote(seal.length));
        self.sealed(receipt);
        Ok(())
    }

    async fn flush(&self, length: u64) -> Result<(), WireError> {
        self.replica.flush(length).await?;
        self.state.update(super::progress::Progress::flushed);
        Ok(())
    }

    async fn seal(&self, Seal { length, crc }: Seal) -> Result<(), WireError> {
        let receipt = self.replica.seal(length, crc).await?;
        self.sealed(receipt);
        Ok(())
    }

    fn sealed(&self, receipt: Receipt) {
        let signed = signed::sign(&self.context.key, &v1::Receipt::from(receipt));
        self.state.update(|progress| progress.sealed(signed));
    }
}
