//! Paths and contents, and what each command should do to them.

use std::collections::BTreeMap;

use quarry_master_core::{command::*, query, reply::*, rows::ChunkState};
use quarry_types::{ChunkId, Crc32, ErrorCode, InodeId};

use crate::world::{self, Put, World, server};

#[derive(Clone, Debug)]
struct Node {
    inode: InodeId,
    directory: bool,
    content: Vec<u8>,
    version: u64,
    writer: bool,
}

struct Writer {
    put: Put,
    /// The directory, as an inode: its path may change.
    directory: InodeId,
    name: String,
    mode: CreateMode,
    expected: (InodeId, u64),
    visible: bool,
    ended: bool,
    content: Vec<u8>,
    open: Option<ChunkId>,
    fewest: Option<usize>,
}

/// Something that was removed as a whole: what it was called in its directory, an inode as that may move.
struct Removed {
    directory: InodeId,
    name: String,
    until_ms: u64,
    /// By path from where it was; the first is what was removed.
    nodes: Vec<(String, Node)>,
}

pub struct Model {
    pub world: World,
    trash: Vec<Removed>,
    tree: BTreeMap<String, Node>,
    writers: Vec<Writer>,
    pub last: Option<(Kind, Outcome)>,
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(_, name)| name)
}

type Expected = Result<(), ErrorCode>;

impl Model {
    pub fn new() -> Self {
        let root = Node { inode: InodeId(1), directory: true, content: vec![], version: 1, writer: false };
        let mut world = World::new();
        world.set("trash", "2m");
        world.set("reader-grace", "1m");
        Model { world, trash: vec![], tree: BTreeMap::from([(String::new(), root)]), writers: vec![], last: None }
    }

    fn client(&mut self, mutation: Mutation, expected: Expected) -> Option<Reply> {
        let op = self.world.op();
        let kind = Kind::Client(ClientCommand { op, mutation });
        let outcome = self.world.apply(kind.clone());
        assert_eq!(outcome.as_ref().map(|_| ()).map_err(|r| r.code), expected, "{kind:?}: {outcome:?}");
        // Only what is remembered answers the same again.
        let remembered = outcome.as_ref().err().is_none_or(|r| r.code.advice() != quarry_types::Advice::Retry);
        self.last = remembered.then(|| (kind, outcome.clone()));
        outcome.ok()
    }

    /// Whether the directory of `path` is there, and what is said if not.
    fn parent_of(&self, path: &str) -> Result<InodeId, ErrorCode> {
        let mut at = String::new();
        for part in parent(path).split('/').skip(1) {
            if !self.tree[&at].directory {
                return Err(ErrorCode::NotADirectory);
            }
            at = format!("{at}/{part}");
            if !self.tree.contains_key(&at) {
                return Err(ErrorCode::NotFound);
            }
        }
        let node = &self.tree[&at];
        if node.directory { Ok(node.inode) } else { Err(ErrorCode::NotADirectory) }
    }

    fn path_of(&self, inode: InodeId) -> Option<String> {
        self.tree.iter().find(|(_, node)| node.inode == inode).map(|(path, _)| path.clone())
    }

    /// A file or directory that is visible, or in the trash, or below something that is.
    fn node(&mut self, inode: InodeId) -> Option<&mut Node> {
        let trashed = self.trash.iter_mut().flat_map(|removed| &mut removed.nodes).map(|(_, node)| node);
        self.tree.values_mut().chain(trashed).find(|node| node.inode == inode)
    }

    fn end_writer_of(&mut self, inode: InodeId) {
        for writer in self.writers.iter_mut().filter(|w| w.put.inode == inode) {
            writer.ended = true;
        }
    }

    /// Takes a path and all below it out of the model.
    fn take(&mut self, path: &str) -> Vec<(String, Node)> {
        let below = format!("{path}/");
        let keys: Vec<String> = self.tree.keys().filter(|p| *p == path || p.starts_with(&below)).cloned().collect();
        keys.into_iter().map(|key| (key.clone(), self.tree.remove(&key).unwrap())).collect()
    }

