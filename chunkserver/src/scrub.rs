//! Reads sealed replicas again in the background, the one that was verified longest ago first.

use std::{sync::Arc, time::Duration};

use quarry_chunkserver_core::scrub::Pace;
use quarry_env::Instant;
use quarry_types::ErrorCode;
use tracing::{debug, info, warn};

use crate::{
    server::Context,
    store::{Check, StoreError},
};

/// Each sealed replica is read again within this when the settings do not say.
pub(crate) const PERIOD: Duration = Duration::from_secs(14 * 86_400);
/// Bytes per second that scrubbing reads at most when the settings do not say: a fifth of what a hard disk gives.
pub(crate) const RATE: u64 = 32 << 20;
/// With nothing to do, or nothing yet, the schedule is looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// What was verified is written down at least this often.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);
/// The file of a replica that failed a check stays for so long after a good one took its place.
const KEPT: Duration = Duration::from_secs(86_400);
/// After a read that failed for a reason that is not the replica's.
const TROUBLE_PAUSE: Duration = Duration::from_secs(10);

/// Scrubs until the server stops.
pub(crate) async fn run(context: Arc<Context>, pace: Pace) {
    tokio::select! {
        biased;
        () = context.stopping.cancelled() => {}
        () = scrub(&context, pace) => {}
    }
    save(&context).await;
}

async fn scrub(context: &Context, pace: Pace) {
    let clock = &*context.world.clock;
    // When the last check began, and its bytes: they say when the next may begin.
    let mut last: Option<(Instant, u64)> = None;
    let mut saved = clock.now();
    loop {
        let now = clock.now();
        if context.store.scrub_status().save_due || now.since(saved) >= SAVE_INTERVAL {
            save(context).await;
            saved = now;
            match context.store.remove_kept(KEPT).await {
                Ok(0) => {}
                Ok(files) => info!(files, "files of replicas that failed a check and were replaced are removed"),
                Err(error) => warn!(%error, "files of replaced replicas are not removed yet"),
            }
        }
        let wait = last.map_or(Duration::ZERO, |(began, bytes)| {
            context.store.check_turn(bytes, &pace).saturating_sub(now.since(began))
        });
        let chunk = context.store.next_to_check();
        let Some(chunk) = chunk.filter(|_| wait.is_zero()) else {
            // The turn is counted again after a while: more may have come, or become late.
            clock.sleep(if wait.is_zero() { LOOK } else { wait.min(LOOK) }).await;
            continue;
        };
        match context.store.check(chunk).await {
            Ok(mut check) => {
                last = Some((now, check.bytes()));
                match read(context, &mut check, pace).await {
                    Ok(()) => debug!(%chunk, bytes = check.bytes(), "verified"),
                    Err(error) => trouble(context, chunk, &error).await,
                }
            }
            Err(error) => trouble(context, chunk, &error).await,
        }
    }
}

/// Reads a replica to its end, clients first.
async fn read(context: &Context, check: &mut Check, pace: Pace) -> Result<(), StoreError> {
    let clock = &*context.world.clock;
    loop {
        let began = clock.now();
        let bytes = check.step().await?;
        if bytes == 0 {
            return Ok(());
        }
        let now = clock.now();
        let rate = pace.reading(context.traffic.active(now));
        let due = Duration::from_secs_f64(bytes as f64 / rate as f64);
        clock.sleep(due.saturating_sub(now.since(began))).await;
    }
}

async fn trouble(context: &Context, chunk: quarry_types::ChunkId, error: &StoreError) {
    match error.code() {
        // It is in quarantine now, and the master hears of it with the next change of the inventory.
        ErrorCode::Corrupt => warn!(%chunk, "scrubbing found a bad replica: {error}"),
        // It went while it was read.
        ErrorCode::NoReplica | ErrorCode::Mismatch => debug!(%chunk, "not verified: {error}"),
        _ => {
            info!(%chunk, "cannot be verified now: {error}");
            context.store.put_check_off(chunk);
            context.world.clock.sleep(TROUBLE_PAUSE).await;
        }
    }
}

async fn save(context: &Context) {
    if let Err(error) = context.store.save_verified().await {
        info!("what was verified is not written down, and will be read again sooner: {error}");
    }
}
