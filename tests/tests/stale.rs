//! Reads that may be a little old: any master answers them, none says more than it can prove; and reads that may not be old,
//! which a leader that was replaced answers no more.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use quarry_proto::{
    WireError,
    v1::{
        FileInfo, ListRequest, LocateReply, LocateRequest, MastersRequest, StaleOk, StatReply, StatRequest,
        UsageRequest, admin_client::AdminClient, namespace_client::NamespaceClient,
    },
};
use quarry_tests::{
    Cluster, Options, cli, data,
    group::at,
    network::{Lost, Network},
    skipped, wait,
};
use quarry_types::ErrorCode;
use tokio::{runtime::Runtime, task::JoinSet};
use tonic::{Request, Status, transport::Channel};

const LIMIT: Duration = Duration::from_secs(60);
/// Longer than a test takes.
const LONG: Duration = Duration::from_secs(600);
/// For the answer of one master.
const ANSWER: Duration = Duration::from_secs(10);

fn three() -> Cluster {
    Cluster::start(&Options { masters: 3, ..Options::default() })
}

fn addresses(cluster: &Cluster) -> Vec<String> {
    cluster.masters.split(',').map(String::from).collect()
}

/// The address of the one that leads, as all of them say.
fn leader(cluster: &Cluster) -> String {
    wait::until("all masters to follow one leader", LIMIT, || followed(&addresses(cluster)))
}

/// Whom these masters all follow.
fn followed(masters: &[String]) -> Result<String, String> {
    let runtime = Runtime::new().expect("a runtime");
    let ask = |master: &String| {
        let asked = async { tokio::time::timeout(Duration::from_secs(1), leader_by(master)).await };
        runtime.block_on(asked).unwrap_or_else(|_| Err("it does not answer".into()))
    };
    let all: Vec<String> = masters.iter().map(ask).collect::<Result<_, _>>()?;
    match all.split_first() {
        Some((first, rest)) if rest.iter().all(|other| other == first) => Ok(first.clone()),
        _ => Err(format!("{all:?}")),
    }
}

/// As it knows; nobody else is asked.
async fn leader_by(master: &str) -> Result<String, String> {
    let mut client = AdminClient::connect(format!("http://{master}")).await.map_err(|e| e.to_string())?;
    let reply = client.masters(MastersRequest { brief: true }).await.map_err(|e| e.to_string())?.into_inner();
    let leads = reply.masters.into_iter().find(|row| row.id == reply.leader);
    Ok(leads.ok_or("it follows nobody")?.address)
}

fn signal(cluster: &mut Cluster, addresses: &[&String], signal: Signal) {
    addresses.iter().for_each(|address| at(cluster, address).process().signal(signal));
}

/// Those that do not lead.
fn followers(cluster: &Cluster, leader: &str) -> Vec<String> {
    addresses(cluster).into_iter().filter(|address| address != leader).collect()
}

/// One master, asked by hand: nobody else is asked in its place.
struct Asked {
    runtime: Runtime,
    client: NamespaceClient<Channel>,
}

impl Asked {
    fn at(address: &str) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let client = runtime.block_on(NamespaceClient::connect(format!("http://{address}"))).expect("it listens");
        Asked { runtime, client }
    }

    fn call<T>(
        &self,
        limit: Duration,
        make: impl AsyncFnOnce(NamespaceClient<Channel>) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, WireError> {
        let asked = async { tokio::time::timeout(limit, make(self.client.clone())).await };
        let answer = self.runtime.block_on(asked).unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")));
        answer.map(tonic::Response::into_inner).map_err(WireError::from)
    }

    fn stat(&self, path: &str, stale_ok: Option<Duration>) -> Result<StatReply, WireError> {
        let request = stat_request(path, stale_ok, ANSWER);
        self.call(ANSWER, async move |mut client| client.stat(request).await)
    }

    /// Refused soon, if it is.
    fn stat_soon(&self, path: &str, stale_ok: Duration) -> Result<StatReply, WireError> {
        let request = stat_request(path, Some(stale_ok), Duration::from_secs(1));
        self.call(ANSWER, async move |mut client| client.stat(request).await)
    }

    fn locate(&self, file: &FileInfo, stale_ok: Duration) -> Result<LocateReply, WireError> {
        let request = LocateRequest {
            inode: file.inode,
            version: file.version,
            stale_ok: Some(within(stale_ok)),
            ..LocateRequest::default()
        };
        self.call(ANSWER, async move |mut client| client.locate(request).await)
    }
}

