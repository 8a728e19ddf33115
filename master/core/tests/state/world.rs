//! A master's state in memory: each command goes through its bytes, is applied twice, and leaves tables that are
//! whole.

use std::collections::{BTreeMap, BTreeSet};

use quarry_master_core::{
    apply::apply,
    command::*,
    keys, query,
    reply::*,
    rows::{
        Chunk, ChunkState, Entry, Events, Inode, InodeState, Lease, Mark, OpResult, Record, Row, Session, Totals,
        Trash, Wanted,
    },
    tables::{MemTables, Overlay, ReadTables as _, Table},
};
use quarry_types::{ChunkId, ClusterId, Crc32, ErrorCode, InodeId, LeaseId, NodeId, ServerId, SessionId, ids::ROOT};

pub struct World {
    pub tables: MemTables,
    pub session: SessionId,
    pub sequence: u64,
    pub index: u64,
}

/// A server by number.
pub fn server(number: u128) -> ServerId {
    ServerId::from_random(number)
}

/// A writer of a file, and the chunks it has written.
#[derive(Clone, Debug)]
pub struct Put {
    pub inode: InodeId,
    pub lease: LeaseId,
    pub crc: Crc32,
    pub length: u64,
    pub chunks: Vec<ChunkRef>,
}

impl World {
    /// Before the cluster is created.
    pub fn empty() -> Self {
        World { tables: MemTables::default(), session: SessionId(0), sequence: 0, index: 0 }
    }

    /// A cluster with one session.
    pub fn new() -> Self {
        let mut world = Self::empty();
        world.ok(Kind::CreateCluster(create_cluster()));
        world.ok(Kind::BeginEpoch(BeginEpoch { node: NodeId(1) }));
        world.session = world.open_session(1);
        world
    }

    pub fn open_session(&mut self, nonce: u8) -> SessionId {
        match self.ok(Kind::OpenSession(OpenSession { nonce: vec![nonce; 16] })) {
            Reply::Session(opened) => opened.session,
            other => panic!("{other:?}"),
        }
    }

    pub fn apply(&mut self, kind: Kind) -> Outcome {
        self.index += 1;
        let command = Command { wall_ms: 1000 + self.index, kind };
        let command = Command::decode(&command.encode()).unwrap();
        let index = self.index;
        let run = |tables: &MemTables| {
            let mut overlay = Overlay::new(tables);
            let outcome = apply(&mut overlay, index, &command).unwrap();
            (outcome, overlay.into_changes())
        };
        let (outcome, changes) = run(&self.tables);
        assert_eq!(run(&self.tables), (outcome.clone(), changes.clone()), "applying is deterministic");
        assert_eq!(decode_outcome(&encode_outcome(&outcome)).unwrap(), outcome);
        self.tables.write(changes);
        check(&self.tables);
        outcome
    }

    pub fn ok(&mut self, kind: Kind) -> Reply {
        self.apply(kind).unwrap()
    }

    /// Applies, expects a refusal, and that nothing has changed.
    pub fn refused(&mut self, kind: Kind) -> ErrorCode {
        let before = self.tables.clone();
        let code = self.apply(kind).unwrap_err().code;
        assert!(before == self.tables, "a refused command leaves nothing");
        code
    }

    pub fn op(&mut self) -> OpId {
        self.sequence += 1;
        OpId { session: self.session, sequence: self.sequence, acknowledged_below: self.sequence.saturating_sub(2) }
    }

    pub fn client(&mut self, mutation: Mutation) -> Outcome {
        let op = self.op();
        self.apply(Kind::Client(ClientCommand { op, mutation }))
    }

    pub fn code(&mut self, mutation: Mutation) -> ErrorCode {
        self.client(mutation).unwrap_err().code
    }

    pub fn mkdir(&mut self, path: &str) -> FileView {
        match self.client(Mutation::Mkdir(Mkdir { path: path.into(), parents: false })).unwrap() {
            Reply::File(file) => file,
            other => panic!("{other:?}"),
        }
    }

    pub fn create(&mut self, path: &str, mode: CreateMode) -> Result<Put, Refusal> {
        self.client(Mutation::Create(create(path, mode))).map(put)
    }

    pub fn add(&mut self, put: &Put, limit: u64) -> Result<ChunkId, Refusal> {
        let mutation = Mutation::AddChunk(add_chunk(put, limit));
        self.client(mutation).map(|reply| match reply {
            Reply::Chunk(added) => added.chunk,
            other => panic!("{other:?}"),
        })
    }

    pub fn seal(&mut self, chunk: ChunkId, bytes: &[u8], holders: &[ServerId]) -> Outcome {
        self.apply(Kind::Seal(sealed(chunk, bytes, holders)))
    }

