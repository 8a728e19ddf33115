//! The checker itself: histories made by hand that a namespace can have had, and those that it cannot.

use std::time::Duration;

use super::{
    history::{Record, is_linearizable, shortest_wrong},
    model::{Call, Outcome, Value},
};

const A: usize = 0;
const B: usize = 1;

const CREATE: fn(usize, Value) -> Call = |name, value| Call::Create { name, value };
const PUT: fn(usize, Value) -> Call = |name, value| Call::Put { name, value };
const STAT: fn(usize) -> Call = |name| Call::Stat { name };
const REMOVE: Call = Call::Remove { name: A };
const RENAME: Call = Call::Rename { from: A, to: B };

/// What was asked for from when to when, and the answer.
type Row = (u64, u64, Call, Outcome);

fn records(rows: &[Row]) -> Vec<Record> {
    let record = |(client, row): (usize, &Row)| {
        let (begin, end, call, outcome) = *row;
        let (begin, end) = (Duration::from_millis(begin), Duration::from_millis(end));
        Record { client, call, outcome, begin, end, error: None }
    };
    rows.iter().enumerate().map(record).collect()
}

#[test]
fn what_cannot_have_been_is_refused() {
    use Outcome::{AlreadyExists, Done, Found, NotFound, Unknown};
    let impossible: [(&str, &[Row]); 12] = [
        ("a write is lost", &[(0, 1, PUT(A, 1), Done), (2, 3, STAT(A), NotFound)]),
        (
            "a write is lost under another",
            &[(0, 1, PUT(A, 1), Done), (2, 3, PUT(A, 2), Done), (4, 5, STAT(A), Found(1))],
        ),
        ("a name is created twice", &[(0, 5, CREATE(A, 1), Done), (1, 6, CREATE(A, 2), Done)]),
        ("a create meets itself", &[(0, 9, CREATE(A, 1), AlreadyExists), (10, 11, STAT(A), Found(1))]),
        ("a removal meets itself", &[(0, 1, PUT(A, 1), Done), (2, 9, REMOVE, NotFound), (10, 11, STAT(A), NotFound)]),
        ("a rename meets itself", &[(0, 1, PUT(A, 1), Done), (2, 9, RENAME, NotFound), (10, 11, STAT(B), Found(1))]),
        (
            "a put is done again after another one",
            &[
                (0, 9, PUT(A, 1), Done),
                (1, 2, STAT(A), Found(1)),
                (3, 4, PUT(A, 2), Done),
                (5, 6, STAT(A), Found(2)),
                (7, 8, STAT(A), Found(1)),
            ],
        ),
        ("a read is stale", &[(0, 1, PUT(A, 1), Done), (2, 3, PUT(A, 2), Done), (4, 5, STAT(A), Found(1))]),
        (
            "a read is older than one before it",
            &[(0, 1, PUT(A, 1), Done), (2, 9, PUT(A, 2), Done), (3, 4, STAT(A), Found(2)), (5, 6, STAT(A), Found(1))],
        ),
        ("a renamed file stays", &[(0, 1, PUT(A, 1), Done), (2, 3, RENAME, Done), (4, 5, STAT(A), Found(1))]),
        ("a rename replaces", &[(0, 1, PUT(A, 1), Done), (2, 3, PUT(B, 2), Done), (4, 5, RENAME, Done)]),
        (
            "what nobody knows of happens twice",
            &[
                (0, 1, PUT(A, 1), Done),
                (2, 3, REMOVE, Unknown),
                (4, 5, STAT(A), NotFound),
                (6, 7, PUT(A, 2), Done),
                (8, 9, STAT(A), NotFound),
            ],
        ),
    ];
    for (what, rows) in impossible {
        assert!(!is_linearizable(&records(rows)), "{what}");
    }
}

#[test]
fn what_can_have_been_is_accepted() {
    use Outcome::{AlreadyExists, Done, Found, NotFound, Unknown};
    let possible: [(&str, &[Row]); 7] = [
        ("nothing", &[]),
        (
            "one after another",
            &[
                (0, 1, CREATE(A, 1), Done),
                (2, 3, CREATE(A, 2), AlreadyExists),
                (4, 5, RENAME, Done),
                (6, 7, STAT(B), Found(1)),
                (8, 9, REMOVE, NotFound),
            ],
        ),
        ("two at once in either order", &[(0, 5, PUT(A, 1), Done), (1, 6, PUT(A, 2), Done), (7, 8, STAT(A), Found(1))]),
        ("seen before it was answered", &[(0, 9, CREATE(A, 1), Done), (1, 2, STAT(A), Found(1))]),
        ("what nobody knows of never happens", &[(0, 1, PUT(A, 1), Unknown), (2, 3, STAT(A), NotFound)]),
        ("what nobody knows of happened", &[(0, 1, PUT(A, 1), Unknown), (2, 3, STAT(A), Found(1))]),
        (
            "what nobody knows of happens much later",
            &[(0, 1, PUT(A, 1), Unknown), (2, 3, STAT(A), NotFound), (4, 5, STAT(A), Found(1))],
        ),
    ];
    for (what, rows) in possible {
        assert!(is_linearizable(&records(rows)), "{what}");
    }
}

#[test]
fn the_shortest_wrong_beginning_ends_with_the_first_wrong_answer() {
    use Outcome::{Done, Found, NotFound};
    let rows = [
        (0, 1, PUT(A, 1), Done),
        (2, 9, PUT(A, 2), Done),
        (3, 4, STAT(A), NotFound),
        (5, 6, STAT(A), Found(1)),
        (20, 21, STAT(A), Found(2)),
    ];
    let wrong = shortest_wrong(&records(&rows));
    assert_eq!(wrong.len(), 3);
    assert_eq!((wrong[1].outcome, wrong[2].outcome), (Outcome::Unknown, NotFound));
}
