//! What the process was told: flags, environment and file, in this order of precedence.
//!
//! Each setting has one name: `--key-file` on the command line, `QUARRY_MASTER_KEY_FILE` in the environment,
//! `key-file = "…"` in the file. Unknown names are refused, and all faults are reported at once.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use quarry_types::{duration, limits};

/// Log lines unless told otherwise: openraft tells its whole state at `info`, and at `warn` ten times a second of each member
/// that does not answer, which `raft::network` says once.
const LOG: &str = "info,openraft=error";

/// A format for log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Everything a running master was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MasterConfig {
    /// The data directory, made by `init`.
    pub data: PathBuf,
    /// The cluster's key.
    pub key_file: PathBuf,
    /// Where to listen, `host:port`; port 0 lets the system pick.
    pub listen: String,
    /// Where others reach this master; absent: where it listens.
    pub advertise: Option<String>,
    /// Where metrics and health are served over HTTP, if anywhere; port 0 lets the system pick.
    pub http: Option<String>,
    /// A writer lease that is not renewed ends after this.
    pub lease: Duration,
    /// A session without a call ends after this.
    pub session: Duration,
    /// Form of the log lines.
    pub log_format: LogFormat,
    /// Which log lines, in the syntax of tracing's filters.
    pub log: String,
}

/// Name of a setting in the file; with `--` before it the flag, with [`ENV_PREFIX`] and in capitals the variable.
const NAMES: [&str; 9] = ["data", "key-file", "listen", "advertise", "http", "lease", "session", "log-format", "log"];

/// Turns the HTTP port off.
const NO_HTTP: &str = "none";

/// What the variables of this binary begin with.
pub const ENV_PREFIX: &str = "QUARRY_MASTER_";
/// The variable that names the configuration file, as `--config` does.
pub const ENV_CONFIG: &str = "QUARRY_MASTER_CONFIG";
/// Name of the key file in a data directory, when no other is set.
pub const KEY_FILE: &str = "cluster.key";

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFaults(pub Vec<String>);

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration has faults:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  - {fault}"))
    }
}

impl std::error::Error for ConfigFaults {}

/// Settings of one origin, by name.
pub type Settings = BTreeMap<String, String>;

/// The settings among environment variables; unknown ones with our prefix are faults.
#[must_use]
pub fn from_env(variables: impl IntoIterator<Item = (String, String)>) -> (Settings, Vec<String>) {
    let (mut settings, mut faults) = (Settings::new(), Vec::new());
    for (variable, value) in variables {
        let Some(rest) = variable.strip_prefix(ENV_PREFIX) else { continue };
        let name = rest.to_ascii_lowercase().replace('_', "-");
        if NAMES.contains(&name.as_str()) {
            settings.insert(name, value);
        } else if variable != ENV_CONFIG {
            faults.push(format!("unknown environment variable {variable}"));
        }
    }
    (settings, faults)
}

/// The settings in a configuration file; unknown keys and values that are no text are faults.
#[must_use]
pub fn from_file(text: &str) -> (Settings, Vec<String>) {
    let (mut settings, mut faults) = (Settings::new(), Vec::new());
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(e) => return (settings, vec![format!("the configuration file is not TOML: {}", e.message())]),
    };
    for (key, value) in table {
        match value {
            _ if !NAMES.contains(&key.as_str()) => {
                faults.push(format!("unknown key {key:?} in the configuration file"));
            }
            toml::Value::String(text) => {
                settings.insert(key, text);
            }
            other => {
                faults.push(format!("{key} in the configuration file is a {}; write it in quotes", other.type_str()))
            }
        }
    }
    (settings, faults)
}

/// One configuration from all origins, the strongest first.
///
/// # Errors
/// [`ConfigFaults`] with every fault, among them those the origins already had.
pub fn resolve(origins: &[Settings], faults: Vec<String>) -> Result<MasterConfig, ConfigFaults> {
    let mut resolver = Resolver { origins, faults };
    let data = PathBuf::from(resolver.text("data").unwrap_or_default());
    if data.as_os_str().is_empty() {
        resolver.faults.push("data is not set: name the data directory with --data DIR".into());
    }
    let config = MasterConfig {
        key_file: resolver.text("key-file").map_or_else(|| data.join(KEY_FILE), PathBuf::from),
        listen: resolver.address("listen").unwrap_or_else(|| format!("127.0.0.1:{}", limits::MASTER_PORT)),
        advertise: resolver.address("advertise"),
        http: resolver.http(),
        lease: resolver.duration("lease", limits::LEASE),
        session: resolver.duration("session", limits::SESSION),
        log_format: resolver.log_format(),
        log: resolver.text("log").unwrap_or_else(|| LOG.into()),
        data,
    };
    if config.advertise.is_none() && is_everywhere(&config.listen) {
        resolver.faults.push(format!(
            "listen {:?} is every address of this machine: name with --advertise HOST:PORT the one where others reach it",
            config.listen
        ));
    }
    if config.lease >= config.session {
        resolver.faults.push("lease must be shorter than session: a lease belongs to a session".into());
    }
    if resolver.faults.is_empty() { Ok(config) } else { Err(ConfigFaults(resolver.faults)) }
}

struct Resolver<'a> {
    origins: &'a [Settings],
    faults: Vec<String>,
}