    /// Adds a chunk with these bytes and seals it on two servers.
    pub fn write(&mut self, put: &mut Put, bytes: &[u8]) -> ChunkId {
        let chunk = self.add(put, 1 << 20).unwrap();
        self.seal(chunk, bytes, &[server(1), server(2)]).unwrap();
        put.wrote(chunk, bytes);
        chunk
    }

    pub fn complete(&mut self, put: &Put) -> Outcome {
        self.client(Mutation::Complete(complete(put)))
    }

    /// Puts a whole file.
    pub fn file(&mut self, path: &str, bytes: &[u8]) -> FileView {
        let mut put = self.create(path, CreateMode::Replace).unwrap();
        if !bytes.is_empty() {
            self.write(&mut put, bytes);
        }
        match self.complete(&put).unwrap() {
            Reply::Completed(completed) => completed.file,
            other => panic!("{other:?}"),
        }
    }

    pub fn remove(&mut self, path: &str, recursive: bool, now: bool) -> Outcome {
        self.client(Mutation::Remove(Remove { path: path.into(), recursive, now }))
    }

    pub fn rename(&mut self, from: &str, to: &str, replace: bool) -> Outcome {
        self.client(Mutation::Rename(Rename { from: from.into(), to: to.into(), replace }))
    }

    pub fn tick(&mut self, elapsed_ms: u64) {
        self.ok(Kind::Tick(Tick { elapsed_ms }));
    }

    /// Replicated time moves beyond the readers' grace.
    pub fn pass_grace(&mut self) {
        for _ in 0..61 {
            self.tick(60_000);
        }
    }

    /// Replicated time moves on by at least this.
    pub fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(60_000) {
            self.tick(60_000);
        }
    }

    /// Changes a setting.
    pub fn set(&mut self, name: &str, value: &str) {
        let mut settings = query::settings(&self.tables).unwrap();
        settings.change(name, value).unwrap();
        self.ok(Kind::PutSettings(PutSettings { settings }));
    }

    pub fn undelete(&mut self, path: &str, inode: u64, to: &str) -> Outcome {
        self.client(Mutation::Undelete(Undelete { path: path.into(), inode: InodeId(inode), to: to.into() }))
    }

    pub fn set_replicas(&mut self, path: &str, replicas: u32) -> Outcome {
        self.client(Mutation::SetReplicas(SetReplicas { path: path.into(), replicas }))
    }

    pub fn follow(&mut self, limit: u32) -> Followed {
        match self.ok(Kind::FollowWanted(FollowWanted { limit })) {
            Reply::Followed(followed) => followed,
            other => panic!("{other:?}"),
        }
    }

    pub fn collect(&mut self, limit: u32) -> Collected {
        match self.ok(Kind::CollectRemoved(CollectRemoved { limit })) {
            Reply::Collected(collected) => collected,
            other => panic!("{other:?}"),
        }
    }

    pub fn totals(&self) -> Totals {
        query::totals(&self.tables).unwrap()
    }

    pub fn chunk(&self, id: ChunkId) -> Option<Chunk> {
        query::chunk(&self.tables, id).unwrap()
    }

    pub fn names(&self, path: &str) -> Vec<String> {
        query::list(&self.tables, path, &[], 100).unwrap().entries.into_iter().map(|e| e.path).collect()
    }
}

impl Put {
    pub fn wrote(&mut self, chunk: ChunkId, bytes: &[u8]) {
        let (length, crc) = (bytes.len() as u64, Crc32::of(bytes));
        self.chunks.push(ChunkRef { chunk, offset: self.length, length, crc });
        self.crc = self.crc.combine(crc, length);
        self.length += length;
    }
}

pub fn put(reply: Reply) -> Put {
    let Reply::Writer(w) = reply else { panic!("{reply:?}") };
    Put { inode: w.inode, lease: w.lease, crc: w.crc, length: w.length, chunks: Vec::new() }
}

pub fn create_cluster() -> CreateCluster {
    CreateCluster {
        cluster: ClusterId::from_random(1),
        lineage_id: ClusterId::from_random(2).0,
        settings: Settings::default(),
    }
}

pub fn create(path: &str, mode: CreateMode) -> Create {
    Create { path: path.into(), mode, expected_inode: InodeId(0), expected_version: 0, replicas: 0, parents: false }
}

pub fn add_chunk(put: &Put, limit: u64) -> AddChunk {
    AddChunk {
        inode: put.inode,
        lease: put.lease,
        offset: put.length,
        limit,
        members: vec![server(1), server(2), server(3)],
        seals: Vec::new(),
    }
}

