//! All groups in turn, and the report.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{
    book::Book,
    case::{self, Suite},
    error::{During as _, Failed, Outcome},
    group::{self, Places},
    machine::Machine,
    plan::{GROUPS, Group, Plan, RunArgs},
    report,
    warm::Warmth,
};

/// Measures everything that was asked for and writes the results.
///
/// # Errors
/// When a group could not be measured, after the others were and the results are written.
pub fn run(args: &RunArgs) -> Outcome {
    group::end_with_supervisor();
    let places = Places::of_worker()?;
    let earlier = args.against.as_deref().map(report::read).transpose()?;
    let plan = Plan::of(args);
    let book = Book { machine: Machine::here(plan.runs), ..Book::default() };
    let mut suite = Suite { plan, warmth: Warmth::new(&places.work, args.cold)?, places, book };
    let mut failed = Vec::new();
    for group in GROUPS {
        if !args.only.is_empty() && !args.only.contains(&group) {
            suite.book.note(format!("not asked for: {group:?}"));
            continue;
        }
        if let Err(error) = measure(&mut suite, group) {
            suite.book.note(format!("FAILED: {group:?}: {error}"));
            failed.push(error);
        }
        // What a later group does to the machine does not take these away.
        report::write(&args.dir, &suite.book, earlier.as_ref())?;
    }
    report::print(&report::text(&suite.book, earlier.as_ref()));
    report::print(&format!("written to {}", args.dir.join("results.{txt,json,html}").display()));
    failed.into_iter().next().map_or(Ok(()), Err)
}

fn measure(suite: &mut Suite, group: Group) -> Outcome {
    // The harness of the tests panics when a process does not come up.
    let ended = catch_unwind(AssertUnwindSafe(|| match group {
        Group::Data => case::data::run(suite),
        Group::Metadata => case::metadata::run(suite),
        Group::Repair => case::repair::run(suite),
        Group::Memory => case::memory::run(suite),
        Group::Beats => case::beats::run(suite),
    }));
    let said = |panic: Box<dyn std::any::Any + Send>| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    };
    ended
        .map_err(|panic| Failed::new(format!("measuring {group:?}"), said(panic)))
        .and_then(|ended| ended.during(format!("measuring {group:?}")))
}
