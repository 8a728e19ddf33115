//! One chunk from its sources, one after another.
//!
//! What one source does not give, or gives wrong, the next is asked for: block by block, nothing is read twice. When no
//! replica that its server would serve is left and blocks are missing still, those in quarantine are read as far as they
//! can be: replicas that are bad at different places make a whole one.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use quarry_proto::WireError;
use quarry_types::{ErrorCode, ServerId};
use tracing::{info, warn};

use super::{
    Order,
    pace::Pace,
    running::Running,
    source::{Source, Trouble},
};
use crate::{server::Context, store::CopyWriter};

/// Rounds over all sources. The last one is for what a source gave before another proved it to be missing still.
const ROUNDS: [Round; 3] = [Round::Whole, Round::Salvage, Round::SalvageAgain];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    Whole,
    Salvage,
    SalvageAgain,
}

/// Fills `writer` from the sources.
///
/// # Errors
/// This server's own, or what the sources said.
pub(super) async fn pull(
    context: &Context,
    writer: &CopyWriter,
    order: &Order,
    running: &Running<'_>,
) -> Result<(), WireError> {
    // A chunk of no bytes is together from the start.
    if writer.settle() {
        return Ok(());
    }
    let mut pull =
        Pull { context, writer, order, running, pace: Pace::new(order.bytes_per_second, context.world.clock.now()) };
    let mut failed: BTreeMap<ServerId, Trouble> = BTreeMap::new();
    for round in ROUNDS {
        match round {
            Round::Whole => {}
            Round::Salvage => writer.begin_again(),
            Round::SalvageAgain if writer.doubted() => {}
            Round::SalvageAgain => break,
        }
        for source in &order.sources {
            if matches!(failed.get(&source.0), Some(Trouble::Unreachable(_))) {
                continue;
            }
            writer.begin_source();
            if let Err(trouble) = pull.from(source, round != Round::Whole).await {
                let (Trouble::Source(error) | Trouble::Unreachable(error) | Trouble::Here(error)) = &trouble;
                info!(chunk = %order.chunk, source = %source.0, code = %error.code, "copying goes on elsewhere: {error}");
                if let Trouble::Here(error) = trouble {
                    return Err(error);
                }
                failed.insert(source.0, trouble);
            }
            if writer.settle() {
                return Ok(());
            }
        }
    }
    Err(nobody_has_it(order, writer.done(), failed))
}

struct Pull<'a> {
    context: &'a Context,
    writer: &'a CopyWriter,
    order: &'a Order,
    running: &'a Running<'a>,
    pace: Pace,
}

impl Pull<'_> {
    /// Takes what one source has.
    async fn from(&mut self, source: &(ServerId, String), salvage: bool) -> Result<(), Trouble> {
        let mut conn = Source::connect(self.context, self.order, source, salvage).await?;
        let mut at = 0;
        let mut bad = 0;
        // The slots of a whole replica are its proof, so a salvage reads all of it as long as there is none.
        let all = salvage && !self.writer.proven();
        loop {
            let next =
                if all { Some(at..self.order.length).filter(|rest| !rest.is_empty()) } else { self.writer.missing(at) };
            let Some(next) = next else { break };
            let range = next.start..next.end.min(next.start + self.pace.piece());
            self.pace.pass(&*self.context.world.clock, range.end - range.start).await;
            at = range.end;
            let bytes = range.end - range.start;
            bad += conn.read(range, self.writer).await?;
            self.context.traffic.copied_in.fetch_add(bytes, Ordering::Relaxed);
            self.running.set_done(self.writer.done());
        }
        if bad > 0 {
            warn!(chunk = %self.order.chunk, source = %source.0, bad, "a source has bad blocks");
        }
        Ok(())
    }
}

/// The most telling of what the sources said.
fn nobody_has_it(order: &Order, done: u64, failed: BTreeMap<ServerId, Trouble>) -> WireError {
    let errors = failed.into_values().map(|trouble| {
        let (Trouble::Source(error) | Trouble::Unreachable(error) | Trouble::Here(error)) = trouble;
        error
    });
    let errors: Vec<_> = errors.collect();
    let corrupt = errors.is_empty() || errors.iter().any(|error| error.code == ErrorCode::Corrupt);
    let code = if corrupt { ErrorCode::Corrupt } else { errors.last().map_or(ErrorCode::Corrupt, |error| error.code) };
    let said: Vec<_> = errors.iter().map(ToString::to_string).collect();
    let message = format!(
        "chunk {}: {done} of {} bytes could be copied from {} sources: {}; bring a server with a good replica back",
        order.chunk,
        order.length,
        order.sources.len(),
        if said.is_empty() { "their replicas are bad".to_owned() } else { said.join("; ") }
    );
    WireError::new(code, message)
}
