//! Results as text, JSON and a page.

mod compare;
mod page;
mod table;

use std::{fs, path::Path};

use crate::{
    book::Book,
    error::{During as _, Failed, Outcome},
};

pub use table::text;

/// Writes `results.txt`, `results.json` and `results.html`.
///
/// # Errors
/// As the system says.
pub fn write(dir: &Path, book: &Book, earlier: Option<&Book>) -> Outcome {
    let json = serde_json::to_string_pretty(book).during("writing the results")?;
    let all = [("txt", text(book, earlier)), ("json", json), ("html", page::page(book, earlier))];
    for (ending, contents) in all {
        let path = dir.join("results").with_extension(ending);
        fs::write(&path, contents + "\n").during(format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Results that were written.
///
/// # Errors
/// When the file cannot be read, or holds something else.
pub fn read(path: &Path) -> Outcome<Book> {
    let doing = format!("reading {}", path.display());
    serde_json::from_slice(&fs::read(path).during(&doing)?).during(doing)
}

/// To standard output.
#[expect(clippy::print_stdout, reason = "the report is what the suite is for")]
pub fn print(text: &str) {
    println!("{text}");
}

/// To standard error.
#[expect(clippy::print_stderr, reason = "why the suite failed")]
pub fn complain(error: &Failed) {
    eprintln!("quarry-bench: {error}");
}
