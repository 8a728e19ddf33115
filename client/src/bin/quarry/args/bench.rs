//! `bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// Put one file of --size and get it back: over the network, and from the files of chunkservers on this machine
    Stream,
    /// The same with --streams files of --size divided among them, all at once
    Parallel,
    /// Read 64 KiB, and 1 MiB, at random offsets of a file of --size, one read after the other, in both ways
    Random,
    /// Put, stat, get and remove --files files of --file-size, --concurrency at once
    Small,
    /// Append 1 KiB and flush, again and again
    Append,
    /// Create and complete, stat, rename and remove --files empty files, --concurrency at once
    Metadata,
    /// List a directory of --files empty files
    List,
}

/// `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// What to measure; everything when none is named
    #[arg(value_name = "CASE")]
    pub cases: Vec<Case>,
    /// Bytes of the large files, as in 64MiB, 1GiB
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    pub size: u64,
    /// Files that are put and got at once by `parallel`
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub streams: u32,
    /// Small or empty files
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub files: u32,
    /// Bytes of each of the small files
    #[arg(long, value_name = "SIZE", default_value = "4KiB", value_parser = size)]
    pub file_size: u64,
    /// Operations under way at once, for small files and metadata; several are measured one after the other
    #[arg(long, value_name = "N,…", default_value = "16", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub concurrency: Vec<u32>,
    /// Reads at random offsets, of each size, and appends
    #[arg(long, value_name = "N", default_value = "500", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub operations: u32,
    /// A directory of the cluster to work in; a new one below it is made, and removed at the end
    #[arg(long, value_name = "REMOTE", default_value = "/")]
    pub within: PathBuf,
    /// Count the processor time and peak memory of these processes on this machine, too
    #[arg(long, value_name = "PID,…", value_delimiter = ',')]
    pub processes: Vec<u32>,
}

/// A size as people write it.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || "write a size above zero, as in 4KiB, 64MiB or 1GiB".to_string();
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|bytes| *bytes > 0 && *bytes <= SIZE_MAX).ok_or_else(wrong)
}

/// Longest file that is measured.
const SIZE_MAX: u64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!([size("4KiB"), size("1 GiB"), size("17")], [Ok(4096), Ok(1 << 30), Ok(17)]);
        for bad in ["", "0", "KiB", "1kb", "-1", "2048GiB", "99999999999999999999"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
