//! A client at work while things fail: it knows of each of its files what must be there and what may be there.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use quarry_client::{
    ChunkInfo, ChunkState, Client, ClientConfig, ClientError, CreateMode, CreateOptions, ErrorCode, ReplicaState,
};
use quarry_env::World;
use quarry_env_sim::SimMachine;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    books::Books,
    checkers::{
        s1::{Known, Unsure},
        s3, s8,
    },
    cluster::Outcome,
    data,
    linear::load::Names,
    together::Together,
};

const FILE_BYTES_MAX: u64 = 700_000;
pub const CHUNK_BYTES: u64 = 192 << 10;
/// The deadline of clients.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How workers work.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// What each does before it looks at what is left.
    pub deeds: usize,
    /// The longest pause before a deed, in milliseconds.
    pub pause_ms: u64,
    /// They also change how many replicas are wanted.
    pub set_replicas: bool,
    /// Further errors that may come meanwhile.
    pub also_passing: &'static [ErrorCode],
    /// How long a healed cluster may take until everything can be read and nothing is left over.
    pub heal_deadline: Duration,
    /// Clients that play with names, all with the same ones.
    pub players: usize,
    /// Clients that append to files together.
    pub together: usize,
    /// How many replicas were promised of what was acknowledged to the last byte: the setting `min-replicas`.
    pub min_replicas: usize,
}

/// Errors that a client may be given while servers are down.
const PASSING: [ErrorCode; 8] = [
    ErrorCode::Busy,
    ErrorCode::NotEnoughServers,
    ErrorCode::Unavailable,
    ErrorCode::DeadlineExceeded,
    ErrorCode::UnderReplicated,
    ErrorCode::OutcomeUnknown,
    ErrorCode::LeaseLost,
    // All members of a chunk lost what was acknowledged and not flushed.
    ErrorCode::PipelineBroken,
];

/// What workers and the simulation tell one another.
pub struct Shared {
    pub books: Arc<Books>,
    /// Where they find the cluster.
    pub masters: Vec<String>,
    pub names: Names,
    pub together: Together,
    /// The names were looked at in the end, and judged.
    pub names_checked: AtomicBool,
    /// Workers that have done their deeds.
    pub idle: AtomicUsize,
    /// All is well again and stays so.
    pub healed: AtomicBool,
    /// Files of writers that die: name, whether creating it was answered, contents.
    pub abandoned: Mutex<Vec<(String, bool, Known)>>,
}

impl Shared {
    pub fn new(books: Arc<Books>, masters: Vec<String>) -> Self {
        Shared {
            books,
            masters,
            names: Names::default(),
            together: Together::default(),
            names_checked: AtomicBool::new(false),
            idle: AtomicUsize::new(0),
            healed: AtomicBool::new(false),
            abandoned: Mutex::default(),
        }
    }
}

/// Waits until all is well again.
pub async fn until_healed(shared: &Shared, world: &World) {
    while !shared.healed.load(Ordering::Relaxed) {
        world.clock.sleep(Duration::from_millis(50)).await;
    }
}

struct Worker {
    books: Arc<Books>,
    client: Client,
    world: World,
    rng: ChaCha8Rng,
    habits: Habits,
    dir: String,
    made: u64,
    sure: BTreeMap<String, Known>,
    unsure: Vec<Unsure>,
}

impl Habits {
    pub fn passing(&self, doing: &str, error: &ClientError) -> Outcome {
        if self.also_passing.contains(&error.code()) { Ok(()) } else { passing(doing, error) }
    }
}

/// Fails unless `error` is one that may come while servers are down.
pub fn passing(doing: &str, error: &ClientError) -> Outcome {
    if PASSING.contains(&error.code()) {
        return Ok(());
    }
    Err(format!("{doing}: {:?}: {error}", error.code()).into())
}

/// Ends a client. Saying so is a courtesy to the master: while another one is being elected it may go unheard.
pub async fn leave(client: &Client) -> Outcome {
    match client.close().await {
        Ok(()) => Ok(()),
        Err(error) => passing("closing the session", &error),
    }
}

/// A client of a machine. Its call gives up after [`DEADLINE`] without anything that moves.
pub async fn connect(machine: &SimMachine, masters: &[String]) -> Result<(Client, World), ClientError> {
    let world = machine.boot();
    let config = ClientConfig {
        chunk_bytes: CHUNK_BYTES,
        deadline: DEADLINE,
        stall: Duration::from_secs(2),
        ..ClientConfig::new(masters)
    };
    Ok((Client::connect(world.clone(), config).await?, world))
}

