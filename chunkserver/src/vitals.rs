//! Looks after the disks and the machine, for as long as the server runs.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tracing::warn;

use crate::{cpu::Ticks, server::Context};

/// Between two looks at a disk in service, and two tries to bring one back.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);
/// Between two looks at the processors and at the room on the disks.
const FIGURES_INTERVAL: Duration = Duration::from_secs(1);

/// Between two looks for sealed replicas whose sync is due.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Looks after every data directory until the server stops.
pub(crate) async fn look_after_disks(context: Arc<Context>) {
    loop {
        let pause = context.world.clock.sleep(LOOK_INTERVAL);
        tokio::select! {
            biased;
            () = context.stopping.cancelled() => return,
            () = context.store.disk_alarm() => {}
            () = pause => {}
        }
        tokio::select! {
            biased;
            () = context.cut.cancelled() => return,
            () = context.store.look_after_disks() => {}
        }
    }
}

/// Keeps the figures up to date that beats and metrics show.
pub(crate) async fn keep_figures(context: Arc<Context>) {
    let mut before: Option<Ticks> = None;
    loop {
        if let Err(error) = context.store.disks().await {
            warn!("cannot ask the disks for their room: {error}");
        }
        let world = context.world.clone();
        let ticks = context.world.blocking.run(move || Ticks::now(&world)).await.ok().flatten();
        if let (Some(now), Some(before)) = (ticks, before) {
            context.traffic.cpu_percent.store(now.percent_since(before), Ordering::Relaxed);
        }
        before = ticks;
        let pause = context.world.clock.sleep(FIGURES_INTERVAL);
        tokio::select! {
            biased;
            () = context.stopping.cancelled() => return,
            () = pause => {}
        }
    }
}

/// Makes durable what was sealed without a sync, each replica when its time has come.
pub(crate) async fn sync_what_is_sealed(context: Arc<Context>) {
    loop {
        let pause = context.world.clock.sleep(SYNC_INTERVAL);
        tokio::select! {
            biased;
            () = context.stopping.cancelled() => return,
            () = pause => {}
        }
        for due in context.store.due_syncs() {
            // What the disk has begun ends without being waited for.
            let syncing = context.stopping.clone().run_until_cancelled_owned(due.run());
            context.tasks.spawn(async move {
                if let Some(Err(error)) = syncing.await {
                    warn!("a sealed replica could not be synced: {error}");
                }
            });
        }
    }
}
