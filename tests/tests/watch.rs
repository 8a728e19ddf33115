//! The stream of changes: each acknowledged change once and in order, whichever master leads; a clear end where it cannot go
//! on; and what is told of chunkservers that die and come back.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStderr, ChildStdout, Command},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use quarry_tests::{
    Cluster, Options, cli,
    group::{at, leader},
    process::binary,
    wait,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn three() -> Cluster {
    Cluster::start(&Options { masters: 3, ..Options::default() })
}

/// Asks until another one can lead: who has just been elected has not heard of everyone.
fn hand_over(cluster: &Cluster, how: &[&str]) {
    wait::until("the leadership to be handed over", LIMIT, || {
        let out = cluster.quarry(&[&["masters"], how].concat());
        if out.code == 0 { Ok(()) } else { Err(out.stderr) }
    });
}

/// The revision that holds everything that was acknowledged before.
fn now(cluster: &Cluster) -> String {
    let said = cluster.quarry(&["watch", "--until-now", "--json"]).json();
    assert_eq!(said["kind"], "reached");
    said["revision"].as_str().expect("a revision").to_owned()
}

/// All changes behind a revision, until now.
fn since(cluster: &Cluster, revision: &str, more: &[&str]) -> Vec<Value> {
    let args = [&["watch", "--until-now", "--json", "--from", revision], more].concat();
    let mut events = lines(&cluster.quarry(&args).text());
    assert_eq!(events.pop().expect("a last line")["kind"], "reached");
    events
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A running `quarry watch --json`, whose lines are gathered. Ends with its guard.
struct Watching {
    child: Child,
    lines: Arc<Mutex<Vec<Value>>>,
    readers: Vec<thread::JoinHandle<String>>,
}

impl Watching {
    fn start(masters: &str, args: &[&str]) -> Self {
        let mut child = cli::start(masters, &[&["watch", "--json"], args].concat());
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let lines: Arc<Mutex<Vec<Value>>> = Arc::default();
        let gather = Arc::clone(&lines);
        let out = thread::spawn(move || Self::gather(out, &gather));
        let err = thread::spawn(move || Self::read(err));
        Watching { child, lines, readers: vec![out, err] }
    }

    fn gather(out: ChildStdout, lines: &Mutex<Vec<Value>>) -> String {
        for line in BufReader::new(out).lines() {
            let line = line.expect("text");
            lines.lock().expect("no panic").push(serde_json::from_str(&line).expect("JSON"));
        }
        String::new()
    }

    fn read(mut err: ChildStderr) -> String {
        let mut text = String::new();
        err.read_to_string(&mut text).expect("text");
        text
    }

    fn seen(&self) -> Vec<Value> {
        self.lines.lock().expect("no panic").clone()
    }

    /// Waits for an event.
    fn wait(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, LIMIT, || {
            let seen = self.seen();
            seen.iter().find(|event| is(event)).cloned().ok_or_else(|| format!("{:?}", seen.last()))
        })
    }

    /// As Ctrl-C ends it: its exit code and what it said.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(pid, Signal::SIGINT).expect("it runs");
        let code = self.child.wait().expect("it ends").code();
        let said = self.readers.drain(..).map(|reader| reader.join().expect("a reader ends")).collect();
        (code, said)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn place(revision: &Value) -> (u64, u64) {
    let text = revision.as_str().expect("a revision");
    let mut parts = text.rsplit(':').map(|part| part.parse().expect("a number"));
    let (position, index) = (parts.next().expect("a position"), parts.next().expect("an index"));
    (index, position)
}

fn paths(events: &[Value], kind: &str) -> Vec<String> {
    let of = events.iter().filter(|event| event["kind"] == kind);
    of.map(|event| event["path"].as_str().expect("a path").to_owned()).collect()
}

/// Makes directories without an end, until told; those that were acknowledged.
fn make(masters: &str, stop: &AtomicBool) -> Vec<String> {
    let mut made = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let path = format!("/d{}", made.len());
        let out = cli::run(masters, &["mkdir", &path]);
        assert_eq!(out.code, 0, "{path}: {}", out.stderr);
        made.push(path);
    }
    made
}

