//! A network namespace with a way to the outside that can be cut to single ports, silently as a network does it. Needs
//! root, `ip` and `nft`.
//!
//! Everything is inside the namespace, the firewall rules too, and ends with it. Names tell the process: what a killed run
//! has left is removed by the next.

use std::{
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

pub(crate) const PREFIX: &str = "quarry-test-";
/// Networks of four addresses in 198.18.0.0/16; 198.18.0.0/15 is set aside for tests of networks.
const NETWORKS: u32 = 1 << 14;
/// So many are tried until one is free.
const TRIES: u32 = 64;
/// The name of the rules' table.
pub(crate) const TABLE: &str = "cut";

/// A network namespace. Dropping it removes it.
pub struct Namespace {
    /// What `ip netns` calls it.
    pub name: String,
    /// The address of its inner end.
    pub inside: String,
    /// The address of its outer end.
    pub outside: String,
    link: String,
}

impl Namespace {
    /// A new one.
    ///
    /// # Errors
    /// Why this machine does not let us.
    pub fn new() -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        remove_leftovers();
        let (pid, n) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let (outside, inside) = free_addresses(pid.wrapping_mul(7).wrapping_add(n))?;
        let namespace = Namespace { name: format!("{PREFIX}{pid}-{n}"), inside, outside, link: format!("q{pid}-{n}") };
        let Namespace { name, inside, outside, link } = &namespace;
        // From here on whatever fails is taken back by the guard.
        ip(&["netns", "add", name])?;
        ip(&["link", "add", link, "type", "veth", "peer", "name", "inner", "netns", name])?;
        ip(&["addr", "add", &format!("{outside}/30"), "dev", link])?;
        ip(&["link", "set", link, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{inside}/30"), "dev", "inner"])?;
        ip(&["-n", name, "link", "set", "inner", "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        namespace.cut(1)?;
        namespace.mend()?;
        Ok(namespace)
    }

    /// From now on nothing passes between the inside and this TCP port at the outer end, in either direction.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn cut(&self, port: u16) -> Result<(), String> {
        let outside = &self.outside;
        let rules = format!(
            "table inet {TABLE} {{
                chain to {{ type filter hook output priority 0; ip daddr {outside} tcp dport {port} drop; }}
                chain from {{ type filter hook input priority 0; ip saddr {outside} tcp sport {port} drop; }}
            }}"
        );
        run(command_in(&self.name, Path::new("nft")).arg(rules)).map(drop)
    }

    /// Everything passes again.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn mend(&self) -> Result<(), String> {
        run(command_in(&self.name, Path::new("nft")).args(["delete", "table", "inet", TABLE])).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name, &self.link);
    }
}

/// A program in a network namespace; its process id is that of the command.
#[must_use]
pub fn command_in(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

pub(crate) fn remove(name: &str, link: &str) {
    // What does not exist need not be removed.
    let _link = ip(&["link", "del", link]);
    let _name = ip(&["netns", "del", name]);
}

/// What runs that were killed have left.
pub(crate) fn remove_leftovers() {
    let Ok(listed) = ip(&["netns", "list"]) else { return };
    for name in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let pid = rest.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(pid).exists() {
            remove(name, &format!("q{rest}"));
        }
    }
}

/// The outer and the inner address of a network that nobody here uses.
fn free_addresses(begin: u32) -> Result<(String, String), String> {
    let used = ip(&["-4", "-o", "addr"])?;
    let pairs = (0..TRIES).map(|n| {
        let network = begin.wrapping_add(n) % NETWORKS * 4;
        let address = |n: u32| format!("198.18.{}.{}", network >> 8, (network & 255) + n);
        (address(1), address(2))
    });
    let mut free = pairs.filter(|(outside, _)| !used.contains(&format!(" {outside}/")));
    free.next().ok_or_else(|| "no network for a test is free".into())
}

pub(crate) fn ip(args: &[&str]) -> Result<String, String> {
    run(Command::new("ip").args(args))
}

/// Runs a command of the system; what it prints, or why it failed.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let out = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim()))
}
