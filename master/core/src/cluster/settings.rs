use quarry_types::{ErrorCode, limits::REPLICAS_MAX};

use crate::{
    command::{PutSettings, Settings},
    keys,
    reply::Reply,
    settings,
    state::{Fault, Write, refuse},
    tables::Table,
};

/// Refuses settings that cannot work.
pub(crate) fn check(settings: &Settings) -> Result<(), Fault> {
    for (name, value) in [("min_replicas", settings.min_replicas), ("default_replicas", settings.default_replicas)] {
        if !(1..=REPLICAS_MAX).contains(&value) {
            return refuse(ErrorCode::InvalidArgument, format!("{name} is {value}; choose 1 to {REPLICAS_MAX}"));
        }
    }
    settings::check(&settings.knobs).or_else(|why| refuse(ErrorCode::InvalidArgument, why))
}

/// Changes the settings. They hold from the next command on.
pub(crate) fn put(write: &mut Write<'_, '_>, command: &PutSettings) -> Result<Reply, Fault> {
    check(&command.settings)?;
    write.put(Table::Meta, keys::SETTINGS.to_vec(), &command.settings);
    Ok(Reply::DONE)
}
