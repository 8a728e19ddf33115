//! A write's steps on this server's disk, in the order in which they came.

use bytes::Bytes;
use quarry_proto::{WireError, signed, v1};
use quarry_types::Crc32;
use tokio::sync::mpsc;

use super::streams::WriteState;
use crate::{server::Context, store::ReplicaWriter};

/// What is to be done next.
pub(super) enum Step {
    /// Write verified bytes.
    Append {
        /// Where in the chunk.
        offset: u64,
        /// Each piece's CRC, as the writer computed it, and its length.
        pieces: Vec<(Crc32, u64)>,
        /// The bytes.
        bytes: Bytes,
    },
    /// Make everything up to here durable.
    Flush(u64),
    /// End the chunk.
    Seal {
        /// Its length.
        length: u64,
        /// Its CRC.
        crc: Crc32,
    },
}

/// Carries out steps until there are no more, the chunk is sealed, or the write has failed.
pub(super) async fn run(
    context: &Context,
    state: &WriteState,
    replica: &ReplicaWriter,
    mut steps: mpsc::Receiver<Step>,
) {
    while let Ok(Some(step)) = state.unless_failed(steps.recv()).await {
        let sealed = matches!(step, Step::Seal { .. });
        if let Err(error) = carry_out(context, state, replica, step).await {
            return state.fail(error.of_server(context.server));
        }
        if sealed {
            return;
        }
    }
}

async fn carry_out(
    context: &Context,
    state: &WriteState,
    replica: &ReplicaWriter,
    step: Step,
) -> Result<(), WireError> {
    match step {
        Step::Append { offset, pieces, bytes } => {
            let (end, length, began) = (offset + bytes.len() as u64, bytes.len() as u64, context.world.clock.now());
            replica.append(offset, &pieces, bytes).await?;
            let traffic = &context.traffic;
            traffic.served(&traffic.writes, length, began, context.world.clock.now());
            state.update(|progress| progress.wrote(end));
        }
        Step::Flush(length) => {
            replica.flush(length).await?;
            state.update(super::progress::Progress::flushed);
        }
        Step::Seal { length, crc } => {
            let receipt = replica.seal(length, crc).await?;
            let signed = signed::sign(&context.key, &v1::Receipt::from(receipt));
            state.update(|progress| progress.sealed(signed));
        }
    }
    Ok(())
}
