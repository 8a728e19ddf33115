//! What a cluster must come to in the end, when nothing fails any more: read from the disks.

use std::{collections::BTreeSet, path::Path};

use quarry_types::{ChunkId, ReplicaState};

use crate::{
    books::{Books, Chunk, Life, Server},
    cluster::DATA,
    truth::{self, Records},
};

/// Differences that are named.
const NAMED: usize = 5;

/// What is not as it should be: every sealed chunk has its wanted replicas, good ones, each on another server, on as many racks
/// as there are; and beside them there is nothing, also none of what was deleted (S6). `emptied`: servers that are drained.
pub fn unsettled(books: &Books, emptied: &[usize]) -> Option<String> {
    let chunks = books.chunks();
    let (all, mut faults) = (books.records(), Vec::new());
    for (chunk, known) in &chunks {
        match known.life {
            Life::Forgotten => {}
            Life::Sealed(seal) => {
                faults.extend(misplaced(books, *chunk, known, &books.good(&all, *chunk, seal), emptied))
            }
            Life::Open | Life::Doomed => faults.push(format!("chunk {chunk} is {:?}", known.life)),
        }
    }
    let sealed = |chunk: &ChunkId| chunks.get(chunk).is_some_and(|known| matches!(known.life, Life::Sealed(_)));
    for (server, records) in all.iter().enumerate() {
        faults.extend(leftovers(&books.servers[server], records, sealed));
    }
    let more = faults.len().saturating_sub(NAMED);
    faults.truncate(NAMED);
    (!faults.is_empty()).then(|| format!("{} and {more} more", faults.join("; ")))
}

fn misplaced(books: &Books, chunk: ChunkId, known: &Chunk, good: &[usize], emptied: &[usize]) -> Option<String> {
    let usable: Vec<usize> = (0..books.servers.len()).filter(|server| !emptied.contains(server)).collect();
    let wanted = known.wanted() as usize;
    let on_emptied = good.iter().any(|server| emptied.contains(server));
    let racks = books.racks(&usable).min(wanted);
    (good.len() != wanted || on_emptied || books.racks(good) < racks).then(|| {
        let names: Vec<_> = good.iter().map(|server| books.servers[*server].name).collect();
        format!("chunk {chunk} wants {wanted} on {racks} racks and is on {names:?}")
    })
}

/// What a server has and should not.
fn leftovers(server: &Server, records: &Records, sealed: impl Fn(&ChunkId) -> bool) -> Vec<String> {
    let name = server.name;
    let mut faults: Vec<String> = records
        .iter()
        .filter(|(chunk, record)| !sealed(chunk) || record.state != ReplicaState::Sealed)
        .map(|(chunk, record)| format!("{name} has {:?} of chunk {chunk}", record.state))
        .collect();
    let named: BTreeSet<_> = records.keys().map(|chunk| truth::chunk_file(*chunk)).collect();
    let files = server.disk.files().into_iter().map(|(path, _)| path);
    let nobodys = files.filter(|path| path.starts_with(Path::new(DATA).join("chunks")) && !named.contains(path));
    faults.extend(nobodys.map(|path| format!("{name} has {}, which is nobody's", path.display())));
    faults
}
