//! What happens to the leader, and who leads then.

use std::time::Duration;

use nix::sys::signal::Signal;
use quarry_proto::v1::{MastersRequest, admin_client::AdminClient};
use quarry_tests::{
    Cluster,
    cluster::Server,
    network::{Lost, Network},
    wait,
};
use tokio::{runtime::Handle, time::timeout};

/// For another leader, and for the old one to follow.
const LIMIT: Duration = Duration::from_secs(60);
/// For the answer of one master.
const ANSWER: Duration = Duration::from_secs(1);

/// What is done to a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Killed,
    Stopped,
    /// From everybody.
    CutOff,
    /// From the other masters; clients and chunkservers reach it.
    CutFromPeers,
    /// The other masters do not hear it.
    Mute,
    /// It does not hear the other masters.
    Deaf,
}

/// What needs a network of its own.
pub const CUTS: [Kind; 4] = [Kind::CutOff, Kind::CutFromPeers, Kind::Mute, Kind::Deaf];
/// What does not.
pub const SIGNALS: [Kind; 2] = [Kind::Killed, Kind::Stopped];

/// The masters and the network between them.
pub struct Nemesis<'a> {
    pub cluster: &'a mut Cluster,
    pub network: Option<&'a Network>,
    pub runtime: &'a Handle,
}

impl Nemesis<'_> {
    /// The index of the one that all masters follow.
    pub fn leader(&self) -> usize {
        let all: Vec<usize> = (0..self.addresses().len()).collect();
        wait::until("all masters to follow one leader", LIMIT, || self.followed_by(&all))
    }

    /// Does it. Only the leader is ever hurt, so that the others are always enough.
    pub fn hurt(&mut self, leader: usize, kind: Kind) {
        let peers: Vec<usize> = (0..self.addresses().len()).filter(|master| *master != leader).collect();
        let cut = |from: &[usize], lost: Lost| {
            let network = self.network.expect("cuts are only asked for where there is a network");
            network.cut(leader, from, lost).expect("it worked before");
        };
        match kind {
            Kind::Killed => self.master(leader).kill(),
            Kind::Stopped => self.master(leader).process().signal(Signal::SIGSTOP),
            Kind::CutOff => cut(&[], Lost::Both),
            Kind::CutFromPeers => cut(&peers, Lost::Both),
            Kind::Mute => cut(&peers, Lost::Sent),
            Kind::Deaf => cut(&peers, Lost::Received),
        }
    }

    /// Waits until the others follow another one.
    pub fn wait_replaced(&self, old: usize) -> usize {
        let others: Vec<usize> = (0..self.addresses().len()).filter(|master| *master != old).collect();
        wait::until("another leader", LIMIT, || match self.followed_by(&others)? {
            leader if leader == old => Err(format!("they follow {old} still")),
            leader => Ok(leader),
        })
    }

    /// Takes it back.
    pub fn heal(&mut self, master: usize, kind: Kind) {
        match kind {
            Kind::Killed => self.master(master).restart(),
            Kind::Stopped => self.master(master).process().signal(Signal::SIGCONT),
            Kind::CutOff | Kind::CutFromPeers | Kind::Mute | Kind::Deaf => {
                self.network.expect("it was cut").mend(master).expect("it worked before");
            }
        }
    }

    fn master(&mut self, index: usize) -> &mut Server {
        match index.checked_sub(1) {
            None => &mut self.cluster.master,
            Some(other) => &mut self.cluster.others[other],
        }
    }

    fn addresses(&self) -> Vec<String> {
        self.cluster.masters.split(',').map(String::from).collect()
    }

    /// Whom these masters all follow.
    fn followed_by(&self, masters: &[usize]) -> Result<usize, String> {
        let addresses = self.addresses();
        let mut followed = Vec::new();
        for master in masters {
            let asked = async { timeout(ANSWER, leader_by(&addresses[*master])).await };
            let leader = self.runtime.block_on(asked).unwrap_or_else(|_| Err("it does not answer".into()));
            followed.push(leader.map_err(|why| format!("master {master}: {why}"))?);
        }
        match followed.split_first() {
            Some((first, rest)) if rest.iter().all(|other| other == first) => {
                addresses.iter().position(|address| address == first).ok_or(format!("{first:?} leads"))
            }
            _ => Err(format!("{masters:?} follow {followed:?}")),
        }
    }
}

async fn leader_by(address: &str) -> Result<String, String> {
    let mut client = AdminClient::connect(format!("http://{address}")).await.map_err(|e| e.to_string())?;
    let reply = client.masters(MastersRequest { brief: true }).await.map_err(|e| e.to_string())?.into_inner();
    let leader = reply.masters.iter().find(|master| master.id == reply.leader);
    Ok(leader.ok_or("it follows nobody")?.address.clone())
}
