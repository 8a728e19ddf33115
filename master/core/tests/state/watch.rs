//! What those who watch are told.

use quarry_master_core::{
    command::*,
    keys,
    query::{self, EventsPage, WatchFilter, WatchFrom},
    reply::Reply,
    rows::{Change, Event, FileState, Move, Place, Record as _, ReplicasSet, Server, ServerJudged, Takeaway},
    tables::{ReadTables as _, Table},
};
use quarry_types::{ChunkId, ClusterId, Epoch, ErrorCode, InodeId, Lineage, NodeId, Revision};

use crate::world::{World, add_chunk, create, put, sealed, server};

const EVERYTHING: usize = usize::MAX / 2;

fn all(path: &str) -> WatchFilter {
    WatchFilter { path: path.into(), names: true, servers: true, verdicts: true, cluster: true }
}

fn watch(world: &World, from: WatchFrom) -> EventsPage {
    query::events(&world.tables, from, &all("/"), EVERYTHING, EVERYTHING).unwrap()
}

fn now(world: &World) -> Revision {
    watch(world, WatchFrom::Now).reached
}

/// What `work` tells, and that each of its events has the revision behind the one before.
fn told<T>(world: &mut World, work: impl FnOnce(&mut World) -> T) -> (Vec<Change>, T) {
    let before = now(world);
    let done = work(world);
    let page = watch(world, WatchFrom::After(before));
    let places: Vec<_> = page.events.iter().map(|event| event.revision.place()).collect();
    assert!(places.is_sorted() && places.first().is_none_or(|first| *first > before.place()));
    assert_eq!(page.reached, now(world));
    (page.events.into_iter().map(|view| view.event.change).collect(), done)
}

fn names(changes: &[Change]) -> Vec<String> {
    let short = |change: &Change| {
        let paths: Vec<&str> = change.paths().into_iter().flatten().collect();
        let name = format!("{change:?}");
        format!("{} {}", name.split('(').next().unwrap(), paths.join(" ")).trim_end().to_owned()
    };
    changes.iter().map(short).collect()
}

fn code(world: &World, from: Revision) -> (ErrorCode, String) {
    match query::events(&world.tables, WatchFrom::After(from), &all("/"), 10, EVERYTHING).unwrap_err() {
        query::Fault::Refused(refusal) => (refusal.code, refusal.message),
        other => panic!("{other}"),
    }
}

#[test]
fn each_change_of_the_namespace_is_told_once_and_in_order() {
    let mut world = World::new();
    let (changes, file) = told(&mut world, |w| w.file("/f", b"abc"));
    let state = |file: &quarry_master_core::reply::FileView, replaced| FileState {
        path: file.path.clone(),
        inode: file.inode,
        version: file.version,
        length: file.length,
        crc: file.crc,
        replaced,
    };
    assert_eq!(changes, [Change::Completed(state(&file, InodeId(0)))], "an atomic put shows when it is whole");
    let (changes, again) = told(&mut world, |w| w.file("/f", b"abcd"));
    assert_eq!(changes, [Change::Completed(state(&again, file.inode))]);
    let (changes, _) = told(&mut world, |w| {
        let parents = |path: &str| Mkdir { path: path.into(), parents: true };
        w.client(Mutation::Mkdir(parents("/a/b/c"))).unwrap();
        w.client(Mutation::Mkdir(parents("/a/b"))).unwrap();
    });
    assert_eq!(names(&changes), ["DirectoryMade /a", "DirectoryMade /a/b", "DirectoryMade /a/b/c"]);
    let (changes, _) = told(&mut world, |w| w.rename("/f", "/a/g", false).unwrap());
    let step =
        Move { from: "/f".into(), to: "/a/g".into(), inode: again.inode, directory: false, replaced: InodeId(0) };
    assert_eq!(changes, [Change::Renamed(step)]);
    let (changes, _) = told(&mut world, |w| w.rename("/a/", "/z/", false).unwrap());
    assert_eq!(names(&changes), ["Renamed /a /z"], "of a directory one event tells all");
    let (changes, _) = told(&mut world, |w| w.rename("/z", "/z", false).unwrap());
    assert_eq!(changes, [], "what changes nothing is not told");
    let (changes, _) = told(&mut world, |w| (w.set_replicas("/z/g", 5), w.set_replicas("/z/g", 5)));
    let place = Place { path: "/z/g".into(), inode: again.inode, directory: false };
    assert_eq!(changes, [Change::ReplicasSet(ReplicasSet { place: place.clone(), replicas: 5 })]);
    let (changes, _) = told(&mut world, |w| {
        w.remove("/z/g", false, false).unwrap();
        w.undelete("/z/g", 0, "/back").unwrap();
        w.remove("/back", false, true).unwrap();
    });
    assert_eq!(names(&changes), ["Removed /z/g", "Undeleted /z/g /back", "Removed /back"]);
    assert_eq!(changes[0], Change::Removed(Takeaway { place, kept_ms: 24 * 3_600_000 }));
    assert!(matches!(&changes[2], Change::Removed(gone) if gone.kept_ms == 0));
}

