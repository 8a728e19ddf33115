//! Finding out that the history of this group has ended.
//!
//! A forced recovery, or a backup that is restored where a member was, begins a new lineage, while the old members may only
//! have been out of reach. Enough of them that come back would elect a leader among themselves, and take changes that
//! nobody in the new lineage will ever see. So each member asks, before it takes part and from time to time, who answers
//! at the addresses of the others. One that proves by the cluster's key to be of a later lineage ends this member (S11).

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures::future::join_all;
use quarry_env::Clock;
use quarry_master_core::query;
use quarry_types::NodeId;
use tokio::sync::watch;

use super::{Group, Introduced, Node, error::REPLACE, group::Inner};

/// Between two rounds of asking.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Whether the history has ended, and why that is known.
pub(super) struct Superseded(watch::Sender<Option<String>>);

impl Superseded {
    pub fn new() -> Self {
        Superseded(watch::Sender::new(None))
    }

    /// Completes when it has ended, with the reason.
    pub async fn known(&self) -> String {
        match self.0.subscribe().wait_for(Option::is_some).await.as_deref() {
            Ok(Some(why)) => why.clone(),
            // The group is gone, and whoever waits for it.
            Ok(None) | Err(_) => String::new(),
        }
    }
}

/// What the one who answered at the address of `asked` means for a member of lineage `own`.
fn judge(own: u64, asked: &Node, said: &Introduced) -> Option<String> {
    (own > 0 && said.lineage > own).then(|| {
        format!(
            "the history of this group of masters has ended: master {} at {} is of lineage {}, which a forced recovery or a \
             restored backup began, and this one is of lineage {own}. {REPLACE}",
            said.id, asked.address, said.lineage
        )
    })
}

/// Asks again and again, and holds no group meanwhile.
pub(super) async fn keep_asking(group: Weak<Inner>, clock: Arc<dyn Clock>) {
    loop {
        clock.sleep(ASK_EVERY).await;
        let Some(inner) = group.upgrade() else { return };
        let group = Group::from(inner);
        let me = group.parties().me();
        let others = group.status().into_iter().filter(|member| member.id != me);
        let others = others.map(|member| Node { id: NodeId(member.id), address: member.address }).collect();
        // A round that takes long must not keep the files of a group that was stopped.
        group.stopped().run_until_cancelled(group.is_superseded(others)).await;
    }
}

impl Group {
    /// The number of the lineage of what is applied here; `None` where nothing is.
    pub(super) async fn lineage(&self) -> Option<u64> {
        let view = self.view();
        let cluster = self.world().blocking.run(move || view.at_once(query::cluster)).await.ok()?.ok()??;
        Some(cluster.lineage.number)
    }

    /// Asks `others` of which lineage they are; if one is of a later one, this member ends. Cancel-safe.
    pub(super) async fn is_superseded(&self, others: Vec<Node>) -> bool {
        let Some(own) = self.lineage().await else { return false };
        let answers = join_all(others.into_iter().map(async |other| {
            let said = self.introduced(&other.address).await.ok()?;
            judge(own, &other, &said)
        }));
        let Some(why) = answers.await.into_iter().flatten().next() else { return false };
        self.superseded().0.send_replace(Some(why));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s11_only_a_later_lineage_ends_a_history() {
        let said = |lineage| Introduced {
            id: NodeId(2_000_001),
            member: true,
            term: 9,
            last_log: 9,
            applied: 9,
            features: None,
            short_of_room: false,
            lineage,
        };
        let asked = Node { id: NodeId(1), address: "h1:1".into() };
        for (own, theirs) in [(1, 0), (1, 1), (2, 1), (0, 1)] {
            assert_eq!(judge(own, &asked, &said(theirs)), None, "{own} {theirs}");
        }
        let why = judge(1, &asked, &said(2)).unwrap();
        assert!(why.contains("m2000001 at h1:1 is of lineage 2") && why.contains("quarry-master join"), "{why}");
    }
}
