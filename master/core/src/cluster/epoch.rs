use quarry_types::Epoch;

use crate::{
    command::BeginEpoch,
    keys,
    reply::{Leads, Reply},
    rows::{Change, Cluster, EpochBegun},
    state::{Fault, Write, need},
    tables::{Table, TableError},
};

/// A master process begins to lead: what was decided in earlier epochs can be told from what is decided now (S5).
pub(crate) fn begin(write: &mut Write<'_, '_>, command: &BeginEpoch) -> Result<Reply, Fault> {
    let cluster: Cluster = need(write.tables(), Table::Meta, keys::CLUSTER)?;
    let mut counters = write.counters()?;
    let epoch = counters.epoch.0.checked_add(1).ok_or_else(|| TableError("the epochs have run out".into()))?;
    counters.epoch = Epoch(epoch);
    counters.leader = command.node;
    write.put_counters(&counters);
    write.tell(Change::EpochBegun(EpochBegun { epoch: counters.epoch, node: command.node }));
    Ok(Reply::Leads(Leads { lineage: cluster.lineage, epoch: counters.epoch }))
}
