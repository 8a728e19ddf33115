//! What the CLI can end with: an error in one line, and the exit code that goes with it.

use std::{fmt, io, path::Path};

use quarry_client::ClientError;
use quarry_types::ErrorCode;

/// The part of `--help` that documents the exit codes.
pub const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  failed for another reason (local file, no room, a bug); some of several items failed for different reasons
    2  wrong usage: unknown flag, malformed path or value
    3  no such file or directory, local or remote
    4  already exists, not empty, changed or being written by somebody else
    5  masters or chunkservers unavailable, or the deadline passed
    6  data lost or corrupt: no replica could deliver it as it was written
  130  interrupted (SIGINT); 143 when terminated (SIGTERM)";

/// The exit codes, in the order of `--help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything else.
    Failure = 1,
    /// The request makes no sense.
    Usage = 2,
    /// Something named does not exist.
    NotFound = 3,
    /// Something named exists, or is not as expected.
    Conflict = 4,
    /// The cluster cannot answer now.
    Unavailable = 5,
    /// Bytes cannot be had as they were written.
    DataLost = 6,
}

/// Where an error comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of the error table.
    Code(ErrorCode),
    /// A local file or process.
    Local,
    /// Several items failed, each said on a line of its own; the exit code they share, or 1.
    Several(Exit),
    /// Whoever read our standard output went away; nothing is said and the exit code is 0.
    OutputClosed,
    /// A signal ended the command; its number.
    Interrupted(i32),
}

/// An error in one line: what failed, where, and what to do.
#[derive(Clone, Debug)]
pub struct CliError {
    /// Where it comes from.
    pub kind: Kind,
    message: String,
}

/// What every verb returns.
pub type Outcome<T = ()> = Result<T, CliError>;

