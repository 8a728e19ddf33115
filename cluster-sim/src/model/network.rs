//! Copies under way, and the bandwidth they share.
//!
//! A copy uses the source's disks and its network out, both racks' links if they differ, and the target's network in and disks. A
//! link on which copies ask for more than it has gives each the same share, and a copy goes at the least of its shares and its
//! pace. What one copy does not take because another link is narrower is not given to the others: the model errs towards slow.
//! Clients come first: what they use is not there for copies, but for a tenth.

use crate::units::Micros;

/// A copy under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// Of this chunk.
    pub chunk: u32,
    /// From here.
    pub source: u16,
    /// To here.
    pub target: u16,
    /// Bytes that are still to come.
    pub left: f64,
    /// Bytes that have come.
    pub done: f64,
    /// Bytes per second now.
    pub rate: f64,
    /// At most this, in bytes per second.
    pub pace: f64,
    /// When `left` was true; in the future before its first byte.
    pub at: Micros,
    /// Counts changes of the rate: an event of an earlier turn says nothing.
    pub turn: u32,
    /// One of its ends is gone: no byte comes any more.
    pub stalled: bool,
    links: [Option<u32>; 6],
}

#[derive(Clone, Debug, Default)]
struct Link {
    flows: Vec<u32>,
    paces: f64,
}

/// What a link has for copies, in bytes per second.
pub trait Capacity {
    /// Of the disks of a server.
    fn disks(&self, server: u16) -> f64;
    /// Of its network, each way.
    fn network(&self, server: u16) -> f64;
    /// Of a rack's link, each way.
    fn rack(&self, rack: u16) -> f64;
}

/// All copies under way.
#[derive(Clone, Debug)]
pub struct Network {
    flows: Vec<Option<Flow>>,
    free: Vec<u32>,
    links: Vec<Link>,
    servers: u32,
    turns: u32,
}

/// Links of each server: disks, out, in.
const PER_SERVER: u32 = 3;

impl Network {
    /// Without copies.
    #[must_use]
    pub fn new(servers: u32, racks: u32) -> Self {
        let links = (servers * PER_SERVER + racks * 2) as usize;
        Network { flows: Vec::new(), free: Vec::new(), links: vec![Link::default(); links], servers, turns: 0 }
    }

    /// A copy.
    #[must_use]
    pub fn get(&self, flow: u32) -> Option<&Flow> {
        self.flows.get(flow as usize)?.as_ref()
    }

    /// The copy of this turn, if it is still that.
    #[must_use]
    pub fn current(&self, flow: u32, turn: u32) -> Option<&Flow> {
        self.get(flow).filter(|found| found.turn == turn)
    }

    /// All copies, with their numbers.
    pub fn all(&self) -> impl Iterator<Item = (u32, &Flow)> {
        self.flows.iter().zip(0u32..).filter_map(|(flow, number)| flow.as_ref().map(|flow| (number, flow)))
    }

    /// Copies from and to a server now.
    #[must_use]
    pub fn of_server(&self, server: u16) -> Vec<u32> {
        self.links.get((u32::from(server) * PER_SERVER) as usize).map(|link| link.flows.clone()).unwrap_or_default()
    }

    /// Bytes per second that copies read from and write to a server's disks.
    #[must_use]
    pub fn disk_rate(&self, server: u16) -> f64 {
        let link = self.links.get((u32::from(server) * PER_SERVER) as usize);
        link.map_or(0.0, |link| link.flows.iter().filter_map(|flow| self.get(*flow)).map(|flow| flow.rate).sum())
    }

    fn rack_link(&self, rack: u16, inward: bool) -> u32 {
        self.servers * PER_SERVER + u32::from(rack) * 2 + u32::from(inward)
    }

