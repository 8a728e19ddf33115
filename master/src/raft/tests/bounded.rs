//! What a member that does not lead, or not any more, may answer.

use std::time::Duration;

use openraft::{ServerState, async_runtime::WatchReceiver as _};
use quarry_env::BootInstant;
use quarry_master_core::staleness::Allowed;
use quarry_proto::{WireError, v1};
use quarry_types::ErrorCode;

use super::{
    three::{LIMIT, Member, three, timing, until},
    *,
};

/// Longer than a test takes.
const LONG: Duration = Duration::from_secs(600);

fn now(member: &Member) -> BootInstant {
    member.world.clock.boot()
}

/// Whether the answer of a read that allows so much shows this session.
async fn shows(member: &Member, within: Duration, id: SessionId) -> Result<bool, WireError> {
    let (allowed, came) = (Allowed { within, seen: 0 }, now(member));
    let proof = member.group.within(allowed, came, LIMIT).await?;
    let view = member.group.view();
    let read = move || view.at_once_applied(|tables| query::session_exists(tables, id).unwrap()).unwrap();
    let (shown, applied) = member.group.blocking(read).await;
    assert!(member.group.is_within(allowed, came, proof, applied).is_some());
    Ok(shown)
}

async fn stop(members: [Member; 3]) {
    for member in members {
        member.cut.off(false);
        member.stop().await;
    }
}

