//! Requests that arrive twice, or after their session has ended, on the wire: what a retry of a lost answer looks like.

use std::time::Duration;

use quarry_proto::{
    WireError,
    v1::{self, namespace_client::NamespaceClient},
};
use quarry_tests::{Cluster, Options, wait};
use quarry_types::ErrorCode;
use tonic::transport::Channel;

async fn connect(cluster: &Cluster) -> NamespaceClient<Channel> {
    NamespaceClient::connect(format!("http://{}", cluster.master.address)).await.expect("the master answers")
}

async fn open_session(client: &mut NamespaceClient<Channel>, nonce: u8) -> u64 {
    let request = v1::OpenSessionRequest { nonce: vec![nonce; 16].into() };
    client.open_session(request).await.expect("a session").into_inner().session
}

fn mkdir(session: u64, sequence: u64, path: &str) -> v1::MkdirRequest {
    let op = v1::OpId { session, sequence, acknowledged_below: 1 };
    v1::MkdirRequest { op: Some(op), path: path.into(), parents: false }
}

fn names(cluster: &Cluster) -> Vec<String> {
    cluster.quarry(&["ls", "/"]).text().lines().map(String::from).collect()
}

#[tokio::test]
async fn s4_a_request_delivered_twice_takes_effect_once_also_across_a_restart() {
    let mut cluster = Cluster::start(&Options { chunkservers: 1, ..Options::default() });
    let mut client = connect(&cluster).await;
    let session = open_session(&mut client, 1).await;
    let first = client.mkdir(mkdir(session, 1, "/d")).await.expect("it is made").into_inner();
    let again = client.mkdir(mkdir(session, 1, "/d")).await.expect("the answer of the first").into_inner();
    assert_eq!(first, again);
    let other = client.mkdir(mkdir(session, 2, "/d")).await.map_err(WireError::from);
    assert_eq!(other.map(|_| ()).map_err(|e| e.code), Err(ErrorCode::AlreadyExists), "another request is executed");
    // Somebody else removes it; the copy that comes late must not bring it back.
    cluster.quarry(&["rm", "-r", "/d"]).ok();
    cluster.master.kill();
    cluster.master.restart();
    cluster.wait_alive(1);
    let late = connect(&cluster).await.mkdir(mkdir(session, 1, "/d")).await.expect("remembered").into_inner();
    assert_eq!(late, first);
    assert_eq!(names(&cluster), Vec::<String>::new());
}

#[tokio::test]
async fn s4_a_request_after_its_session_expired_has_an_unknown_outcome_and_is_not_executed() {
    let master_args = ["--lease", "500ms", "--session", "1s"].map(String::from).to_vec();
    let cluster = Cluster::start(&Options { chunkservers: 1, master_args, ..Options::default() });
    let mut client = connect(&cluster).await;
    let session = open_session(&mut client, 2).await;
    client.mkdir(mkdir(session, 1, "/before")).await.expect("the session lives");
    // A look at the session would keep it alive; that the master has ended it shows in its log.
    wait::until("the session to end", Duration::from_secs(30), || {
        if cluster.master.log().contains("silent sessions end") { Ok(()) } else { Err("it lives".to_owned()) }
    });
    for (sequence, path) in [(1, "/before"), (2, "/after")] {
        let refused = client.mkdir(mkdir(session, sequence, path)).await.map_err(WireError::from);
        assert_eq!(refused.map(|_| ()).map_err(|e| e.code), Err(ErrorCode::OutcomeUnknown), "{path}");
    }
    assert_eq!(names(&cluster), ["before"]);
}
