//! Random commands against a model that knows paths and contents only.

mod model;

use model::Model;
use proptest::prelude::*;
use quarry_master_core::{command::*, query};

#[derive(Clone, Debug)]
enum Step {
    Mkdir { path: String, parents: bool },
    Create { path: String, mode: CreateMode },
    Append { path: String },
    Add { writer: usize },
    Seal { writer: usize, length: usize, holders: usize },
    Confirm { writer: usize },
    Complete { writer: usize, lie: bool },
    Abort { writer: usize },
    Expire { writer: usize },
    Rename { from: String, to: String, replace: bool },
    Remove { path: String, recursive: bool, now: bool },
    Undelete { path: String, to: Option<String> },
    SetReplicas { path: String, replicas: u32 },
    Follow { limit: u32 },
    Empty,
    Tick { ms: u64 },
    Collect { limit: u32 },
    Forget,
    Repeat,
}

/// Few and mostly short paths, so that commands meet one another.
fn path() -> impl Strategy<Value = String> {
    let depth = prop_oneof![3 => Just(1usize), 3 => Just(2), 1 => Just(3)];
    depth
        .prop_flat_map(|depth| proptest::collection::vec(0u8..2, depth))
        .prop_map(|names| names.iter().map(|n| format!("/{}", char::from(b'a' + n))).collect())
}

fn mode() -> impl Strategy<Value = CreateMode> {
    prop_oneof![
        Just(CreateMode::Replace),
        Just(CreateMode::FailIfPresent),
        Just(CreateMode::IfUnchanged),
        Just(CreateMode::Visible)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let writer = || 0usize..6;
    prop_oneof![
        4 => (path(), any::<bool>()).prop_map(|(path, parents)| Step::Mkdir { path, parents }),
        6 => (path(), mode()).prop_map(|(path, mode)| Step::Create { path, mode }),
        2 => path().prop_map(|path| Step::Append { path }),
        6 => writer().prop_map(|writer| Step::Add { writer }),
        7 => (writer(), 0usize..40, 1usize..4)
            .prop_map(|(writer, length, holders)| Step::Seal { writer, length, holders }),
        1 => writer().prop_map(|writer| Step::Confirm { writer }),
        6 => (writer(), proptest::bool::weighted(0.1)).prop_map(|(writer, lie)| Step::Complete { writer, lie }),
        1 => writer().prop_map(|writer| Step::Abort { writer }),
        1 => writer().prop_map(|writer| Step::Expire { writer }),
        3 => (path(), path(), any::<bool>()).prop_map(|(from, to, replace)| Step::Rename { from, to, replace }),
        2 => (path(), any::<bool>(), any::<bool>())
            .prop_map(|(path, recursive, now)| Step::Remove { path, recursive, now }),
        3 => (path(), proptest::option::weighted(0.3, path())).prop_map(|(path, to)| Step::Undelete { path, to }),
        2 => (path(), 0u32..5).prop_map(|(path, replicas)| Step::SetReplicas { path, replicas }),
        1 => (1u32..5).prop_map(|limit| Step::Follow { limit }),
        1 => Just(Step::Empty),
        2 => (0u64..80_000).prop_map(|ms| Step::Tick { ms }),
        3 => (1u32..20).prop_map(|limit| Step::Collect { limit }),
        1 => Just(Step::Forget),
        2 => Just(Step::Repeat),
    ]
}

fn run(model: &mut Model, step: Step) {
    match step {
        Step::Mkdir { path, parents } => model.mkdir(&path, parents),
        Step::Create { path, mode } => model.create(&path, mode),
        Step::Append { path } => model.append(&path),
        Step::Add { writer } => model.add(writer),
        Step::Seal { writer, length, holders } => model.seal(writer, length, holders),
        Step::Confirm { writer } => model.confirm(writer),
        Step::Complete { writer, lie } => model.complete(writer, lie),
        Step::Abort { writer } => model.end(writer, true),
        Step::Expire { writer } => model.end(writer, false),
        Step::Rename { from, to, replace } => model.rename(&from, &to, replace),
        Step::Remove { path, recursive, now } => model.remove(&path, recursive, now),
        Step::Undelete { path, to } => model.undelete(&path, to.as_deref()),
        Step::SetReplicas { path, replicas } => model.set_replicas(&path, replicas),
        Step::Follow { limit } => assert!(model.world.follow(limit).chunks.len() <= limit as usize),
        Step::Empty => model.empty(),
        Step::Tick { ms } => model.world.tick(ms),
        Step::Collect { limit } => {
            let collected = model.world.collect(limit);
            assert!(collected.worked <= limit);
            model.notice_collected();
        }
        Step::Forget => {
            let doomed = query::doomed(&model.world.tables, None, 100).unwrap();
            let chunks = doomed.iter().map(|c| c.id).collect();
            model.world.ok(Kind::ForgetDoomed(ForgetDoomed { chunks }));
            assert!(query::doomed(&model.world.tables, None, 100).unwrap().is_empty());
        }
        Step::Repeat => {
            if let Some((kind, outcome)) = model.last.clone() {
                let before = model.world.tables.clone();
                assert_eq!(model.world.apply(kind), outcome, "the same answer");
                assert!(before == model.world.tables, "and no second effect");
            }
        }
    }
    model.forget_ended();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn s4_random_commands_do_what_a_simple_model_does(steps in proptest::collection::vec(step(), 1..160)) {
        let mut model = Model::new();
        for step in steps {
            run(&mut model, step);
            model.compare();
        }
    }
}