impl CliError {
    /// An error of the error table.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        CliError { kind: Kind::Code(code), message: one_line(&message.into()) }
    }

    /// An error of another kind.
    pub fn of_kind(kind: Kind, message: impl Into<String>) -> Self {
        CliError { kind, message: one_line(&message.into()) }
    }

    /// A wrong request.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }

    /// Something went wrong on this machine.
    pub fn local(message: impl Into<String>) -> Self {
        Self::of_kind(Kind::Local, message)
    }

    /// A local file operation failed; `doing` says which, as in "read".
    pub fn file(doing: &str, path: &Path, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => Kind::Code(ErrorCode::NotFound),
            io::ErrorKind::AlreadyExists => Kind::Code(ErrorCode::AlreadyExists),
            io::ErrorKind::StorageFull => Kind::Code(ErrorCode::NoSpace),
            io::ErrorKind::BrokenPipe => Kind::OutputClosed,
            _ => Kind::Local,
        };
        Self::of_kind(kind, format!("cannot {doing} local {}: {error}", path.display()))
    }

    /// The same error, with what failed in front.
    #[must_use]
    pub fn about(mut self, what: impl fmt::Display) -> Self {
        self.message = one_line(&format!("{what}: {}", self.message));
        self
    }

    /// The same error, with what to do behind.
    #[must_use]
    pub fn hint(mut self, what: impl fmt::Display) -> Self {
        self.message = one_line(&format!("{}; {what}", self.message));
        self
    }

    /// Whether it is this error of the table.
    pub fn is(&self, code: ErrorCode) -> bool {
        self.kind == Kind::Code(code)
    }

    /// The name in `--json` errors.
    pub fn code_name(&self) -> String {
        match self.kind {
            Kind::Code(code) => code.to_string(),
            Kind::Local => "Local".into(),
            Kind::Several(_) => "Several".into(),
            Kind::OutputClosed => "OutputClosed".into(),
            Kind::Interrupted(_) => "Interrupted".into(),
        }
    }

    /// What the process exits with.
    pub fn exit_number(&self) -> u8 {
        match self.kind {
            Kind::OutputClosed => 0,
            Kind::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
            _ => self.exit() as u8,
        }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self.kind {
            Kind::Code(code) => exit_of(code),
            Kind::Several(exit) => exit,
            Kind::Local | Kind::OutputClosed | Kind::Interrupted(_) => Exit::Failure,
        }
    }

    /// Whether the whole command must end, even one that goes on over the failures of single items.
    pub fn ends_everything(&self) -> bool {
        matches!(self.kind, Kind::OutputClosed | Kind::Interrupted(_))
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ClientError> for CliError {
    fn from(from: ClientError) -> Self {
        CliError::new(from.code(), from.to_string())
    }
}

/// The exit code of each error of the table.
pub fn exit_of(code: ErrorCode) -> Exit {
    use ErrorCode as E;
    match code {
        E::InvalidArgument => Exit::Usage,
        E::NotFound => Exit::NotFound,
        E::AlreadyExists
        | E::NotEmpty
        | E::Conflict
        | E::LeaseHeld
        | E::LeaseLost
        | E::Fenced
        | E::Compacted
        | E::OtherLineage => Exit::Conflict,
        E::Busy
        | E::NotEnoughServers
        | E::NotLeader
        | E::TooStale
        | E::Unavailable
        | E::DeadlineExceeded
        | E::OutcomeUnknown
        | E::UnderReplicated
        | E::StaleLeader
        | E::PipelineBroken => Exit::Unavailable,
        E::Corrupt | E::NoReplica | E::Mismatch => Exit::DataLost,
        E::Internal
        | E::NotADirectory
        | E::IsADirectory
        | E::NoSpace
        | E::Unauthorized
        | E::VersionMismatch
        | E::DiskFailed
        | E::Cycle => Exit::Failure,
    }
}

/// Collects the failures of single items while a command goes on over the others.
#[derive(Debug, Default)]
pub struct Failures {
    count: u64,
    last: Option<CliError>,
    shared: Option<Exit>,
    mixed: bool,
}

impl Failures {
    /// Notes one; the caller has told the user, or will.
    pub fn add(&mut self, error: CliError) {
        let exit = error.exit();
        self.mixed |= self.shared.is_some_and(|before| before != exit);
        self.shared = Some(exit);
        self.count += 1;
        self.last = Some(error);
    }

    /// The end of a command over `of` items called `things`.
    pub fn outcome(self, of: u64, things: &str) -> Outcome {
        match self.shared {
            None => Ok(()),
            Some(shared) => {
                let exit = if self.mixed { Exit::Failure } else { shared };
                Err(CliError::of_kind(
                    Kind::Several(exit),
                    format!("{} of {of} {things} failed, see the lines above; the others are done", self.count),
                ))
            }
        }
    }

    /// The same, for items that the user named: a single one's failure is the command's.
    pub fn outcome_of_named(self, of: u64, things: &str) -> Outcome {
        match self {
            Failures { count: 1, last: Some(only), .. } if of == 1 => Err(only),
            several => several.outcome(of, things),
        }
    }
}

fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_documented_exit() {
        for code in ErrorCode::ALL {
            let exit = exit_of(*code) as u8;
            assert!((1..=6).contains(&exit), "{code}");
            assert!(EXIT_CODES.contains(&format!("\n    {exit}  ")));
        }
        assert_eq!(exit_of(ErrorCode::NotFound) as u8, 3);
        assert_eq!(exit_of(ErrorCode::AlreadyExists) as u8, 4);
        assert_eq!(exit_of(ErrorCode::DeadlineExceeded) as u8, 5);
        assert_eq!(exit_of(ErrorCode::Corrupt) as u8, 6);
    }

    #[test]
    fn signals_and_closed_output_have_their_own_exit() {
        assert_eq!(CliError::of_kind(Kind::Interrupted(2), "").exit_number(), 130);
        assert_eq!(CliError::of_kind(Kind::Interrupted(15), "").exit_number(), 143);
        assert_eq!(CliError::of_kind(Kind::OutputClosed, "").exit_number(), 0);
    }

    #[test]
    fn a_message_is_one_line() {
        assert_eq!(CliError::local("a\nb\r\n\n c").about("x").to_string(), "x: a; b; c");
    }

    #[test]
    fn failures_share_an_exit_or_fall_back_to_1() {
        let of = |codes: &[ErrorCode]| {
            let mut failures = Failures::default();
            codes.iter().for_each(|code| failures.add(CliError::new(*code, "x")));
            failures.outcome(9, "files").map_err(|error| error.exit_number())
        };
        assert_eq!(of(&[]), Ok(()));
        assert_eq!(of(&[ErrorCode::NotFound, ErrorCode::NotFound]), Err(3));
        assert_eq!(of(&[ErrorCode::NotFound, ErrorCode::Corrupt]), Err(1));
        assert_eq!(of(&[ErrorCode::NotFound, ErrorCode::Corrupt, ErrorCode::Corrupt]), Err(1));
    }
}
