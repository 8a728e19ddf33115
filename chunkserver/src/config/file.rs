//! The settings file.

use std::path::PathBuf;

use toml::Value;

use super::RunArgs;

/// Fills what `args` leave open from the text of a file. Unknown keys and wrong types are faults, all of them.
pub(super) fn fill(args: &mut RunArgs, text: &str, path: &str, faults: &mut Vec<String>) {
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(e) => return faults.push(format!("{path}: {}", e.to_string().trim_end().replace('\n', "\n    "))),
    };
    for (key, value) in table {
        let known = match key.as_str() {
            "data" => fill_list(&mut args.data, value, PathBuf::from),
            "capacity" => fill_list(&mut args.capacity, value, |text| text),
            "masters" => fill_list(&mut args.masters, value, |text| text),
            "key_file" => fill_one(&mut args.key_file, value, PathBuf::from),
            "listen" => fill_one(&mut args.listen, value, |text| text),
            "advertise" => fill_one(&mut args.advertise, value, |text| text),
            "rack" => fill_one(&mut args.rack, value, |text| text),
            "durability" => fill_one(&mut args.durability, value, |text| text),
            "http" => fill_one(&mut args.http, value, |text| text),
            "local_socket" => fill_one(&mut args.local_socket, value, PathBuf::from),
            "small_chunks" => fill_one(&mut args.small_chunks, value, |text| text),
            "scrub_period" => fill_one(&mut args.scrub_period, value, |text| text),
            "scrub_rate" => fill_one(&mut args.scrub_rate, value, |text| text),
            "log_format" => fill_one(&mut args.log_format, value, |text| text),
            "log" => fill_one(&mut args.log, value, |text| text),
            _ => Err("is not a setting; see `quarry-chunkserver run --help`"),
        };
        if let Err(e) = known {
            faults.push(format!("{path}: {key} {e}"));
        }
    }
}

fn fill_one<T>(to: &mut Option<T>, value: Value, make: impl Fn(String) -> T) -> Result<(), &'static str> {
    let Value::String(text) = value else {
        return Err("must be a text in quotes");
    };
    to.get_or_insert_with(|| make(text));
    Ok(())
}

fn fill_list<T>(to: &mut Vec<T>, value: Value, make: impl Fn(String) -> T) -> Result<(), &'static str> {
    let items = match value {
        Value::Array(items) => items,
        one @ Value::String(_) => vec![one],
        _ => return Err("must be a text in quotes or a list of them"),
    };
    let texts = items.into_iter().map(|item| match item {
        Value::String(text) => Ok(make(text)),
        _ => Err("must hold texts in quotes only"),
    });
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    if to.is_empty() {
        *to = texts;
    }
    Ok(())
}
