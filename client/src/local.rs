//! Chunks of servers on this machine, read from their files: the server gives out an open file of a sealed replica over a Unix
//! socket, and from then on has nothing to do with what is read from it.
//!
//! What is read is verified as always, and by more: the checksums of the blocks came with the file and combine to the CRC that
//! the master recorded, so that every single block is compared with replicated metadata (S3). Whatever fails on the way to
//! the file is no failure of the replica: the chunk is then read over the network.
//!
//! | module | does |
//! |---|---|
//! | `ask` | one question to a server, and the checks of what it gives |
//! | `held` | which files are held, and for how long; pure |

mod ask;
mod held;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use quarry_env::{
    Instant, World,
    clock::timeout,
    local::{BoxLocalStream, LocalStream},
};
use quarry_proto::v1;
use quarry_types::{Crc32, ServerId, limits::BLOCK_BYTES};
use tokio::sync::Semaphore;

use crate::{
    ChunkInfo, ClientConfig,
    pool::Target,
    reused::{Memory, Reused},
};
pub(crate) use ask::{ChunkFile, NoFile};
pub(crate) use held::Key;
use held::{Held, LetGo};

/// A server that does not give out a file within this is asked over the network.
const ASK_DEADLINE: Duration = Duration::from_secs(1);
/// What was read is told within this, or not at all.
const TELL_DEADLINE: Duration = Duration::from_millis(100);
/// A local socket that failed is left alone for this long.
const AVOID_FOR: Duration = Duration::from_secs(5);
/// Reads that wait for a disk at once, each with a thread; further ones wait for these. A disk that hangs holds up so many.
const WAITING_MAX: usize = 16;
/// Servers remembered; past it all are forgotten, and learnt again with the next connection to each.
const SERVERS_MAX: usize = 10_000;

/// The connection to one server, if there is one. It is held while somebody asks: the others want the same file, mostly.
type Talk = Arc<tokio::sync::Mutex<Option<BoxLocalStream>>>;

struct Server {
    path: Option<PathBuf>,
    not_before: Option<Instant>,
    talk: Talk,
}

#[derive(Default)]
struct State {
    servers: BTreeMap<ServerId, Server>,
    held: Held<ChunkFile>,
    /// A task lets go what was held long enough.
    ageing: bool,
}

/// What a client knows and holds of servers on its machine.
pub(crate) struct Local {
    world: World,
    enabled: bool,
    stall: Duration,
    request_id: String,
    state: Mutex<State>,
    waiting: Arc<Semaphore>,
}

/// How reading from a file failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// The block at this place of the chunk does not have its checksum.
    Wrong { at: u64, wanted: Crc32, found: Crc32 },
    /// The disk did not answer in time.
    Late(Duration),
    /// It cannot be read. The server finds out why when it is asked over the network.
    Failed(String),
}

