use quarry_types::NodeId;

use crate::{
    limits::FIRST_MASTER,
    reply::{NumberedMaster, Reply},
    state::{Fault, Write},
    tables::TableError,
};

/// Gives the next master its number: from the log, so that no two masters ever have the same one (S11).
pub(crate) fn number(write: &mut Write<'_, '_>) -> Result<Reply, Fault> {
    let mut counters = write.counters()?;
    let last = counters.last_master.0.max(FIRST_MASTER.0);
    let node = NodeId(last.checked_add(1).ok_or_else(|| TableError("the numbers of masters have run out".into()))?);
    counters.last_master = node;
    write.put_counters(&counters);
    Ok(Reply::Master(NumberedMaster { node }))
}
