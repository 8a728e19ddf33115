//! The simulator of whole clusters: the master's own decisions over years of simulated failures.
//!
//! It links the cores only, so that it builds in seconds and cannot do I/O but read and write the files of its command line. The
//! decisions (who is alive, what is repaired first, from where to where, how fast, when to hold, what moves to even out) are those
//! of [`quarry_master_core`], never copies of them; what is simulated is what they are about. `cluster-sim/README.md` is the guide,
//! and says what the model assumes and what it leaves out.
//!
//! One seed, one run: nothing here asks a clock, iterates in hash order or draws from elsewhere.
//!
//! | module | holds |
//! |---|---|
//! | [`scenario`] | what is simulated, as a TOML file says it |
//! | [`state`] | the state of a real cluster, as `quarry admin export-state` writes it |
//! | [`world`] | everything that is, from event to event; [`agenda`] says what is next |
//! | [`model`] | chunks, servers, network |
//! | [`leader`] | what a leader remembers around the core's decisions |
//! | [`measure`] | what is measured meanwhile |
//! | [`report`] | what came out: text, JSON, one HTML page |
//! | [`sweep`] | many seeds and several values of one key side by side |
//! | [`cli`] | the command line |
//!
//! The simulation of the real servers and the real client, on a simulated network and disk, is a test:
//! `tests/tests/sim_world.rs`, over `env/sim`.

pub mod agenda;
pub mod chance;
pub mod cli;
pub mod leader;
pub mod limits;
pub mod measure;
pub mod model;
pub mod report;
pub mod scenario;
pub mod state;
pub mod sweep;
pub mod units;
pub mod world;
