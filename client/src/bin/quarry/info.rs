//! Files, chunks and servers as `--json` shows them. What only one verb shows is in that verb's file.

use std::time::Duration;

use quarry_client::{ChunkInfo, Client, FileInfo, FileKind, ReplicaInfo, ReplicaState};
use quarry_proto::v1;
use quarry_types::ServerId;
use serde_json::{Value, json};

use crate::{human, paths};

/// A file or directory.
pub fn file(info: &FileInfo) -> Value {
    json!({
        "path": info.path,
        "name": paths::name_of(&info.path),
        "kind": kind_name(info.kind),
        "length": info.length,
        "crc32": info.crc.to_string(),
        "replicas": info.replicas,
        "chunks": info.chunks,
        "open": info.open,
        "inode": info.inode.0,
        "version": info.version,
        "modified_ms": info.modified_ms,
        "modified": human::time(info.modified_ms),
    })
}

/// With how old the answers of this client may be, where they may be old.
pub fn aged(mut object: Value, client: &Client) -> Value {
    if let (Some(age), Some(fields)) = (client.staleness(), object.as_object_mut()) {
        fields.insert("staleness_ms".into(), ms(age).into());
    }
    object
}

/// An age in milliseconds, rounded up.
pub fn ms(age: Duration) -> u64 {
    u64::try_from(age.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// `file` or `directory`.
pub fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
    }
}

/// A file with its chunks.
pub fn chunks(info: &FileInfo, chunks: &[ChunkInfo]) -> Value {
    let chunks: Vec<Value> = chunks.iter().enumerate().map(|(index, one)| chunk(index, one)).collect();
    json!({
        "path": info.path,
        "length": info.length,
        "crc32": info.crc.to_string(),
        "wanted": info.replicas,
        "chunks": chunks,
    })
}

fn chunk(index: usize, chunk: &ChunkInfo) -> Value {
    json!({
        "id": chunk.id.0,
        "index": index,
        "offset": chunk.offset,
        "length": chunk.length,
        "state": chunk.state.name(),
        "crc32": chunk.crc.to_string(),
        "replicas": chunk.replicas.iter().map(replica).collect::<Vec<_>>(),
    })
}

fn replica(replica: &ReplicaInfo) -> Value {
    json!({
        "server": replica.server.to_string(),
        "address": replica.address,
        "rack": replica.rack,
        "state": replica_state(replica.state),
        "reachable": replica.reachable,
    })
}

/// A replica's state in output.
pub fn replica_state(state: ReplicaState) -> &'static str {
    match state {
        ReplicaState::Open => "open",
        ReplicaState::Fenced => "fenced",
        ReplicaState::Sealed => "sealed",
        ReplicaState::Quarantined => "quarantined",
    }
}

/// A server's id in output; one that is malformed shows as it came.
pub fn server_id(bytes: &[u8]) -> String {
    ServerId::from_bytes(bytes).map_or_else(|| format!("{bytes:02x?}"), |id| id.to_string())
}

/// The same of one that may be absent.
pub fn server_or_none(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| server_id(bytes))
}

/// The state of a cluster.
pub fn status(status: &v1::StatusReply) -> Value {
    let leadership = status.leadership.clone().unwrap_or_default();
    json!({
        "cluster": server_id(&status.cluster),
        "version": status.version,
        "lineage": leadership.lineage_number,
        "epoch": leadership.epoch,
        "masters": status.masters.iter().map(master).collect::<Vec<_>>(),
        "chunkservers": status.chunkservers.iter().map(chunkserver).collect::<Vec<_>>(),
        "totals": totals(&status.totals.unwrap_or_default()),
        "held": status.held,
        "notices": status.notices,
    })
}

pub fn master(master: &v1::MasterStatus) -> Value {
    json!({
        "id": master.id,
        "address": master.address,
        "role": master.role,
        "term": master.term,
        "last_log": master.last_log,
        "applied": master.applied,
        "reachable": master.reachable,
        "disk_full": master.disk_full,
        "agreement": master.agreement,
        "lowest_level": master.lowest_level,
        "highest_level": master.highest_level,
    })
}