/// Waits until another one than the first takes commands, and has it take one.
async fn another_commits(members: &[Member; 3], n: u64) -> SessionId {
    let mut opened = None;
    until("another one leads", async || {
        for member in &members[1..] {
            if let Ok(session) = session(&member.group, n).await {
                opened = Some(session);
            }
        }
        opened.is_some()
    })
    .await;
    opened.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_a_deposed_leader_that_does_not_know_it_answers_no_read_from_its_old_state() {
    let temp = tempfile::tempdir().unwrap();
    let members = three(&temp).await;
    members[0].group.read().await.unwrap();
    members[0].cut.off(true);
    let later = another_commits(&members, 7).await;
    // Nobody could tell it: openraft still takes it for the leader.
    assert_eq!(members[0].group.raft().metrics().borrow_watched().state, ServerState::Leader);
    assert!(!has_session_here(&members[0], later).await);
    let read = members[0].group.read().await;
    assert!(matches!(read, Err(ProposeError::Unavailable(_))), "{:?}", read.err());
    // One that is told answers again, with what was acknowledged meanwhile, or says who does.
    members[0].cut.off(false);
    until("it hears who leads", async || members[0].group.leader().borrow().id.is_some_and(|id| id != NODE)).await;
    let read = members[0].group.read().await;
    assert!(matches!(read, Err(ProposeError::NotLeader { .. })), "{:?}", read.err());
    stop(members).await;
}

/// One that is alone answers by itself. Once it is not, it has to ask, however often it did not have to.
#[tokio::test(flavor = "multi_thread")]
async fn s4_a_leader_that_was_alone_asks_before_it_answers_once_it_is_not() {
    let temp = tempfile::tempdir().unwrap();
    let first = Member::first(&temp, timing()).await;
    for n in 0..3 {
        let opened = session(&first.group, n).await.unwrap();
        first.group.read().await.unwrap();
        assert!(has_session_here(&first, opened).await);
    }
    let (second, third) = (Member::another(&temp, 2, timing()).await, Member::another(&temp, 3, timing()).await);
    second.promoted(&first.group).await;
    third.promoted(&first.group).await;
    let members = [first, second, third];
    members[0].group.read().await.unwrap();
    members[0].cut.off(true);
    let later = another_commits(&members, 7).await;
    assert!(!has_session_here(&members[0], later).await);
    let read = members[0].group.read().await;
    assert!(matches!(read, Err(ProposeError::Unavailable(_))), "{:?}", read.err());
    stop(members).await;
}

async fn has_session_here(member: &Member, id: SessionId) -> bool {
    let view = member.group.view();
    member.group.blocking(move || view.at_once(|tables| query::session_exists(tables, id).unwrap())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_what_was_acknowledged_before_a_followers_proof_shows_there() {
    let temp = tempfile::tempdir().unwrap();
    let members = three(&temp).await;
    for n in 0..30 {
        let opened = session(&members[0].group, n).await.unwrap();
        // Too short for any proof that was made before: each read asks, and waits for what was committed until then.
        for member in &members {
            let came = now(member);
            let fresh = async || {
                let proof = member.group.within(Allowed { within: LONG, seen: u64::MAX }, came, LIMIT).await.unwrap();
                assert!(proof.at >= came.0, "no older proof tells that nobody can have seen that index");
                has_session_here(member, opened).await
            };
            assert!(fresh().await, "{n}");
        }
    }
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_a_follower_that_is_cut_off_serves_as_long_as_it_can_prove_its_age_and_then_refuses() {
    let temp = tempfile::tempdir().unwrap();
    let members = three(&temp).await;
    let before = session(&members[0].group, 1).await.unwrap();
    let follower = &members[2];
    follower.has(before).await;
    assert!(shows(follower, LONG, before).await.unwrap());
    let proven = now(follower);
    follower.cut.off(true);
    let after = session(&members[0].group, 2).await.unwrap();
    // What it has is not that old, and it says so without asking anybody.
    assert!(shows(follower, LONG, before).await.unwrap());
    assert!(!shows(follower, LONG, after).await.unwrap());
    // A bound that has passed since; it is not served from the state of then, however long one waits.
    until("the proof to be older than a little", async || now(follower).since(proven) > Duration::from_millis(50))
        .await;
    let allowed = Allowed { within: Duration::from_millis(20), seen: 0 };
    let refused = follower.group.within(allowed, now(follower), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooStale);
    let said = &refused.message;
    assert!(said.contains("at most 20 ms old") && said.contains("confirmed its state"), "{said}");
    // In touch again it catches up first.
    follower.cut.off(false);
    let caught_up = async || shows(follower, Duration::from_secs(5), after).await.is_ok_and(|shown| shown);
    until("it proves its state again", caught_up).await;
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_a_follower_that_lags_waits_and_refuses_and_never_answers_early() {
    let temp = tempfile::tempdir().unwrap();
    let members = three(&temp).await;
    let before = session(&members[0].group, 1).await.unwrap();
    let follower = &members[2];
    follower.has(before).await;
    // It can ask, and is told nothing: the leader confirms an index that it does not have.
    follower.cut.deaf(true);
    let after = session(&members[0].group, 2).await.unwrap();
    let allowed = Allowed { within: Duration::from_secs(1), seen: 0 };
    let refused = follower.group.within(allowed, now(follower), Duration::from_millis(800)).await;
    assert!(!has_session_here(follower, after).await);
    let refused = refused.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooStale);
    assert!(refused.message.contains("applied the log up to"), "{}", refused.message);
    let (waits, heals) = (shows(follower, LONG, after), async { follower.cut.deaf(false) });
    let (shown, ()) = tokio::join!(waits, heals);
    assert!(shown.unwrap(), "it waited for what was confirmed");
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_answers_do_not_go_back_in_time_from_one_member_to_another() {
    let temp = tempfile::tempdir().unwrap();
    let members = three(&temp).await;
    let before = session(&members[0].group, 1).await.unwrap();
    let follower = &members[2];
    follower.has(before).await;
    assert!(shows(follower, LONG, before).await.unwrap());
    follower.cut.off(true);
    let after = session(&members[0].group, 2).await.unwrap();
    let (view, id) = (members[0].group.view(), after);
    let read = move || view.at_once_applied(|tables| query::session_exists(tables, id).unwrap()).unwrap();
    let (shown, seen) = members[0].group.blocking(read).await;
    assert!(shown);
    // Young enough, but not for one who has seen what came after.
    let allowed = Allowed { within: LONG, seen };
    let refused = follower.group.within(allowed, now(follower), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooStale);
    follower.group.within(Allowed { within: LONG, seen: 0 }, now(follower), LIMIT).await.unwrap();
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_only_a_leader_that_a_majority_answers_confirms() {
    let temp = tempfile::tempdir().unwrap();
    let members = three(&temp).await;
    let ask = async |from: &Member, to: &Member| {
        let parties = from.group.parties();
        let asked = parties.request(&from.world, to.node.id.0);
        let signed = parties.sign(&v1::ConfirmRequest { parties: Some(asked.clone()) });
        let reply = to.group.confirm(&signed).await?;
        parties.open_answer::<v1::ConfirmReply>(&reply, &asked).map(|reply| reply.index)
    };
    let refused = ask(&members[0], &members[1]).await.unwrap_err();
    assert_eq!(
        (refused.code, refused.leader.as_deref()),
        (ErrorCode::NotLeader, Some(members[0].node.address.as_str()))
    );
    let opened = ask(&members[1], &members[0]).await.unwrap();
    session(&members[0].group, 1).await.unwrap();
    assert!(ask(&members[1], &members[0]).await.unwrap() > opened);
    // It may have been deposed for all it knows.
    members[0].cut.off(true);
    assert_eq!(ask(&members[1], &members[0]).await.unwrap_err().code, ErrorCode::Unavailable);
    let stranger = Member::another_of(&temp, 9, Belonging { key: ClusterKey::new([1; 32]), ..us() }).await;
    assert_eq!(ask(&stranger, &members[0]).await.unwrap_err().code, ErrorCode::Unauthorized);
    stranger.stop().await;
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_at_the_same_time_share_the_question_to_the_majority() {
    let temp = tempfile::tempdir().unwrap();
    let members = three(&temp).await;
    let opened = session(&members[0].group, 1).await.unwrap();
    let reads = (0..500).map(|_| has_session(&members[0].group, opened));
    assert!(futures::future::join_all(reads).await.into_iter().all(|has| has));
    stop(members).await;
}
