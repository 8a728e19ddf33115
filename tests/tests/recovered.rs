//! Two of three masters are lost, the third goes on in a new lineage, and then the two are there after all.

use std::{process::Command, time::Duration};

use nix::sys::signal::Signal;
use quarry_tests::{Cluster, Options, group, process::binary, wait};

const LIMIT: Duration = Duration::from_secs(60);

/// Makes a new lineage of the first master, which is stopped, as docs/OPERATIONS.md says, and starts it.
fn recover(cluster: &mut Cluster) {
    let out = Command::new(binary("quarry-master"))
        .args(["recover", "--ask", "2s", "--data"])
        .arg(&cluster.master.data)
        .arg("--key-file")
        .arg(cluster.path("cluster.key"))
        .output()
        .expect("quarry-master starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    cluster.master.restart();
    cluster.wait_alive(2);
}

fn three() -> Cluster {
    let cluster = Cluster::start(&Options { masters: 3, chunkservers: 2, ..Options::default() });
    cluster.put("/before", &[], b"before");
    group::wait_whole(&cluster, 3);
    cluster
}

fn is_whole(cluster: &Cluster) {
    cluster.put("/after", &["--overwrite"], b"after");
    assert_eq!(cluster.quarry(&["cat", "/before"]).ok(), b"before");
    assert_eq!(cluster.quarry(&["cat", "/after"]).ok(), b"after");
}

const WORDS: [&str; 3] = ["the history of this group of masters has ended", "lineage 2", "quarry-master join"];

#[test]
fn s11_masters_of_a_history_that_was_ended_end_when_they_are_back() {
    let mut cluster = three();
    let old: Vec<String> = cluster.others.iter().map(|master| master.address.clone()).collect();
    cluster.master.kill();
    old.iter().for_each(|address| group::at(&mut cluster, address).kill());
    recover(&mut cluster);
    is_whole(&cluster);
    for address in &old {
        let said = group::refused(&mut cluster, address);
        assert!(WORDS.iter().all(|word| said.contains(word)), "{said}");
    }
    is_whole(&cluster);
}

#[test]
fn s11_masters_that_could_not_be_reached_end_when_they_hear_of_the_new_lineage() {
    let mut cluster = three();
    let old: Vec<String> = cluster.others.iter().map(|master| master.address.clone()).collect();
    cluster.master.kill();
    old.iter().for_each(|address| group::at(&mut cluster, address).process().signal(Signal::SIGSTOP));
    recover(&mut cluster);
    old.iter().for_each(|address| group::at(&mut cluster, address).process().signal(Signal::SIGCONT));
    for address in &old {
        let master = group::at(&mut cluster, address);
        let status = master.process().wait(LIMIT);
        assert!(!status.success(), "it ended well");
        let log = master.log();
        assert!(WORDS.iter().all(|word| log.contains(word)), "{}", log.lines().last().unwrap_or_default());
    }
    is_whole(&cluster);
}

/// A majority that is gone is said, and nobody is sent to who is known not to lead.
#[test]
fn s8_a_master_without_a_majority_says_so() {
    let mut cluster = three();
    let leads = group::leader(&cluster);
    let all = [&cluster.master].into_iter().chain(&cluster.others).map(|master| master.address.clone());
    let others: Vec<String> = all.filter(|address| *address != leads).collect();
    group::at(&mut cluster, &leads).kill();
    group::at(&mut cluster, &others[0]).kill();
    let quarry = |args: &[&str]| {
        let out = Command::new(binary("quarry")).args(["--masters", &others[1], "--timeout", "2s"]).args(args).output();
        let out = out.expect("quarry starts");
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
    };
    wait::until("it to notice", LIMIT, || {
        let said = quarry(&["masters"]);
        if said.contains("nobody leads") { Ok(()) } else { Err(said) }
    });
    let shown = quarry(&["masters", "--json"]);
    assert!(!shown.contains("\"leader\""), "no master has the role of a leader: {shown}");
    let said = quarry(&["mkdir", "/not"]);
    assert!(said.contains("no leader proves to this master that a majority"), "{said}");
}
