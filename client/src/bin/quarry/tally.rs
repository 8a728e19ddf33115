//! Counts what became of the files of a tree, and tells the user about those that failed.

use crate::{
    context::Context,
    error::{CliError, Exit, Failures, Outcome},
    progress::Progress,
};

/// So many files in a row that the cluster could not take or give mean that it is gone: each would wait for the
/// whole deadline, and a tree has many.
const UNAVAILABLE_IN_A_ROW_MAX: u32 = 8;
/// So many files with too few copies get a line each; the others are counted.
const WARNINGS_MAX: u64 = 10;

/// What became of one file.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// What it is called in progress.
    pub name: String,
    /// A warning about it.
    pub warning: Option<String>,
}

/// The count.
pub struct Tally<'a> {
    context: &'a Context,
    progress: Progress,
    items: u64,
    warned: u64,
    failures: Failures,
    unavailable_in_a_row: u32,
}

impl<'a> Tally<'a> {
    pub fn new(context: &'a Context, progress: Progress) -> Self {
        Tally { context, progress, items: 0, warned: 0, failures: Failures::default(), unavailable_in_a_row: 0 }
    }

    /// Notes what became of one file. An error means that going on makes no sense.
    pub fn settle(&mut self, result: Outcome<Done>) -> Outcome {
        self.items += 1;
        match result {
            Ok(done) => {
                self.unavailable_in_a_row = 0;
                self.progress.files(self.items, &done.name);
                if let Some(warning) = done.warning {
                    self.warned += 1;
                    if self.warned <= WARNINGS_MAX {
                        self.context.notes.warning(warning);
                    }
                }
                Ok(())
            }
            Err(error) if error.ends_everything() => Err(error),
            Err(error) => {
                let unavailable = error.exit() == Exit::Unavailable;
                self.unavailable_in_a_row = if unavailable { self.unavailable_in_a_row + 1 } else { 0 };
                self.context.notes.error(&error);
                if self.unavailable_in_a_row >= UNAVAILABLE_IN_A_ROW_MAX {
                    return Err(error.about(format!("giving up after {UNAVAILABLE_IN_A_ROW_MAX} failures in a row")));
                }
                self.failures.add(error);
                Ok(())
            }
        }
    }

    /// The outcome of all.
    pub fn outcome(self) -> Outcome {
        self.progress.finish();
        if self.warned > WARNINGS_MAX {
            self.context.notes.warning(format!(
                "{} files in all have fewer copies than wanted for now; see `quarry repairs`",
                self.warned
            ));
        }
        self.failures.outcome(self.items, "files")
    }
}

/// Runs the same thing for every path that the user named, and goes on over failures.
pub async fn for_each<T, F>(context: &Context, items: Vec<T>, things: &str, mut work: F) -> Outcome
where
    F: AsyncFnMut(T) -> Outcome,
{
    let of = items.len() as u64;
    let mut failures = Failures::default();
    for item in items {
        match work(item).await {
            Ok(()) => {}
            Err(error) if error.ends_everything() => return Err(error),
            Err(error) => note(context, of, &mut failures, error),
        }
    }
    failures.outcome_of_named(of, things)
}

fn note(context: &Context, of: u64, failures: &mut Failures, error: CliError) {
    // A single one's failure is the command's, which says it at the end.
    if of > 1 {
        context.notes.error(&error);
    }
    failures.add(error);
}