    pub fn mkdir(&mut self, path: &str, parents: bool) {
        let blocked = |model: &Self| {
            let mut at = String::new();
            path.split('/').skip(1).any(|part| {
                at = format!("{at}/{part}");
                model.tree.get(&at).is_some_and(|node| !node.directory)
            })
        };
        let expected = if parents {
            if blocked(self) { Err(ErrorCode::NotADirectory) } else { Ok(()) }
        } else {
            self.parent_of(path)
                .and_then(|_| if self.tree.contains_key(path) { Err(ErrorCode::AlreadyExists) } else { Ok(()) })
        };
        if self.client(Mutation::Mkdir(Mkdir { path: path.into(), parents }), expected).is_none() {
            return;
        }
        let mut at = String::new();
        for part in path.split('/').skip(1) {
            at = format!("{at}/{part}");
            let view = query::stat(&self.world.tables, &at).unwrap();
            let node =
                Node { inode: view.inode, directory: true, content: vec![], version: view.version, writer: false };
            self.tree.entry(at.clone()).or_insert(node);
        }
    }

    /// Whether the mode allows what stands at `path`.
    fn allowed(&self, path: &str, mode: CreateMode, expected: (InodeId, u64)) -> Expected {
        match (self.tree.get(path), mode) {
            (Some(node), CreateMode::Replace | CreateMode::IfUnchanged) if node.directory => {
                Err(ErrorCode::IsADirectory)
            }
            (Some(_), CreateMode::FailIfPresent | CreateMode::Visible) => Err(ErrorCode::AlreadyExists),
            (Some(node), CreateMode::IfUnchanged) if (node.inode, node.version) == expected => Ok(()),
            (_, CreateMode::IfUnchanged) => Err(ErrorCode::Conflict),
            _ => Ok(()),
        }
    }

    pub fn create(&mut self, path: &str, mode: CreateMode) {
        let present = self.tree.get(path).map(|node| (node.inode, node.version));
        let expected_file = present.unwrap_or((InodeId(0), 0));
        let expected = self.parent_of(path).and_then(|_| self.allowed(path, mode, expected_file));
        let command =
            Create { expected_inode: expected_file.0, expected_version: expected_file.1, ..world::create(path, mode) };
        let Some(reply) = self.client(Mutation::Create(command), expected) else { return };
        let put = world::put(reply);
        let visible = mode == CreateMode::Visible;
        if visible {
            let node = Node { inode: put.inode, directory: false, content: vec![], version: 1, writer: true };
            self.tree.insert(path.into(), node);
        }
        let directory = self.parent_of(path).unwrap();
        self.writers.push(Writer {
            put,
            directory,
            name: name(path).into(),
            mode,
            expected: expected_file,
            visible,
            ended: false,
            content: vec![],
            open: None,
            fewest: None,
        });
    }

    pub fn append(&mut self, path: &str) {
        let expected = match (self.parent_of(path), self.tree.get(path)) {
            (Err(code), _) => Err(code),
            (Ok(_), None) => Err(ErrorCode::NotFound),
            (Ok(_), Some(node)) if node.directory => Err(ErrorCode::IsADirectory),
            (Ok(_), Some(node)) if node.writer => Err(ErrorCode::LeaseHeld),
            _ => Ok(()),
        };
        let Some(reply) = self.client(Mutation::OpenAppend(OpenAppend { path: path.into() }), expected) else {
            return;
        };
        let put = world::put(reply);
        let node = self.tree.get_mut(path).unwrap();
        assert_eq!((put.inode, put.length, put.crc), (node.inode, node.content.len() as u64, Crc32::of(&node.content)));
        node.writer = true;
        let content = node.content.clone();
        self.writers.push(Writer {
            put,
            directory: InodeId(0),
            name: String::new(),
            mode: CreateMode::Visible,
            expected: (InodeId(0), 0),
            visible: true,
            ended: false,
            content,
            open: None,
            fewest: None,
        });
    }

