use quarry_types::ErrorCode;

use crate::{
    command::RaiseLevel,
    feature, keys,
    reply::Reply,
    rows::FeatureLevel,
    state::{Fault, Write, refuse},
    tables::Table,
};

/// Raises the feature level. It never goes down: what was applied above stays in the tables.
pub(crate) fn raise(write: &mut Write<'_, '_>, command: &RaiseLevel) -> Result<Reply, Fault> {
    let in_force = feature::level(write.tables())?;
    if command.level < in_force {
        let why = format!("the feature level is {in_force} and never goes down; {} was asked for", command.level);
        return refuse(ErrorCode::Conflict, why);
    }
    if command.level > in_force {
        set(write, command.level);
    }
    Ok(Reply::DONE)
}

pub(crate) fn set(write: &mut Write<'_, '_>, level: u32) {
    write.put(Table::Meta, keys::FEATURE_LEVEL.to_vec(), &FeatureLevel { level });
}
