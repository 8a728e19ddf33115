//! What the figures should be. Each row of the table stands beside what was measured.

use crate::book::{Book, FLOOR, QUARRY, Row, median, ratio};

/// Peers, of which the best counts.
const PEERS: [&str; 2] = ["moosefs", "seaweedfs"];

/// On which side of the number it should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// At least.
    Least(f64),
    /// At most.
    Most(f64),
}

/// What stands against what.
#[derive(Clone, Copy, Debug)]
enum Figure {
    /// The values themselves, divided by this.
    Value(&'static str, f64),
    /// Values against the floor of the case.
    ToFloor(&'static str),
    /// Values against the best peer in the case.
    ToPeers(&'static str),
    /// Values of one case against those of another one, each of its system.
    Between(&'static str, (&'static str, &'static str)),
    /// 99 % against the median.
    Tail(&'static str),
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
struct Target {
    what: &'static str,
    figure: Figure,
    bound: Bound,
}

/// What became of a row.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The row, in words.
    pub what: &'static str,
    /// What it should be.
    pub bound: Bound,
    /// What it is; absent: it was not measured.
    pub value: Option<f64>,
}

impl Verdict {
    /// `met`, `MISSED`, `not measured`.
    pub fn word(&self) -> &'static str {
        match (self.value, self.bound) {
            (None, _) => "not measured",
            (Some(value), Bound::Least(bound)) if value >= bound => "met",
            (Some(value), Bound::Most(bound)) if value <= bound => "met",
            _ => "MISSED",
        }
    }

    /// `≥ 0.50` or `≤ 10.00`.
    pub fn wanted(&self) -> String {
        match self.bound {
            Bound::Least(bound) => format!("≥ {bound:.2}"),
            Bound::Most(bound) => format!("≤ {bound:.2}"),
        }
    }
}

const MIB: f64 = 1_048_576.0;

const fn least(what: &'static str, figure: Figure, bound: f64) -> Target {
    Target { what, figure, bound: Bound::Least(bound) }
}

const fn most(what: &'static str, figure: Figure, bound: f64) -> Target {
    Target { what, figure, bound: Bound::Most(bound) }
}

/// The table.
const TARGETS: [Target; 37] = [
    least("put, buffered, against the floor", Figure::ToFloor("buffered.disk.put"), 0.5),
    least("put, buffered, against the best peer", Figure::ToPeers("buffered.disk.put"), 3.0),
    least("put, sealed, against the floor with fsync", Figure::ToFloor("sealed.disk.put"), 0.85),
    least("get over TCP, against a verified local read", Figure::ToFloor("buffered.disk.get"), 0.4),
    least("get over TCP, against the best peer", Figure::ToPeers("buffered.disk.get"), 1.5),
    least("get by short-circuit, against a verified local read", Figure::ToFloor("short.get"), 0.8),
    least("get by short-circuit, against the best peer", Figure::ToPeers("short.get"), 3.0),
    least(
        "4 puts at once, against one, sealed",
        Figure::Between("sealed.disk.parallel.put", ("sealed.disk.put", QUARRY)),
        1.0,
    ),
    least(
        "4 puts at once, against one, buffered",
        Figure::Between("buffered.disk.parallel.put", ("buffered.disk.put", QUARRY)),
        1.0,
    ),
    least(
        "4 gets at once, against one",
        Figure::Between("buffered.disk.parallel.get", ("buffered.disk.get", QUARRY)),
        1.0,
    ),
    most(
        "random 64 KiB over TCP, p50 against an empty round trip",
        Figure::Between("random.64k", ("echo", FLOOR)),
        3.0,
    ),
    most("random 64 KiB over TCP, p99 against p50", Figure::Tail("random.64k"), 10.0),
    most("random 64 KiB by short-circuit, p50 against a local read", Figure::ToFloor("short.random.64k"), 4.0),
    most("random 64 KiB by short-circuit, p99 against p50", Figure::Tail("short.random.64k"), 10.0),
    least("4 KiB put, sealed, against the best peer with fsync", Figure::ToPeers("sealed.disk.4k.put"), 3.0),
    least("4 KiB get, sealed, against the best peer", Figure::ToPeers("sealed.disk.4k.get"), 3.0),
    least("4 KiB delete, sealed, against the best peer", Figure::ToPeers("sealed.disk.4k.remove"), 3.0),
    least("4 KiB stat, sealed, against the best peer", Figure::ToPeers("sealed.disk.4k.stat"), 3.0),
    least("4 KiB put, buffered, against the best peer", Figure::ToPeers("buffered.disk.4k.put"), 3.0),
    least("4 KiB get, buffered, against the best peer", Figure::ToPeers("buffered.disk.4k.get"), 3.0),
    least("4 KiB delete, buffered, against the best peer", Figure::ToPeers("buffered.disk.4k.remove"), 3.0),
    least("4 KiB stat, buffered, against the best peer", Figure::ToPeers("buffered.disk.4k.stat"), 3.0),
    least("create + complete, 256 at once, one master, against RocksDB", Figure::ToFloor("masters1.c256.create"), 0.5),
    least(
        "create + complete, 256 at once, three masters, against three RocksDBs",
        Figure::ToFloor("masters3.c256.create"),
        0.35,
    ),
    least("stat, 256 at once, against an empty gRPC call", Figure::ToFloor("masters1.c256.stat"), 0.7),
    most("master memory per file, in bytes", Figure::Value("memory.per-file", 1.0), 100.0),
    most("master memory per replica, in bytes", Figure::Value("memory.per-replica", 1.0), 48.0),
    most("10 million files: first page of a listing, in ms", Figure::Value("files10m.list.first", 0.001), 10.0),
    most("10 million files: start of the master, in s", Figure::Value("files10m.start", 1.0), 10.0),
    least("repair of a dead server, against the budget", Figure::ToFloor("repair.one"), 0.9),
    most("put during a repair: what it loses", Figure::Value("repair.foreground-loss", 1.0), 0.2),
    most("memory of the client, in MiB", Figure::Value("memory.client", MIB), 96.0),
    most("memory of a chunkserver, in MiB", Figure::Value("memory.chunkserver", MIB), 128.0),
    least("put on tmpfs, buffered, against the floor", Figure::ToFloor("buffered.tmpfs.put"), 0.5),
    least("get on tmpfs, against a verified local read", Figure::ToFloor("buffered.tmpfs.get"), 0.4),
    least("get, sealed, against a verified local read", Figure::ToFloor("sealed.disk.get"), 0.4),
    least("get, sealed, against the best peer", Figure::ToPeers("sealed.disk.get"), 1.5),
];

/// Judges every row.
pub fn verdicts(book: &Book) -> Vec<Verdict> {
    TARGETS.iter().map(|t| Verdict { what: t.what, bound: t.bound, value: value(book, t.figure) }).collect()
}

fn value(book: &Book, figure: Figure) -> Option<f64> {
    match figure {
        Figure::Value(case, by) => book.row(case, QUARRY).map(|row| median(&row.values) / by),
        Figure::ToFloor(case) => Some(ratio(book.row(case, QUARRY)?, book.row(case, FLOOR)?)),
        Figure::ToPeers(case) => {
            let ours = book.row(case, QUARRY)?;
            let by_value = |a: &&Row, b: &&Row| median(&a.values).total_cmp(&median(&b.values));
            let best = PEERS.iter().filter_map(|peer| book.row(case, peer)).max_by(by_value)?;
            Some(ratio(ours, best))
        }
        Figure::Between(case, (other, system)) => Some(ratio(book.row(case, QUARRY)?, book.row(other, system)?)),
        Figure::Tail(case) => {
            let row = book.row(case, QUARRY)?;
            Some(median(&row.p99_us) / median(&row.p50_us))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::Unit;

    fn verdict(book: &Book, what: &str) -> (Option<f64>, &'static str) {
        let verdicts = verdicts(book);
        let found = verdicts.iter().find(|verdict| verdict.what == what).expect("a row");
        (found.value, found.word())
    }

    #[test]
    fn a_row_is_met_missed_or_not_measured() {
        let mut book = Book::default();
        let what = "put, buffered, against the floor";
        assert_eq!(verdict(&book, what), (None, "not measured"));
        book.value("buffered.disk.put", QUARRY, Unit::Megabytes, 500.0);
        book.value("buffered.disk.put", FLOOR, Unit::Megabytes, 1000.0);
        assert_eq!(verdict(&book, what), (Some(0.5), "met"));
        book.value("buffered.disk.put", "moosefs", Unit::Megabytes, 100.0);
        book.value("buffered.disk.put", "seaweedfs", Unit::Megabytes, 200.0);
        assert_eq!(
            verdict(&book, "put, buffered, against the best peer"),
            (Some(2.5), "MISSED"),
            "the best one counts"
        );
        book.value("memory.client", QUARRY, Unit::Bytes, 97.0 * MIB);
        assert_eq!(verdict(&book, "memory of the client, in MiB").1, "MISSED");
    }
}
