//! Network namespaces on one switch, each a machine of its own whose links can be cut silently and in one direction. Needs
//! root, `ip` and `nft`.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::namespace::{PREFIX, TABLE, command_in, ip, remove, remove_leftovers, run};

/// Networks of eight addresses in 198.19.0.0/16; the other half of what is set aside for tests of networks is
/// [`crate::namespace`]'s.
const NETWORKS: u32 = 1 << 13;
/// So many are tried until one is free.
const TRIES: u32 = 64;
/// Machines on one network, beside this side's address and the network's own two.
const MACHINES_MAX: usize = 5;

/// What a cut drops, as seen from the machine that is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// What it sends: it hears and is not heard.
    Sent,
    /// What is sent to it: it is heard and does not hear.
    Received,
    /// Both.
    Both,
}

/// Machines on one network; the test itself is at `outside`. Dropping it removes everything.
pub struct Network {
    /// The address of this side.
    pub outside: String,
    /// The machines: what `ip netns` calls each, and its address.
    pub machines: Vec<(String, String)>,
    /// The namespace of the bridge: the firewall of this side has no say in what machines send one another.
    switch: String,
    link: String,
}

impl Network {
    /// A new one with so many machines.
    ///
    /// # Errors
    /// Why this machine does not let us.
    ///
    /// # Panics
    /// With more machines than a network has addresses for.
    pub fn new(machines: usize) -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        assert!((1..=MACHINES_MAX).contains(&machines), "a network has 1 to {MACHINES_MAX} machines");
        remove_leftovers();
        let (pid, n) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let base = free_network(pid.wrapping_mul(7).wrapping_add(n))?;
        let (suffix, outside) = (format!("{pid}-n{n}"), address(base, 1));
        let (switch, link) = (format!("{PREFIX}{suffix}"), format!("q{suffix}"));
        let mut network = Network { outside, machines: Vec::new(), switch, link };
        let Network { outside, switch, link, .. } = &network;
        // From here on whatever fails is taken back by the guard.
        ip(&["netns", "add", switch])?;
        ip(&["link", "add", link, "type", "veth", "peer", "name", "outside", "netns", switch])?;
        ip(&["addr", "add", &format!("{outside}/29"), "dev", link])?;
        ip(&["link", "set", link, "up"])?;
        ip(&["-n", switch, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", switch, "link", "set", "bridge", "up"])?;
        ip(&["-n", switch, "link", "set", "outside", "master", "bridge", "up"])?;
        for (machine, last) in (0..machines).zip(2..) {
            network.add(format!("{PREFIX}{suffix}m{machine}"), address(base, last))?;
        }
        network.cut(0, &[], Lost::Both)?;
        network.mend(0)?;
        Ok(network)
    }

    /// One more machine.
    fn add(&mut self, name: String, address: String) -> Result<(), String> {
        let port = format!("port{}", self.machines.len());
        self.machines.push((name.clone(), address.clone()));
        ip(&["netns", "add", &name])?;
        let link = ["link", "add", &port, "type", "veth", "peer", "name", "inner", "netns", &name];
        ip(&[&["-n", &self.switch], link.as_slice()].concat())?;
        ip(&["-n", &self.switch, "link", "set", &port, "master", "bridge", "up"])?;
        ip(&["-n", &name, "addr", "add", &format!("{address}/29"), "dev", "inner"])?;
        ip(&["-n", &name, "link", "set", "inner", "up"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        Ok(())
    }

    /// From now on what passes between this machine and these peers (none: everybody) is dropped, as `lost` says.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn cut(&self, machine: usize, from: &[usize], lost: Lost) -> Result<(), String> {
        let chosen =
            self.machines.iter().enumerate().filter(|(i, _)| from.contains(i)).map(|(_, (_, address))| address);
        let peers: Vec<&str> = chosen.map(String::as_str).collect();
        let peers = peers.join(", ");
        let rule = |chain: &str, hook: &str, side: &str, way: &str| {
            let whom = if peers.is_empty() { format!("{side} inner") } else { format!("ip {way} {{ {peers} }}") };
            format!("chain {chain} {{ type filter hook {hook} priority 0; {whom} drop; }}")
        };
        let sent = if lost == Lost::Received { String::new() } else { rule("to", "output", "oifname", "daddr") };
        let received = if lost == Lost::Sent { String::new() } else { rule("from", "input", "iifname", "saddr") };
        let rules = format!("table inet {TABLE} {{\n{sent}\n{received}\n}}");
        run(command_in(&self.machines[machine].0, Path::new("nft")).arg(rules)).map(drop)
    }

    /// Everything passes again.
    ///
    /// # Errors
    /// What `nft` says.
    pub fn mend(&self, machine: usize) -> Result<(), String> {
        let table = ["delete", "table", "inet", TABLE];
        run(command_in(&self.machines[machine].0, Path::new("nft")).args(table)).map(drop)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for (name, _) in &self.machines {
            remove(name, "");
        }
        remove(&self.switch, &self.link);
    }
}

fn address(base: u32, last: u32) -> String {
    format!("198.19.{}.{}", base >> 8, (base & 255) + last)
}

/// The number of the first address of a network that nobody here uses, in 198.19.0.0/16.
fn free_network(begin: u32) -> Result<u32, String> {
    let used = ip(&["-4", "-o", "addr"])?;
    let mut bases = (0..TRIES).map(|n| begin.wrapping_add(n) % NETWORKS * 8);
    let free = bases.find(|base| !used.contains(&format!(" {}/", address(*base, 1))));
    free.ok_or_else(|| "no network for a test is free".into())
}