#[test]
fn each_acknowledged_change_is_told_once_and_in_order_whichever_master_leads() {
    let mut cluster = three();
    let begin = now(&cluster);
    let (stop, masters) = (AtomicBool::new(false), cluster.masters.clone());
    let watching = Watching::start(&masters, &["--from", &begin, "--only", "names"]);
    let made = thread::scope(|scope| {
        let worker = scope.spawn(|| make(&masters, &stop));
        // Whatever fails here must let it end.
        let hurt = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..2 {
                let (old, told) = (leader(&cluster), watching.seen().len());
                wait::until("changes to be told", LIMIT, || match watching.seen().len() {
                    now if now > told + 5 => Ok(()),
                    now => Err(now.to_string()),
                });
                at(&mut cluster, &old).kill();
                assert_ne!(leader(&cluster), old);
                at(&mut cluster, &old).restart();
            }
            let frozen = leader(&cluster);
            at(&mut cluster, &frozen).process().signal(Signal::SIGSTOP);
            assert_ne!(leader(&cluster), frozen);
            at(&mut cluster, &frozen).process().signal(Signal::SIGCONT);
            let told = watching.seen().len();
            hand_over(&cluster, &["step-down"]);
            wait::until("changes to be told by the next leader", LIMIT, || match watching.seen().len() {
                now if now > told + 5 => Ok(()),
                now => Err(now.to_string()),
            });
        }));
        stop.store(true, Ordering::Relaxed);
        let made = worker.join().expect("the worker ends");
        hurt.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        made
    });
    let last = made.last().expect("something was made").clone();
    let told = watching.wait("the last change to be told", |event| event["path"] == last.as_str());
    let seen = watching.seen();
    assert_eq!(paths(&seen, "directory"), made, "each once, in the order in which it was acknowledged");
    assert!(seen.windows(2).all(|two| place(&two[0]["revision"]) < place(&two[1]["revision"])));
    // Interrupted, it says how to go on, and one goes on there.
    let (code, said) = watching.interrupt();
    let go_on = said.split_once("--from ").expect("how to go on").1;
    let go_on = go_on.split_whitespace().next().expect("a revision").to_owned();
    assert_eq!(code, Some(130), "{said}");
    assert!(place(&Value::from(go_on.as_str())) >= place(&told["revision"]), "{said}");
    cluster.quarry(&["mkdir", "/next"]).ok();
    assert_eq!(paths(&since(&cluster, &go_on, &[]), "directory"), ["/next"]);
    // Each master has the same events: whoever leads tells the same again.
    let told = since(&cluster, &begin, &["--only", "names"]);
    for master in ["m1", "m2", "m3"] {
        hand_over(&cluster, &["transfer-leader", master]);
        assert_eq!(since(&cluster, &begin, &["--only", "names"]), told, "{} tells something else", leader(&cluster));
    }
}

