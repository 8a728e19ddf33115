use std::time::Duration;

use futures::future::join_all;
use quarry_env::clock::timeout;
use quarry_master_core::{
    agreement::Finding,
    command::{Kind, RaiseLevel},
    feature::{self, Features},
    query,
};
use quarry_proto::v1;
use quarry_types::{ErrorCode, NodeId};

use super::Service;
use crate::{
    config::is_everywhere,
    error::{Fault, fault},
    raft::Node,
    shared::Shared,
};

/// A learner that lags behind by more entries than this would hold up those that vote.
const PROMOTED_LAG: u64 = 1000;
/// Who is to lead lags by no more than this: the rest is sent while it stands for election.
const LEADING_LAG: u64 = 1000;
/// More masters than this cost every change more than they make it safer.
const VOTERS_MAX: usize = 7;

impl Service {
    /// The masters, as this one sees them. A leader asks those that answer its heartbeats how far they are, any other master
    /// asks all.
    pub async fn masters(&self) -> v1::MastersReply {
        self.described(NodeId(0)).await
    }

    /// The masters, and who leads, with what this one knows by itself.
    pub fn masters_known(&self) -> v1::MastersReply {
        let group = &self.shared.group;
        let leader = group.followed().map_or(0, |id| id.0);
        let mut masters = group.status();
        let features = group.features();
        if let Some(me) = masters.iter_mut().find(|master| master.id == self.shared.node.0) {
            (me.lowest_level, me.highest_level) = (features.lowest, features.highest);
        }
        v1::MastersReply { masters, leader, answered: self.shared.node.0, ..v1::MastersReply::default() }
    }

    async fn described(&self, subject: NodeId) -> v1::MastersReply {
        let (group, known) = (&self.shared.group, self.masters_known());
        let (leader, me) = (known.leader, self.shared.node);
        let asked = known.masters.into_iter().map(|mut master| async move {
            if master.id == me.0 {
                master.disk_full = group.is_short_of_room().await;
            }
            if master.id == me.0 || (leader == me.0 && !master.reachable) {
                return master;
            }
            let said = group.introduced(&master.address).await.ok().filter(|said| said.id.0 == master.id);
            master.reachable = said.is_some();
            if let Some(said) = said {
                (master.term, master.last_log, master.applied) = (said.term, said.last_log, said.applied);
                let known = said.features.map_or((0, 0), |known| (known.lowest, known.highest));
                (master.lowest_level, master.highest_level) = known;
                master.disk_full = said.short_of_room;
            }
            master
        });
        let feature_level = self.feature_level().await.unwrap_or_default();
        let mut reply = v1::MastersReply {
            masters: join_all(asked).await,
            leader,
            answered: me.0,
            subject: subject.0,
            feature_level,
            ..v1::MastersReply::default()
        };
        self.add_agreement(&mut reply);
        reply
    }

    /// What is known of whether they hold the same, which is on the leader.
    fn add_agreement(&self, reply: &mut v1::MastersReply) {
        let Some(leading) = self.shared.present() else { return };
        let soft = leading.soft();
        for master in &mut reply.masters {
            let finding = soft.agreement.finding(NodeId(master.id));
            master.agreement = finding.map(Finding::word).unwrap_or_default().into();
        }
        reply.comparisons = soft.agreement.finished();
        if let Some(last) = soft.agreement.last() {
            let ago = self.shared.now().since(last.at).as_millis();
            (reply.compared_index, reply.compared_ms_ago) = (last.index, u64::try_from(ago).unwrap_or(u64::MAX));
        }
    }

    /// Has the masters compare what they hold. The comparison is done when the leader has finished so many.
    pub fn compare_masters(&self) -> Result<u64, Fault> {
        Ok(self.shared.leading()?.soft().agreement.ask())
    }

    /// The feature level in force, as applied here.
    async fn feature_level(&self) -> Result<u32, Fault> {
        self.shared.peek(|tables| Ok(feature::level(tables)?)).await
    }

    /// Puts a feature level in force, `wanted` or the highest that all members know.
    pub async fn upgrade_masters(&self, wanted: Option<u32>) -> Result<v1::MastersReply, Fault> {
        self.shared.leading()?;
        let _no_other_joins = self.shared.changing_members.lock().await;
        let in_force = self.feature_level().await?;
        let known = self.described(NodeId(0)).await;
        let level = level_for_all(&known.masters, in_force, wanted)?;
        if level > in_force {
            self.shared.propose(Kind::RaiseLevel(RaiseLevel { level })).await?;
            tracing::info!(from = in_force, to = level, "the feature level was raised");
        }
        Ok(self.described(NodeId(0)).await)
    }