    fn capacity(&self, link: u32, of: &dyn Capacity) -> f64 {
        if let Some(rack) = link.checked_sub(self.servers * PER_SERVER) {
            return of.rack(u16::try_from(rack / 2).unwrap_or(u16::MAX));
        }
        let server = u16::try_from(link / PER_SERVER).unwrap_or(u16::MAX);
        if link.is_multiple_of(PER_SERVER) { of.disks(server) } else { of.network(server) }
    }

    /// A copy starts; its number, and the copies whose rates are others now, itself among them.
    pub fn start(&mut self, mut flow: Flow, racks: (u16, u16), now: Micros, of: &dyn Capacity) -> (u32, Vec<u32>) {
        let (source, target) = (u32::from(flow.source) * PER_SERVER, u32::from(flow.target) * PER_SERVER);
        let across = racks.0 != racks.1;
        flow.links = [
            Some(source),
            Some(source + 1),
            across.then(|| self.rack_link(racks.0, false)),
            across.then(|| self.rack_link(racks.1, true)),
            Some(target + 2),
            Some(target),
        ];
        let links = flow.links;
        let pace = flow.pace;
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                self.flows.push(None);
                u32::try_from(self.flows.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(place) = self.flows.get_mut(number as usize) {
            *place = Some(flow);
        }
        for link in links.into_iter().flatten() {
            if let Some(link) = self.links.get_mut(link as usize) {
                link.flows.push(number);
                link.paces += pace;
            }
        }
        let mut changed = self.crowded(&links, of);
        if !changed.contains(&number) {
            changed.push(number);
        }
        (number, self.settle(changed, now, of))
    }

    /// A copy ends; what it was, and the copies whose rates are others now.
    pub fn end(&mut self, number: u32, now: Micros, of: &dyn Capacity) -> Option<(Flow, Vec<u32>)> {
        self.advance(number, now);
        let flow = self.flows.get_mut(number as usize)?.take()?;
        let changed = self.crowded(&flow.links, of);
        for link in flow.links.into_iter().flatten() {
            if let Some(link) = self.links.get_mut(link as usize) {
                link.flows.retain(|other| *other != number);
                link.paces = if link.flows.is_empty() { 0.0 } else { link.paces - flow.pace };
            }
        }
        self.free.push(number);
        let changed = changed.into_iter().filter(|other| *other != number).collect();
        Some((flow, self.settle(changed, now, of)))
    }

    /// What a server has changed: its copies whose rates are others now.
    pub fn resettle(&mut self, server: u16, now: Micros, of: &dyn Capacity) -> Vec<u32> {
        self.settle(self.of_server(server), now, of)
    }

    /// One of a copy's ends is gone; its new turn. It keeps its share of the links until it is given up.
    pub fn stall(&mut self, number: u32, now: Micros) -> Option<u32> {
        self.advance(number, now);
        self.turns = self.turns.wrapping_add(1).max(1);
        let turn = self.turns;
        let flow = self.flows.get_mut(number as usize)?.as_mut()?;
        (flow.stalled, flow.rate, flow.turn) = (true, 0.0, turn);
        Some(turn)
    }

    /// The copies on those of `links` that have too little.
    fn crowded(&self, links: &[Option<u32>], of: &dyn Capacity) -> Vec<u32> {
        let mut found = Vec::new();
        for link in links.iter().flatten() {
            let Some(known) = self.links.get(*link as usize) else { continue };
            if known.paces > self.capacity(*link, of) {
                found.extend(known.flows.iter().copied());
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn advance(&mut self, number: u32, now: Micros) {
        if let Some(Some(flow)) = self.flows.get_mut(number as usize) {
            let came = (flow.rate * now.saturating_sub(flow.at) as f64 / 1e6).min(flow.left);
            flow.left -= came;
            flow.done += came;
            flow.at = flow.at.max(now);
        }
    }

    /// Works the rates of copies out anew; those that changed are returned.
    fn settle(&mut self, numbers: Vec<u32>, now: Micros, of: &dyn Capacity) -> Vec<u32> {
        let mut changed = Vec::new();
        for number in numbers {
            let Some(flow) = self.get(number) else { continue };
            if flow.stalled {
                continue;
            }
            let (pace, before, turn) = (flow.pace, flow.rate, flow.turn);
            let rate = flow.links.iter().flatten().fold(pace, |rate, link| {
                let Some(known) = self.links.get(*link as usize) else { return rate };
                let capacity = self.capacity(*link, of);
                if known.paces > capacity { rate.min(capacity / known.flows.len().max(1) as f64) } else { rate }
            });
            if (rate - before).abs() < 1.0 && turn != 0 {
                continue;
            }
            self.advance(number, now);
            self.turns = self.turns.wrapping_add(1).max(1);
            let turn = self.turns;
            if let Some(Some(flow)) = self.flows.get_mut(number as usize) {
                (flow.rate, flow.turn) = (rate.max(1.0), turn);
            }
            changed.push(number);
        }
        changed
    }
}

impl Flow {
    /// A copy of `bytes` at most at `pace`, both in bytes, whose first byte comes at `at`.
    #[must_use]
    pub fn new(chunk: u32, source: u16, target: u16, bytes: u64, pace: u64, at: Micros) -> Self {
        let (left, pace) = (bytes as f64, pace.max(1) as f64);
        let links = [None; 6];
        Flow { chunk, source, target, left, done: 0.0, rate: 0.0, pace, at, turn: 0, stalled: false, links }
    }

    /// When it is done if its rate stays.
    #[must_use]
    pub fn ends(&self) -> Micros {
        self.at + (self.left / self.rate.max(1.0) * 1e6).ceil() as Micros
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(f64);

    impl Capacity for Fixed {
        fn disks(&self, _: u16) -> f64 {
            1000.0
        }
        fn network(&self, _: u16) -> f64 {
            200.0
        }
        fn rack(&self, _: u16) -> f64 {
            self.0
        }
    }

    fn flow(source: u16, target: u16) -> Flow {
        Flow::new(1, source, target, 1000, 100, 0)
    }

    #[test]
    fn a_copy_alone_goes_at_its_pace() {
        let mut network = Network::new(4, 2);
        let (number, changed) = network.start(flow(0, 1), (0, 1), 0, &Fixed(1e9));
        assert_eq!((changed, network.get(number).unwrap().ends()), (vec![number], 10_000_000));
    }

    #[test]
    fn copies_share_a_link_that_has_too_little_and_speed_up_when_one_ends() {
        let mut network = Network::new(6, 2);
        let numbers: Vec<u32> = (1..4).map(|target| network.start(flow(0, target), (0, 0), 0, &Fixed(1e9)).0).collect();
        let rate = |network: &Network, at: usize| network.get(numbers[at]).unwrap().rate;
        assert!((rate(&network, 0) - 200.0 / 3.0).abs() < 1e-6 && (rate(&network, 2) - 200.0 / 3.0).abs() < 1e-6);
        let (ended, changed) = network.end(numbers[0], 3_000_000, &Fixed(1e9)).unwrap();
        assert!((ended.done - 200.0).abs() < 1e-6, "{ended:?}");
        assert_eq!(changed, numbers[1..]);
        assert!((rate(&network, 1) - 100.0).abs() < 1e-6);
        let ends = network.get(numbers[1]).unwrap().ends();
        assert_eq!(ends, 11_000_000, "200 bytes in 3 s, then 800 at 100 B/s");
    }

    #[test]
    fn the_link_of_a_rack_counts_for_copies_across_racks_only() {
        let mut network = Network::new(4, 2);
        let (across, _) = network.start(flow(0, 1), (0, 1), 0, &Fixed(40.0));
        let (within, _) = network.start(flow(2, 3), (0, 0), 0, &Fixed(40.0));
        let rate = |number| network.get(number).unwrap().rate;
        assert!((rate(across) - 40.0).abs() < 1e-6 && (rate(within) - 100.0).abs() < 1e-6);
    }
}