impl Resolver<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.origins.iter().find_map(|settings| settings.get(name)).cloned()
    }

    fn address(&mut self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        if !is_address(&text) {
            self.faults.push(format!("{name} {text:?} is not HOST:PORT"));
        }
        Some(text)
    }

    fn http(&mut self) -> Option<String> {
        match self.text("http").as_deref() {
            None => Some(http_default()),
            Some(NO_HTTP) => None,
            Some(_) => self.address("http"),
        }
    }

    fn duration(&mut self, name: &str, default: Duration) -> Duration {
        let Some(text) = self.text(name) else { return default };
        duration::parse(&text).unwrap_or_else(|| {
            self.faults.push(format!("{name} {text:?} is not {}", duration::EXPECTED));
            default
        })
    }

    fn log_format(&mut self) -> LogFormat {
        match self.text("log-format").as_deref() {
            None | Some("human") => LogFormat::Human,
            Some("json") => LogFormat::Json,
            Some(other) => {
                self.faults.push(format!("log-format {other:?} is neither human nor json"));
                LogFormat::Human
            }
        }
    }
}

fn http_default() -> String {
    format!("127.0.0.1:{}", limits::MASTER_HTTP_PORT)
}

/// Whether a text has the form `HOST:PORT`.
#[must_use]
pub fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok()
    })
}

/// Whether `HOST:PORT` is a place to listen at and none to connect to.
#[must_use]
pub fn is_everywhere(address: &str) -> bool {
    address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified())
}

impl MasterConfig {
    /// A configuration with the defaults for a data directory.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        let data = data.into();
        MasterConfig {
            key_file: data.join(KEY_FILE),
            data,
            listen: format!("127.0.0.1:{}", limits::MASTER_PORT),
            advertise: None,
            http: Some(http_default()),
            lease: limits::LEASE,
            session: limits::SESSION,
            log_format: LogFormat::Human,
            log: LOG.into(),
        }
    }

    /// The configuration as a file that says the same.
    #[must_use]
    pub fn to_file(&self) -> String {
        let mut table = toml::Table::new();
        let mut put = |name: &str, value: String| table.insert(name.into(), toml::Value::String(value));
        put("data", self.data.display().to_string());
        put("key-file", self.key_file.display().to_string());
        put("listen", self.listen.clone());
        if let Some(advertise) = &self.advertise {
            put("advertise", advertise.clone());
        }
        put("http", self.http.clone().unwrap_or_else(|| NO_HTTP.into()));
        put("lease", duration::show(self.lease));
        put("session", duration::show(self.session));
        put("log-format", if self.log_format == LogFormat::Json { "json" } else { "human" }.into());
        put("log", self.log.clone());
        table.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn a_flag_beats_the_environment_beats_the_file() {
        let (file, faults) = from_file("data = \"/f\"\nlisten = \"f:1\"\nlease = \"7s\"\n");
        assert!(faults.is_empty());
        let (env, faults) = from_env([
            ("QUARRY_MASTER_LISTEN".into(), "e:2".into()),
            ("QUARRY_MASTER_DATA".into(), "/e".into()),
            ("QUARRY_MASTERS".into(), "for the client".into()),
        ]);
        assert!(faults.is_empty());
        let config = resolve(&[settings(&[("data", "/flag")]), env, file], vec![]).unwrap();
        assert_eq!(config.data, PathBuf::from("/flag"));
        assert_eq!(config.key_file, PathBuf::from("/flag/cluster.key"));
        assert_eq!((config.listen.as_str(), config.lease), ("e:2", Duration::from_secs(7)));
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let (file, mut faults) = from_file("data = 7\ncolour = \"red\"\nlog-format = \"xml\"\n");
        let (env, more) = from_env([("QUARRY_MASTER_COLOUR".into(), "blue".into())]);
        faults.extend(more);
        let flags = settings(&[("listen", "nowhere"), ("lease", "-3s"), ("advertise", "h:99999"), ("http", "web")]);
        let faults = resolve(&[flags, env, file], faults).unwrap_err().to_string();
        for word in [
            "data in the",
            "\"colour\"",
            "QUARRY_MASTER_COLOUR",
            "xml",
            "nowhere",
            "-3s",
            "h:99999",
            "\"web\"",
            "--data",
        ] {
            assert!(faults.contains(word), "{word} is missing in: {faults}");
        }
    }

    #[test]
    fn who_listens_everywhere_says_where_it_is_reached() {
        for everywhere in ["0.0.0.0:9400", "[::]:9400"] {
            let listen = settings(&[("data", "/d"), ("listen", everywhere)]);
            let faults = resolve(std::slice::from_ref(&listen), vec![]).unwrap_err().to_string();
            assert!(faults.contains("--advertise"), "{faults}");
            resolve(&[listen, settings(&[("advertise", "me:9400")])], vec![]).unwrap();
        }
        resolve(&[settings(&[("data", "/d"), ("listen", "127.0.0.1:0")])], vec![]).unwrap();
    }

    #[test]
    fn the_printed_configuration_reads_back() {
        let mut config = MasterConfig::new("/some/where");
        config.advertise = Some("me:1".into());
        config.lease = Duration::from_millis(1500);
        let (file, faults) = from_file(&config.to_file());
        assert_eq!(resolve(&[file], faults), Ok(config.clone()));
        config.http = None;
        let (file, faults) = from_file(&config.to_file());
        assert_eq!(resolve(&[file], faults), Ok(config));
    }
}