    /// Takes the master that answers at `address` into the group, as a learner. For a member it is its new address.
    pub async fn add_master(&self, address: String) -> Result<v1::MastersReply, Fault> {
        self.shared.leading()?;
        let group = &self.shared.group;
        let _level_stays = self.shared.changing_members.lock().await;
        if is_everywhere(&address) {
            let why = format!("{address} is where a master listens; name the address at which the others reach it");
            return Err(fault(ErrorCode::InvalidArgument, why));
        }
        let who = group.introduced(&address).await.map_err(|error| {
            // Nothing is to be had from another master or by trying again.
            let why =
                format!("no master of this cluster answers at {address} ({}): start it there first", error.message);
            fault(ErrorCode::NotFound, why)
        })?;
        let level = self.feature_level().await?;
        if !who.features.is_some_and(|known| known.knows(level)) {
            let known = who.features.map_or("none".to_owned(), |known| known.to_string());
            let why = format!(
                "master {} at {address} knows feature level {known}, and level {level} is in force here: run the release of \
                 the other masters there",
                who.id
            );
            return Err(fault(ErrorCode::VersionMismatch, why));
        }
        let known = group.status().iter().any(|master| master.id == who.id.0);
        if !known && who.member {
            let why = format!(
                "master {} at {address} was in the group before and has left it; make a new one of it with \
                 `quarry-master join` in an empty directory",
                who.id
            );
            return Err(fault(ErrorCode::Conflict, why));
        }
        if !known && who.last_log > 0 {
            let why = format!("master {} at {address} is not new: it has a log of its own", who.id);
            return Err(fault(ErrorCode::Conflict, why));
        }
        let marks = self.shared.peek(|tables| Ok(query::log_marks(tables)?)).await?;
        let acknowledged = marks.iter().find(|mark| mark.node == who.id).map_or(0, |mark| mark.index);
        if acknowledged > who.last_log {
            let why = format!(
                "master {} at {address} has acknowledged entry {acknowledged} of the log before, and what is there ends at {}: \
                 an old copy of its files, which must not vote; make a new one of it with `quarry-master join` in an empty \
                 directory",
                who.id, who.last_log
            );
            return Err(fault(ErrorCode::Conflict, why));
        }
        group.add(Node { id: who.id, address: address.clone() }).await?;
        tracing::info!(master = %who.id, address, "master added to the group");
        Ok(self.described(who.id).await)
    }

    /// Lets learners vote.
    pub async fn promote_masters(&self, masters: Vec<u64>) -> Result<v1::MastersReply, Fault> {
        self.shared.leading()?;
        let group = &self.shared.group;
        let status = group.status();
        let end = status.iter().map(|m| m.last_log).max().unwrap_or_default();
        for id in &masters {
            let master = member(&status, NodeId(*id))?;
            let lag = end.saturating_sub(master.last_log);
            if !master.reachable || lag > PROMOTED_LAG {
                let how =
                    if master.reachable { format!("lags {lag} entries behind") } else { "is not reachable".into() };
                let why = format!(
                    "master m{id} ({}) {how}: a voter that lags holds up the others; wait until it has caught up",
                    master.address
                );
                return Err(fault(ErrorCode::Busy, why));
            }
        }
        let voters = status.iter().filter(|m| m.role != LEARNER || masters.contains(&m.id)).count();
        if voters > VOTERS_MAX {
            let why = format!(
                "{voters} masters would vote, and more than {VOTERS_MAX} make every change slow; remove one first"
            );
            return Err(fault(ErrorCode::InvalidArgument, why));
        }
        let ids: Vec<NodeId> = masters.iter().map(|id| NodeId(*id)).collect();
        group.promote(&ids).await?;
        tracing::info!(?masters, "masters vote from now on");
        Ok(self.described(NodeId(0)).await)
    }

