use quarry_types::InodeId;

use super::Fault;
use crate::{
    keys,
    namespace::walk,
    rows::{Entry, Inode},
    state::{decode, find},
    tables::{ReadTables, Table},
};

/// Sums over everything at and below a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Files.
    pub files: u64,
    /// Directories, the path's own included.
    pub directories: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Bytes times wanted replicas.
    pub replica_bytes: u64,
}

/// A walk over a tree in bounded steps, each of which may read from newer tables. Its memory grows with the depth of
/// the tree, not with its size.
#[derive(Clone, Debug)]
pub struct UsageWalk {
    sum: Usage,
    /// The directories that the walk is in, with the key of the next entry of each.
    stack: Vec<(InodeId, Vec<u8>)>,
}

impl UsageWalk {
    /// Begins at `path`.
    ///
    /// # Errors
    /// Refused when it names nothing; a table error.
    pub fn begin(tables: &dyn ReadTables, path: &str) -> Result<Self, Fault> {
        let (id, inode) = walk::descend(tables, &walk::names(path)?)?;
        let mut walk = UsageWalk { sum: Usage::default(), stack: Vec::new() };
        walk.add(id, &inode);
        Ok(walk)
    }

    fn add(&mut self, id: InodeId, inode: &Inode) {
        let sum = &mut self.sum;
        if inode.is_directory() {
            sum.directories += 1;
            self.stack.push((id, keys::entry(id, "")));
        } else {
            sum.files += 1;
            sum.bytes = sum.bytes.saturating_add(inode.length);
            sum.replica_bytes =
                sum.replica_bytes.saturating_add(inode.length.saturating_mul(u64::from(inode.replicas)));
        }
    }

    /// Goes through at most `budget` more entries. `true`: that was all.
    ///
    /// # Errors
    /// A table error.
    pub fn step(&mut self, tables: &dyn ReadTables, budget: usize) -> Result<bool, Fault> {
        let mut left = budget;
        while let Some((directory, from)) = self.stack.last_mut() {
            if left == 0 {
                return Ok(false);
            }
            let wanted = left.min(256);
            let page = tables.scan(Table::Entry, from, keys::after(directory.0).as_deref(), wanted)?;
            let mut below = None;
            for (key, value) in &page {
                left -= 1;
                *from = keys::behind(key);
                let entry: Entry = decode(Table::Entry, key, value)?;
                // Between steps an entry may have gone together with its inode.
                let Some(inode) = find::<Inode>(tables, Table::Inode, &keys::inode(entry.inode))? else { continue };
                if inode.is_directory() {
                    below = Some((entry.inode, inode));
                    break;
                }
                self.sum.files += 1;
                self.sum.bytes = self.sum.bytes.saturating_add(inode.length);
                let copies = inode.length.saturating_mul(u64::from(inode.replicas));
                self.sum.replica_bytes = self.sum.replica_bytes.saturating_add(copies);
            }
            match below {
                Some((id, inode)) => self.add(id, &inode),
                None if page.len() < wanted => {
                    self.stack.pop();
                }
                None => {}
            }
        }
        Ok(true)
    }

    /// What was found so far.
    #[must_use]
    pub fn sum(&self) -> Usage {
        self.sum
    }
}
