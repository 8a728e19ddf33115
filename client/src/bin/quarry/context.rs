//! What every verb gets: the flags, the cluster, and where to say things.

use std::{
    env,
    sync::{Arc, OnceLock},
    time::Duration,
};

use indicatif::MultiProgress;
use quarry_client::{Client, ClientConfig};
use quarry_env::{World, clock, kv::NoKv};
use quarry_types::ErrorCode;
use tokio::sync::OnceCell;

use crate::{
    args::{Global, Stale},
    error::Outcome,
    output::Notes,
    progress,
};

/// Taking leave of the masters may take this long; a session that is not closed ends by itself.
const LEAVE: Duration = Duration::from_secs(3);
/// Removing what was made for a while may take this long: one command, after those that are under way.
const REMOVE: Duration = Duration::from_secs(20);

/// What every verb gets.
pub struct Context {
    pub world: World,
    pub global: Global,
    pub notes: Notes,
    pub bars: Option<MultiProgress>,
    client: OnceCell<Client>,
    /// A directory of the cluster that is not to outlast this command.
    temporary: OnceLock<String>,
}

impl Context {
    pub fn new(global: Global) -> Context {
        let bars = progress::bars(!global.no_progress && !global.json);
        let notes = Notes::new(global.json, global.verbose, bars.clone());
        Context {
            world: World::real(Arc::new(NoKv)),
            global,
            notes,
            bars,
            client: OnceCell::new(),
            temporary: OnceLock::new(),
        }
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

    /// The same, for reading over the network also what chunkservers on this machine have.
    pub async fn network_client(&self) -> Outcome<Client> {
        let masters = self.global.master_addresses(env::var("QUARRY_MASTERS").ok())?;
        self.connect(masters, self.global.timeout, false).await
    }

    /// The cluster of these masters.
    pub async fn client_of(&self, masters: Vec<String>, deadline: Duration) -> Outcome<Client> {
        self.connect(masters, deadline, true).await
    }

    async fn connect(&self, masters: Vec<String>, deadline: Duration, local_reads: bool) -> Outcome<Client> {
        let mut config = ClientConfig { local_reads, ..ClientConfig::new(masters) };
        config.stall = config.stall.min(deadline);
        config.deadline = deadline;
        if let Some(id) = &self.global.request_id {
            config.request_id.clone_from(id);
        }
        Ok(Client::connect(self.world.clone(), config).await?)
    }

    /// A directory of the cluster is removed, with all below it, when this command ends: also when it fails or is interrupted.
    /// At most one.
    pub fn remove_when_left(&self, dir: &str) {
        let _only_one_is_named = self.temporary.set(dir.to_owned());
    }

    /// Removes what was made for a while. Missing, it was not made.
    async fn tidy(&self, client: &Client) {
        let Some(dir) = self.temporary.get() else { return };
        let removed = clock::timeout(&*self.world.clock, REMOVE, client.remove(dir, true, true)).await;
        let why = match removed {
            Ok(Ok(())) => return,
            Ok(Err(error)) if matches!(error.code(), ErrorCode::NotFound | ErrorCode::NotADirectory) => return,
            Ok(Err(error)) => error.to_string(),
            Err(late) => late.to_string(),
        };
        self.notes.warning(format!("{dir} is left in the cluster: {why}; remove it with `quarry rm -r --now {dir}`"));
    }

    /// Takes leave of the cluster, so that the masters need not keep the session until it expires.
    pub async fn leave(&self) {
        if let Some(client) = self.client.get() {
            self.tidy(client).await;
            let _expires_else = clock::timeout(&*self.world.clock, LEAVE, client.close()).await;
        }
    }
}
