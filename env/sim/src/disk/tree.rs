//! The names on a disk: as seen now, as durable, and the changes in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    path::{Component, Path, PathBuf},
};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::file::File;

pub(super) type Ino = u64;
const ROOT: Ino = 0;

/// A name in a directory.
type Entry = (Ino, OsString);

pub(super) enum Node {
    Dir,
    File(File),
}

pub(super) struct Tree {
    nodes: BTreeMap<Ino, Node>,
    current: BTreeMap<Entry, Ino>,
    durable: BTreeMap<Entry, Ino>,
    /// Not yet durable, in order.
    pending: Vec<Step>,
    next: Ino,
}

/// One atomic change of names; `None` removes the name.
struct Step(Vec<(Entry, Option<Ino>)>);

impl Step {
    fn apply(&self, names: &mut BTreeMap<Entry, Ino>) {
        for (entry, ino) in &self.0 {
            match ino {
                Some(ino) => names.insert(entry.clone(), *ino),
                None => names.remove(entry),
            };
        }
    }

    fn touches(&self, entries: &BTreeSet<Entry>) -> bool {
        self.0.iter().any(|(entry, _)| entries.contains(entry))
    }

    fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.0.iter().map(|(entry, _)| entry.clone())
    }
}

impl Default for Tree {
    fn default() -> Self {
        Tree {
            nodes: BTreeMap::from([(ROOT, Node::Dir)]),
            current: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
            next: ROOT + 1,
        }
    }
}

fn error(kind: io::ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{kind}: {}", path.display()))
}

fn names(path: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(name.to_owned()),
            Component::ParentDir | Component::Prefix(_) => return Err(error(io::ErrorKind::InvalidInput, path)),
        }
    }
    Ok(names)
}

fn find_in(all: &BTreeMap<Entry, Ino>, path: &Path) -> io::Result<Ino> {
    let mut at = ROOT;
    for name in names(path)? {
        at = *all.get(&(at, name)).ok_or_else(|| error(io::ErrorKind::NotFound, path))?;
    }
    Ok(at)
}

impl Tree {
    pub(super) fn find(&self, path: &Path) -> io::Result<Ino> {
        find_in(&self.current, path)
    }

    pub(super) fn find_durable(&self, path: &Path) -> io::Result<Ino> {
        find_in(&self.durable, path)
    }

    fn entry(&self, path: &Path) -> io::Result<Entry> {
        let mut names = names(path)?;
        let name = names.pop().ok_or_else(|| error(io::ErrorKind::InvalidInput, path))?;
        let dir = self.find(&names.iter().collect::<PathBuf>())?;
        match self.nodes.get(&dir) {
            Some(Node::Dir) => Ok((dir, name)),
            _ => Err(error(io::ErrorKind::NotADirectory, path)),
        }
    }

    pub(super) fn is_dir(&self, ino: Ino) -> bool {
        matches!(self.nodes.get(&ino), Some(Node::Dir))
    }

