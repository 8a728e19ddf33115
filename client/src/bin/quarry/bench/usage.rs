//! Processor time and memory of processes, as /proc tells them.

use std::{fs, time::Duration};

use nix::unistd::{SysconfVar, sysconf};

/// Processor time that a process has had, its ended threads included; `None` when it is gone or there is no /proc.
pub fn cpu(process: &str) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold anything; user and system time are the 14th and 15th field of all.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    Some(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// The most memory that a process has had resident, in bytes.
pub fn peak_memory(process: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Processor time of this process and of others.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    own: Option<Duration>,
    others: Duration,
}

impl Cpu {
    /// Until now. Others that are gone count nothing.
    pub fn now(others: &[u32]) -> Self {
        Cpu { own: cpu("self"), others: others.iter().filter_map(|pid| cpu(&pid.to_string())).sum() }
    }

    /// Since `before`, own and others'.
    pub fn since(self, before: Cpu) -> Option<(Duration, Duration)> {
        Some((self.own?.saturating_sub(before.own?), self.others.saturating_sub(before.others)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_had_memory_and_time_and_another_has_not() {
        assert!(peak_memory("self").is_some_and(|bytes| bytes > 1 << 20));
        assert!(cpu("self").is_some());
        assert!(cpu("0").is_none() && peak_memory("0").is_none());
        let before = Cpu::now(&[]);
        assert!(Cpu::now(&[std::process::id()]).since(before).is_some_and(|(own, others)| others >= own));
    }
}