/// A worker's life in the simulation.
pub async fn work(name: &'static str, seed: u64, habits: Habits, shared: Arc<Shared>) -> Outcome {
    let (client, world) = connect(&SimMachine::new(name, seed), &shared.masters).await?;
    let rng = ChaCha8Rng::seed_from_u64(seed ^ u64::from(crc32fast::hash(name.as_bytes())));
    let dir = format!("/{name}");
    let books = Arc::clone(&shared.books);
    let mut worker =
        Worker { books, client, world, rng, habits, dir, made: 0, sure: BTreeMap::new(), unsure: Vec::new() };
    for _ in 0..habits.deeds {
        worker.deed().await?;
    }
    shared.idle.fetch_add(1, Ordering::Relaxed);
    until_healed(&shared, &worker.world).await;
    worker.check_all(&shared).await
}

impl Worker {
    async fn deed(&mut self) -> Outcome {
        self.world.clock.sleep(Duration::from_millis(self.rng.random_range(0..self.habits.pause_ms))).await;
        let some = (!self.sure.is_empty()).then(|| self.rng.random_range(0..self.sure.len()));
        let some = some.and_then(|n| self.sure.keys().nth(n).cloned());
        match (self.rng.random_range(0..if self.habits.set_replicas { 15 } else { 12 }), some) {
            (0..=2, _) | (_, None) => self.put(None).await,
            (3, Some(name)) => self.put(Some(name)).await,
            (4..=6, _) => self.stream().await,
            (7..=8, Some(name)) => self.append(name).await,
            (9, Some(name)) => self.rename(name).await,
            (10, Some(name)) => self.remove(name).await,
            (12..=13, Some(name)) => self.set_replicas(&name).await,
            (_, Some(name)) => self.get(&name).await,
        }
    }

    fn new_name(&mut self) -> String {
        self.made += 1;
        format!("{}/{}", self.dir, self.made)
    }

    fn new_data(&mut self) -> Bytes {
        let length = data::length(&mut self.rng, FILE_BYTES_MAX);
        data::bytes(self.rng.random(), usize::try_from(length).expect("small")).into()
    }

    /// What failed may still take effect later: the names are left alone until the end.
    fn give_up(&mut self, error: &ClientError, names: Vec<String>, worlds: Vec<Vec<Option<Known>>>) -> Outcome {
        tracing::info!(?names, %error, "failed");
        self.habits.passing(&names.join(" "), error)?;
        for name in &names {
            self.sure.remove(name);
        }
        self.unsure.push(Unsure { names, worlds });
        Ok(())
    }

    async fn put(&mut self, over: Option<String>) -> Outcome {
        let before = over.as_ref().and_then(|name| self.sure.get(name).cloned());
        let name = over.unwrap_or_else(|| self.new_name());
        let data = self.new_data();
        let options = CreateOptions { parents: true, ..CreateOptions::default() };
        let outcome = self.write_all(&name, &options, &data).await;
        tracing::info!(name, length = data.len(), ok = outcome.is_ok(), "put");
        let known = Known::whole(data);
        match outcome {
            Ok(()) => {
                self.sure.insert(name, known);
                Ok(())
            }
            Err(error) => self.give_up(&error, vec![name], vec![vec![before], vec![Some(known)]]),
        }
    }

    async fn write_all(&mut self, name: &str, options: &CreateOptions, data: &Bytes) -> Result<(), ClientError> {
        let mut writer = self.client.create(name, options).await?;
        let mut at = 0;
        while at < data.len() {
            let to = (at + self.rng.random_range(1..100_000)).min(data.len());
            writer.write_bytes(data.slice(at..to)).await?;
            at = to;
            if self.rng.random_bool(0.2) {
                self.world.clock.sleep(Duration::from_millis(self.rng.random_range(0..400))).await;
            }
        }
        let finished = writer.finish().await?;
        let promised = u32::try_from(self.habits.min_replicas).unwrap_or(u32::MAX);
        assert!(data.is_empty() || finished.fewest_replicas >= promised, "S1: {finished:?}");
        Ok(())
    }

