//! How busy the machine's processors are.

use std::path::Path;

use quarry_env::{OpenMode, World};

/// Where Linux says it.
const STAT: &str = "/proc/stat";
/// Enough for the first line, and less than the file ever has.
const HEAD_BYTES: usize = 128;

/// Ticks since the machine started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticks {
    busy: u64,
    all: u64,
}

impl Ticks {
    /// Asks the machine; `None` where it does not say. Blocks.
    pub(crate) fn now(world: &World) -> Option<Ticks> {
        let file = world.disk.open(Path::new(STAT), OpenMode::Read).ok()?;
        let mut head = [0; HEAD_BYTES];
        file.read_exact_at(&mut head, 0).ok()?;
        Self::parse(&String::from_utf8_lossy(&head))
    }

    /// Reads the line of all processors together: user, nice, system, idle, iowait, irq, softirq, steal, …; the guests'
    /// time behind these is part of the first two.
    fn parse(text: &str) -> Option<Ticks> {
        let (line, _) = text.split_once('\n')?;
        let numbers = line.strip_prefix("cpu ")?.split_whitespace().take(8);
        let ticks = numbers.map(|n| n.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let all = ticks.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
        let idle = ticks.get(3)?.saturating_add(ticks.get(4).copied().unwrap_or(0));
        Some(Ticks { busy: all.saturating_sub(idle), all })
    }

    /// Use since `earlier`, in percent; 0 when nothing has passed.
    pub(crate) fn percent_since(self, earlier: Ticks) -> u32 {
        let (busy, all) = (self.busy.saturating_sub(earlier.busy), self.all.saturating_sub(earlier.all));
        let percent = u128::from(busy).saturating_mul(100).checked_div(u128::from(all)).unwrap_or(0);
        u32::try_from(percent.min(100)).unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_busy_ticks_is_counted_between_two_looks() {
        let before = Ticks::parse("cpu  100 0 50 800 50 0 0 0 7 7\ncpu0 1").unwrap();
        let after = Ticks::parse("cpu  150 0 75 850 75 0 0 0 9 9\ncpu0 1").unwrap();
        assert_eq!(after.percent_since(before), 50);
        assert_eq!(before.percent_since(after), 0);
        for bad in ["", "cpu ", "cpu  1 2 x 4 5\n", "intr 1 2\n", "cpu  1 2 3"] {
            assert_eq!(Ticks::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_says_it() {
        let world = World::real(std::sync::Arc::new(quarry_env::kv::NoKv));
        assert!(Ticks::now(&world).is_some_and(|ticks| ticks.all > 0));
    }
}