#[test]
fn a_file_that_is_visible_while_it_is_written_is_told_of_as_it_grows() {
    let mut world = World::new();
    let (changes, mut file) = told(&mut world, |w| w.create("/s", CreateMode::Visible).unwrap());
    assert_eq!(names(&changes), ["Created /s"]);
    let (changes, _) = told(&mut world, |w| w.write(&mut file, b"abc"));
    assert_eq!(names(&changes), ["Grown /s"]);
    assert!(matches!(&changes[0], Change::Grown(state) if state.length == 3));
    // A seal that comes with the next call, which is refused: the seal stays, and is told.
    let chunk = world.add(&file, 100).unwrap();
    let (changes, refused) = told(&mut world, |w| {
        let mut bad = add_chunk(&file, 100);
        bad.seals = vec![sealed(chunk, b"de", &[server(1), server(2)])];
        w.code(Mutation::AddChunk(bad))
    });
    assert_eq!((names(&changes), refused), (vec!["Grown /s".to_owned()], ErrorCode::Conflict));
    file.wrote(chunk, b"de");
    let (changes, _) = told(&mut world, |w| w.complete(&file).unwrap());
    assert_eq!(names(&changes), ["Completed /s"]);
    let open = Mutation::OpenAppend(OpenAppend { path: "/s".into() });
    let (changes, lost) = told(&mut world, |w| put(w.client(open).unwrap()));
    assert_eq!(changes, [], "a lease is not told of");
    let (changes, _) = told(&mut world, |w| w.ok(Kind::ExpireLease(ExpireLease { lease: lost.lease })));
    assert_eq!(names(&changes), ["Abandoned /s"]);
    // What nobody sees is not told.
    let pending = world.create("/p", CreateMode::Replace).unwrap();
    let (changes, _) = told(&mut world, |w| w.ok(Kind::ExpireLease(ExpireLease { lease: pending.lease })));
    assert_eq!(changes, []);
}

#[test]
fn what_leaves_the_trash_for_good_is_told_with_the_path_that_it_had() {
    let mut world = World::new();
    world.mkdir("/d");
    world.file("/d/f", b"");
    world.file("/d/g", b"");
    world.remove("/d/f", false, false).unwrap();
    world.rename("/d", "/e", false).unwrap();
    let lying = query::trash(&world.tables, "/", &[], 10).unwrap().entries;
    let removals = lying.iter().map(|entry| Removal { inode: entry.file.inode, removal: entry.removal }).collect();
    let (changes, _) = told(&mut world, |w| w.ok(Kind::EmptyTrash(EmptyTrash { removals })));
    assert_eq!(names(&changes), ["Purged /e/f"], "its directory has another name now");
    world.remove("/e/g", false, false).unwrap();
    world.tick(1);
    world.remove("/e", true, false).unwrap();
    world.pass(25 * 3_600_000 + 3_600_000);
    let (changes, _) = told(&mut world, |w| w.collect(1000));
    assert_eq!(names(&changes), ["Purged /e/g", "Purged /e"]);
    // Where the directory went first, nobody knows the path any more.
    world.mkdir("/d");
    world.file("/d/f", b"");
    world.remove("/d/f", false, false).unwrap();
    world.remove("/d", true, false).unwrap();
    world.pass(25 * 3_600_000 + 3_600_000);
    let before = now(&world);
    let (changes, _) = told(&mut world, |w| w.collect(1000));
    assert_eq!(names(&changes), ["Purged /d", "Purged"]);
    let of_d = query::events(&world.tables, WatchFrom::After(before), &all("/d"), EVERYTHING, EVERYTHING).unwrap();
    assert_eq!(of_d.events.len(), 1);
}