    async fn stream(&mut self) -> Outcome {
        let (name, data) = (self.new_name(), self.new_data());
        let options = CreateOptions { mode: CreateMode::Visible, parents: true, ..CreateOptions::default() };
        match self.client.create(&name, &options).await {
            Ok(writer) => self.grow(name, writer, Bytes::new(), data).await,
            Err(error) => {
                let empty = Known::whole(Bytes::new());
                self.give_up(&error, vec![name], vec![vec![None], vec![Some(empty)]])
            }
        }
    }

    async fn append(&mut self, name: String) -> Outcome {
        let Some(Known { data: before, .. }) = self.sure.get(&name).cloned() else { return Ok(()) };
        let data = self.new_data();
        match self.client.append(&name).await {
            Ok(writer) => self.grow(name, writer, before, data).await,
            Err(error) => self.give_up(&error, vec![name], vec![vec![Some(Known::whole(before))]]),
        }
    }

    /// Writes `more` behind `before`, flushing now and then.
    async fn grow(
        &mut self,
        name: String,
        mut writer: quarry_client::FileWriter,
        before: Bytes,
        more: Bytes,
    ) -> Outcome {
        let mut known = Known { data: [&before[..], &more[..]].concat().into(), at_least: before.len() };
        let outcome: Result<(), ClientError> = async {
            let mut at = 0;
            while at < more.len() {
                let to = (at + self.rng.random_range(1..100_000)).min(more.len());
                writer.write_bytes(more.slice(at..to)).await?;
                at = to;
                if self.rng.random_bool(0.2) {
                    writer.flush_durable().await?;
                    known.at_least = before.len() + at;
                    self.world.clock.sleep(Duration::from_millis(self.rng.random_range(0..400))).await;
                }
            }
            if self.rng.random_bool(0.1) {
                return writer.abort().await.and(Err(ClientError::new(ErrorCode::Busy, "", "given up on purpose")));
            }
            writer.finish().await.map(|_| ())
        }
        .await;
        tracing::info!(name, before = before.len(), more = more.len(), ok = outcome.is_ok(), "grown");
        match outcome {
            Ok(()) => {
                self.sure.insert(name, Known::whole(known.data));
                Ok(())
            }
            Err(error) => {
                tracing::info!(name, flushed = known.at_least, "S1 holds up to here");
                self.give_up(&error, vec![name], vec![vec![Some(known)]])
            }
        }
    }

    async fn rename(&mut self, from: String) -> Outcome {
        let (known, to) = (self.sure.get(&from).cloned(), self.new_name());
        let begin = self.world.clock.now();
        let outcome = self.client.rename(&from, &to, false).await;
        self.took("a rename", begin);
        tracing::info!(from, to, ok = outcome.is_ok(), "renamed");
        match outcome {
            Ok(_) => {
                self.sure.remove(&from);
                self.sure.extend(known.map(|known| (to, known)));
                Ok(())
            }
            Err(error) => self.give_up(&error, vec![from, to], vec![vec![known.clone(), None], vec![None, known]]),
        }
    }

    async fn remove(&mut self, name: String) -> Outcome {
        let known = self.sure.get(&name).cloned();
        let begin = self.world.clock.now();
        let outcome = self.client.remove(&name, false, false).await;
        self.took("a removal", begin);
        tracing::info!(name, ok = outcome.is_ok(), "removed");
        match outcome {
            Ok(()) => {
                self.sure.remove(&name);
                self.unsure.push(Unsure { names: vec![name], worlds: vec![vec![None]] });
                Ok(())
            }
            Err(error) => self.give_up(&error, vec![name], vec![vec![known], vec![None]]),
        }
    }

    async fn set_replicas(&mut self, name: &str) -> Outcome {
        let wanted = self.rng.random_range(2..=4);
        let outcome = self.client.set_replicas(name, wanted).await;
        tracing::info!(name, wanted, ok = outcome.is_ok(), "wanted");
        outcome.map_or_else(|error| self.habits.passing(name, &error), |_| Ok(()))
    }

    /// A call without data to move has ended (S8).
    fn took(&self, doing: &str, begin: quarry_env::Instant) {
        self.books.judge(&self.dir, s8::call(doing, self.world.clock.now().since(begin), DEADLINE));
    }

