//! What the master does for those who call it: checks requests, asks the core, proposes, waits. One file an operation.

mod add_chunk;
mod backup;
mod check;
mod complete;
mod explain;
mod export;
mod heartbeat;
mod hints;
mod list;
mod locate;
pub mod masters;
mod metadata;
mod names;
mod rebalance;
mod receipts;
mod register;
mod repairs;
mod report;
mod seal;
mod servers;
mod session;
mod settings;
mod status;
mod trash;
mod usage;
mod watch;

use std::{sync::Arc, time::Duration};

pub use add_chunk::AddChunkCall;
pub use complete::CompleteCall;
pub use list::ListPage;
pub use locate::LocateCall;
pub use receipts::Receipts;
pub use report::FULL_REPORTS;
pub use seal::{SealChunkCall, Sealer};
pub use servers::wish_number;
pub use watch::WATCHERS_MAX;

use quarry_env::World;
use quarry_proto::v1;
use quarry_types::ClusterId;
use tonic::metadata::MetadataMap;

use crate::shared::Shared;

/// The master's operations. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    shared: Arc<Shared>,
}

/// A lease and a session are kept alive by this many calls while they last.
const KEEP_ALIVES: u32 = 4;

impl Service {
    /// Over a running master.
    pub fn new(shared: Arc<Shared>) -> Self {
        Service { shared }
    }

    /// Its surroundings.
    pub fn world(&self) -> &World {
        &self.shared.world
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.shared.cluster
    }

    /// A writer lease that is not renewed ends after this.
    pub fn lease(&self) -> Duration {
        self.shared.lease
    }

    /// How often a client should show that it lives.
    pub fn keep_alive_interval(&self) -> Duration {
        self.shared.lease.min(self.shared.session) / KEEP_ALIVES
    }

    /// What an acknowledgement of this cluster's servers means: what the weakest of them means by it.
    pub fn durability(&self) -> v1::Durability {
        let leading = self.shared.present();
        leading.map_or(v1::Durability::Sealed, |leading| durability(leading.soft().servers.durability()))
    }
}

fn durability(from: quarry_master_core::command::Durability) -> v1::Durability {
    match from {
        quarry_master_core::command::Durability::Sealed => v1::Durability::Sealed,
        quarry_master_core::command::Durability::Buffered => v1::Durability::Buffered,
    }
}

/// What a call waits for at most when its client did not say.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(20);
/// No call waits longer, whatever its client says.
const DEADLINE_MAX: Duration = Duration::from_secs(45);
/// The share of a client's patience that a call may use up, so that the answer still reaches it.
const DEADLINE_SHARE: (u32, u32) = (4, 5);

/// How long a call may wait: a share of what its client said in `grpc-timeout`.
pub fn grpc_deadline(metadata: &MetadataMap) -> Duration {
    let said = metadata.get("grpc-timeout").and_then(|text| grpc_timeout(text.to_str().ok()?));
    said.map_or(DEADLINE_DEFAULT, |said| (said.min(DEADLINE_MAX) * DEADLINE_SHARE.0) / DEADLINE_SHARE.1)
}

/// Reads the form that gRPC gives a timeout: up to eight digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok().filter(|_| number.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s8_a_call_answers_before_its_client_gives_up() {
        let with = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            grpc_deadline(&metadata)
        };
        assert_eq!(with("10S"), Duration::from_secs(8));
        assert_eq!(with("500m"), Duration::from_millis(400));
        assert_eq!(with("99999999H"), Duration::from_secs(36));
        for bad in ["S", "-1S", "5", "5x", "123456789S", "é"] {
            assert_eq!(grpc_timeout(bad), None, "{bad}");
        }
        assert_eq!(grpc_deadline(&MetadataMap::new()), DEADLINE_DEFAULT);
    }
}