#[test]
fn a_refused_command_tells_nothing_and_a_repeated_one_nothing_again() {
    let mut world = World::new();
    world.file("/f", b"");
    let (changes, _) = told(&mut world, |w| {
        w.client(Mutation::Mkdir(Mkdir { path: "/f".into(), parents: false })).unwrap_err();
        // Directories that were made before the refusal are taken back, and what was told of them.
        let below = Mutation::Create(Create { parents: true, ..create("/x/y/../z", CreateMode::Visible) });
        w.client(below).unwrap_err();
        let below = Create { parents: true, replicas: 0, ..create("/f/x/y", CreateMode::Visible) };
        w.client(Mutation::Create(below)).unwrap_err();
        let taken = Create { parents: true, mode: CreateMode::IfUnchanged, ..create("/n/m", CreateMode::IfUnchanged) };
        w.client(Mutation::Create(taken)).unwrap_err();
    });
    assert_eq!(changes, []);
    let op = world.op();
    let mkdir = || Mutation::Mkdir(Mkdir { path: "/d".into(), parents: false });
    let (changes, _) = told(&mut world, |w| {
        w.ok(Kind::Client(ClientCommand { op: op.clone(), mutation: mkdir() }));
        w.ok(Kind::Client(ClientCommand { op: op.clone(), mutation: mkdir() }));
    });
    assert_eq!(names(&changes), ["DirectoryMade /d"]);
}

fn register(address: &str, start_counter: u64) -> Kind {
    let durability = Durability::Sealed;
    Kind::PutServer(PutServer {
        server: server(1),
        address: address.into(),
        rack: "r".into(),
        start_counter,
        durability,
        start_id: start_counter,
    })
}

fn wish(wish: ServerWish, for_ms: u64, automatic: bool) -> Kind {
    Kind::SetServer(SetServer { server: server(1), wish, for_ms, automatic })
}

#[test]
fn changes_of_chunkservers_settings_and_leaders_are_told() {
    let mut world = World::new();
    let (changes, _) = told(&mut world, |w| {
        w.ok(register("h:1", 1));
        w.ok(register("h:1", 1));
        w.ok(register("h:2", 2));
        w.ok(wish(ServerWish::Maintenance, 60_000, true));
        w.ok(register("h:2", 2));
        w.ok(wish(ServerWish::Draining, 0, false));
        w.ok(wish(ServerWish::Draining, 0, false));
        w.ok(register("h:2", 1));
        w.ok(Kind::TrustServer(TrustServer { server: server(1), start_counter: 1, start_id: 1 }));
    });
    let expected = [
        "ServerRegistered",
        "ServerRegistered",
        "ServerWished",
        "ServerWished",
        "ServerWished",
        "ServerRegistered",
        "ServerTrusted",
    ];
    assert_eq!(names(&changes), expected);
    assert!(
        matches!(&changes[3], Change::ServerWished(w) if w.wish == ServerWish::Active && w.automatic),
        "it is back"
    );
    assert!(matches!(&changes[5], Change::ServerRegistered(r) if r.old_image && !r.new));
    let (changes, _) = told(&mut world, |w| {
        w.set("trash", "7d");
        w.set("trash", "7d");
        w.set("min-replicas", "1");
        w.set("trash", "1d");
        w.ok(Kind::BeginEpoch(BeginEpoch { node: NodeId(2) }));
        w.ok(Kind::Tick(Tick { elapsed_ms: 5 }));
        w.ok(Kind::ReleaseHold(ReleaseHold {}));
    });
    let said = |change: &Change| match change {
        Change::SettingsChanged(set) => {
            set.changed.iter().map(|one| format!("{} {} {}", one.name, one.value, one.unset)).collect::<Vec<_>>()
        }
        Change::EpochBegun(begun) => vec![format!("{} {}", begun.epoch, begun.node)],
        other => panic!("{other:?}"),
    };
    let said: Vec<String> = changes.iter().flat_map(said).collect();
    assert_eq!(said, ["trash 604800000 false", "min-replicas 1 false", "trash 0 true", "e2 m2"]);
}