pub fn complete(put: &Put) -> Complete {
    Complete {
        inode: put.inode,
        lease: put.lease,
        length: put.length,
        crc: put.crc,
        chunks: put.chunks.clone(),
        seals: Vec::new(),
    }
}

pub fn sealed(chunk: ChunkId, bytes: &[u8], holders: &[ServerId]) -> SealedChunk {
    SealedChunk { chunk, length: bytes.len() as u64, crc: Crc32::of(bytes), holders: holders.to_vec() }
}

fn rows<R: Record>(tables: &MemTables, table: Table) -> BTreeMap<Vec<u8>, R> {
    tables.rows(table).map(|(key, value)| (key.to_vec(), R::decode(value).unwrap())).collect()
}

fn ids<R: Record>(tables: &MemTables, table: Table) -> BTreeMap<u64, R> {
    rows(tables, table).into_iter().map(|(key, row)| (keys::read_one(&key).unwrap(), row)).collect()
}

/// Everything that must hold between the tables at all times.
pub fn check(tables: &MemTables) {
    let Ok(totals) = query::totals(tables) else { return };
    let inodes: BTreeMap<u64, Inode> = ids(tables, Table::Inode);
    let chunks: BTreeMap<u64, Chunk> = ids(tables, Table::Chunk);
    check_names(tables, &inodes);
    check_trash(tables, &inodes);
    check_chunks(tables, &inodes, &chunks);
    check_leases(tables, &inodes);
    check_sessions(tables);
    check_events(tables);
    let live = |directory: bool| {
        let live =
            |(id, i): &(&u64, &Inode)| **id != ROOT.0 && i.state == InodeState::Live && i.is_directory() == directory;
        inodes.iter().filter(live).count() as u64
    };
    let in_state = |state: ChunkState| chunks.values().filter(|c| c.state == state).count() as u64;
    let counted = Totals {
        files: live(false),
        directories: live(true),
        chunks: in_state(ChunkState::Open) + in_state(ChunkState::Sealed),
        open: in_state(ChunkState::Open),
        doomed: in_state(ChunkState::Doomed),
        removed: inodes.values().filter(|i| i.state == InodeState::Removed).count() as u64,
        leases: tables.rows(Table::Lease).count() as u64,
        sessions: tables.rows(Table::Session).count() as u64,
        servers: tables.rows(Table::Server).count() as u64,
        trashed: tables.rows(Table::Trash).count() as u64,
    };
    assert_eq!(totals, counted, "totals are right");
}

fn check_names(tables: &MemTables, inodes: &BTreeMap<u64, Inode>) {
    let mut named = BTreeSet::from([ROOT.0]);
    for (key, entry) in rows::<Entry>(tables, Table::Entry) {
        let (directory, name) = keys::read_entry(&key).unwrap();
        let inode = &inodes[&entry.inode.0];
        assert_eq!(inode.state, InodeState::Live, "entries name live inodes");
        assert_eq!((inode.parent, inode.name.as_str()), (directory, name), "parent pointers are entries backwards");
        assert!(inodes[&directory.0].is_directory());
        assert!(named.insert(entry.inode.0), "one entry an inode");
    }
    let live: BTreeSet<u64> = inodes.iter().filter(|(_, i)| i.state == InodeState::Live).map(|(id, _)| *id).collect();
    assert_eq!(named, live, "live inodes have an entry");
    for key in rows::<Mark>(tables, Table::Removed).into_keys() {
        let (at, id) = keys::read_two(&key).unwrap();
        assert_eq!((inodes[&id].state, inodes[&id].collect_at_ms), (InodeState::Removed, at));
    }
}

fn check_trash(tables: &MemTables, inodes: &BTreeMap<u64, Inode>) {
    let mut trashed = BTreeSet::new();
    for (key, row) in rows::<Trash>(tables, Table::Trash) {
        let (directory, name, removal) = keys::read_trash(&key).unwrap();
        let inode = &inodes[&row.inode.0];
        assert_eq!((inode.parent, inode.name.as_str(), inode.removal), (directory, name, removal));
        assert_eq!(inode.state, InodeState::Removed);
        assert!(row.until_ms <= inode.collect_at_ms, "nothing is taken apart that can be taken back");
        trashed.insert(row.inode.0);
    }
    let said: BTreeSet<u64> = inodes.iter().filter(|(_, i)| i.removal != 0).map(|(id, _)| *id).collect();
    assert_eq!(said, trashed, "what says that it lies in the trash can be found there");
}

