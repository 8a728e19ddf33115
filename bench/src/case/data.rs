//! Bytes: at each durability, on the disk and in memory; the peers beside.

use std::path::Path;

use super::{Suite, append, random, small, stream};
use crate::{
    bed::{Bed, Durability, fresh},
    error::Outcome,
    peer::{self, Peer},
};

/// What the cases of this group share.
pub struct Field<'a> {
    /// The cluster.
    pub bed: Bed,
    /// What it promises.
    pub durability: Durability,
    /// `disk` or `tmpfs`.
    pub place: &'static str,
    /// Where the floors write: the same file system.
    pub floor_dir: &'a Path,
    /// Who is measured beside.
    pub peers: &'a [Box<dyn Peer>],
}

impl Field<'_> {
    /// The name of a case here.
    pub fn case(&self, name: &str) -> String {
        format!("{}.{}.{name}", self.durability.name(), self.place)
    }
}

/// Measures all of it.
pub fn run(suite: &mut Suite) -> Outcome {
    for durability in [Durability::Sealed, Durability::Buffered] {
        let beside = suite.plan.peers;
        let peers = if beside { peer::all(&suite.places.work, durability, &mut suite.book)? } else { Vec::new() };
        on(suite, durability, "disk", &peers)?;
    }
    on(suite, Durability::Buffered, "tmpfs", &[])
}

fn on(suite: &mut Suite, durability: Durability, place: &'static str, peers: &[Box<dyn Peer>]) -> Outcome {
    let root = if place == "tmpfs" { suite.places.memory.clone() } else { suite.places.work.clone() };
    if let Err(error) = std::fs::create_dir_all(&root) {
        suite.book.note(format!("SKIPPED: data directories on {place}; {}: {error}", root.display()));
        return Ok(());
    }
    let dir = fresh(&root, "data")?;
    let floor_dir = fresh(&root, "floor")?;
    suite.say(format!("data, {}, {place}", durability.name()));
    // What a peer without a trash deletes at once is compared with what goes at once here.
    let bed = Bed::new(1, 3, durability, &dir, &["trash=0", "reader-grace=1s"]);
    let mut field = Field { bed, durability, place, floor_dir: &floor_dir, peers };
    stream::run(suite, &mut field)?;
    if place == "disk" {
        small::run(suite, &mut field)?;
        append::run(suite, &mut field)?;
    }
    if (place, durability) == ("disk", Durability::Sealed) {
        random::run(suite, &mut field)?;
    }
    field.bed.note_memory(&mut suite.book);
    drop(field);
    std::fs::remove_dir_all(&dir)?;
    Ok(std::fs::remove_dir_all(&floor_dir)?)
}