    /// Takes a master out of the group.
    pub async fn remove_master(&self, id: NodeId) -> Result<v1::MastersReply, Fault> {
        self.shared.leading()?;
        let group = &self.shared.group;
        let status = group.status();
        if member(&status, id).is_err() {
            return Ok(self.described(id).await);
        }
        if status.len() == 1 {
            return Err(fault(ErrorCode::Conflict, format!("master {id} is the only one: without it nothing goes on")));
        }
        if id == self.shared.node {
            let why = format!("master {id} leads; hand the leadership over first, with `quarry masters step-down`");
            return Err(fault(ErrorCode::Conflict, why));
        }
        let left = || status.iter().filter(|m| m.role != LEARNER && m.id != id.0);
        let (voters, reachable) = (left().count(), left().filter(|m| m.reachable).count());
        if reachable <= voters / 2 {
            let why = format!(
                "without master {id}, {voters} masters would vote and only {reachable} of them answer: no majority; start or \
                 remove those that are down first"
            );
            return Err(fault(ErrorCode::Conflict, why));
        }
        group.remove(id).await?;
        tracing::info!(master = %id, "master removed from the group");
        Ok(self.described(id).await)
    }

    /// Hands the leadership to `to`. Made again to the new leader, it changes nothing.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<v1::MastersReply, Fault> {
        self.shared.leading()?;
        let group = &self.shared.group;
        let status = group.status();
        let target = member(&status, to)?;
        let end = status.iter().map(|m| m.last_log).max().unwrap_or_default();
        let lag = end.saturating_sub(target.last_log);
        let refused = |why: String| Err(fault(ErrorCode::Conflict, format!("master {to} ({}) {why}", target.address)));
        match () {
            () if to == self.shared.node => return Ok(self.described(to).await),
            () if target.role == LEARNER => return refused("does not vote; `quarry masters promote` it first".into()),
            () if !target.reachable => return refused("is not reachable".into()),
            () if lag > LEADING_LAG => {
                return refused(format!("lags {lag} entries behind; wait until it has caught up"));
            }
            () if group.introduced(&target.address).await.is_ok_and(|said| said.short_of_room) => {
                return refused("has a full disk; free some room there first".into());
            }
            () => {}
        }
        tracing::info!(%to, "the leadership is being handed over");
        if !group.transfer(to).await? {
            let why = format!(
                "master {to} ({}) did not take the leadership in time; the group goes on as before",
                target.address
            );
            return Err(fault(ErrorCode::DeadlineExceeded, why));
        }
        Ok(self.described(to).await)
    }
}

/// The level to put in force: `wanted`, or the highest that all members know.
fn level_for_all(masters: &[v1::MasterStatus], in_force: u32, wanted: Option<u32>) -> Result<u32, Fault> {
    let refused = |why: String| Err(fault(ErrorCode::Conflict, why));
    if let Some(silent) = masters.iter().find(|m| m.highest_level == 0) {
        let how = if silent.reachable { "does not say which feature levels it knows" } else { "does not answer" };
        return refused(format!(
            "master m{} ({}) {how}, and one that does not know the new level would stop: start it with the release of the \
             others, or `quarry masters remove m{}`",
            silent.id, silent.address, silent.id
        ));
    }
    let highest = masters.iter().map(|m| m.highest_level).min().unwrap_or(in_force);
    let level = wanted.unwrap_or(highest.max(in_force));
    if level < in_force {
        return refused(format!(
            "feature level {in_force} is in force, and it never goes down: level {level} is behind"
        ));
    }
    if level == in_force {
        return Ok(level);
    }
    match masters.iter().find(|m| !(m.lowest_level..=m.highest_level).contains(&level)) {
        Some(m) => refused(format!(
            "master m{} ({}) knows feature level {} and not {level}: run a release that knows it there first",
            m.id,
            m.address,
            Features { lowest: m.lowest_level, highest: m.highest_level }
        )),
        None => Ok(level),
    }
}

/// What could be put in force, when all members know it.
pub(super) fn upgrade_notice(known: &v1::MastersReply) -> Option<String> {
    let in_force = known.feature_level;
    let level = level_for_all(&known.masters, in_force, None).ok().filter(|level| in_force > 0 && *level > in_force)?;
    Some(format!(
        "all masters know feature level {level}, and level {in_force} is in force: `quarry masters upgrade` once no older \
         release will be started again"
    ))
}

