use crate::{
    command::Tick,
    limits::TICK_MS_MAX,
    reply::{ReplicatedTime, Reply},
    state::{Fault, Write},
};

/// Replicated time moves on, in bounded steps and never back (S10). While the state is held it stands still: what waits in
/// the trash or for readers has its time left when an operator lets go.
pub(crate) fn tick(write: &mut Write<'_, '_>, command: &Tick) -> Result<Reply, Fault> {
    let mut counters = write.counters()?;
    if write.hold()?.is_some() {
        return Ok(Reply::Time(ReplicatedTime { elapsed_ms: counters.elapsed_ms }));
    }
    counters.elapsed_ms = counters.elapsed_ms.saturating_add(command.elapsed_ms.min(TICK_MS_MAX));
    write.put_counters(&counters);
    Ok(Reply::Time(ReplicatedTime { elapsed_ms: counters.elapsed_ms }))
}