/// A chunkserver.
pub fn chunkserver(server: &v1::ChunkserverStatus) -> Value {
    let disk = |disk: &v1::DiskInfo| {
        json!({
            "path": disk.path,
            "capacity_bytes": disk.capacity_bytes,
            "used_bytes": disk.used_bytes,
            "available_bytes": disk.available_bytes,
            "failed": disk.failed,
            "reason": disk.failed_reason,
            "slow": disk.slow,
            "latency_us": disk.latency_us,
            "errors": disk.errors,
            "chunks": disk.chunks,
        })
    };
    json!({
        "id": server_id(&server.server),
        "address": server.address,
        "rack": server.rack,
        "state": server.state,
        "up": server.up,
        "capacity_bytes": server.capacity_bytes,
        "used_bytes": server.used_bytes,
        "available_bytes": available(server),
        "chunks": server.chunks,
        "quarantined": server.quarantined,
        "durability": durability(server),
        "silent_ms": server.silent_ms,
        "degraded": server.degraded,
        "maintenance_left_ms": server.maintenance_left_ms,
        "cpu_percent": server.cpu_percent,
        "latency_us": server.latency_us,
        "scrubbed_bytes": server.scrubbed_bytes,
        "oldest_verified_ms": server.oldest_verified_ms,
        "disks": server.disks.iter().map(disk).collect::<Vec<_>>(),
    })
}

/// Room left on a server's disks that work.
pub fn available(server: &v1::ChunkserverStatus) -> u64 {
    let working = server.disks.iter().filter(|disk| !disk.failed);
    working.map(|disk| disk.available_bytes).fold(0, u64::saturating_add)
}

/// `sealed` or `buffered`.
pub fn durability(server: &v1::ChunkserverStatus) -> &'static str {
    match server.durability() {
        v1::Durability::Sealed => "sealed",
        v1::Durability::Buffered => "buffered",
    }
}

fn totals(totals: &v1::Totals) -> Value {
    json!({
        "files": totals.files,
        "directories": totals.directories,
        "chunks": totals.chunks,
        "open": totals.open,
        "under_replicated": totals.under_replicated,
        "corrupt": totals.corrupt,
        "missing": totals.missing,
        "doomed": totals.doomed,
    })
}

#[cfg(test)]
mod tests {
    use quarry_client::{ChunkId, ChunkState, Crc32, InodeId};

    use super::*;

    fn has(value: &Value, names: &[&str]) {
        for name in names {
            assert!(value.get(name).is_some(), "{name} is missing in {value}");
        }
    }

    #[test]
    fn chunks_have_the_names_of_the_contract() {
        let info = FileInfo {
            path: "/a".into(),
            inode: InodeId(7),
            version: 1,
            kind: FileKind::File,
            length: 5,
            crc: Crc32(0xab),
            replicas: 3,
            modified_ms: 0,
            open: false,
            chunks: 1,
        };
        let server = ServerId::from_random(1);
        let replicas = vec![ReplicaInfo {
            server,
            address: "h:1".into(),
            rack: "r".into(),
            state: ReplicaState::Sealed,
            reachable: true,
        }];
        let one =
            ChunkInfo { id: ChunkId(9), offset: 0, length: 5, crc: Crc32(0xab), state: ChunkState::Sealed, replicas };
        let value = chunks(&info, &[one]);
        has(&value, &["path", "length", "crc32", "chunks"]);
        assert_eq!(value["crc32"], "000000ab");
        let chunk = &value["chunks"][0];
        has(chunk, &["id", "index", "offset", "length", "state", "crc32", "replicas"]);
        assert_eq!((chunk["state"].as_str(), chunk["crc32"].as_str()), (Some("sealed"), Some("000000ab")));
        let replica = &chunk["replicas"][0];
        has(replica, &["server", "address", "rack", "state"]);
        assert_eq!(replica["server"], server.to_string());
    }

    #[test]
    fn status_has_the_names_of_the_contract() {
        let reply = v1::StatusReply {
            masters: vec![v1::MasterStatus::default()],
            chunkservers: vec![v1::ChunkserverStatus {
                server: vec![1; 16].into(),
                disks: vec![v1::DiskInfo::default()],
                ..Default::default()
            }],
            totals: Some(v1::Totals::default()),
            ..Default::default()
        };
        let value = status(&reply);
        has(&value["masters"][0], &["id", "address", "role", "term", "last_log", "applied", "reachable"]);
        let names = ["id", "address", "rack", "state", "up", "capacity_bytes", "used_bytes", "chunks"];
        has(&value["chunkservers"][0], &names);
        let names =
            ["degraded", "maintenance_left_ms", "cpu_percent", "latency_us", "scrubbed_bytes", "oldest_verified_ms"];
        has(&value["chunkservers"][0], &names);
        let names =
            ["path", "capacity_bytes", "used_bytes", "failed", "reason", "slow", "latency_us", "errors", "chunks"];
        has(&value["chunkservers"][0]["disks"][0], &names);
        has(&value["totals"], &["files", "chunks", "open", "under_replicated", "corrupt", "missing"]);
    }
}