/// What is to be said and done about masters that do not hold what the others hold.
pub(super) fn differences(known: &v1::MastersReply) -> Vec<String> {
    let found = |word: &str| known.masters.iter().filter(|m| m.agreement == word).collect::<Vec<_>>();
    let at = known.compared_index;
    let mut notices: Vec<String> = Vec::new();
    for m in found(Finding::Differs.word()) {
        let first = if m.id == known.leader { "`quarry masters step-down`, then " } else { "" };
        notices.push(format!(
            "ALARM: master m{} ({}) holds another state than the majority (compared at log entry {at}): its disk or memory is \
             damaged, or a build has a bug. Keep a copy of its data directory, and replace it: {first}`quarry masters remove \
             m{}`, stop it, empty its directory, `quarry-master join`, run it, `quarry masters add {}`",
            m.id, m.address, m.id, m.address
        ));
    }
    let disputed = found(Finding::Disputed.word());
    if !disputed.is_empty() {
        let who: Vec<String> = disputed.iter().map(|m| format!("m{} ({})", m.id, m.address)).collect();
        notices.push(format!(
            "ALARM: masters {} do not hold the same (compared at log entry {at}), and no majority says which is right. Take a \
             `quarry metadata backup` from each, leading in turn (`quarry masters transfer-leader`); the one whose `quarry \
             metadata verify` is clean stays, replace the other: `quarry masters remove`, an empty directory, `quarry-master \
             join`, `quarry masters add`",
            who.join(", ")
        ));
    }
    notices
}

/// What an operator should know of the group.
pub(super) fn notices(masters: &[v1::MasterStatus]) -> Vec<String> {
    let voters: Vec<_> = masters.iter().filter(|m| m.role != LEARNER).collect();
    let silent: Vec<_> = voters.iter().filter(|m| !m.reachable).collect();
    let spare = (voters.len() - silent.len()).saturating_sub(voters.len() / 2 + 1);
    let gone = silent.iter().map(|m| {
        format!(
            "master m{} ({}) does not answer, and {spare} more may fail before nothing goes on: start it again, or replace it \
             (`quarry-master join`, `quarry masters add`, `quarry masters remove m{}`)",
            m.id, m.address, m.id
        )
    });
    let full = masters.iter().filter(|m| m.disk_full).map(|m| {
        format!(
            "the disk of master m{} ({}) is full: it does not lead while another one can, and stops when nothing is left; \
             free some room there",
            m.id, m.address
        )
    });
    let even = (!voters.is_empty() && voters.len() % 2 == 0).then(|| {
        format!(
            "{} masters vote, which lets no more of them fail than {} would: add one or remove one",
            voters.len(),
            voters.len() - 1
        )
    });
    gone.chain(full).chain(even).collect()
}

/// Before this master stops: lets another one lead, if one can. Without this, clients would wait for an election.
pub async fn give_up_leadership(shared: &Shared) {
    if shared.present().is_none() {
        return;
    }
    let status = shared.group.status();
    if let Ok(successor) = best_successor(&status, shared.node) {
        let (to, handing) = (NodeId(successor.id), shared.group.transfer(NodeId(successor.id)));
        match timeout(&*shared.world.clock, GIVE_UP_DEADLINE, handing).await {
            Ok(Ok(true)) => tracing::info!(%to, "the leadership was handed over"),
            Ok(Ok(false) | Err(_)) | Err(_) => tracing::warn!(%to, "the leadership could not be handed over"),
        }
    }
}

/// How long a master that stops tries to hand over.
const GIVE_UP_DEADLINE: Duration = Duration::from_secs(3);

/// The word for a member that does not vote.
const LEARNER: &str = "learner";

fn member(status: &[v1::MasterStatus], id: NodeId) -> Result<&v1::MasterStatus, Fault> {
    status.iter().find(|master| master.id == id.0).ok_or_else(|| {
        let known: Vec<String> = status.iter().map(|m| format!("m{} ({})", m.id, m.address)).collect();
        fault(ErrorCode::NotFound, format!("no master {id} in the group: there are {}", known.join(", ")))
    })
}

/// The others that vote and answer, the one with most of the log first.
pub fn successors(status: &[v1::MasterStatus], me: NodeId) -> Vec<&v1::MasterStatus> {
    let mut others: Vec<_> = status.iter().filter(|m| m.id != me.0 && m.role != LEARNER && m.reachable).collect();
    others.sort_by_key(|m| std::cmp::Reverse(m.last_log));
    others
}