    /// The path that a writer's file has or will have; `None` when its directory is gone.
    fn target(&self, writer: &Writer) -> Option<String> {
        if writer.visible {
            return self.path_of(writer.put.inode);
        }
        Some(format!("{}/{}", self.path_of(writer.directory)?, writer.name))
    }

    pub fn add(&mut self, index: usize) {
        let Some(writer) = self.writers.get(index) else { return };
        let expected = if writer.ended {
            Err(ErrorCode::LeaseLost)
        } else if self.target(writer).is_none() {
            Err(ErrorCode::NotFound)
        } else if writer.open.is_some() {
            Err(ErrorCode::Conflict)
        } else {
            Ok(())
        };
        let command = world::add_chunk(&writer.put, 40);
        let Some(Reply::Chunk(added)) = self.client(Mutation::AddChunk(command), expected) else { return };
        self.writers[index].open = Some(added.chunk);
    }

    pub fn seal(&mut self, index: usize, length: usize, holders: usize) {
        let Some(writer) = self.writers.get_mut(index) else { return };
        let Some(chunk) = writer.open else { return };
        // A file that was removed with its tree may have been taken apart.
        if self.world.chunk(chunk).is_none_or(|c| c.state == ChunkState::Doomed) {
            writer.open = None;
            return;
        }
        let bytes = vec![chunk.0 as u8; length];
        let servers: Vec<_> = (0..holders as u128).map(server).collect();
        self.world.seal(chunk, &bytes, &servers).unwrap();
        writer.open = None;
        if length == 0 {
            return;
        }
        writer.put.wrote(chunk, &bytes);
        writer.content.extend(&bytes);
        writer.fewest = Some(writer.fewest.map_or(holders, |fewest| fewest.min(holders)));
        let (inode, content) = (writer.put.inode, writer.content.clone());
        if writer.visible
            && let Some(node) = self.node(inode)
        {
            node.content = content;
            node.version += 1;
        }
    }

    pub fn confirm(&mut self, index: usize) {
        let Some(writer) = self.writers.get_mut(index) else { return };
        let chunks: Vec<ChunkId> = writer.put.chunks.iter().map(|c| c.chunk).collect();
        writer.fewest = writer.fewest.map(|fewest| fewest.max(2));
        for chunk in chunks {
            let servers = vec![server(0), server(1)];
            let _ = self.world.apply(Kind::ConfirmReplicas(ConfirmReplicas { chunk, servers, gone: vec![] }));
        }
    }

    pub fn complete(&mut self, index: usize, lie: bool) {
        let Some(writer) = self.writers.get(index) else { return };
        let target = self.target(writer);
        let inode = query::inode(&self.world.tables, writer.put.inode).unwrap();
        let needed = inode.map_or(2, |inode| inode.replicas.min(2)) as usize;
        let mut command = world::complete(&writer.put);
        if lie {
            command.crc.0 ^= 1;
        }
        let expected = match &target {
            _ if writer.ended => Err(ErrorCode::LeaseLost),
            None => Err(ErrorCode::NotFound),
            Some(_) if writer.open.is_some() => Err(ErrorCode::Conflict),
            Some(_) if lie => Err(ErrorCode::Mismatch),
            Some(path) => {
                let allowed = if writer.visible { Ok(()) } else { self.allowed(path, writer.mode, writer.expected) };
                let short = writer.fewest.is_some_and(|fewest| fewest < needed);
                allowed.and(if short { Err(ErrorCode::UnderReplicated) } else { Ok(()) })
            }
        };
        let Some(Reply::Completed(done)) = self.client(Mutation::Complete(command), expected) else { return };
        let path = target.unwrap();
        assert_eq!(done.file.path, path);
        let writer = &mut self.writers[index];
        writer.ended = true;
        if writer.visible {
            self.tree.get_mut(&path).unwrap().writer = false;
            return;
        }
        let (inode, content) = (writer.put.inode, writer.content.clone());
        if let Some(old) = self.tree.remove(&path) {
            self.end_writer_of(old.inode);
        }
        self.tree.insert(path, Node { inode, directory: false, content, version: 1, writer: false });
    }