#[test]
fn what_happens_to_files_is_told_to_those_who_watch_them() {
    let cluster = Cluster::start(&Options::default());
    let begin = now(&cluster);
    cluster.quarry(&["mkdir", "/a", "/b"]).ok();
    let watching = Watching::start(&cluster.masters, &["--from", &begin, "--only", "names", "/a/f"]);
    cluster.put("/a/f", &[], b"one");
    cluster.put("/a/f", &["--overwrite"], b"three");
    cluster.put("/b/f", &[], b"one");
    let more = cluster.path("more");
    std::fs::write(&more, b"more").expect("a file");
    cluster.quarry(&["append", more.to_str().expect("text"), "/a/f"]).ok();
    cluster.quarry(&["mv", "/a", "/c"]).ok();
    cluster.quarry(&["rm", "/c/f"]).ok();
    cluster.quarry(&["mv", "/c", "/a"]).ok();
    cluster.quarry(&["undelete", "/a/f"]).ok();
    cluster.quarry(&["rm", "--now", "/a/f"]).ok();
    watching.wait("the file to be gone", |event| event["kind"] == "removed");
    let kinds: Vec<Value> = watching.seen().iter().map(|event| event["kind"].clone()).collect();
    assert_eq!(
        kinds,
        ["directory", "completed", "completed", "grown", "completed", "renamed", "renamed", "undeleted", "removed"]
    );
    let seen = watching.seen();
    let stat = |event: &Value| (event["length"].as_u64(), event["replaced"].as_u64());
    assert_eq!(
        (stat(&seen[1]), stat(&seen[2]), stat(&seen[4])),
        ((Some(3), None), (Some(5), seen[1]["inode"].as_u64()), (Some(9), None))
    );
    // People read lines.
    let text = cluster.quarry(&["watch", "--until-now", "--from", &begin, "/b"]).text();
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    assert!(words.iter().any(|line| line.ends_with(&["completed", "/b/f", "(3", "bytes)"])), "{text}");
    assert!(text.lines().all(|line| !line.contains("/a/f")), "{text}");
    assert_eq!(words.last().map(|line| line[1]), Some("reached"), "{text}");
    // Nobody watches any more.
    drop(watching);
    for bad in [&["watch", "no-slash"][..], &["watch", "--from", "7"], &["watch", "/", "--only", "colours"]] {
        assert_eq!(cluster.quarry(bad).code, 2, "{bad:?}");
    }
}

#[test]
fn s9_a_watcher_that_is_slow_is_told_all_that_is_kept_and_then_that_it_was_too_slow() {
    let cluster = Cluster::start(&Options { chunkservers: 0, ..Options::default() });
    cluster.set(&["watch-events=100"]);
    let begin = now(&cluster);
    // Nobody reads what it prints.
    let slow = cli::start(&cluster.masters, &["watch", "--json", "--from", &begin, "--only", "names"]);
    let deep = "/a".repeat(250);
    for round in 0..10 {
        let dirs: Vec<String> = (0..8).map(|n| format!("/{round}-{n}{}", &deep[..deep.len() - 2])).collect();
        let dirs: Vec<&str> = dirs.iter().map(String::as_str).collect();
        cluster.quarry(&[&["mkdir", "-p"], &dirs[..]].concat()).ok();
    }
    // What it gets now: everything from the beginning on without a gap, until what was not kept for it.
    let out = cli::collect(slow);
    let seen = lines(std::str::from_utf8(&out.stdout).expect("text"));
    assert_eq!(out.code, 4, "{} events, {}", seen.len(), out.stderr);
    assert!(out.stderr.contains("Compacted") && out.stderr.contains("watch from now on"), "{}", out.stderr);
    assert!(!out.stderr.contains("go on from here"), "{}", out.stderr);
    assert!(seen.len() < 10 * 8 * 250, "it was told everything: it was not slow");
    let (mut dir, mut depth) = (String::new(), 0);
    for (n, path) in paths(&seen, "directory").iter().enumerate() {
        if depth == 0 {
            dir = format!("/{}-{}", n / 250 / 8, n / 250 % 8);
        } else {
            dir.push_str("/a");
        }
        depth = (depth + 1) % 250;
        assert_eq!(*path, dir, "event {n}");
    }
    // The revision is gone for everyone, by every way to ask.
    let refused = cluster.quarry(&["watch", "--until-now", "--from", &begin]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("are gone") && refused.stderr.contains("watch-events"), "{}", refused.stderr);
    let kept = since(&cluster, "oldest", &[]);
    assert!((100..500).contains(&kept.len()), "{}", kept.len());
    let ahead = cluster.quarry(&["watch", "--until-now", "--from", &{
        let at = now(&cluster);
        let (lineage, _) = at.split_once(':').expect("a revision");
        format!("{lineage}:99999999:1")
    }]);
    assert!(ahead.code == 2 && ahead.stderr.contains("lies ahead"), "{}", ahead.stderr);
}