fn announce(epoch: u64, verdict: Verdict) -> Kind {
    let verdicts = vec![ServerVerdict { server: server(1), verdict }, ServerVerdict { server: server(9), verdict }];
    Kind::Announce(Announce { epoch: Epoch(epoch), verdicts })
}

#[test]
fn verdicts_are_told_when_they_differ_from_what_was_told_last() {
    let mut world = World::new();
    world.ok(register("h:1", 1));
    let (changes, _) = told(&mut world, |w| {
        // A server that nothing was said of counts as alive; one that is not known is passed over.
        w.ok(announce(1, Verdict::Alive));
        w.ok(announce(1, Verdict::Dead));
        w.ok(announce(1, Verdict::Dead));
        // Its registration does not make it forgotten that it was dead.
        w.ok(register("h:1", 2));
        // A new leader repeats nothing; an old one is not believed.
        w.ok(Kind::BeginEpoch(BeginEpoch { node: NodeId(2) }));
        w.ok(announce(2, Verdict::Dead));
        w.ok(announce(1, Verdict::Alive));
        w.ok(announce(2, Verdict::Alive));
        w.ok(announce(2, Verdict::Partitioned));
    });
    let judged = |from, to| Change::ServerJudged(ServerJudged { server: server(1), from, to });
    let verdicts: Vec<Change> = changes.into_iter().filter(|c| matches!(c, Change::ServerJudged(_))).collect();
    assert_eq!(
        verdicts,
        [
            judged(Verdict::None, Verdict::Dead),
            judged(Verdict::Dead, Verdict::Alive),
            judged(Verdict::Alive, Verdict::Partitioned)
        ]
    );
    let too_many = vec![ServerVerdict { server: server(1), verdict: Verdict::Dead }; 257];
    let refused = world.refused(Kind::Announce(Announce { epoch: Epoch(2), verdicts: too_many }));
    assert_eq!(refused, ErrorCode::InvalidArgument);
}

#[test]
fn a_verdict_is_due_when_it_differs_and_a_suspicion_never_is() {
    use quarry_master_core::detector::Health;
    for told in [Verdict::None, Verdict::Alive] {
        assert_eq!(Verdict::due(told, Health::Alive), None);
        assert_eq!(Verdict::due(told, Health::Dead), Some(Verdict::Dead));
    }
    assert_eq!(Verdict::due(Verdict::Dead, Health::Suspect), None, "it is not back yet");
    assert_eq!(Verdict::due(Verdict::Dead, Health::Dead), None);
    assert_eq!(Verdict::due(Verdict::Dead, Health::Partitioned), Some(Verdict::Partitioned));
    assert_eq!(Verdict::due(Verdict::Partitioned, Health::Alive), Some(Verdict::Alive));
}

#[test]
fn a_watcher_is_told_of_its_path_what_is_below_and_what_is_above() {
    let mut world = World::new();
    let before = now(&world);
    for path in ["/a", "/ab", "/b"] {
        world.mkdir(path);
    }
    world.file("/a/f", b"");
    world.file("/ab/f", b"");
    world.rename("/b", "/a/b", false).unwrap();
    world.rename("/a", "/c", false).unwrap();
    world.ok(register("h:1", 1));
    let told = |filter: &WatchFilter| {
        let page = query::events(&world.tables, WatchFrom::After(before), filter, EVERYTHING, EVERYTHING).unwrap();
        assert_eq!(page.reached, now(&world), "what is not wanted was passed over all the same");
        names(&page.events.into_iter().map(|view| view.event.change).collect::<Vec<_>>())
    };
    let only = |path: &str| WatchFilter { servers: false, ..all(path) };
    assert_eq!(
        told(&only("/a")),
        ["DirectoryMade /a", "Completed /a/f", "Renamed /b /a/b", "Renamed /a /c"],
        "not /ab: names are compared, not letters"
    );
    assert_eq!(told(&only("/a/f/")), ["DirectoryMade /a", "Completed /a/f", "Renamed /a /c"]);
    assert_eq!(told(&only("/b/x")), ["DirectoryMade /b", "Renamed /b /a/b"]);
    assert_eq!(told(&only("/c/new/file")), ["Renamed /a /c"]);
    assert_eq!(told(&WatchFilter { names: false, ..all("/") }), ["ServerRegistered"]);
    assert_eq!(told(&all("/")).len(), 8);
}