fn within(stale_ok: Duration) -> StaleOk {
    StaleOk { within_ms: stale_ok.as_millis().try_into().expect("a test's time"), seen: 0 }
}

fn stat_request(path: &str, stale_ok: Option<Duration>, limit: Duration) -> Request<StatRequest> {
    let mut request = Request::new(StatRequest { path: path.into(), stale_ok: stale_ok.map(within) });
    request.set_timeout(limit);
    request
}

#[test]
fn s4_a_follower_answers_reads_that_may_be_old_and_no_others() {
    let cluster = three();
    let bytes = data::bytes(5, 300_000);
    cluster.put("/f", &[], &bytes);
    let leads = leader(&cluster);
    for master in addresses(&cluster) {
        let asked = Asked::at(&master);
        let found = asked.stat("/f", Some(Duration::from_secs(5))).expect("any master answers");
        let (file, staleness) = (found.file.expect("the file"), found.staleness.expect("it says how old it is"));
        assert_eq!(file.length, 300_000);
        assert!(staleness.ms <= 5000 && staleness.applied > 0, "{staleness:?}");
        let missing = asked.stat("/missing", Some(Duration::from_secs(5))).unwrap_err();
        assert_eq!(missing.code, ErrorCode::NotFound);
        // As before: only the leader, and it does not call that old.
        match asked.stat("/f", None) {
            Ok(found) => assert_eq!((&master, found.staleness), (&leads, None)),
            Err(refused) => {
                assert_ne!(master, leads);
                assert_eq!((refused.code, refused.leader.as_ref()), (ErrorCode::NotLeader, Some(&leads)));
            }
        }
        let pages = asked.call(ANSWER, async |mut client| {
            let request = ListRequest { path: "/".into(), stale_ok: Some(within(LONG)), ..ListRequest::default() };
            let mut pages = client.list(request).await?.into_inner();
            let first = pages.message().await?.ok_or_else(|| Status::internal("no page"))?;
            Ok(tonic::Response::new(first))
        });
        let page = pages.expect("any master lists");
        assert!(page.entries.iter().any(|entry| entry.path == "f" || entry.path == "/f"), "{page:?}");
        assert!(page.staleness.is_some());
        let usage = asked.call(ANSWER, async |mut client| {
            client.usage(UsageRequest { path: "/".into(), stale_ok: Some(within(LONG)) }).await
        });
        let usage = usage.expect("any master sums up");
        assert_eq!((usage.files, usage.bytes, usage.staleness.is_some()), (1, 300_000, true));
        let located = asked.locate(&file, LONG).expect("any master says where the chunks should be");
        let replicas = &located.chunks[0].replicas;
        assert_eq!((located.chunks.len(), replicas.len()), (1, 3), "{located:?}");
        for replica in replicas {
            assert!(cluster.server_at(&replica.address) < 3);
        }
        // The command line, which knows no other master.
        let back = cluster.path("back");
        let back = back.to_str().expect("text");
        cli::run(&master, &["get", "--stale-ok", "5s", "/f", back]).ok();
        assert_eq!(std::fs::read(back).expect("it was got"), bytes);
        std::fs::remove_file(back).expect("it is there");
        assert_eq!(cli::run(&master, &["cat", "--stale-ok", "5s", "/f"]).ok(), bytes);
        for args in [
            ["stat", "--json", "--stale-ok", "5s", "/f"],
            ["ls", "--json", "--stale-ok", "5s", "/"],
            ["du", "--json", "--stale-ok", "5s", "/"],
            ["chunks", "--json", "--stale-ok", "5s", "/f"],
            ["checksum", "--json", "--stale-ok", "5s", "/f"],
        ] {
            let said = cli::run(&master, &args).json();
            assert!(said["staleness_ms"].is_u64(), "{args:?}: {said}");
        }
    }
    assert!(cli::run(&leads, &["stat", "--json", "/f"]).json()["staleness_ms"].is_null());
}