    pub fn end(&mut self, index: usize, by_client: bool) {
        let Some(writer) = self.writers.get(index) else { return };
        let blocked = writer.visible && writer.open.is_some();
        let (inode, lease) = (writer.put.inode, writer.put.lease);
        let expected = match writer.ended {
            true if by_client => Err(ErrorCode::LeaseLost),
            false if blocked => Err(ErrorCode::Busy),
            _ => Ok(()),
        };
        if by_client {
            self.client(Mutation::Abort(Abort { inode, lease }), expected);
        } else {
            let outcome = self.world.apply(Kind::ExpireLease(ExpireLease { lease }));
            assert_eq!(outcome.map(|_| ()).map_err(|r| r.code), expected);
        }
        if expected.is_ok() && !self.writers[index].ended {
            self.writers[index].ended = true;
            if let Some(node) = self.node(inode) {
                node.writer = false;
            }
        }
    }

    pub fn rename(&mut self, from: &str, to: &str, replace: bool) {
        let expected = (|| {
            self.parent_of(from)?;
            let Some(node) = self.tree.get(from) else { return Err(ErrorCode::NotFound) };
            self.parent_of(to)?;
            if from == to {
                return Ok(());
            }
            if node.directory && to.starts_with(&format!("{from}/")) {
                return Err(ErrorCode::Cycle);
            }
            match self.tree.get(to) {
                Some(old) if old.directory || node.directory || !replace => Err(ErrorCode::AlreadyExists),
                _ => Ok(()),
            }
        })();
        let command = Rename { from: from.into(), to: to.into(), replace };
        if self.client(Mutation::Rename(command), expected).is_none() || from == to {
            return;
        }
        if let Some(old) = self.tree.remove(to) {
            self.end_writer_of(old.inode);
        }
        for (path, node) in self.take(from) {
            self.tree.insert(format!("{to}{}", &path[from.len()..]), node);
        }
    }

    pub fn remove(&mut self, path: &str, recursive: bool, now: bool) {
        let expected = (|| {
            self.parent_of(path)?;
            let Some(node) = self.tree.get(path) else { return Err(ErrorCode::NotFound) };
            let full = self.tree.keys().any(|p| p.starts_with(&format!("{path}/")));
            if node.directory && full && !recursive { Err(ErrorCode::NotEmpty) } else { Ok(()) }
        })();
        let command = Remove { path: path.into(), recursive, now };
        if self.client(Mutation::Remove(command), expected).is_none() {
            return;
        }
        let directory = self.parent_of(path).unwrap();
        let mut nodes = self.take(path);
        // Below a removed directory a writer keeps its lease until the collector comes by.
        let (_, top) = &mut nodes[0];
        top.writer = false;
        let inode = top.inode;
        self.end_writer_of(inode);
        if !now {
            nodes.iter_mut().for_each(|(of, _)| *of = of[path.len()..].to_string());
            let until_ms = self.elapsed_ms() + 120_000;
            self.trash.push(Removed { directory, name: name(path).into(), until_ms, nodes });
        }
    }

    fn elapsed_ms(&self) -> u64 {
        query::counters(&self.world.tables).unwrap().elapsed_ms
    }