#[test]
fn pages_go_on_where_the_one_before_ended() {
    let mut world = World::new();
    let before = now(&world);
    for i in 0..50 {
        world.mkdir(&format!("/{i}"));
    }
    let whole = watch(&world, WatchFrom::After(before)).events;
    assert_eq!(whole.len(), 50);
    for (rows, bytes) in [(1, EVERYTHING), (7, EVERYTHING), (50, EVERYTHING), (EVERYTHING, 1), (EVERYTHING, 100)] {
        let (mut at, mut parts, mut pages) = (before, Vec::new(), 0);
        loop {
            let page = query::events(&world.tables, WatchFrom::After(at), &all("/"), rows, bytes).unwrap();
            parts.extend(page.events);
            (at, pages) = (page.reached, pages + 1);
            if !page.more {
                break;
            }
        }
        assert!(parts == whole && pages > 1 || rows == 50, "{rows} {bytes}: {} in {pages}", parts.len());
    }
}

#[test]
fn s9_the_table_of_events_is_bounded_and_says_what_is_gone() {
    let mut world = World::new();
    world.set("watch-events", "100");
    let first = now(&world);
    let mut most = 0;
    for i in 0..300 {
        world.mkdir(&format!("/{i}"));
        most = most.max(world.tables.rows(Table::Event).count());
    }
    assert!((100..=164).contains(&most), "{most}");
    let (code_of, message) = code(&world, first);
    assert_eq!(code_of, ErrorCode::Compacted);
    assert!(message.contains("watch from now on") && message.contains("watch-events"), "{message}");
    let oldest = watch(&world, WatchFrom::Oldest);
    let begin = watch(&world, WatchFrom::Oldest).events[0].revision;
    assert_eq!(oldest.events.len(), world.tables.rows(Table::Event).count());
    // Behind the last one that is gone one can go on; before it not.
    let gone = Revision { index: begin.index - 1, ..begin };
    assert_eq!(watch(&world, WatchFrom::After(gone)).events.len(), oldest.events.len());
    assert_eq!(code(&world, Revision { index: begin.index - 2, ..begin }).0, ErrorCode::Compacted);
    // A bound that is lowered is reached step by step, and one command removes no more than so many.
    world.set("watch-events", "100000");
    for i in 0..500 {
        world.mkdir(&format!("/more-{i}"));
    }
    world.set("watch-events", "100");
    let mut before = world.tables.rows(Table::Event).count();
    assert!(before > 500);
    for i in 0..300 {
        world.mkdir(&format!("/last-{i}"));
        let rows = world.tables.rows(Table::Event).count();
        assert!(rows + 256 >= before, "{before} → {rows}");
        before = rows;
    }
    assert!(before <= 164, "{before}");
}

#[test]
fn s9_one_command_that_tells_much_leaves_the_table_bounded() {
    let mut world = World::new();
    world.set("watch-events", "100");
    for i in 0..600 {
        world.file(&format!("/{i}"), b"");
    }
    for i in 0..600 {
        world.remove(&format!("/{i}"), false, false).unwrap();
    }
    world.pass(25 * 3_600_000 + 3_600_000);
    let (code_of, before) = (|world: &World, at| code(world, at).0, now(&world));
    assert_eq!(world.collect(1000).worked, 600);
    assert!(world.tables.rows(Table::Event).count() <= 164);
    assert_eq!(code_of(&world, before), ErrorCode::Compacted, "more was told at once than is kept");
}