#[test]
fn a_revision_of_before_a_restore_is_refused_and_says_so() {
    let mut cluster = Cluster::start(&Options { chunkservers: 1, ..Options::default() });
    cluster.quarry(&["mkdir", "/kept"]).ok();
    let file = cluster.path("backup");
    cluster.quarry(&["metadata", "backup", file.to_str().expect("text")]).ok();
    let in_backup = now(&cluster);
    cluster.quarry(&["mkdir", "/lost"]).ok();
    let after = now(&cluster);
    let mut watching = Watching::start(&cluster.masters, &["--from", &in_backup]);
    watching.wait("what is lost later", |event| event["path"] == "/lost");
    cluster.master.kill();
    std::fs::remove_dir_all(&cluster.master.data).expect("its disk is wiped");
    let restored = Command::new(binary("quarry-master"))
        .args(["restore", "--advertise", &cluster.master.address, "--data"])
        .arg(&cluster.master.data)
        .arg("--key-file")
        .arg(cluster.path("cluster.key"))
        .arg("--from")
        .arg(&file)
        .output()
        .expect("quarry-master starts");
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    cluster.master.restart();
    // Also one that runs on over it is told, and does not go on as if nothing were.
    let code = watching.child.wait().expect("it ends").code();
    let said: String = watching.readers.drain(..).map(|reader| reader.join().expect("a reader ends")).collect();
    assert!(code == Some(4) && said.contains("OtherLineage"), "{code:?} {said}");
    for revision in [&in_backup, &after] {
        let refused = cluster.quarry(&["watch", "--until-now", "--from", revision]);
        assert_eq!(refused.code, 4, "{}", refused.stderr);
        assert!(refused.stderr.contains("another history"), "{}", refused.stderr);
    }
    cluster.quarry(&["mkdir", "/new"]).ok();
    let kept = since(&cluster, "oldest", &[]);
    assert_eq!((&kept[0]["kind"], &kept[0]["cause"]), (&"lineage".into(), &"restored".into()));
    assert_eq!(paths(&kept, "directory"), ["/new"]);
}

#[test]
fn what_is_believed_of_a_chunkserver_is_told_once_whoever_leads() {
    let mut cluster = three();
    cluster.wait_alive(3);
    let begin = now(&cluster);
    let id = cluster.status_of(0)["id"].as_str().expect("an id").to_owned();
    let watching = Watching::start(&cluster.masters, &["--from", &begin, "--only", "verdicts,servers"]);
    let verdict = |is: &'static str| {
        let id = id.clone();
        move |event: &Value| event["kind"] == "server-verdict" && event["server"] == id.as_str() && event["is"] == is
    };
    cluster.servers[0].kill();
    watching.wait("its death to be told", verdict("dead"));
    let old = leader(&cluster);
    at(&mut cluster, &old).kill();
    assert_ne!(leader(&cluster), old);
    // The new leader finds it dead too, and that is not told again.
    cluster.wait_state(0, "dead", LIMIT);
    cluster.servers[0].restart();
    watching.wait("its return to be told", verdict("alive"));
    cluster.wait_state(0, "alive", LIMIT);
    let of_it = |event: &&Value| event["server"] == id.as_str();
    let seen = watching.seen();
    let said: Vec<(&str, &str)> = seen
        .iter()
        .filter(of_it)
        .map(|event| (event["kind"].as_str().expect("a kind"), event["is"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(said, [("server-verdict", "dead"), ("server-registered", ""), ("server-verdict", "alive")]);
    let address = cluster.servers[0].address.clone();
    cluster.quarry(&["drain", "--no-wait", &address]).ok();
    let wish = watching.wait("what is wanted of it", |event| event["kind"] == "server-wish");
    assert_eq!((&wish["wish"], &wish["server"]), (&"draining".into(), &id.as_str().into()));
    at(&mut cluster, &old).restart();
}
