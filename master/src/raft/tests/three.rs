//! Several members, each on its own files and port.

use std::{path::PathBuf, time::Duration};

use quarry_env::clock::timeout;
use quarry_proto::v1::raft_server::RaftServer;
use tokio::{sync::oneshot, task::JoinHandle};

use super::{cut::Cut, *};
use crate::listen;

pub(super) const LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Member {
    pub(super) world: World,
    dir: PathBuf,
    pub(super) node: Node,
    pub(super) group: Group,
    pub(super) cut: Cut,
    serving: Serving,
}

pub(super) fn timing() -> GroupConfig {
    // Roomy, for machines that do much else.
    GroupConfig { heartbeat: Duration::from_millis(200), election: Duration::from_secs(2), ..config() }
}

/// A real machine whose network can be cut.
fn machine() -> (World, Cut) {
    let cut = Cut::default();
    (cut.in_world(&real()), cut)
}

async fn bound(world: &World, address: &str) -> (Box<dyn quarry_env::Listener>, String) {
    let listener = world.net.bind(address).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// As configured, and reached there, which others learn from it.
fn at(address: &str, config: GroupConfig) -> GroupConfig {
    let advertise = config.advertise.or_else(|| Some(address.to_owned()));
    GroupConfig { advertise, ..config }
}

/// A running server. Its connections hold the stores, so that a member has stopped when they are closed.
struct Serving {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

fn serve(world: &World, group: &Group, listener: Box<dyn quarry_env::Listener>) -> Serving {
    let (stop, stopped) = oneshot::channel::<()>();
    let connections = listen::connections(listener, world.clock.clone());
    let server = tonic::transport::Server::builder().add_service(RaftServer::new(RaftRpc::new(group.clone())));
    let ended = tokio::spawn(async move {
        let stopped = async {
            let _or_dropped = stopped.await;
        };
        server.serve_with_incoming_shutdown(connections, stopped).await.unwrap();
    });
    Serving { stop, ended }
}

impl Member {
    pub(super) async fn first(temp: &tempfile::TempDir, config: GroupConfig) -> Member {
        let ((world, cut), dir) = (machine(), temp.path().join("1"));
        let (listener, address) = bound(&world, "127.0.0.1:0").await;
        let node = Node { id: NodeId(1), address };
        Group::create(&world, &dir, node.clone(), us(), first()).await.unwrap();
        let group = Group::open(&world, &dir, us(), at(&node.address, config)).await.unwrap();
        let serving = serve(&world, &group, listener);
        led(&group).await;
        Member { world, dir, node, group, cut, serving }
    }

    pub(super) async fn another(temp: &tempfile::TempDir, id: u64, config: GroupConfig) -> Member {
        Self::another_in(temp, id, us(), config).await
    }

    /// The same in another cluster.
    pub(super) async fn another_of(temp: &tempfile::TempDir, id: u64, belonging: Belonging) -> Member {
        Self::another_in(temp, id, belonging, timing()).await
    }

    async fn another_in(temp: &tempfile::TempDir, id: u64, belonging: Belonging, config: GroupConfig) -> Member {
        let ((world, cut), dir) = (machine(), temp.path().join(id.to_string()));
        let (listener, address) = bound(&world, "127.0.0.1:0").await;
        let node = Node { id: NodeId(id), address };
        Group::create_empty(&world, &dir, node.id, belonging.clone()).await.unwrap();
        let group = Group::open(&world, &dir, belonging, at(&node.address, config)).await.unwrap();
        let serving = serve(&world, &group, listener);
        Member { world, dir, node, group, cut, serving }
    }

    /// The member whose files are there.
    pub(super) async fn of(dir: &std::path::Path, id: NodeId, belonging: Belonging) -> Member {
        let (world, cut) = machine();
        let (listener, address) = bound(&world, "127.0.0.1:0").await;
        let config = GroupConfig { advertise: Some(address.clone()), ..timing() };
        let group = Group::open(&world, dir, belonging, config).await.unwrap();
        let serving = serve(&world, &group, listener);
        Member { world, dir: dir.to_owned(), node: Node { id, address }, group, cut, serving }
    }

    pub(super) async fn stop(self) -> (World, PathBuf, Node) {
        let Member { world, dir, node, group, serving, .. } = self;
        serving.stop.send(()).unwrap();
        timeout(&*world.clock, LIMIT, serving.ended).await.unwrap().unwrap();
        group.shutdown().await;
        (world, dir, node)
    }

    pub(super) async fn again((_, dir, node): (World, PathBuf, Node), config: GroupConfig) -> Member {
        let (world, cut) = machine();
        let (listener, _) = bound(&world, &node.address).await;
        // What was being answered when it stopped may hold the stores for a moment longer.
        let mut opened = None;
        until("its files are free", async || {
            opened = Group::open(&world, &dir, us(), at(&node.address, config.clone())).await.ok();
            opened.is_some()
        })
        .await;
        let group = opened.unwrap();
        let serving = serve(&world, &group, listener);
        Member { world, dir, node, group, cut, serving }
    }

    /// Waits until this member has applied a session.
    pub(super) async fn has(&self, session: SessionId) {
        let applied = async || {
            let view = self.group.view();
            self.group.blocking(move || view.at_once(|tables| query::session_exists(tables, session).unwrap())).await
        };
        until("a session is applied here", applied).await;
    }

    pub(super) async fn promoted(&self, leader: &Group) {
        leader.add(self.node.clone()).await.unwrap();
        // As `quarry masters add` does: one that does not take part yet must not be counted on.
        let reached = || leader.status().iter().any(|m| m.id == self.node.id.0 && m.reachable);
        until("the leader reaches it", async || reached()).await;
        leader.promote(&[self.node.id]).await.unwrap();
    }
}

/// Whether the row of a session is here, also when it has ended.
pub(super) async fn session_is_here(group: &Group, id: SessionId) -> bool {
    use quarry_master_core::{
        keys,
        tables::{ReadTables as _, Table},
    };
    let view = group.view();
    group.blocking(move || view.get(Table::Session, &keys::session(id)).unwrap().is_some()).await
}

pub(super) async fn until(what: &str, mut met: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !met().await {
            real().clock.sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(&*real().clock, LIMIT, waiting).await.is_ok(), "waited {LIMIT:?} until {what}");
}

pub(super) async fn three(temp: &tempfile::TempDir) -> [Member; 3] {
    let first = Member::first(temp, timing()).await;
    let (second, third) = (Member::another(temp, 2, timing()).await, Member::another(temp, 3, timing()).await);
    second.promoted(&first.group).await;
    third.promoted(&first.group).await;
    [first, second, third]
}

fn leader(members: &[Member]) -> Option<&Member> {
    members.iter().find(|member| member.group.leader().borrow().me_since_term.is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_grows_and_its_members_have_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let members = three(&temp).await;
    let one = session(&members[0].group, 1).await.unwrap();
    for member in &members {
        member.has(one).await;
        let status = member.group.status();
        assert_eq!(status.iter().map(|m| m.id).collect::<Vec<_>>(), [1, 2, 3]);
        let leads = member.group.leader().borrow().clone();
        assert_eq!((leads.id, leads.leader.as_deref()), (Some(NodeId(1)), Some(members[0].node.address.as_str())));
    }
    let refused = session(&members[1].group, 2).await.unwrap_err();
    let ProposeError::NotLeader { leader } = refused else { panic!("{refused}") };
    assert_eq!(leader.as_ref(), Some(&members[0].node.address), "a follower says who leads");
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_what_was_acknowledged_outlives_its_leader() {
    let temp = tempfile::tempdir().unwrap();
    let [first, second, third] = three(&temp).await;
    let mut sessions = Vec::new();
    for n in 0..50 {
        sessions.push(session(&first.group, n).await.unwrap());
    }
    let stopped = first.stop().await;
    let members = [second, third];
    until("another leads", async || leader(&members).is_some()).await;
    let led_by = leader(&members).unwrap();
    led_by.group.read().await.unwrap();
    for session in &sessions {
        assert!(has_session(&led_by.group, *session).await);
    }
    let later = session(&led_by.group, 1000).await.unwrap();
    let term = led_by.group.status()[0].term;
    let first = Member::again(stopped, timing()).await;
    first.has(later).await;
    assert_eq!(leader(&members).map(|m| m.node.id), Some(led_by.node.id), "who comes back deposes nobody");
    assert_eq!(led_by.group.status()[0].term, term);
    first.stop().await;
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_nobody_answers_leads_no_more_until_somebody_does() {
    let temp = tempfile::tempdir().unwrap();
    let [first, second, third] = three(&temp).await;
    let (second, third) = (second.stop().await, third.stop().await);
    let leads = || first.group.leader().borrow().me_since_term.is_some();
    until("the first notices that it is alone", async || !leads()).await;
    assert_eq!(*first.group.leader().borrow(), LeaderState::default(), "and points nobody to itself");
    let members = [first, Member::again(second, timing()).await];
    until("one of two leads", async || leader(&members).is_some()).await;
    until("it commits", async || session(&leader(&members).unwrap().group, 1).await.is_ok()).await;
    for member in members {
        member.stop().await;
    }
    drop(third);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_far_behind_gets_a_snapshot() {
    let temp = tempfile::tempdir().unwrap();
    let config = GroupConfig { keep_log: 0, ..timing() };
    let first = Member::first(&temp, config.clone()).await;
    let mut sessions = Vec::new();
    for n in 0..200 {
        sessions.push(session(&first.group, n).await.unwrap());
    }
    let upto = first.group.snapshot().await.unwrap();
    first.group.purged(upto).await;
    sessions.push(session(&first.group, 1000).await.unwrap());
    let second = Member::another(&temp, 2, config.clone()).await;
    first.group.add(second.node.clone()).await.unwrap();
    for session in &sessions {
        second.has(*session).await;
    }
    assert_eq!(second.group.state().newest_snapshot().unwrap().mark().unwrap().index, upto);
    let left = second.world.disk.list(&second.dir).unwrap();
    assert!(left.iter().all(|path| !path.display().to_string().contains("incoming")), "{left:?}");
    // What it received outlives it.
    let second = Member::again(second.stop().await, config).await;
    for session in &sessions {
        second.has(*session).await;
    }
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leadership_is_handed_over_and_a_member_is_removed() {
    let temp = tempfile::tempdir().unwrap();
    let members = three(&temp).await;
    until("the third leads", async || members[0].group.transfer(NodeId(3)).await.unwrap()).await;
    until("it knows", async || leader(&members).is_some_and(|m| m.node.id == NodeId(3))).await;
    // Whoever has just been elected may still refuse; a client asks again.
    let group = &members[2].group;
    until("it takes commands", async || session(group, 1).await.is_ok()).await;
    until("a member is removed", async || group.remove(NodeId(1)).await.is_ok()).await;
    until("they know", async || group.status().iter().map(|m| m.id).eq([2, 3])).await;
    until("the two go on", async || session(group, 2).await.is_ok()).await;
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_a_new_member_elects_nobody_by_itself() {
    let temp = tempfile::tempdir().unwrap();
    let member = Member::another(&temp, 7, config()).await;
    let mut leader = member.group.leader();
    let elected = timeout(&*member.world.clock, Duration::from_secs(2), leader.wait_for(|s| s.id.is_some())).await;
    assert!(elected.is_err(), "it is in no group");
    assert!(matches!(session(&member.group, 1).await, Err(ProposeError::NotLeader { leader: None })));
    member.stop().await;
}