    async fn get(&mut self, name: &str) -> Outcome {
        let expected = self.sure.get(name);
        match self.read(name).await {
            Ok(found) => s3::read(name, expected, found.as_ref()).map_or(Ok(()), |wrong| Err(wrong.into())),
            Err(error) => self.habits.passing(name, &error),
        }
    }

    async fn read(&self, name: &str) -> Result<Option<Bytes>, ClientError> {
        let mut reader = match self.client.open(name).await {
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
            other => other?,
        };
        let mut all = Vec::new();
        while let Some(part) = reader.next_bytes().await? {
            all.extend_from_slice(&part);
        }
        Ok(Some(all.into()))
    }

    /// Reads until something comes.
    async fn read_healed(&self, name: &str) -> Result<Option<Bytes>, Box<dyn std::error::Error>> {
        let from = self.world.clock.now();
        loop {
            match self.read(name).await {
                Ok(found) => return Ok(found),
                Err(error) if self.world.clock.now().since(from) > self.habits.heal_deadline => {
                    return Err(format!("{name} cannot be read from a healed cluster: {error}").into());
                }
                Err(error) => self.habits.passing(name, &error)?,
            }
            self.world.clock.sleep(Duration::from_millis(500)).await;
        }
    }

    async fn check_all(mut self, shared: &Shared) -> Outcome {
        let sure = std::mem::take(&mut self.sure);
        let mut all = std::mem::take(&mut self.unsure);
        all.extend(sure.into_iter().map(|(name, known)| Unsure { names: vec![name], worlds: vec![vec![Some(known)]] }));
        if self.dir == "/alice" {
            for (name, created, known) in std::mem::take(&mut *shared.abandoned.lock().expect("no panic")) {
                let absent = (!created).then(|| vec![None]);
                let worlds = std::iter::once(vec![Some(known)]).chain(absent).collect();
                all.push(Unsure { names: vec![name], worlds });
            }
        }
        self.settle().await?;
        for unsure in all {
            self.check(&unsure).await?;
        }
        leave(&self.client).await
    }

    async fn check(&self, unsure: &Unsure) -> Outcome {
        let mut found = Vec::new();
        for name in &unsure.names {
            found.push(self.read_healed(name).await?);
        }
        if let Some(broken) = unsure.breaks(&found) {
            return Err(broken.into());
        }
        // Of what was not acknowledged one replica may be all there is.
        let replicas = if unsure.is_promised() { self.habits.min_replicas } else { 1 };
        for (name, _) in unsure.names.iter().zip(&found).filter(|(_, found)| found.is_some()) {
            self.check_chunks(name, replicas).await?;
        }
        Ok(())
    }

    /// Waits until every chunk of a file is sealed on at least so many servers.
    async fn check_chunks(&self, name: &str, replicas: usize) -> Outcome {
        let from = self.world.clock.now();
        let good = |chunk: &ChunkInfo| {
            let sealed = chunk.replicas.iter().filter(|r| r.state == ReplicaState::Sealed && r.reachable).count();
            chunk.state == ChunkState::Sealed && sealed >= replicas
        };
        loop {
            let info = self.client.stat(name).await?;
            let chunks = self.client.chunks(&info).await?;
            let Some(bad) = chunks.iter().find(|chunk| !good(chunk)) else { return Ok(()) };
            if self.world.clock.now().since(from) > self.habits.heal_deadline {
                return Err(format!("{name} has a chunk with less than {replicas} replicas: {bad:?}").into());
            }
            self.world.clock.sleep(Duration::from_millis(500)).await;
        }
    }

    /// Waits until nothing is open, doomed, missing or corrupt.
    async fn settle(&self) -> Outcome {
        let from = self.world.clock.now();
        loop {
            let said = match self.client.status().await {
                Ok(status) => {
                    let totals = status.totals.unwrap_or_default();
                    let alive =
                        status.chunkservers.iter().all(|server| ["alive", "draining"].contains(&&*server.state));
                    if alive && totals.open + totals.doomed + totals.missing + totals.corrupt == 0 {
                        return Ok(());
                    }
                    format!("{totals:?} {:?}", status.notices)
                }
                Err(error) => error.to_string(),
            };
            if self.world.clock.now().since(from) > self.habits.heal_deadline {
                return Err(format!("a healed cluster does not settle: {said}").into());
            }
            self.world.clock.sleep(Duration::from_millis(500)).await;
        }
    }
}