impl Local {
    pub(crate) fn new(world: World, config: &ClientConfig) -> Arc<Local> {
        Arc::new(Local {
            world,
            enabled: config.local_reads,
            stall: config.stall,
            request_id: config.request_id.clone(),
            state: Mutex::default(),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection to `server` was made: where it gives out files, if it is on this machine and does.
    pub(crate) fn learn(&self, server: ServerId, path: Option<PathBuf>) {
        let mut state = self.state();
        if state.servers.len() >= SERVERS_MAX && !state.servers.contains_key(&server) {
            state.servers.clear();
        }
        let known = state.servers.entry(server).or_insert_with(|| Server {
            path: None,
            not_before: None,
            talk: Talk::default(),
        });
        if known.path != path {
            (known.path, known.not_before) = (path, None);
        }
    }

    /// Whether something is known of `server`, which any connection to it brings.
    pub(crate) fn knows(&self, server: ServerId) -> bool {
        !self.enabled || self.state().servers.contains_key(&server)
    }

    /// The file of a sealed chunk, from those that are held or from the server.
    pub(crate) async fn file(
        self: &Arc<Self>,
        target: &Target,
        chunk: &ChunkInfo,
    ) -> Result<(Key, Arc<ChunkFile>), NoFile> {
        let key = Key::of(target.server, chunk);
        let (path, talk) = {
            let state = self.state();
            let now = self.world.clock.now();
            if let Some(file) = state.held.get(&key, now) {
                return Ok((key, file));
            }
            let server = state.servers.get(&target.server).filter(|_| self.enabled).ok_or(NoFile::Nowhere)?;
            if server.not_before.is_some_and(|until| now < until) {
                return Err(NoFile::Nowhere);
            }
            (server.path.clone().ok_or(NoFile::Nowhere)?, Arc::clone(&server.talk))
        };
        let asked = timeout(&*self.world.clock, ASK_DEADLINE, async {
            let mut conn = talk.lock().await;
            // Somebody else may have got it meanwhile.
            if let Some(file) = self.state().held.get(&key, self.world.clock.now()) {
                return Ok(file);
            }
            // Before it is asked for: it counts from when the server could last say no.
            let now = self.world.clock.now();
            let file = Arc::new(ask::ask(&self.world, &path, &mut conn, target, chunk, &self.request_id).await?);
            let gone = self.keep(key, &file, now);
            if let (Some(gone), Some(conn)) = (gone, &*conn) {
                // Lost if it cannot be sent at once: it is news for balancing, no account.
                let _lost = tell(&**conn, gone, true).await;
            }
            Ok::<_, NoFile>(file)
        });
        let failed = match asked.await {
            Ok(Ok(file)) => return Ok((key, file)),
            Ok(Err(refused @ NoFile::Refused(_))) => return Err(refused),
            Ok(Err(failed)) => failed,
            Err(_) => NoFile::Late,
        };
        self.avoid(target.server);
        Err(failed)
    }

    /// Holds a file, and sees to it that it is let go. What is let go for it, if it is of the same server.
    fn keep(self: &Arc<Self>, key: Key, file: &Arc<ChunkFile>, now: Instant) -> Option<LetGo> {
        let mut state = self.state();
        let gone = state.held.put(key, Arc::clone(file), now);
        if !std::mem::replace(&mut state.ageing, true) {
            tokio::spawn(let_go(Arc::downgrade(self), self.world.clone()));
        }
        gone.filter(|(gone, _)| gone.server == key.server)
    }

    /// Lets a file go at once.
    pub(crate) fn drop_file(&self, key: &Key) {
        let _untold = self.state().held.remove(key);
    }

    /// Leaves the local socket of `server` alone for a while.
    pub(crate) fn avoid(&self, server: ServerId) {
        let until = self.world.clock.now().plus(AVOID_FOR);
        if let Some(server) = self.state().servers.get_mut(&server) {
            server.not_before = Some(until);
        }
    }

    /// Reads `bytes` bytes at `offset`, which is where a block begins, and verifies them.
    pub(crate) async fn read(
        &self,
        (key, file): (Key, &Arc<ChunkFile>),
        offset: u64,
        bytes: usize,
        memory: &Arc<Reused>,
    ) -> Result<(Bytes, Vec<Crc32>), Unread> {
        let mut buffer = memory.take(bytes);
        let there = file.file.read_cached_at(buffer.as_mut(), file.start + offset);
        if there < bytes {
            buffer = self.read_rest(file, offset, buffer, there).await?;
        }
        let first = (offset / BLOCK_BYTES) as usize;
        let crcs = file.crcs.get(first..).unwrap_or_default();
        let blocks = buffer.as_ref().chunks(BLOCK_BYTES as usize);
        let mut at = offset;
        for (block, wanted) in blocks.clone().zip(crcs) {
            let found = Crc32::of(block);
            if found != *wanted {
                return Err(Unread::Wrong { at, wanted: *wanted, found });
            }
            at += block.len() as u64;
        }
        let crcs = crcs.get(..blocks.len()).map(<[Crc32]>::to_vec);
        let crcs = crcs.ok_or_else(|| Unread::Failed("a read past the end of the chunk".into()))?;
        let told = self.state().held.read(&key, bytes as u64);
        if let Some(told) = told {
            self.tell((key, told), false).await;
        }
        Ok((buffer.freeze(), crcs))
    }

    /// Reads what is not in memory, in a thread of its own.
    async fn read_rest(
        &self,
        file: &Arc<ChunkFile>,
        offset: u64,
        mut buffer: Memory,
        there: usize,
    ) -> Result<Memory, Unread> {
        let failed = |error: &dyn std::fmt::Display| Unread::Failed(error.to_string());
        let (file, waiting) = (Arc::clone(file), Arc::clone(&self.waiting));
        let reading = async {
            let permit = waiting.acquire_owned().await.map_err(|e| failed(&e))?;
            let read = self.world.blocking.run(move || {
                let rest = buffer.as_mut().get_mut(there..).unwrap_or_default();
                let read = file.file.read_exact_at(rest, file.start + offset + there as u64);
                // The caller may have gone; the thread is in use until now.
                drop(permit);
                read.map(|()| buffer)
            });
            read.await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))
        };
        match timeout(&*self.world.clock, self.stall, reading).await {
            Ok(read) => read,
            Err(_) => Err(Unread::Late(self.stall)),
        }
    }

    /// Tells a server what was read, if that is possible at once.
    async fn tell(&self, what: LetGo, done: bool) {
        let talk = self.state().servers.get(&what.0.server).map(|server| Arc::clone(&server.talk));
        let Some(talk) = talk else { return };
        let _late = timeout(&*self.world.clock, TELL_DEADLINE, async {
            let mut conn = talk.lock().await;
            if let Some(stream) = &*conn
                && tell(&**stream, what, done).await.is_err()
            {
                *conn = None;
            }
        })
        .await;
    }

    /// Ends the connection to a server of which nothing is held.
    async fn hang_up(&self, server: ServerId) {
        let talk = {
            let state = self.state();
            if state.held.any_of(server) {
                return;
            }
            state.servers.get(&server).map(|server| Arc::clone(&server.talk))
        };
        // Who asks just now goes on with it.
        if let Some(talk) = talk
            && let Ok(mut conn) = talk.try_lock()
        {
            *conn = None;
        }
    }
}

async fn tell(stream: &dyn LocalStream, (key, bytes): LetGo, done: bool) -> Result<(), NoFile> {
    let message = ask::encode(v1::ReadLocally { chunk: key.chunk.0, bytes, done })?;
    Ok(stream.send(&message, None).await?)
}

/// Lets files go in time, also of a client that does nothing, until none is held.
async fn let_go(of: Weak<Local>, world: World) {
    loop {
        let Some(local) = of.upgrade() else { return };
        let now = world.clock.now();
        let (old, next) = {
            let mut state = local.state();
            let old = state.held.remove_old(now);
            let next = state.held.next();
            state.ageing = next.is_some();
            (old, next)
        };
        for gone in old {
            let server = gone.0.server;
            local.tell(gone, true).await;
            local.hang_up(server).await;
        }
        drop(local);
        let Some(next) = next else { return };
        let now = world.clock.now();
        world.clock.sleep(Duration::from_nanos(1).max(next.0.saturating_sub(now.0))).await;
    }
}