#[test]
fn revisions_of_another_lineage_and_from_the_future_are_refused() {
    let mut world = World::new();
    world.mkdir("/d");
    let old = now(&world);
    let from = query::cluster(&world.tables).unwrap().unwrap().lineage;
    let ahead = Revision { index: old.index + 1, ..old };
    let (code_of, message) = code(&world, ahead);
    assert_eq!(code_of, ErrorCode::InvalidArgument);
    assert!(message.contains("lies ahead"), "{message}");
    let to = Lineage { number: 2, id: ClusterId::from_random(77).0 };
    world.ok(Kind::BeginLineage(BeginLineage { from, to, cause: LineageCause::Restored, node: NodeId(7) }));
    let (code_of, message) = code(&world, old);
    assert_eq!(code_of, ErrorCode::OtherLineage);
    assert!(message.contains("watch from now on") && message.contains("lineage 2-"), "{message}");
    assert_eq!(code(&world, Revision { lineage: Lineage { id: from.id, ..to }, ..old }).0, ErrorCode::OtherLineage);
    // What the earlier lineage told is not told as if it were of this one.
    let page = watch(&world, WatchFrom::Oldest);
    assert_eq!(names(&page.events.iter().map(|v| v.event.change.clone()).collect::<Vec<_>>()), ["LineageBegun"]);
    assert_eq!(code(&world, Revision { lineage: to, ..old }).0, ErrorCode::Compacted);
    world.session = world.open_session(99);
    world.sequence = 0;
    world.ok(Kind::ReleaseHold(ReleaseHold {}));
    world.set("watch-events", "100");
    for i in 0..300 {
        world.mkdir(&format!("/{i}"));
    }
    assert!(world.tables.rows(Table::Event).count() <= 164, "those of the earlier one go too");
}

/// A state that an older build made has no events: they begin with a command, at the same place on every master.
#[test]
fn events_begin_with_a_command_in_a_state_of_an_older_build() {
    let mut world = World::new();
    let events: Vec<Vec<u8>> = world.tables.rows(Table::Event).map(|(key, _)| key.to_vec()).collect();
    let mut changes: Vec<_> = events.into_iter().map(|key| (Table::Event, key, None)).collect();
    changes.push((Table::Meta, keys::EVENTS.to_vec(), None));
    world.tables.write(changes);
    world.mkdir("/before");
    assert_eq!(world.tables.rows(Table::Event).count(), 0);
    assert!(!query::events_begun(&world.tables).unwrap());
    let refused = query::events(&world.tables, WatchFrom::Now, &all("/"), 10, 10).unwrap_err();
    assert!(matches!(refused, query::Fault::Refused(why) if why.code == ErrorCode::Unavailable));
    assert_eq!(world.ok(Kind::Announce(Announce { epoch: Epoch(0), verdicts: vec![] })), Reply::DONE);
    assert!(!query::events_begun(&world.tables).unwrap(), "a leader of the past begins nothing");
    world.ok(Kind::Announce(Announce { epoch: Epoch(1), verdicts: vec![] }));
    let begin = now(&world);
    world.mkdir("/after");
    let page = watch(&world, WatchFrom::After(begin));
    assert_eq!(names(&page.events.into_iter().map(|v| v.event.change).collect::<Vec<_>>()), ["DirectoryMade /after"]);
    assert_eq!(code(&world, Revision { index: begin.index - 1, ..begin }).0, ErrorCode::Compacted);
}

#[test]
fn an_event_is_two_rows_beside_the_change() {
    let mut world = World::new();
    let (index, before) = (world.index, world.tables.clone());
    world.mkdir("/d");
    let row = world.tables.get(Table::Event, &keys::event(index + 1, 1)).unwrap().unwrap();
    assert!(row.len() < 40, "{}", row.len());
    assert_eq!(Event::decode(&row).unwrap().wall_ms, 1000 + index + 1);
    assert_eq!(world.tables.rows(Table::Event).count(), before.rows(Table::Event).count() + 1);
    let chunk = ChunkId(1);
    let (changes, _) = told(&mut world, |w| w.ok(Kind::ForgetDoomed(ForgetDoomed { chunks: vec![chunk] })));
    assert_eq!(changes, []);
    let row = world.tables.get(Table::Server, &keys::server(server(1))).unwrap();
    assert_eq!(row.map(|row| Server::decode(&row)), None);
}
