//! What stands behind flags, as people write it.

use std::time::Duration;

use crate::error::{CliError, Outcome};

/// `HOST:PORT`.
pub(super) fn host_port(text: &str) -> Outcome<String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(1..)) => Ok(text.into()),
        _ => Err(CliError::usage(format!("{text:?} is no address; write HOST:PORT, as in 127.0.0.1:9400"))),
    }
}

/// The same, as clap takes it.
pub(super) fn address(text: &str) -> Result<String, String> {
    host_port(text).map_err(|error| error.to_string())
}

/// The longest time that a command waits.
const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The shortest and the longest maintenance. Source of the longest: the master's own limit.
const MAINTENANCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30 * 24 * 3600));

/// A time as people write it; a number alone counts seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    if time > DURATION_MAX { Err("write a time of at most 7 days, as in 30s, 2m or 1h".into()) } else { Ok(time) }
}

/// How long a maintenance lasts.
pub(super) fn maintenance(text: &str) -> Result<Duration, String> {
    let (least, most) = MAINTENANCE;
    let time = time(text)?;
    if time < least || time > most {
        return Err(
            "a maintenance lasts from 1 second to 30 days; write 30m, 2h or 3d (for good is `quarry decommission`)"
                .into(),
        );
    }
    Ok(time)
}

fn time(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || "write a time above zero, as in 500ms, 30s, 2m, 1h or 3d".to_string();
    let seconds = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 24.0 * 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = number * seconds;
    // Longer than anybody can mean: what is too long is said by who knows what is not.
    let time =
        Duration::try_from_secs_f64(seconds).unwrap_or(if seconds > 0.0 { Duration::MAX } else { Duration::ZERO });
    if time.is_zero() { Err(wrong()) } else { Ok(time) }
}

/// `NAME=VALUE`.
pub(super) fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or("write NAME=VALUE, as in trash=7d; `quarry settings` lists the names")?;
    Ok((name.trim().into(), value.trim().into()))
}

/// A signal by name, with or without `SIG`, or by number.
pub(super) fn signal(text: &str) -> Result<nix::sys::signal::Signal, String> {
    use nix::sys::signal::Signal;
    let upper = text.to_ascii_uppercase();
    let found = match upper.parse::<i32>() {
        Ok(number) => Signal::try_from(number).ok(),
        Err(_) => format!("SIG{}", upper.strip_prefix("SIG").unwrap_or(&upper)).parse().ok(),
    };
    found.ok_or_else(|| "write a signal as in KILL, SIGSTOP or 15".into())
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn times_and_signals_are_read_as_people_write_them() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for bad in ["", "0s", "-1s", "1y", "s", "1e99s", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(duration("99999d").unwrap_err().contains("at most 7 days"));
        assert_eq!(maintenance("8d"), Ok(Duration::from_secs(8 * 24 * 3600)));
        assert_eq!(maintenance("1s"), Ok(Duration::from_secs(1)));
        for bad in ["1ms", "999ms", "31d", "99999d", "99999999999999999999h"] {
            assert!(maintenance(bad).is_err_and(|why| why.contains("from 1 second to 30 days")), "{bad}");
        }
        assert!(maintenance("0s").is_err() && maintenance("-1d").is_err());
        assert_eq!(signal("kill"), Ok(Signal::SIGKILL));
        assert_eq!(signal("SIGSTOP"), Ok(Signal::SIGSTOP));
        assert_eq!(signal("15"), Ok(Signal::SIGTERM));
        assert!(signal("NOPE").is_err() && signal("0").is_err());
    }
}
