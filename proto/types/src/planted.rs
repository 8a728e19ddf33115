//! Bugs that are planted on purpose, to prove that the simulation finds them (`cluster-sim/chaos`).
//!
//! They exist only where the compiler is told `--cfg quarry_planted`, which `scripts/planted` does and nothing that is shipped;
//! everywhere else [`planted!`](crate::planted!) is the constant `false`, and not even the name of a bug is in the program. One at
//! a time is alive: the one that the variable `QUARRY_PLANTED` names.

/// Whether the bug of this name is alive: never, but in a build with `--cfg quarry_planted`.
#[cfg(not(quarry_planted))]
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        false
    };
}

/// Whether the bug of this name is alive.
#[cfg(quarry_planted)]
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        $crate::planted::is_alive(concat!("quarry-planted-bug:", $name))
    };
}

/// Whether this process was told that the bug with this marker is alive.
#[cfg(quarry_planted)]
pub fn is_alive(marker: &'static str) -> bool {
    static ALIVE: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let alive = ALIVE.get_or_init(|| std::env::var("QUARRY_PLANTED").ok());
    alive.as_deref() == marker.strip_prefix("quarry-planted-bug:")
}
