//! Results beside those of an earlier run.

use super::table::number;
use crate::book::{Book, median};

/// The heads and a line for each case that both have.
pub fn rows(book: &Book, earlier: &Book) -> Vec<[String; 5]> {
    let mut rows = vec![["case", "system", "then", "now", "better by"].map(String::from)];
    for row in &book.rows {
        let Some(before) = earlier.row(&row.case, &row.system).filter(|before| before.unit == row.unit) else {
            continue;
        };
        let (then, now) = (median(&before.values), median(&row.values));
        let better = if row.unit.more_is_better() { now / then } else { then / now };
        rows.push([
            row.case.clone(),
            row.system.clone(),
            number(then, row.unit),
            number(now, row.unit),
            format!("{better:.2}"),
        ]);
    }
    rows
}
