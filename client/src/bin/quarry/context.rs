//! What every verb gets: the flags, the cluster, and where to say things.

use std::{env, sync::Arc, time::Duration};

use indicatif::MultiProgress;
use quarry_client::{Client, ClientConfig};
use quarry_env::{World, clock, kv::NoKv};
use tokio::sync::OnceCell;

use crate::{
    args::{Global, Stale},
    error::Outcome,
    output::Notes,
    progress,
};

/// Taking leave of the masters may take this long; a session that is not closed ends by itself.
const LEAVE: Duration = Duration::from_secs(3);

/// What every verb gets.
pub struct Context {
    pub world: World,
    pub global: Global,
    pub notes: Notes,
    pub bars: Option<MultiProgress>,
    client: OnceCell<Client>,
}

impl Context {
    pub fn new(global: Global) -> Context {
        let bars = progress::bars(!global.no_progress && !global.json);
        let notes = Notes::new(global.json, global.verbose, bars.clone());
        Context { world: World::real(Arc::new(NoKv)), global, notes, bars, client: OnceCell::new() }
    }

    /// The cluster that the user means.
    pub async fn client(&self) -> Outcome<&Client> {
        let connect = || async {
            let masters = self.global.master_addresses(env::var("QUARRY_MASTERS").ok())?;
            self.client_of(masters, self.global.timeout).await
        };
        self.client.get_or_try_init(connect).await
    }

    /// The same, for looking things up, as old as the user allows.
    pub async fn lookups(&self, stale: Stale) -> Outcome<Client> {
        let client = self.client().await?;
        Ok(stale.ok.map_or_else(|| client.clone(), |within| client.stale_ok(within)))
    }

    /// The cluster of these masters.
    pub async fn client_of(&self, masters: Vec<String>, deadline: Duration) -> Outcome<Client> {
        let mut config = ClientConfig::new(masters);
        config.stall = config.stall.min(deadline);
        config.deadline = deadline;
        if let Some(id) = &self.global.request_id {
            config.request_id.clone_from(id);
        }
        Ok(Client::connect(self.world.clone(), config).await?)
    }

    /// Takes leave of the cluster, so that the masters need not keep the session until it expires.
    pub async fn leave(&self) {
        if let Some(client) = self.client.get() {
            let _expires_else = clock::timeout(&*self.world.clock, LEAVE, client.close()).await;
        }
    }
}
