use std::collections::BTreeMap;

use quarry_types::{ErrorCode, limits::REPLICAS_MAX};

use crate::{
    command::{PutSettings, Settings},
    keys,
    reply::Reply,
    rows::{Change, SettingChange, SettingsChanged},
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
    let changed = changes(&write.settings()?, &command.settings);
    if !changed.is_empty() {
        write.tell(Change::SettingsChanged(SettingsChanged { changed }));
    }
    write.put(Table::Meta, keys::SETTINGS.to_vec(), &command.settings);
    Ok(Reply::DONE)
}

/// What is set to something else, or to nothing any more. From what is stored alone: defaults differ between builds, and
/// events must not.
fn changes(before: &Settings, after: &Settings) -> Vec<SettingChange> {
    let set = |of: &Settings| -> BTreeMap<String, u64> {
        let knobs = of.knobs.iter().filter(|knob| knob.name != settings::BALANCE_ASKED.name);
        let fields = settings::fields(of).map(|(name, value)| (name.to_owned(), value));
        knobs.map(|knob| (knob.name.clone(), knob.value)).chain(fields).collect()
    };
    let (before, after) = (set(before), set(after));
    let changed = after.iter().filter(|(name, value)| before.get(*name) != Some(value));
    let set = changed.map(|(name, value)| SettingChange { name: name.clone(), value: *value, unset: false });
    let unset = before.keys().filter(|name| !after.contains_key(*name));
    let unset = unset.map(|name| SettingChange { name: name.clone(), value: 0, unset: true });
    set.chain(unset).collect()
}
