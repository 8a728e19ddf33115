//! What /proc tells of other processes, and of this machine.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

/// Processor time that a process has had so far, in seconds; `None` when it is gone.
pub fn cpu(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; user and system time are the 14th and 15th field of all.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / sysconf(SysconfVar::CLK_TCK).ok()?? as f64)
}

/// The sum of the above; who is gone counts nothing.
pub fn cpu_of(pids: &[u32]) -> f64 {
    pids.iter().filter_map(|pid| cpu(*pid)).sum()
}

/// A size in /proc/PID/status, in bytes: `VmRSS` (now), `VmHWM` (the most so far).
pub fn memory(pid: u32, name: &str) -> Option<u64> {
    kib(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, name)
}

/// A size in /proc/meminfo, in bytes: `MemTotal`, `MemFree`.
pub fn machine_memory(name: &str) -> Option<u64> {
    kib(&fs::read_to_string("/proc/meminfo").ok()?, name)
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_one_that_is_not_there_has_none() {
        let own = std::process::id();
        assert!(cpu(own).is_some_and(|seconds| seconds >= 0.0));
        assert!(memory(own, "VmHWM") >= memory(own, "VmRSS") && memory(own, "VmRSS") > Some(1 << 20));
        assert!(machine_memory("MemTotal") > machine_memory("MemFree"));
        assert!(cpu(0).is_none() && memory(own, "VmNothing").is_none());
    }
}
