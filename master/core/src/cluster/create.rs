use quarry_types::{Epoch, ErrorCode, Lineage, NodeId, SessionId, ids::ROOT};

use super::settings;
use crate::{
    command::CreateCluster,
    keys,
    reply::Reply,
    rows::{Cluster, Counters, Inode, Totals},
    state::{Fault, Write, find, refuse},
    tables::Table,
};

/// Makes the cluster and its root directory. A repetition is fine; another cluster is refused.
pub(crate) fn create(write: &mut Write<'_, '_>, command: &CreateCluster) -> Result<Reply, Fault> {
    let lineage = Lineage { number: 1, id: command.lineage_id };
    let cluster = Cluster { cluster: command.cluster, lineage, first_session: SessionId(0) };
    if let Some(present) = find::<Cluster>(write.tables(), Table::Meta, keys::CLUSTER)? {
        if present == cluster {
            return Ok(Reply::DONE);
        }
        return refuse(ErrorCode::Conflict, format!("this master group already is cluster {}", present.cluster));
    }
    settings::check(&command.settings)?;
    let counters = Counters {
        epoch: Epoch(0),
        leader: NodeId(0),
        elapsed_ms: 0,
        next_chunk: 1,
        next_inode: ROOT.0 + 1,
        next_lease: 1,
        next_session: 1,
        removals: 0,
        last_master: NodeId(0),
    };
    write.put(Table::Meta, keys::CLUSTER.to_vec(), &cluster);
    write.put(Table::Meta, keys::SETTINGS.to_vec(), &command.settings);
    write.put(Table::Meta, keys::TOTALS.to_vec(), &Totals::default());
    write.put_counters(&counters);
    let root = Inode::directory(ROOT, "", write.wall_ms);
    write.put_inode(ROOT, &root);
    write.begin_events();
    Ok(Reply::DONE)
}
