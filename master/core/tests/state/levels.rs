//! Masters of different builds in one group: a second feature level exists here only, as a wider range of known levels.

use quarry_master_core::{
    apply::{Outcome, apply_entry},
    command::*,
    feature::{self, Features},
    tables::{MemTables, Overlay, TableError},
};
use quarry_types::ErrorCode;

use crate::world::{World, create_cluster};

const OLD: Features = Features { lowest: 1, highest: 1 };
const NEW: Features = Features { lowest: 1, highest: 2 };
const LATER: Features = Features { lowest: 2, highest: 3 };

fn entry(tables: &mut MemTables, bytes: &[u8], known: Features) -> Result<Outcome, TableError> {
    let mut overlay = Overlay::new(tables);
    let outcome = apply_entry(&mut overlay, 7, bytes, known)?;
    let changes = overlay.into_changes();
    tables.write(changes);
    Ok(outcome)
}

fn command(kind: Kind) -> Command {
    Command { wall_ms: 1, kind }
}

fn raise(level: u32) -> Vec<u8> {
    command(Kind::RaiseLevel(RaiseLevel { level })).encode()
}

/// A command that needs level 2, of a kind that is there already.
fn needs_two() -> Vec<u8> {
    command(Kind::Tick(Tick { elapsed_ms: 5 })).encode_at(2)
}

/// The same of a kind that no build here knows: nothing but its level can be read.
fn unknown_kind() -> Vec<u8> {
    let kind = [&[0x12, 6][..], &[0xc2, 0x3e, 3, 1, 2, 3]].concat();
    [&[1, 0x08, 1][..], &kind, &[0x18, 2]].concat()
}

#[test]
fn a_command_above_the_level_in_force_is_refused_by_every_build_alike() {
    let world = World::new();
    for bytes in [needs_two(), unknown_kind()] {
        assert_eq!(Command::level_of(&bytes), Ok(2));
        let refused: Vec<_> = [OLD, NEW]
            .into_iter()
            .map(|known| {
                let mut tables = world.tables.clone();
                let refusal = entry(&mut tables, &bytes, known).unwrap().unwrap_err();
                assert!(tables == world.tables, "a refused command leaves nothing");
                refusal
            })
            .collect();
        assert_eq!(refused[0], refused[1]);
        assert_eq!(refused[0].code, ErrorCode::VersionMismatch);
        assert!(refused[0].message.contains("quarry masters upgrade"), "{}", refused[0].message);
    }
}

#[test]
fn a_build_that_does_not_know_the_level_stops_before_it_is_in_force_and_after() {
    let mut tables = World::new().tables;
    let before = tables.clone();
    let TableError(why) = entry(&mut tables, &raise(2), OLD).unwrap_err();
    assert!(why.contains("level is 2") && why.contains("knows level 1") && why.contains("newer"), "{why}");
    assert!(tables == before, "it has applied nothing, so that a newer build goes on from there");
    entry(&mut tables, &raise(2), NEW).unwrap().unwrap();
    assert_eq!(feature::level(&tables), Ok(2));
    entry(&mut tables, &needs_two(), NEW).unwrap().unwrap();
    // Also commands of the first level: what they do may rest on what is there by now.
    let tick = command(Kind::Tick(Tick { elapsed_ms: 5 })).encode();
    assert!(entry(&mut tables, &tick, OLD).is_err());
    entry(&mut tables, &tick, NEW).unwrap().unwrap();
}

#[test]
fn a_build_that_no_longer_knows_the_level_says_that_an_older_one_is_needed() {
    let mut tables = World::new().tables;
    let TableError(why) = entry(&mut tables, &raise(2), LATER).unwrap_err();
    assert!(why.contains("level is 1") && why.contains("2 to 3") && why.contains("older"), "{why}");
}

#[test]
fn the_level_never_goes_down() {
    let mut tables = World::new().tables;
    entry(&mut tables, &raise(1), NEW).unwrap().unwrap();
    entry(&mut tables, &raise(2), NEW).unwrap().unwrap();
    entry(&mut tables, &raise(2), NEW).unwrap().unwrap();
    assert_eq!(entry(&mut tables, &raise(1), NEW).unwrap().unwrap_err().code, ErrorCode::Conflict);
    assert_eq!(feature::level(&tables), Ok(2));
}

#[test]
fn a_new_cluster_begins_at_the_level_of_the_command_that_makes_it() {
    let create = command(Kind::CreateCluster(create_cluster()));
    assert_eq!(Command::level_of(&create.encode()), Ok(Features::THIS_BUILD.highest));
    let mut tables = World::empty().tables;
    assert!(entry(&mut tables, &create.encode_at(2), OLD).is_err());
    entry(&mut tables, &create.encode_at(2), NEW).unwrap().unwrap();
    assert_eq!(feature::level(&tables), Ok(2));
}

#[test]
fn every_kind_is_of_a_level_that_this_build_knows() {
    assert!(Features::THIS_BUILD.knows(command(Kind::Tick(Tick { elapsed_ms: 1 })).kind.level()));
    assert_eq!(Command::level_of(&needs_two()[..needs_two().len() - 2]), Ok(1), "without the field it is the first");
}
