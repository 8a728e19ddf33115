//! Where the chunks of a new cluster are: each replica on a server drawn uniformly, on distinct racks as far as there are any.
//! That is what placement among equal servers comes to in the long run; asking it for each of 100 million chunks would take
//! hours.

use rand::{Rng, RngCore};

use super::{
    chunks::{Chunks, PerChunk, Place},
    server::Server,
};
use crate::scenario::{Data, Together};

/// Room for what repair and balancing bring, as a share of what a server holds at first.
const GROWTH: f64 = 1.1;

/// Draws servers for one chunk.
fn draw(servers: &[Server], racks: usize, replicas: usize, rng: &mut dyn RngCore, into: &mut Vec<u16>) {
    into.clear();
    let spread = racks.min(replicas);
    while into.len() < replicas {
        let drawn = rng.random_range(0..servers.len());
        let (number, rack) = (u16::try_from(drawn).unwrap_or(u16::MAX), servers.get(drawn).map(|s| s.rack));
        let rack_of = |other: &u16| servers.get(*other as usize).map(|s| s.rack);
        // Racks may be of different sizes; once all are used any will do.
        let used = into.iter().any(|other| rack_of(other) == rack) && into.len() < spread;
        if !used && !into.contains(&number) {
            into.push(number);
        }
    }
}

/// Puts one replica where it is at first.
fn put(chunks: &mut Chunks, servers: &mut [Server], chunk: u32, number: u16, rng: &mut dyn RngCore) {
    let length = chunks.length(chunk);
    let Some(server) = servers.get_mut(number as usize) else { return };
    let disk = rng.random_range(0..server.disks.len().max(1));
    if let Some(disk) = server.disks.get_mut(disk) {
        disk.used += length;
    }
    server.held.push(chunk);
    chunks.put(chunk, Place::new(number, u8::try_from(disk).unwrap_or(0)));
}

/// Fills the servers.
#[must_use]
pub fn fill(data: &Data, servers: &mut [Server], racks: usize, rng: &mut dyn RngCore) -> Chunks {
    let length = u32::try_from(data.chunk.0).unwrap_or(u32::MAX);
    let wanted = u8::try_from(data.replicas).unwrap_or(u8::MAX);
    let (count, replicas) = (data.chunks as usize, data.replicas as usize);
    let mut chunks = Chunks::new(count, replicas + 1, PerChunk::Same(length), PerChunk::Same(wanted));
    let each = (count * replicas) as f64 / servers.len().max(1) as f64 * GROWTH;
    servers.iter_mut().for_each(|server| server.held.reserve_exact(each as usize));
    let mut drawn = Vec::new();
    for chunk in 0..data.chunks {
        draw(servers, racks, replicas, rng, &mut drawn);
        for number in &drawn {
            put(&mut chunks, servers, chunk, *number, rng);
        }
    }
    chunks
}

/// Moves replicas until two servers hold so many chunks in common, as far as they can.
pub fn share(together: &Together, chunks: &mut Chunks, servers: &mut [Server], rng: &mut dyn RngCore) {
    let (a, b) = (together.a, together.b);
    let held = servers.get(a as usize).map(|server| server.held.clone()).unwrap_or_default();
    let mut common = held.iter().filter(|chunk| chunks.at(**chunk, b).is_some()).count();
    for chunk in held {
        let shared = chunks.at(chunk, b).is_some();
        let (from, to) = if common < together.chunks as usize && !shared {
            let other = chunks.places(chunk).map(Place::server).find(|server| *server != a);
            let Some(other) = other else { continue };
            (other, b)
        } else if common > together.chunks as usize && shared {
            let drawn = u16::try_from(rng.random_range(0..servers.len())).unwrap_or(u16::MAX);
            if chunks.at(chunk, drawn).is_some() {
                continue;
            }
            (b, drawn)
        } else {
            continue;
        };
        let length = chunks.length(chunk);
        if let Some(place) = chunks.remove(chunk, from)
            && let Some(server) = servers.get_mut(from as usize)
        {
            server.let_go(chunk);
            if let Some(disk) = server.disks.get_mut(place.disk() as usize) {
                disk.used -= length;
            }
        }
        put(chunks, servers, chunk, to, rng);
        common = if shared { common - 1 } else { common + 1 };
    }
}
