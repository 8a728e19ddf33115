//! Results beside those of an earlier run.

use super::table::number;
use crate::{
    book::{Book, median},
    machine::Machine,
};

/// Lines that say why figures of two runs may not be comparable; nothing when they come from the same machine and command.
pub fn differs(now: &Machine, then: &Machine) -> String {
    let what = [
        ("processor", &now.processor, &then.processor),
        ("kernel", &now.kernel, &then.kernel),
        ("command", &now.command, &then.command),
    ];
    let differ = what.into_iter().filter(|(_, now, then)| now != then);
    differ.map(|(what, now, then)| format!("another {what} then: {then:?}, now: {now:?}\n")).collect()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_another_machine_or_command_are_said_to_be() {
        let here = Machine { processor: "2 × A".into(), command: "run".into(), ..Machine::default() };
        let there = Machine { processor: "8 × B".into(), command: "run --quick".into(), at: 7, ..here.clone() };
        assert_eq!(differs(&here, &here), "");
        let said = differs(&here, &there);
        assert_eq!(said.lines().count(), 2);
        assert!(said.contains("\"8 × B\"") && said.contains("\"run --quick\""), "{said}");
    }
}
