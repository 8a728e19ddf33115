//! Bytes: at each durability, on the disk and in memory; the peers beside.

use std::{path::Path, sync::Arc};

use quarry_env::{World, kv::NoKv};

use super::{Suite, append, random, small, stream};
use crate::{
    bed::{Bed, Durability, fresh},
    error::{Failed, Outcome},
    peer::{self, Peer},
    plan::Plan,
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

/// Copies that everybody makes.
const COPIES: u64 = 3;
/// Peers that keep what was removed: one for a day, the other until it tidies up.
const KEEPERS: u64 = 2;
/// For everything else, and for what a server leaves free.
const SLACK_BYTES: u64 = 16 << 30;

/// Bytes of disk that this group takes.
fn takes(plan: &Plan) -> u64 {
    let small: u64 = small::SIZES.iter().map(|(bytes, _, fewer)| bytes * (plan.small_files / fewer)).sum();
    let a_run = COPIES * (plan.stream_bytes + plan.parallel_bytes + small);
    let kept = if plan.peers { a_run * KEEPERS * plan.runs as u64 } else { 0 };
    a_run + kept + SLACK_BYTES
}

/// Refuses what would end half-way with a full disk.
fn has_room(suite: &Suite) -> Outcome {
    let (work, takes) = (&suite.places.work, takes(&suite.plan));
    let free = World::real(Arc::new(NoKv)).disk.space(work)?.available;
    if free >= takes {
        return Ok(());
    }
    let why = format!(
        "it takes about {} GiB, and {} has {} GiB free; fewer --runs, --quick, or no --peers take less",
        takes >> 30,
        work.display(),
        free >> 30
    );
    Err(Failed::new("measuring data", why))
}

/// Measures all of it.
pub fn run(suite: &mut Suite) -> Outcome {
    has_room(suite)?;
    for durability in [Durability::Sealed, Durability::Buffered] {
        let beside = suite.plan.peers;
        let dir = fresh(&suite.places.work, "peers")?;
        let peers = if beside { peer::all(&dir, durability, &mut suite.book)? } else { Vec::new() };
        on(suite, durability, "disk", &peers)?;
        drop(peers);
        // What they keep takes room from what follows. The suite's end tries again.
        if let Err(error) = std::fs::remove_dir_all(&dir) {
            suite.book.note(format!("what the peers kept is still there: {error}"));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_that_keep_what_was_removed_need_room_for_each_run() {
        let plan = |runs, peers| Plan {
            runs,
            peers,
            stream_bytes: 1 << 30,
            parallel_bytes: 2 << 30,
            small_files: 1000,
            ..Plan::default()
        };
        let alone = takes(&plan(5, false));
        assert_eq!(alone, takes(&plan(1, false)), "what was removed here goes at once");
        assert!(takes(&plan(1, true)) > alone + 2 * 3 * (3 << 30));
        assert!(takes(&plan(5, true)) > alone + 5 * 2 * 3 * (3 << 30));
    }
}
