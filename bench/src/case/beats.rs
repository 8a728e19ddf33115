//! What many chunkservers cost the master: their reports, and their beats for ever after.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{
    Suite,
    memory::{full, key},
};
use crate::{
    book::{QUARRY, Unit},
    error::{Failed, Outcome},
    floor::serve::runtime,
    proc,
    swarm::{COPIES, Swarm},
};

/// All reports are in within this.
const REPORTS: Duration = Duration::from_secs(900);
/// Beats are counted for so long.
const WATCHED: Duration = Duration::from_secs(15);

/// Measures at each number of servers.
pub fn run(suite: &mut Suite) -> Outcome {
    for servers in suite.plan.beats_servers.clone() {
        let files = suite.plan.beats_replicas / u64::from(COPIES);
        suite.say(format!("{servers} simulated chunkservers with {files} chunks"));
        let runtime = runtime()?;
        let mut made = full(suite, &runtime, files, servers)?;
        let pid = made.bed.cluster.master.process().pid();
        let (address, key) = (made.bed.cluster.master.address.clone(), key(&made.bed)?);
        let book = &mut suite.book;
        runtime.block_on(async {
            let (began, cpu) = (Instant::now(), proc::cpu(pid).unwrap_or_default());
            let mut swarm = Swarm::start(&address, &key, servers, files).await?;
            swarm.reported(servers, REPORTS).await?;
            let cpu = proc::cpu(pid).unwrap_or_default() - cpu;
            let name = |what: &str| format!("servers{servers}.{what}");
            book.value(&name("all-reported"), QUARRY, Unit::Seconds, began.elapsed().as_secs_f64());
            book.value(&name("all-reported.master-cpu"), QUARRY, Unit::Seconds, cpu);
            let (cpu, beats) = (proc::cpu(pid).unwrap_or_default(), swarm.counts.beats.load(Ordering::Relaxed));
            tokio::time::sleep(WATCHED).await;
            let cpu = proc::cpu(pid).unwrap_or_default() - cpu;
            let beats = swarm.counts.beats.load(Ordering::Relaxed) - beats;
            book.value(&name("beats"), QUARRY, Unit::Operations, beats as f64 / WATCHED.as_secs_f64());
            book.value(&name("beats.master-cores"), QUARRY, Unit::Times, cpu / WATCHED.as_secs_f64());
            Ok::<(), Failed>(())
        })?;
    }
    Ok(())
}
