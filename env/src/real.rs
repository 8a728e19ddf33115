//! The real machine. The only place in the workspace that may make the calls which `clippy.toml` bans.
#![expect(clippy::disallowed_methods, reason = "this is what the ban points to")]

mod files;
mod tcp;
mod unix;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::time::{ClockId, clock_gettime};
use rand::RngCore;

use crate::{
    Blocking, BootInstant, Clock, Instant, KvFactory, Random, World, blocking::Job, clock::Sleep, net::BoxFuture,
};

pub(crate) fn world(kv: Arc<dyn KvFactory>) -> World {
    World {
        clock: Arc::new(TokioClock { start: tokio::time::Instant::now() }),
        net: Arc::new(tcp::Tcp),
        disk: Arc::new(files::Files),
        kv,
        random: Arc::new(OsRandom),
        blocking: Arc::new(Pool),
    }
}

struct TokioClock {
    start: tokio::time::Instant,
}

impl Clock for TokioClock {
    fn now(&self) -> Instant {
        Instant(self.start.elapsed())
    }

    fn boot(&self) -> BootInstant {
        // Fails on kernels from before 2.6.39 only, which nothing here runs on.
        let since = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or_else(|_| self.start.elapsed(), Duration::from);
        BootInstant(since)
    }

    fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn sleep(&self, by: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(by))
    }
}

struct OsRandom;

impl Random for OsRandom {
    fn next_u64(&self) -> u64 {
        // The thread's generator is cryptographic and seeded by the operating system.
        rand::rngs::ThreadRng::default().next_u64()
    }
}

/// tokio's blocking pool; the binaries bound its size when they build the runtime.
struct Pool;

impl Blocking for Pool {
    fn run_job(&self, job: Job) -> BoxFuture<'static, ()> {
        let handle = tokio::task::spawn_blocking(job);
        Box::pin(async move {
            // A panic or a shutdown drops the job's channel, which the caller sees as `JobLost`.
            let _ended = handle.await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::NoKv;

    #[test]
    fn s10_the_boot_clock_counts_the_time_in_which_the_machine_slept() {
        // The kernel's own uptime does, in hundredths of a second.
        let clock = world(Arc::new(NoKv)).clock;
        let uptime = || {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            Duration::from_secs_f64(text.split(' ').next().unwrap().parse().unwrap())
        };
        let slack = Duration::from_millis(10);
        let (before, boot) = (uptime(), clock.boot().0);
        let after = uptime();
        assert!(boot + slack >= before && boot <= after + slack, "{before:?} {boot:?} {after:?}");
    }
}
