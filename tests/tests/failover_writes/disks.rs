//! What is on the disks, whatever any master says.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use quarry_tests::Cluster;

/// No disk is lost in these tests, so that a chunk never has fewer replicas on disks than this once it had them.
const REPLICAS: usize = 3;
/// A replica may move between two looks: what misses one is looked at again so often.
const LOOKS: usize = 5;
const PAUSE: Duration = Duration::from_millis(50);

type Shared<T> = Arc<Mutex<T>>;

fn locked<T>(shared: &Shared<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at the disks all the time.
pub struct Disks {
    watched: Shared<BTreeSet<u64>>,
    lost: Shared<Vec<String>>,
    stop: Arc<AtomicBool>,
    watcher: Option<JoinHandle<()>>,
}

impl Disks {
    pub fn watch(cluster: &Cluster) -> Self {
        let dirs: Vec<PathBuf> = cluster.servers.iter().map(|server| server.data.clone()).collect();
        let (watched, lost) = (Shared::<BTreeSet<u64>>::default(), Shared::<Vec<String>>::default());
        let stop = Arc::new(AtomicBool::new(false));
        let watcher = {
            let (watched, lost, stop) = (Arc::clone(&watched), Arc::clone(&lost), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let chunks = locked(&watched).clone();
                    locked(&lost).extend(too_few(&dirs, chunks));
                    thread::sleep(PAUSE);
                }
            })
        };
        Disks { watched, lost, stop, watcher: Some(watcher) }
    }

    /// From now on watches those chunks of these files that have all their replicas, sealed. The files must stay.
    pub fn look_at(&self, cluster: &Cluster, files: &[String]) {
        for file in files {
            let chunks = cluster.chunks(file)["chunks"].as_array().cloned().unwrap_or_default();
            for chunk in chunks {
                let replicas = chunk["replicas"].as_array().cloned().unwrap_or_default();
                let sealed = replicas.iter().filter(|r| r["state"] == "sealed" && r["reachable"] != false).count();
                if let (true, Some(id)) = (sealed >= REPLICAS, chunk["id"].as_u64()) {
                    locked(&self.watched).insert(id);
                }
            }
        }
    }

    pub fn watched(&self) -> usize {
        locked(&self.watched).len()
    }

    pub fn expect_none_lost(&self) {
        let lost = locked(&self.lost);
        assert!(lost.is_empty(), "{lost:?}");
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _panicked = self.watcher.take().map(JoinHandle::join);
    }
}

fn too_few(dirs: &[PathBuf], mut chunks: BTreeSet<u64>) -> Vec<String> {
    let mut counts = BTreeMap::new();
    for _ in 0..LOOKS {
        counts = count(dirs);
        chunks.retain(|chunk| counts.get(chunk).is_none_or(|count| *count < REPLICAS));
        if chunks.is_empty() {
            return Vec::new();
        }
    }
    chunks.iter().map(|c| format!("chunk {c} is on {} disks", counts.get(c).copied().unwrap_or_default())).collect()
}

fn count(dirs: &[PathBuf]) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    let mut left = dirs.to_vec();
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else if let Some(chunk) = chunk_of(&path) {
                *counts.entry(chunk).or_default() += 1;
            }
        }
    }
    counts
}

fn chunk_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".chunk")?;
    u64::from_str_radix(name, 16).ok()
}