fn check_chunks(tables: &MemTables, inodes: &BTreeMap<u64, Inode>, chunks: &BTreeMap<u64, Chunk>) {
    let wanted: BTreeMap<u64, Wanted> = ids(tables, Table::Wanted);
    let mut in_rows = BTreeSet::new();
    let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
    let mut count: BTreeMap<u64, u64> = BTreeMap::new();
    for (key, row) in rows::<Row>(tables, Table::Row) {
        let (inode, offset) = keys::read_two(&key).unwrap();
        let chunk = &chunks[&row.chunk.0];
        assert_eq!((chunk.inode.0, chunk.offset), (inode, offset), "a row's record is its own");
        assert_ne!(chunk.state, ChunkState::Doomed);
        assert!(in_rows.insert(row.chunk.0), "one row a chunk");
        let file = &inodes[&inode];
        let followed = wanted.get(&inode).is_none_or(|row| offset < row.from);
        let lives = file.state != InodeState::Removed || file.removal != 0;
        assert!(chunk.wanted == file.replicas || !followed || !lives, "chunks want what their file wants, or will");
        let end = ends.entry(inode).or_default();
        assert!(offset >= *end, "rows do not overlap");
        *end = offset + chunk.reach();
        *count.entry(inode).or_default() += 1;
    }
    for (id, inode) in inodes {
        assert_eq!(inode.chunks, count.get(id).copied().unwrap_or(0), "chunks of inode {id} are counted");
    }
    let with_row: BTreeSet<u64> =
        chunks.iter().filter(|(_, c)| c.state != ChunkState::Doomed).map(|(id, _)| *id).collect();
    assert_eq!(in_rows, with_row, "chunks that are not doomed have a row");
    let marked = |table| rows::<Mark>(tables, table).into_keys().map(|k| keys::read_one(&k).unwrap()).collect();
    let in_state = |state| chunks.iter().filter(|(_, c)| c.state == state).map(|(id, _)| *id).collect();
    let (open, doomed): (BTreeSet<u64>, BTreeSet<u64>) = (marked(Table::Open), marked(Table::Doomed));
    assert_eq!(open, in_state(ChunkState::Open));
    assert_eq!(doomed, in_state(ChunkState::Doomed));
    let next = query::counters(tables).unwrap().next_chunk;
    assert!(chunks.keys().all(|id| *id < next), "ids come from the counter");
}

fn check_leases(tables: &MemTables, inodes: &BTreeMap<u64, Inode>) {
    let leases: BTreeMap<u64, Lease> = ids(tables, Table::Lease);
    for (id, lease) in &leases {
        assert_eq!(inodes[&lease.inode.0].lease.0, *id, "a lease is its file's");
        for chunk in &lease.open {
            assert_eq!(query::chunk(tables, *chunk).unwrap().unwrap().state, ChunkState::Open);
        }
        assert!(!lease.visible || lease.open.len() <= 1, "a visible file has one open chunk at most");
    }
    let of_files: BTreeSet<u64> = inodes.values().map(|i| i.lease.0).filter(|l| *l != 0).collect();
    assert_eq!(of_files, leases.into_keys().collect());
}

fn check_sessions(tables: &MemTables) {
    let sessions: BTreeMap<u64, Session> = ids(tables, Table::Session);
    let mut results: BTreeMap<u64, u32> = BTreeMap::new();
    for (key, _) in rows::<OpResult>(tables, Table::Result) {
        let (session, sequence) = keys::read_two(&key).unwrap();
        assert!(sequence >= sessions[&session].acknowledged_below);
        *results.entry(session).or_default() += 1;
    }
    for (id, session) in &sessions {
        assert_eq!(session.results, results.get(id).copied().unwrap_or(0));
    }
    assert_eq!(tables.rows(Table::Nonce).count(), sessions.len());
}

fn check_events(tables: &MemTables) {
    let Some(kept) = tables.get(Table::Meta, keys::EVENTS).unwrap() else {
        assert_eq!(tables.rows(Table::Event).count(), 0);
        return;
    };
    let kept = Events::decode(&kept).unwrap();
    let rows: Vec<_> = tables.rows(Table::Event).collect();
    let bytes: usize = rows.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert_eq!((kept.count, kept.bytes), (rows.len() as u64, bytes as u64), "events are counted");
    let places: Vec<_> = rows.iter().map(|(key, _)| keys::read_two(key).unwrap()).collect();
    assert!(
        places.first().is_none_or(|first| *first > (kept.swept_index, kept.swept_position)),
        "what is gone is gone"
    );
    assert!(
        places.last().is_none_or(|last| *last == kept.last() || kept.last() == (kept.begin, 0)),
        "the last is known"
    );
    assert!(places.windows(2).all(|two| two[1].0 > two[0].0 && two[1].1 == 1 || two[1] == (two[0].0, two[0].1 + 1)));
}