    pub fn undelete(&mut self, path: &str, to: Option<&str>) {
        let (elapsed_ms, target) = (self.elapsed_ms(), to.unwrap_or(path));
        let expected = (|| {
            let directory = self.parent_of(path)?;
            let found = self.trash.iter().rposition(|r| (r.directory, r.name.as_str()) == (directory, name(path)));
            let found = found.filter(|at| self.trash[*at].until_ms > elapsed_ms).ok_or(ErrorCode::NotFound)?;
            self.parent_of(target)?;
            if self.tree.contains_key(target) {
                return Err(ErrorCode::AlreadyExists);
            }
            let inode = self.trash[found].nodes[0].1.inode;
            let unsealed = self.writers.iter().any(|w| w.put.inode == inode && w.open.is_some());
            if unsealed { Err(ErrorCode::Busy) } else { Ok(found) }
        })();
        let undelete = Undelete { path: path.into(), inode: InodeId(0), to: to.unwrap_or_default().into() };
        if self.client(Mutation::Undelete(undelete), expected.map(|_| ())).is_some() {
            for (below, node) in self.trash.remove(expected.unwrap()).nodes {
                self.tree.insert(format!("{target}{below}"), node);
            }
        }
    }

    pub fn empty(&mut self) {
        let page = query::trash(&self.world.tables, "/", &[], 1000).unwrap();
        let visible = page.entries.into_iter().map(|e| Removal { inode: e.file.inode, removal: e.removal });
        let removals = visible.chain(page.hidden).collect();
        self.world.ok(Kind::EmptyTrash(EmptyTrash { removals }));
        let elapsed_ms = self.elapsed_ms();
        self.trash.retain(|removed| removed.until_ms <= elapsed_ms);
    }

    pub fn set_replicas(&mut self, path: &str, replicas: u32) {
        let expected = self
            .parent_of(path)
            .and_then(|_| if self.tree.contains_key(path) { Ok(()) } else { Err(ErrorCode::NotFound) });
        self.client(Mutation::SetReplicas(SetReplicas { path: path.into(), replicas }), expected);
    }

    /// A visible writer below a removed tree loses its lease at some step of the collector.
    pub fn notice_collected(&mut self) {
        for writer in self.writers.iter_mut().filter(|w| !w.ended && w.visible) {
            writer.ended = query::lease(&self.world.tables, writer.put.lease).unwrap().is_none();
        }
        for writer in &mut self.writers {
            if let Some(chunk) = writer.open {
                let doomed = self.world.chunk(chunk).is_none_or(|c| c.state == ChunkState::Doomed);
                if doomed {
                    writer.open = None;
                }
            }
        }
    }

    /// Writers that ended make room for new ones, unless what they left is not sealed yet.
    pub fn forget_ended(&mut self) {
        if self.writers.len() > 5 {
            self.writers.retain(|w| !w.ended || w.open.is_some());
        }
    }

    /// The whole tree is what the model says, and its rows hold the bytes.
    pub fn compare(&self) {
        let mut found = Vec::new();
        let mut directories = vec!["/".to_string()];
        while let Some(directory) = directories.pop() {
            for entry in query::list(&self.world.tables, &directory, &[], 1000).unwrap().entries {
                if entry.kind == FileKind::Directory {
                    directories.push(entry.path.clone());
                }
                found.push(entry);
            }
        }
        assert_eq!(found.len() + 1, self.tree.len(), "{:?}", self.tree.keys());
        for entry in found {
            let node = &self.tree[&entry.path];
            let (length, crc) = (node.content.len() as u64, Crc32::of(&node.content));
            assert_eq!((entry.inode, entry.kind == FileKind::Directory), (node.inode, node.directory));
            assert_eq!((entry.length, entry.crc, entry.open), (length, crc, node.writer), "{}", entry.path);
            assert_eq!(entry.version, node.version, "{}", entry.path);
            let rows = query::rows(&self.world.tables, entry.inode, 0, 1000).unwrap();
            let sum: u64 = rows.chunks.iter().map(|c| c.record.length).sum();
            assert_eq!(sum, length);
        }
    }
}