#[test]
fn s4_what_was_acknowledged_longer_ago_than_allowed_is_in_every_answer() {
    const WITHIN: Duration = Duration::from_millis(300);
    let cluster = three();
    let leads = leader(&cluster);
    let asked: Vec<Asked> = addresses(&cluster).iter().map(|master| Asked::at(master)).collect();
    for n in 0..8 {
        // Each has a proof from just before.
        asked.iter().for_each(|one| drop(one.stat("/", Some(WITHIN)).expect("it answers")));
        let name = format!("/d{n}");
        cli::run(&leads, &["mkdir", &name]).ok();
        let acknowledged = Instant::now();
        // Old answers are right until then; nobody may give one after.
        while acknowledged.elapsed() <= WITHIN {
            asked.iter().for_each(|one| drop(one.stat(&name, Some(LONG))));
        }
        for one in &asked {
            one.stat(&name, Some(WITHIN)).expect("it shows what was acknowledged longer ago than that");
        }
    }
}

#[test]
fn s4_without_a_majority_a_master_answers_until_its_proof_is_too_old_and_says_so() {
    let mut cluster = three();
    let bytes = data::bytes(6, 200_000);
    cluster.put("/f", &[], &bytes);
    let leads = leader(&cluster);
    let [alone, other] = followers(&cluster, &leads).try_into().expect("two follow");
    let asked = Asked::at(&alone);
    asked.stat("/f", Some(Duration::from_secs(1))).expect("it has a proof now");
    let stopped = Instant::now();
    signal(&mut cluster, &[&leads, &other], Signal::SIGSTOP);
    let found = asked.stat("/f", Some(LONG)).expect("what it proved is young enough");
    assert!(found.staleness.is_some_and(|said| Duration::from_millis(said.ms) < stopped.elapsed() + LIMIT));
    // Files are read on, with nobody leading.
    assert_eq!(cli::run(&alone, &["cat", "--stale-ok", "10m", "/f"]).ok(), bytes);
    assert_eq!(cli::run(&cluster.masters, &["cat", "--stale-ok", "10m", "/f"]).ok(), bytes);
    // Not for one who wants it younger than the last word of a leader.
    let refused =
        wait::until("the proof to be too old", LIMIT, || match asked.stat_soon("/f", Duration::from_millis(500)) {
            Err(refused) => Ok(refused),
            Ok(found) => Err(format!("{:?}", found.staleness)),
        });
    assert_eq!(refused.code, ErrorCode::TooStale, "{refused}");
    assert!(refused.message.contains("at most 500 ms old"), "{refused}");
    // It stays so.
    assert_eq!(asked.stat_soon("/f", Duration::from_millis(500)).unwrap_err().code, ErrorCode::TooStale);
    let out = cli::run(&alone, &["--timeout", "3s", "stat", "--stale-ok", "500ms", "/f"]);
    assert_eq!(out.code, 5, "{}", out.stderr);
    assert!(out.stderr.contains("cannot prove") && out.stderr.contains("500 ms"), "{}", out.stderr);
    signal(&mut cluster, &[&leads, &other], Signal::SIGCONT);
    leader(&cluster);
    asked.stat("/f", Some(Duration::from_secs(1))).expect("somebody leads again");
    cluster.put("/g", &[], b"and takes changes");
    assert_eq!(cli::run(&cluster.masters, &["cat", "--stale-ok", "1ms", "/g"]).ok(), b"and takes changes");
}

