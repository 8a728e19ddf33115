//! What a namespace is, one operation after another: the truth that recorded histories are compared with.

use todc_utils::specifications::Specification;

/// Names in a group. Operations of different groups have nothing to do with one another.
pub const NAMES: usize = 3;

/// A file's contents, told by their CRC: each writing has its own, also of the same name.
pub type Value = u32;

/// What a client asked for; names by number in their group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// To write a file that must not be there.
    Create {
        /// Which.
        name: usize,
        /// Its contents.
        value: Value,
    },
    /// To write a file, whatever is there.
    Put {
        /// Which.
        name: usize,
        /// Its contents.
        value: Value,
    },
    /// To rename a file, without replacing another.
    Rename {
        /// Which.
        from: usize,
        /// To what.
        to: usize,
    },
    /// To remove a file.
    Remove {
        /// Which.
        name: usize,
    },
    /// What is there.
    Stat {
        /// Where.
        name: usize,
    },
    /// What is in there.
    Get {
        /// Where.
        name: usize,
    },
}

/// What it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// This is there.
    Found(Value),
    /// Nothing is there.
    NotFound,
    /// Something is there already.
    AlreadyExists,
    /// Nothing for certain: it may take effect at any time after it was asked for, or never.
    Unknown,
}

/// The names of a group and what is under them.
pub type Names = [Option<Value>; NAMES];

/// What a call does and answers when nothing else happens.
#[must_use]
pub fn step(names: &Names, call: Call) -> (Names, Outcome) {
    let mut after = *names;
    let outcome = match call {
        Call::Create { name, .. } if names[name].is_some() => Outcome::AlreadyExists,
        Call::Create { name, value } | Call::Put { name, value } => {
            after[name] = Some(value);
            Outcome::Done
        }
        Call::Rename { from, .. } if names[from].is_none() => Outcome::NotFound,
        Call::Rename { to, .. } if names[to].is_some() => Outcome::AlreadyExists,
        Call::Rename { from, to } => {
            after[to] = after[from].take();
            Outcome::Done
        }
        Call::Remove { name } => after[name].take().map_or(Outcome::NotFound, |_| Outcome::Done),
        Call::Stat { name } | Call::Get { name } => names[name].map_or(Outcome::NotFound, Outcome::Found),
    };
    (after, outcome)
}

/// The model, as the checker wants it.
pub struct Namespace;

impl Specification for Namespace {
    type State = Names;
    type Operation = (Call, Outcome);

    fn init() -> Names {
        Names::default()
    }

    fn apply((call, told): &(Call, Outcome), names: &Names) -> (bool, Names) {
        let (after, outcome) = step(names, *call);
        (*told == Outcome::Unknown || *told == outcome, after)
    }
}