/// Of the others that vote and answer, the one that has most of the log.
fn best_successor(status: &[v1::MasterStatus], me: NodeId) -> Result<&v1::MasterStatus, Fault> {
    successors(status, me).into_iter().next().ok_or_else(|| {
        fault(ErrorCode::Conflict, "no other master that votes is reachable: nobody could take the leadership")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(id: u64, role: &str, last_log: u64, reachable: bool) -> v1::MasterStatus {
        v1::MasterStatus { id, role: role.into(), last_log, reachable, ..Default::default() }
    }

    #[test]
    fn whoever_has_most_of_the_log_and_answers_takes_over() {
        let group = [
            master(1, "leader", 9, true),
            master(2, "follower", 7, true),
            master(3, "follower", 8, true),
            master(4, "follower", 9, false),
            master(5, LEARNER, 9, true),
        ];
        assert_eq!(best_successor(&group, NodeId(1)).unwrap().id, 3);
        assert_eq!(best_successor(&group[..1], NodeId(1)).unwrap_err().code, ErrorCode::Conflict);
    }

    #[test]
    fn a_level_is_put_in_force_only_when_all_members_know_it() {
        let knows = |id, role: &str, highest_level| v1::MasterStatus {
            lowest_level: u32::from(highest_level > 0),
            highest_level,
            ..master(id, role, 9, highest_level > 0)
        };
        let three = |third| [knows(1, "leader", 3), knows(2, "follower", 2), knows(3, LEARNER, third)];
        assert_eq!(level_for_all(&three(2), 1, None).unwrap(), 2);
        assert_eq!(level_for_all(&three(2), 1, Some(1)).unwrap(), 1);
        let refused = |third, in_force, wanted| level_for_all(&three(third), in_force, wanted).unwrap_err().message;
        assert!(refused(2, 1, Some(3)).contains("m2"), "one that votes does not know it");
        assert!(refused(1, 1, Some(2)).contains("m3"), "a learner does not");
        assert_eq!(level_for_all(&three(1), 1, None).unwrap(), 1, "what all know is in force");
        assert!(refused(0, 1, None).contains("m3 (") && refused(0, 1, None).contains("does not answer"));
        assert!(refused(2, 2, Some(1)).contains("never goes down"));
        let known = |third| v1::MastersReply { masters: three(third).to_vec(), feature_level: 1, ..Default::default() };
        assert!(upgrade_notice(&known(2)).unwrap().contains("level 2"));
        assert_eq!((upgrade_notice(&known(1)), upgrade_notice(&known(0))), (None, None));
    }

    #[test]
    fn a_master_that_differs_is_named_with_what_to_do() {
        let with = |words: [&str; 3]| {
            let masters = words
                .iter()
                .zip(1..)
                .map(|(word, id)| v1::MasterStatus { agreement: (*word).into(), ..master(id, "follower", 9, true) });
            differences(&v1::MastersReply { masters: masters.collect(), leader: 1, ..Default::default() })
        };
        assert_eq!(with(["agrees", "agrees", "unknown"]), Vec::<String>::new());
        let alarm = with(["agrees", "agrees", "differs"]);
        assert!(
            alarm.len() == 1 && alarm[0].contains("masters remove m3") && !alarm[0].contains("step-down"),
            "{alarm:?}"
        );
        assert!(with(["differs", "agrees", "agrees"])[0].contains("step-down"), "the leader hands over first");
        let disputed = with(["disputed", "disputed", "unknown"]);
        assert!(disputed.len() == 1 && disputed[0].contains("m1") && disputed[0].contains("m2"), "{disputed:?}");
    }

    #[test]
    fn a_group_that_cannot_lose_much_is_said() {
        let three =
            |third| [master(1, "leader", 9, true), master(2, "follower", 9, true), master(3, "follower", 9, third)];
        assert_eq!(notices(&three(true)), Vec::<String>::new());
        assert_eq!(notices(&three(true)[..1]), Vec::<String>::new());
        let lost = notices(&three(false));
        assert!(lost.len() == 1 && lost[0].contains("m3") && lost[0].contains("0 more may fail"), "{lost:?}");
        assert!(notices(&three(true)[..2])[0].starts_with("2 masters vote"));
        let full = v1::MasterStatus { disk_full: true, ..master(4, LEARNER, 9, true) };
        let said = notices(&[three(true).as_slice(), &[full]].concat());
        assert!(
            said.len() == 1 && said[0].contains("the disk of master m4") && said[0].contains("is full"),
            "{said:?}"
        );
        let learner = [master(1, "leader", 9, true), master(2, LEARNER, 0, false)];
        assert_eq!(notices(&learner), Vec::<String>::new(), "a learner that does not run holds up nobody");
    }
}