#[test]
fn a_master_that_nobody_has_read_from_yet_answers_when_nobody_leads_any_more() {
    let mut cluster = three();
    cluster.put("/f", &[], b"bytes");
    let leads = leader(&cluster);
    let [alone, other] = followers(&cluster, &leads).try_into().expect("two follow");
    // It renews its proof by itself, and may not have made the first one yet.
    wait::until("an answer while nobody leads", LIMIT, || {
        signal(&mut cluster, &[&leads, &other], Signal::SIGSTOP);
        let out = cli::run(&alone, &["--timeout", "2s", "stat", "--stale-ok", "10m", "/f"]);
        signal(&mut cluster, &[&leads, &other], Signal::SIGCONT);
        leader(&cluster);
        if out.code == 0 { Ok(()) } else { Err(out.stderr) }
    });
}

#[test]
fn s10_a_follower_that_was_stopped_shows_nothing_older_than_allowed_afterwards() {
    const WITHIN: Duration = Duration::from_secs(1);
    let mut cluster = three();
    let leads = leader(&cluster);
    let [follower, _] = followers(&cluster, &leads).try_into().expect("two follow");
    let asked = Asked::at(&follower);
    for n in 0..3 {
        let name = format!("/d{n}");
        asked.stat("/", Some(WITHIN)).expect("it has a proof now");
        signal(&mut cluster, &[&follower], Signal::SIGSTOP);
        cli::run(&leads, &["mkdir", &name]).ok();
        let acknowledged = Instant::now();
        // That this passes is what is tested.
        while acknowledged.elapsed() <= WITHIN {
            std::thread::sleep(Duration::from_millis(10));
        }
        // These are the first that it does when it goes on: before anything else tells it that it stood still.
        let answers = ask_over(&asked, &name, Some(WITHIN), || signal(&mut cluster, &[&follower], Signal::SIGCONT));
        for answer in answers {
            let refused = answer.err().filter(|refused| refused.code == ErrorCode::NotFound);
            assert!(refused.is_none(), "round {n}: it shows what is older than {WITHIN:?}");
        }
        asked.stat(&name, Some(WITHIN)).expect("it caught up");
    }
}

