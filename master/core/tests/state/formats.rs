//! The bytes of commands, rows and outcomes: what one build writes every later one reads.

use proptest::prelude::*;
use quarry_master_core::{
    DecodeError,
    command::*,
    keys, query,
    reply::*,
    rows::*,
    tables::{MemTables, Table},
};
use quarry_types::{
    ChunkId, ClusterId, Crc32, Epoch, ErrorCode, InodeId, LeaseId, Lineage, NodeId, ServerId, SessionId,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn server(number: u128) -> ServerId {
    ServerId::from_bytes(&number.to_be_bytes()).unwrap()
}

fn cluster() -> ClusterId {
    ClusterId::from_bytes(&[0xc1; 16]).unwrap()
}

fn lineage() -> Lineage {
    Lineage { number: 1, id: ClusterId::from_bytes(&[0x11; 16]).unwrap().0 }
}

fn op(mutation: Mutation) -> Kind {
    let op = OpId { session: SessionId(5), sequence: 6, acknowledged_below: 4 };
    Kind::Client(ClientCommand { op, mutation })
}

fn sealed() -> SealedChunk {
    SealedChunk { chunk: ChunkId(9), length: 10, crc: Crc32(0xdead_beef), holders: vec![server(1)] }
}

fn file_view() -> FileView {
    FileView {
        path: "/f".into(),
        inode: InodeId(7),
        version: 2,
        kind: FileKind::File,
        length: 10,
        crc: Crc32(0xdead_beef),
        replicas: 3,
        modified_ms: 99,
        open: true,
        chunks: 1,
    }
}

/// One command of each kind.
fn commands() -> Vec<Kind> {
    vec![
        Kind::CreateCluster(CreateCluster {
            cluster: cluster(),
            lineage_id: lineage().id,
            settings: Settings::default(),
        }),
        Kind::BeginEpoch(BeginEpoch { node: NodeId(3) }),
        Kind::Tick(Tick { elapsed_ms: 5000 }),
        Kind::OpenSession(OpenSession { nonce: vec![7; 16] }),
        Kind::CloseSession(CloseSession { session: SessionId(5) }),
        Kind::ExpireSessions(ExpireSessions { sessions: vec![SessionId(5), SessionId(300)] }),
        op(Mutation::Create(Create {
            path: "/f".into(),
            mode: CreateMode::IfUnchanged,
            expected_inode: InodeId(7),
            expected_version: 2,
            replicas: 3,
            parents: true,
        })),
        op(Mutation::OpenAppend(OpenAppend { path: "/f".into() })),
        op(Mutation::AddChunk(AddChunk {
            inode: InodeId(7),
            lease: LeaseId(8),
            offset: 10,
            limit: 100,
            members: vec![server(1), server(2)],
            seals: vec![sealed()],
        })),
        op(Mutation::Complete(Complete {
            inode: InodeId(7),
            lease: LeaseId(8),
            length: 10,
            crc: Crc32(0xdead_beef),
            chunks: vec![ChunkRef { chunk: ChunkId(9), offset: 0, length: 10, crc: Crc32(0xdead_beef) }],
            seals: vec![sealed()],
        })),
        op(Mutation::Abort(Abort { inode: InodeId(7), lease: LeaseId(8) })),
        op(Mutation::Mkdir(Mkdir { path: "/d".into(), parents: true })),
        op(Mutation::Rename(Rename { from: "/f".into(), to: "/g".into(), replace: true })),
        op(Mutation::Remove(Remove { path: "/f".into(), recursive: true, now: true })),
        op(Mutation::Undelete(Undelete { path: "/f".into(), inode: InodeId(7), to: "/g".into() })),
        op(Mutation::SetReplicas(SetReplicas { path: "/f".into(), replicas: 5 })),
        Kind::Seal(sealed()),
        Kind::ConfirmReplicas(ConfirmReplicas { chunk: ChunkId(9), servers: vec![server(2)], gone: vec![] }),
        Kind::ExpireLease(ExpireLease { lease: LeaseId(8) }),
        Kind::CollectRemoved(CollectRemoved { limit: 100 }),
        Kind::ForgetDoomed(ForgetDoomed { chunks: vec![ChunkId(9)] }),
        Kind::PutServer(PutServer {
            server: server(1),
            address: "h:1".into(),
            rack: "r".into(),
            start_counter: 4,
            durability: Durability::Buffered,
            start_id: 0,
        }),
        Kind::PutServer(PutServer {
            server: server(1),
            address: "h:1".into(),
            rack: "r".into(),
            start_counter: 4,
            durability: Durability::Sealed,
            start_id: 7,
        }),
        Kind::PutSettings(PutSettings { settings: Settings::default() }),
        Kind::TrustServer(TrustServer { server: server(1), start_counter: 4, start_id: 0 }),
        Kind::TrustServer(TrustServer { server: server(1), start_counter: 4, start_id: 7 }),
        Kind::SetServer(SetServer {
            server: server(1),
            wish: ServerWish::Maintenance,
            for_ms: 60_000,
            automatic: true,
        }),
        Kind::EmptyTrash(EmptyTrash { removals: vec![Removal { inode: InodeId(7), removal: 3 }] }),
        Kind::FollowWanted(FollowWanted { limit: 100 }),
        Kind::NumberMaster(NumberMaster {}),
        Kind::BeginLineage(BeginLineage {
            from: lineage(),
            to: Lineage { number: 300, id: cluster().0 },
            cause: LineageCause::Recovered,
            node: NodeId(3),
        }),
        Kind::RaiseIds(RaiseIds { chunk: ChunkId(300) }),
        Kind::ReleaseHold(ReleaseHold {}),
        Kind::Announce(Announce {
            epoch: Epoch(2),
            verdicts: vec![ServerVerdict { server: server(1), verdict: Verdict::Partitioned }],
        }),
        Kind::CompareStates(CompareStates {}),
        Kind::MarkLogs(MarkLogs { logs: vec![LogMark { node: NodeId(3), index: 300 }] }),
        Kind::RaiseLevel(RaiseLevel { level: 300 }),
    ]
}

fn outcomes() -> Vec<Outcome> {
    vec![
        Ok(Reply::DONE),
        Ok(Reply::Leads(Leads { lineage: lineage(), epoch: Epoch(2) })),
        Ok(Reply::Session(OpenedSession { session: SessionId(5) })),
        Ok(Reply::Writer(Writer { inode: InodeId(7), lease: LeaseId(8), replicas: 3, length: 10, crc: Crc32(1) })),
        Ok(Reply::Chunk(AddedChunk { chunk: ChunkId(9), members: vec![server(1)], limit: 100, wanted: 3 })),
        Ok(Reply::Completed(Completed { file: file_view(), fewest_replicas: 2, wanted: 3 })),
        Ok(Reply::File(file_view())),
        Ok(Reply::Sealed(SealedAt { chunk: ChunkId(9), length: 10, crc: Crc32(1), replicas: 2 })),
        Ok(Reply::Collected(Collected { worked: 3, more: true })),
        Ok(Reply::Server(RegisteredServer { old_image: true })),
        Ok(Reply::Time(ReplicatedTime { elapsed_ms: 5000 })),
        Ok(Reply::Followed(Followed { worked: 3, more: true, chunks: vec![ChunkId(9), ChunkId(300)] })),
        Ok(Reply::Emptied(Emptied { emptied: 2 })),
        Ok(Reply::Master(NumberedMaster { node: NodeId(3) })),
        Ok(Reply::Comparison(Comparison { index: 300 })),
        Err(Refusal::new(ErrorCode::NotFound, "no")),
    ]
}

fn row<R: Record + PartialEq + std::fmt::Debug>(row: R) -> Vec<u8> {
    let bytes = row.encode();
    assert_eq!(R::decode(&bytes).unwrap(), row);
    assert!(R::decode(&[]).is_err());
    let newer = [&[2], &bytes[1..]].concat();
    let DecodeError(message) = R::decode(&newer).unwrap_err();
    assert!(message.contains("format version 2"), "{message}");
    bytes
}

fn rows() -> Vec<(&'static str, Vec<u8>)> {
    let inode = Inode {
        kind: FileKind::File,
        state: InodeState::Pending,
        parent: InodeId(1),
        name: "f".into(),
        version: 2,
        replicas: 3,
        length: 10,
        crc: Crc32(0xdead_beef),
        chunks: 1,
        modified_ms: 99,
        lease: LeaseId(8),
        mode: CreateMode::IfUnchanged,
        expected_inode: InodeId(6),
        expected_version: 4,
        collect_at_ms: 5000,
        removal: 0,
    };
    let trashed = Inode { state: InodeState::Removed, removal: 3, ..inode.clone() };
    let chunk = Chunk {
        inode: InodeId(7),
        offset: 10,
        state: ChunkState::Sealed,
        length: 10,
        crc: Crc32(0xdead_beef),
        limit: 100,
        wanted: 3,
        members: vec![server(1)],
        holders: vec![server(1), server(2)],
    };
    let lease = Lease {
        session: SessionId(5),
        inode: InodeId(7),
        start: 10,
        start_crc: Crc32(1),
        visible: true,
        open: vec![ChunkId(9), ChunkId(300)],
    };
    let counters = Counters {
        epoch: Epoch(2),
        leader: NodeId(3),
        elapsed_ms: 5000,
        next_chunk: 10,
        next_inode: 11,
        next_lease: 12,
        next_session: 13,
        removals: 0,
        last_master: NodeId(0),
    };
    let counters_with_trash = Counters { removals: 14, ..counters.clone() };
    let counters_with_masters = Counters { last_master: NodeId(15), ..counters_with_trash.clone() };
    let totals = Totals {
        files: 1,
        directories: 2,
        chunks: 3,
        open: 4,
        doomed: 5,
        removed: 6,
        leases: 7,
        sessions: 8,
        servers: 9,
        trashed: 0,
    };
    let totals_with_trash = Totals { trashed: 10, ..totals.clone() };
    let server_row = Server {
        address: "h:1".into(),
        rack: "r".into(),
        start_counter: 4,
        durability: Durability::Buffered,
        old_image: true,
        wish: ServerWish::Active,
        maintenance_until_ms: 0,
        automatic: false,
        verdict: Verdict::None,
        start_id: 0,
        first_chunk: ChunkId(0),
    };
    let named = Server { start_id: 7, first_chunk: ChunkId(300), ..server_row.clone() };
    let judged = Server { verdict: Verdict::Dead, ..server_row.clone() };
    let maintained =
        Server { wish: ServerWish::Maintenance, maintenance_until_ms: 300, automatic: true, ..server_row.clone() };
    let mut settings = Settings::default();
    settings.set(&quarry_master_core::settings::REPAIR_DELAY, 300);
    let kept = Events {
        begin: 2,
        swept_index: 300,
        swept_position: 3,
        last_index: 400,
        last_position: 5,
        count: 6,
        bytes: 700,
        unchecked: 8,
    };
    vec![
        ("inode", row(inode)),
        ("entry", row(Entry { inode: InodeId(7) })),
        ("row", row(Row { chunk: ChunkId(9) })),
        ("chunk", row(chunk)),
        ("lease", row(lease)),
        ("session", row(Session { nonce: vec![7; 16], acknowledged_below: 4, results: 2 })),
        ("nonce", row(Nonce { session: SessionId(5) })),
        ("result", row(OpResult { operation: 3, outcome: vec![1, 2, 3] })),
        ("mark", row(Mark {})),
        ("server", row(server_row)),
        ("cluster", row(Cluster { cluster: cluster(), lineage: lineage(), first_session: SessionId(0) })),
        ("counters", row(counters)),
        ("totals", row(totals)),
        ("settings", row(Settings::default())),
        ("server", row(maintained)),
        ("settings", row(settings)),
        ("inode", row(trashed)),
        ("counters", row(counters_with_trash)),
        ("totals", row(totals_with_trash)),
        ("trash", row(Trash { inode: InodeId(7), until_ms: 5000, removed_ms: 99 })),
        ("wanted", row(Wanted { from: 300 })),
        ("counters", row(counters_with_masters)),
        ("cluster", row(Cluster { cluster: cluster(), lineage: lineage(), first_session: SessionId(300) })),
        ("hold", row(Hold { cause: LineageCause::Restored, since_ms: 99, first_chunk: ChunkId(300) })),
        ("log-marks", row(LogMarks { logs: vec![LogMark { node: NodeId(3), index: 300 }] })),
        ("feature-level", row(FeatureLevel { level: 300 })),
        ("server", row(judged)),
        ("server", row(named)),
        ("events", row(Events::beginning(300))),
        ("events", row(kept)),
    ]
    .into_iter()
    .chain(changes().into_iter().map(|change| ("event", row(Event { wall_ms: 99, change }))))
    .collect()
}

/// One change of each kind.
fn changes() -> Vec<Change> {
    let file = |replaced| FileState {
        path: "/f".into(),
        inode: InodeId(7),
        version: 2,
        length: 10,
        crc: Crc32(0xdead_beef),
        replaced: InodeId(replaced),
    };
    let place = |directory| Place { path: "/f".into(), inode: InodeId(7), directory };
    let step = |replaced| Move {
        from: "/f".into(),
        to: "/g".into(),
        inode: InodeId(7),
        directory: replaced == 0,
        replaced: InodeId(replaced),
    };
    let setting = |unset, value| SettingChange { name: "trash".into(), value, unset };
    vec![
        Change::Created(file(0)),
        Change::Completed(file(6)),
        Change::Grown(file(0)),
        Change::Abandoned(file(0)),
        Change::DirectoryMade(place(true)),
        Change::Renamed(step(6)),
        Change::Removed(Takeaway { place: place(false), kept_ms: 300 }),
        Change::Undeleted(step(0)),
        Change::Purged(place(true)),
        Change::ReplicasSet(ReplicasSet { place: place(false), replicas: 5 }),
        Change::ServerRegistered(ServerRegistered {
            server: server(1),
            address: "h:1".into(),
            rack: "r".into(),
            start_counter: 4,
            old_image: true,
            new: true,
        }),
        Change::ServerWished(ServerWished {
            server: server(1),
            wish: ServerWish::Maintenance,
            for_ms: 300,
            automatic: true,
        }),
        Change::ServerTrusted(ServerTrusted { server: server(1) }),
        Change::ServerJudged(ServerJudged { server: server(1), from: Verdict::Alive, to: Verdict::Dead }),
        Change::SettingsChanged(SettingsChanged { changed: vec![setting(false, 300), setting(true, 0)] }),
        Change::EpochBegun(EpochBegun { epoch: Epoch(2), node: NodeId(3) }),
        Change::LineageBegun(LineageBegun { lineage: lineage(), cause: LineageCause::Restored }),
        Change::HoldReleased(HoldReleased {}),
    ]
}

/// Compares with the bytes that the first build wrote, a line each. These never change: a new field has a new tag.
#[test]
fn golden_bytes_of_commands_outcomes_and_rows() {
    let mut text = String::new();
    for kind in commands() {
        let command = Command { wall_ms: 1234, kind };
        let bytes = command.encode();
        assert_eq!(Command::decode(&bytes).unwrap(), command);
        assert_eq!(Command::is_comparison(&bytes), matches!(command.kind, Kind::CompareStates(_)));
        text.push_str(&format!("command {}\n", hex(&bytes)));
    }
    for outcome in outcomes() {
        let bytes = encode_outcome(&outcome);
        assert_eq!(decode_outcome(&bytes).unwrap(), outcome);
        text.push_str(&format!("outcome {}\n", hex(&bytes)));
    }
    for (name, bytes) in rows() {
        text.push_str(&format!("{name} {}\n", hex(&bytes)));
    }
    assert_eq!(text, include_str!("golden.txt"), "what this build writes:\n{text}");
}

#[test]
fn golden_bytes_of_keys() {
    assert_eq!(hex(&keys::inode(InodeId(0x0102))), "0000000000000102");
    assert_eq!(hex(&keys::entry(InodeId(1), "ab")), "00000000000000016162");
    assert_eq!(hex(&keys::row(InodeId(1), 0x10)), "00000000000000010000000000000010");
    assert_eq!(hex(&keys::removed(5, InodeId(1))), "00000000000000050000000000000001");
    assert_eq!(hex(&keys::result(SessionId(1), 2)), "00000000000000010000000000000002");
    assert_eq!(hex(&keys::server(server(1))), "00000000000000000000000000000001");
    assert_eq!(keys::read_entry(&keys::entry(InodeId(1), "ü")), Some((InodeId(1), "ü")));
    assert_eq!(hex(&keys::trash(InodeId(1), "ab", 2)), "0000000000000001616200fffffffffffffffd");
    assert_eq!(keys::read_trash(&keys::trash(InodeId(1), "ü", 2)), Some((InodeId(1), "ü", 2)));
    assert_eq!(hex(&keys::event(0x0102, 3)), "00000000000001020000000000000003");
    assert_eq!(keys::read_two(&keys::row(InodeId(1), 2)), Some((1, 2)));
    assert_eq!(keys::after(u64::MAX), None);
    let names: Vec<&str> = Table::ALL.iter().map(|t| t.name()).collect();
    assert_eq!(
        names.join(" "),
        "meta inode entry row chunk lease session removed doomed server result nonce open trash wanted event"
    );
}

fn decode_all(bytes: &[u8]) {
    let _ = Command::decode(bytes);
    let _ = decode_outcome(bytes);
    let _ = Inode::decode(bytes);
    let _ = Entry::decode(bytes);
    let _ = Row::decode(bytes);
    let _ = Chunk::decode(bytes);
    let _ = Lease::decode(bytes);
    let _ = Session::decode(bytes);
    let _ = Nonce::decode(bytes);
    let _ = OpResult::decode(bytes);
    let _ = Mark::decode(bytes);
    let _ = Server::decode(bytes);
    let _ = Cluster::decode(bytes);
    let _ = Counters::decode(bytes);
    let _ = Totals::decode(bytes);
    let _ = Settings::decode(bytes);
    let _ = Trash::decode(bytes);
    let _ = Wanted::decode(bytes);
    let _ = Hold::decode(bytes);
    let _ = FeatureLevel::decode(bytes);
    let _ = LogMarks::decode(bytes);
    let _ = (Command::level_of(bytes), Command::is_comparison(bytes));
    let _ = Event::decode(bytes);
    let _ = Events::decode(bytes);
    let _ = keys::read_trash(bytes);
    let _ = (keys::read_one(bytes), keys::read_two(bytes), keys::read_entry(bytes));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>, body: Vec<u8>) {
        decode_all(&bytes);
        decode_all(&[vec![1], body].concat());
    }

    #[test]
    fn damaged_commands_and_rows_never_panic(which: usize, at: usize, flip in 1u8.., cut: usize) {
        let mut all: Vec<Vec<u8>> =
            commands().into_iter().map(|kind| Command { wall_ms: 1, kind }.encode()).collect();
        all.extend(outcomes().iter().map(encode_outcome));
        all.extend(rows().into_iter().map(|(_, bytes)| bytes));
        let mut bytes = all[which % all.len()].clone();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        decode_all(&bytes);
        bytes.truncate(cut % (bytes.len() + 1));
        decode_all(&bytes);
    }

    #[test]
    fn random_tokens_and_paths_never_panic(path in "\\PC*", token: Vec<u8>, name in "[a-z/.]{0,6}") {
        let world = crate::world::World::new();
        let _ = query::list(&world.tables, &path, &token, 10);
        let _ = query::list(&world.tables, "/", &token, 10);
        let _ = query::trash(&world.tables, &path, &token, 10);
        let _ = query::stat(&world.tables, &format!("/{name}"));
    }

    #[test]
    fn damaged_tables_are_an_error_and_no_panic(table in 0usize..16, key: Vec<u8>, value: Vec<u8>, op_at: usize) {
        let mut world = crate::world::World::new();
        world.mkdir("/d");
        world.file("/f", b"abc");
        world.file("/g", b"abc");
        world.set_replicas("/g", 5).unwrap();
        world.remove("/g", false, false).unwrap();
        let mut tables: MemTables = world.tables.clone();
        let table = Table::ALL[table];
        let key = if op_at.is_multiple_of(2) {
            tables.rows(table).next().map_or(key, |(key, _)| key.to_vec())
        } else { key };
        tables.write(vec![(table, key, Some(value))]);
        for kind in commands() {
            let mut overlay = quarry_master_core::tables::Overlay::new(&tables);
            let _ = quarry_master_core::apply::apply(&mut overlay, 1, &Command { wall_ms: 1, kind });
        }
        let _ = query::list(&tables, "/", &[], 10);
        let _ = query::open_watermark(&tables);
        let _ = query::servers(&tables, None, 10);
        let _ = query::leases(&tables, LeaseId(0), 10);
        let _ = query::doomed(&tables, None, 10);
        let _ = query::trash(&tables, "/", &[], 10);
        let all = query::WatchFilter { path: "/".into(), names: true, servers: true, verdicts: true, cluster: true };
        let _ = query::events(&tables, query::WatchFrom::Oldest, &all, 100, 1 << 20);
    }
}
