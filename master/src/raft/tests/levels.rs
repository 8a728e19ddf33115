//! Members of different builds: one that does not know the feature level in force stops and says so, before it has applied
//! anything of it, and goes on when a build that knows it runs there.

use quarry_env::clock::timeout;
use quarry_master_core::{
    command::RaiseLevel,
    feature::{self, Features},
};

use super::{
    three::{LIMIT, Member, timing, until},
    *,
};

const NEW: Features = Features { lowest: 1, highest: 2 };

fn of(features: Features) -> GroupConfig {
    GroupConfig { features, keep_log: 0, ..timing() }
}

fn old() -> GroupConfig {
    of(Features::THIS_BUILD)
}

async fn raise(group: &Group, level: u32) {
    let command = Command { wall_ms: 1, kind: Kind::RaiseLevel(RaiseLevel { level }) };
    group.propose(command).await.unwrap().unwrap();
}

async fn level(group: &Group) -> u32 {
    let view = group.view();
    group.blocking(move || view.at_once(feature::level).unwrap()).await
}

async fn stops_and_says_so(member: &Member) {
    let why = timeout(&*real().clock, LIMIT, member.group.failed()).await.unwrap();
    assert!(why.contains("feature level is 2") && why.contains("newer quarry-master"), "{why}");
    assert_eq!(level(&member.group).await, 1, "it has applied nothing of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_an_older_build_stops_and_goes_on_as_a_newer_one() {
    let temp = tempfile::tempdir().unwrap();
    let first = Member::first(&temp, of(NEW)).await;
    let (second, third) = (Member::another(&temp, 2, of(NEW)).await, Member::another(&temp, 3, old()).await);
    second.promoted(&first.group).await;
    third.promoted(&first.group).await;
    let said = first.group.introduced(&third.node.address).await.unwrap();
    assert_eq!(said.features, Some(Features::THIS_BUILD));
    raise(&first.group, 2).await;
    stops_and_says_so(&third).await;
    let later = session(&first.group, 1).await.unwrap();
    second.has(later).await;
    let third = Member::again(third.stop().await, of(NEW)).await;
    third.has(later).await;
    assert_eq!(level(&third.group).await, 2);
    // From here on the older build does not even start, nor does anything else go on from these files.
    let (world, dir, _) = third.stop().await;
    let mut refused = String::new();
    until("its files are free, and refused", async || {
        refused = Group::open(&world, &dir, us(), old()).await.unwrap_err().to_string();
        refused.contains("feature level is 2")
    })
    .await;
    assert!(refused.contains("newer quarry-master"), "{refused}");
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_level_that_is_not_known_is_not_installed() {
    let temp = tempfile::tempdir().unwrap();
    let first = Member::first(&temp, of(NEW)).await;
    raise(&first.group, 2).await;
    let upto = first.group.snapshot().await.unwrap();
    first.group.purged(upto).await;
    let second = Member::another(&temp, 2, old()).await;
    first.group.add(second.node.clone()).await.unwrap();
    stops_and_says_so(&second).await;
    let second = Member::again(second.stop().await, of(NEW)).await;
    until("it has the snapshot", async || level(&second.group).await == 2).await;
    first.stop().await;
    second.stop().await;
}