/// Questions that are under way when something happens, and many more after it.
fn ask_over(
    asked: &Asked,
    path: &str,
    stale_ok: Option<Duration>,
    happens: impl FnOnce(),
) -> Vec<Result<(), WireError>> {
    const AT_ONCE: usize = 32;
    const EACH: usize = 10;
    let mut running = JoinSet::new();
    let (begun, mut all_begun) = tokio::sync::mpsc::channel::<()>(1);
    for _ in 0..AT_ONCE {
        let (mut client, path, begun) = (asked.client.clone(), path.to_owned(), begun.clone());
        let asking = async move {
            let mut answers = Vec::new();
            drop(begun);
            for _ in 0..EACH {
                let answer = client.stat(stat_request(&path, stale_ok, ANSWER)).await;
                answers.push(answer.map(drop).map_err(WireError::from));
            }
            answers
        };
        running.spawn_on(asking, asked.runtime.handle());
    }
    drop(begun);
    asked.runtime.block_on(async {
        let _all = all_begun.recv().await;
        // The connection's own task sends what they asked.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    });
    happens();
    let gather = async { tokio::time::timeout(LIMIT, running.join_all()).await.expect("all are answered") };
    asked.runtime.block_on(gather).into_iter().flatten().collect()
}

#[test]
fn s4_a_leader_that_was_stopped_and_replaced_answers_no_read_from_its_old_state() {
    let mut cluster = three();
    for n in 0..3 {
        let old = leader(&cluster);
        let asked = Asked::at(&old);
        asked.stat("/", None).expect("it leads");
        signal(&mut cluster, &[&old], Signal::SIGSTOP);
        let others = followers(&cluster, &old);
        wait::until("another leader", LIMIT, || match followed(&others)? {
            leads if leads == old => Err("they follow it still".to_owned()),
            leads => Ok(leads),
        });
        let name = format!("/d{n}");
        cli::run(&others.join(","), &["mkdir", &name]).ok();
        // It takes itself for the leader until somebody tells it. What it is asked first it was asked after that was
        // acknowledged.
        let answers = ask_over(&asked, &name, None, || signal(&mut cluster, &[&old], Signal::SIGCONT));
        let stale =
            answers.iter().filter(|answer| answer.as_ref().is_err_and(|refused| refused.code == ErrorCode::NotFound));
        assert_eq!(stale.count(), 0, "round {n}: of {} answers", answers.len());
        leader(&cluster);
    }
}

#[test]
fn hints_that_are_wrong_cost_a_try_and_the_leader_is_asked_then() {
    let network = match Network::new(3) {
        Ok(network) => network,
        Err(why) => return skipped("hints of a master that is cut off", &why),
    };
    let mut options = Options { masters: 3, ..Options::default() };
    options.chunkservers = 4;
    let cluster = Cluster::start(&options.masters_on(&network));
    let bytes = data::bytes(7, 200_000);
    cluster.put("/f", &["--replicas", "1"], &bytes);
    let leads = leader(&cluster);
    let follower = followers(&cluster, &leads).remove(0);
    let index = addresses(&cluster).iter().position(|address| *address == follower).expect("one of three");
    let asked = Asked::at(&follower);
    let file = asked.stat("/f", Some(Duration::from_secs(1))).expect("it has a proof now").file.expect("the file");
    let holders = |located: LocateReply| {
        let replicas = located.chunks.into_iter().flat_map(|chunk| chunk.replicas);
        replicas.map(|replica| replica.address).collect::<Vec<_>>()
    };
    let before = holders(asked.locate(&file, LONG).expect("it says where"));
    assert_eq!(before.len(), 1);
    let peers: Vec<usize> = (0..3).filter(|other| *other != index).collect();
    network.cut(index, &peers, Lost::Both).expect("it worked before");
    // Elsewhere it moves.
    let leads = wait::until("a leader of the others", LIMIT, || {
        followed(&followers(&cluster, &follower)).and_then(|leads| {
            if leads == follower { Err("they follow the one that is cut off".into()) } else { Ok(leads) }
        })
    });
    let moved = &cluster.servers[cluster.server_at(&before[0])].address;
    cli::run(&leads, &["drain", moved]).ok();
    wait::until("the replica to be gone", LIMIT, || {
        let placed = cli::run(&leads, &["chunks", "--json", "/f"]).json();
        let addresses: Vec<String> = placed["chunks"][0]["replicas"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|replica| replica["address"].as_str().unwrap_or_default().to_owned())
            .collect();
        if addresses.len() == 1 && addresses != before { Ok(()) } else { Err(format!("{addresses:?}")) }
    });
    assert_eq!(holders(asked.locate(&file, LONG).expect("its proof is young enough")), before, "it heard of nothing");
    // With the follower asked first, as all it knows; it names the leader when it comes to that.
    assert_eq!(cli::run(&follower, &["cat", "--stale-ok", "10m", "/f"]).ok(), bytes);
    let refused = asked.stat_soon("/f", Duration::from_millis(200)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::TooStale, "{refused}");
    network.mend(index).expect("it was cut");
    wait::until("it to be in touch again", LIMIT, || {
        asked.stat_soon("/f", Duration::from_millis(500)).map(drop).map_err(|refused| refused.to_string())
    });
    assert_ne!(holders(asked.locate(&file, Duration::from_secs(1)).expect("it says where")), before);
}
