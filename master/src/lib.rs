//! The master: it keeps the namespace, knows where every chunk is, and decides.
//!
//! A request runs one way, `rpc → service → raft → apply`; a decision runs one way, `event → core → action →
//! dispatch`. What is decided lives in `quarry-master-core`; this crate receives, asks the core, does what it says and
//! reports back.
//!
//! | module | holds |
//! |---|---|
//! | [`config`], [`identity`], [`init`] | what the process was told, what its data directory says it is, how one is made |
//! | [`server`] | [`Master`]: everything put together, in one process or many in a test |
//! | `date` | the date of responses, from the injected clock |
//! | `http` | metrics, and whether this master can do its work |
//! | `rpc` | decodes requests, calls the service, encodes answers; one file a gRPC service |
//! | `service` | checks requests, asks the core, proposes, waits; one file an operation |
//! | [`raft`], [`store`] | the replicated state: the group, its log and its tables |
//! | `sync_points` | every sync by name, and what is lost without it |
//! | `shared`, `servers`, `locations`, `orphans`, `renewals`, `repairing`, `balancing`, `agreement` | what a leader knows without having it in the log |
//! | `together` | short blocking work, several pieces in a thread's turn |
//! | `dispatch` | commands to chunkservers, and their results |
//! | `driver` | what a leader does by itself: it ends what nobody renews, seals, collects, deletes, repairs, evens out |

mod agreement;
mod balancing;
mod commit;
pub mod config;
mod date;
mod dispatch;
mod driver;
pub mod error;
mod http;
pub mod identity;
pub mod init;
pub mod join;
mod listen;
mod locations;
pub mod logging;
mod lookups;
mod orphans;
pub mod raft;
mod reading;
mod reconcile;
pub mod recover;
mod renewals;
mod repairing;
pub mod restore;
mod rpc;
pub mod server;
mod servers;
mod service;
mod shared;
pub mod store;
mod sync_points;
mod together;
mod verifying;

pub use config::MasterConfig;
pub use error::MasterError;
pub use init::InitConfig;
pub use join::JoinConfig;
pub use recover::RecoverConfig;
pub use restore::RestoreConfig;
pub use server::Master;
