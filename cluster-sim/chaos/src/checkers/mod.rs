//! The safety rules S1 to S11, one file each: what a checker looks at, from where, and what it cannot see.
//!
//! Those that judge single changes (S2, S5, S6, S7, S10, S11) are asked by the books at the moment of the change, before it is
//! made; those that judge what clients were told (S1, S3, S4, S8) by the clients; S9 and the sameness of masters at the end.
//! Each is a pure function of what was seen, so that each has a test here that shows it refusing.

pub mod s1;
pub mod s10;
pub mod s11;
pub mod s2;
pub mod s3;
pub mod s4;
pub mod s5;
pub mod s6;
pub mod s7;
pub mod s8;
pub mod s9;