    pub(super) fn file(&self, ino: Ino) -> io::Result<&File> {
        match self.nodes.get(&ino) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        }
    }

    pub(super) fn file_mut(&mut self, ino: Ino) -> io::Result<&mut File> {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        }
    }

    fn step(&mut self, changes: Vec<(Entry, Option<Ino>)>) {
        let step = Step(changes);
        step.apply(&mut self.current);
        self.pending.push(step);
    }

    fn add(&mut self, entry: Entry, node: Node) -> Ino {
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, node);
        self.step(vec![(entry, Some(ino))]);
        ino
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<Ino> {
        let entry = self.entry(path)?;
        if self.current.contains_key(&entry) {
            return Err(error(io::ErrorKind::AlreadyExists, path));
        }
        Ok(self.add(entry, Node::File(File::default())))
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for name in names(path)? {
            let entry = (at, name);
            at = match self.current.get(&entry) {
                Some(ino) if self.is_dir(*ino) => *ino,
                Some(_) => return Err(error(io::ErrorKind::NotADirectory, path)),
                None => self.add(entry, Node::Dir),
            };
        }
        Ok(())
    }

    fn children(&self, dir: Ino) -> impl Iterator<Item = (&Entry, Ino)> {
        let from = (dir, OsString::new());
        self.current.range(from..).take_while(move |(entry, _)| entry.0 == dir).map(|(entry, ino)| (entry, *ino))
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let dir = self.find(path)?;
        if !self.is_dir(dir) {
            return Err(error(io::ErrorKind::NotADirectory, path));
        }
        Ok(self.children(dir).map(|(entry, _)| path.join(&entry.1)).collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let ino = self.find(from)?;
        let (source, target) = (self.entry(from)?, self.entry(to)?);
        if source == target {
            return Ok(());
        }
        if names(to)?.starts_with(&names(from)?) {
            return Err(error(io::ErrorKind::InvalidInput, to));
        }
        match self.current.get(&target) {
            Some(old) if self.is_dir(*old) && !self.is_dir(ino) => return Err(error(io::ErrorKind::IsADirectory, to)),
            Some(old) if !self.is_dir(*old) && self.is_dir(ino) => {
                return Err(error(io::ErrorKind::NotADirectory, to));
            }
            Some(old) if self.children(*old).next().is_some() => {
                return Err(error(io::ErrorKind::DirectoryNotEmpty, to));
            }
            _ => {}
        }
        self.step(vec![(source, None), (target, Some(ino))]);
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let ino = self.find(path)?;
        if self.is_dir(ino) {
            return Err(error(io::ErrorKind::IsADirectory, path));
        }
        let entry = self.entry(path)?;
        self.step(vec![(entry, None)]);
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let dir = match self.find(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let entry = self.entry(path)?;
        let mut doomed = vec![entry];
        let mut dirs = vec![dir];
        while let Some(dir) = dirs.pop() {
            for (entry, ino) in self.children(dir) {
                doomed.push(entry.clone());
                if self.is_dir(ino) {
                    dirs.push(ino);
                }
            }
        }
        while let Some(entry) = doomed.pop() {
            self.step(vec![(entry, None)]);
        }
        Ok(())
    }

    /// Makes the names in a directory durable, and what they build on.
    pub(super) fn sync_dir(&mut self, dir: Ino) {
        let mut needed: BTreeSet<Entry> = BTreeSet::new();
        let mut kept: Vec<(bool, Step)> = Vec::new();
        for step in self.pending.drain(..).rev() {
            let need = step.entries().any(|entry| entry.0 == dir) || step.touches(&needed);
            if need {
                needed.extend(step.entries());
            }
            kept.push((need, step));
        }
        for (need, step) in kept.into_iter().rev() {
            if need {
                step.apply(&mut self.durable);
            } else {
                self.pending.push(step);
            }
        }
        self.collect();
    }

    /// The power went away.
    pub(super) fn settle(&mut self, rng: &mut ChaCha8Rng) {
        let mood = rng.random_range(0..4);
        let mut lost: BTreeSet<Entry> = BTreeSet::new();
        for step in std::mem::take(&mut self.pending) {
            let keep = match mood {
                0 => false,
                1 => true,
                _ => !step.touches(&lost) && rng.random_bool(0.5),
            };
            if keep {
                step.apply(&mut self.durable);
            } else {
                lost.extend(step.entries());
            }
        }
        self.keep_reachable();
        self.current = self.durable.clone();
        self.collect();
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.settle(rng);
            }
        }
    }

    /// Names below a directory that has none are gone with it.
    fn keep_reachable(&mut self) {
        let reachable = self.reachable();
        self.durable.retain(|entry, _| reachable.contains(&entry.0));
    }

    fn reachable(&self) -> BTreeSet<Ino> {
        let mut found = BTreeSet::from([ROOT]);
        let mut todo = vec![ROOT];
        while let Some(dir) = todo.pop() {
            let below = self.durable.range((dir, OsString::new())..).take_while(|(entry, _)| entry.0 == dir);
            for (_, ino) in below {
                if found.insert(*ino) {
                    todo.push(*ino);
                }
            }
        }
        found
    }

    /// What is durable, on a disk of its own.
    pub(super) fn durable_copy(&self) -> Tree {
        let node = |(ino, node): (&Ino, &Node)| match node {
            Node::Dir => (*ino, Node::Dir),
            Node::File(file) => (*ino, Node::File(file.durable_copy())),
        };
        let mut copy = Tree {
            nodes: self.nodes.iter().map(node).collect(),
            current: BTreeMap::new(),
            durable: self.durable.clone(),
            pending: Vec::new(),
            next: self.next,
        };
        copy.keep_reachable();
        copy.current = copy.durable.clone();
        copy.collect();
        copy
    }

    /// Drops files that nobody can reach again.
    fn collect(&mut self) {
        let mut named: BTreeSet<Ino> = self.current.values().chain(self.durable.values()).copied().collect();
        named.insert(ROOT);
        named.extend(self.pending.iter().flat_map(|step| step.0.iter().filter_map(|(_, ino)| *ino)));
        self.nodes.retain(|ino, node| named.contains(ino) || matches!(node, Node::File(file) if file.opens > 0));
    }

    pub(super) fn forget_handles(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.opens = 0;
            }
        }
    }

    /// Bytes of all files that have a name or are open.
    pub(super) fn used(&self) -> u64 {
        let named: BTreeSet<Ino> = self.current.values().copied().collect();
        let room = |(ino, node): (&Ino, &Node)| match node {
            Node::File(file) if file.opens > 0 || named.contains(ino) => file.len(),
            _ => 0,
        };
        self.nodes.iter().map(room).sum()
    }

    pub(super) fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut todo = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, dir)) = todo.pop() {
            for (entry, ino) in self.children(dir) {
                match self.nodes.get(&ino) {
                    Some(Node::File(file)) => found.push((path.join(&entry.1), file.len())),
                    _ => todo.push((path.join(&entry.1), ino)),
                }
            }
        }
        found.sort();
        found
    }
}
