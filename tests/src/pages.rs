//! What servers show over HTTP.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::process::Process;

/// A page takes no longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A page: its status line and headers, and its body.
///
/// # Panics
/// When the process does not answer.
#[must_use]
pub fn page(process: &Process, path: &str) -> String {
    let address = process.http.as_deref().expect("it serves HTTP");
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a deadline can be set");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("it takes a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers with text");
    answer
}

/// The value of a metric, named as it stands on the page.
///
/// # Panics
/// When the process does not answer.
#[must_use]
pub fn metric(process: &Process, name: &str) -> Option<f64> {
    let page = page(process, "/metrics");
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
