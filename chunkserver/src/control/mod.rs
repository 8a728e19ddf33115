//! The conversation with the master that leads: who we are, what we hold, that we are alive; and what it tells us to do.
//!
//! | module | does |
//! |---|---|
//! | [`channel`] | gRPC connections over the injected network |
//! | [`register`] | finds the leader and introduces this server |
//! | [`report`] | the inventory, in full and as changes |
//! | [`session`] | one registration's life: beats, reports and commands until it ends |
//! | [`commands`] | verifies and carries out what the leader tells |
//! | [`removals`] | which registration may have replicas removed |
//! | [`peers`] | whether this server reaches others |
//! | [`backoff`] | pauses between attempts |

mod backoff;
mod channel;
mod commands;
mod peers;
mod register;
mod removals;
mod report;
mod session;

use std::sync::Arc;

pub(crate) use removals::Removals;

use quarry_chunkserver_core::Durability;
use quarry_proto::WireError;
use tracing::{debug, info, warn};

use crate::server::Context;

/// What this server says about itself.
pub(crate) struct About {
    /// The masters, as `host:port`.
    pub(crate) masters: Vec<String>,
    /// Where others reach the data port.
    pub(crate) address: String,
    /// The failure domain.
    pub(crate) rack: String,
    /// What an acknowledgement promises.
    pub(crate) durability: Durability,
}

/// Stays registered with the master that leads until the server stops.
pub(crate) async fn run(context: Arc<Context>, about: About) {
    let mut masters = register::Masters::new(&about.masters);
    let mut backoff = backoff::Backoff::default();
    let mut said = None;
    while !context.stopping.is_cancelled() {
        let registered = tokio::select! {
            biased;
            () = context.stopping.cancelled() => return,
            registered = register::register(&context, &about, &mut masters) => registered,
        };
        match registered {
            Ok(registered) => {
                said = None;
                info!(master = registered.master, registration = registered.number, "registered");
                let began = context.world.clock.now();
                let master = registered.master.clone();
                let end = session::run(&context, &about.masters, registered).await;
                info!("the registration has ended: {end}");
                match end {
                    session::End::Failed(_) => masters.failed(&master),
                    session::End::Superseded(leader) => masters.leads(leader),
                    _ => {}
                }
                backoff.lasted(context.world.clock.now().since(began));
            }
            Err(error) => complain(&mut said, error),
        }
        let pause = context.world.clock.sleep(backoff.next(&*context.world.random));
        tokio::select! {
            biased;
            () = context.stopping.cancelled() => return,
            () = pause => {}
        }
    }
}

/// Says the same thing once.
fn complain(said: &mut Option<WireError>, error: WireError) {
    if said.as_ref() == Some(&error) {
        debug!("still no master: {error}");
    } else {
        warn!(code = %error.code, "cannot register, trying on: {error}");
        *said = Some(error);
    }
}
