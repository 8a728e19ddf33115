use quarry_master_core::{
    command::{Kind, PutSettings, Settings},
    query,
    settings::{self, BALANCE_AUTOMATIC},
};
use quarry_proto::v1;
use quarry_types::ErrorCode;

use super::Service;
use crate::error::{Fault, fault};

impl Service {
    /// Every setting, as people write them.
    pub async fn settings(&self) -> Result<v1::SettingsReply, Fault> {
        self.shared.leading()?;
        self.shared.read(|tables| query::settings(tables)).await.map(|settings| shown(&settings))
    }

    /// Changes the settings that are named, all or none; answers with all.
    pub async fn set_settings(&self, changes: Vec<v1::Setting>) -> Result<v1::SettingsReply, Fault> {
        if changes.is_empty() {
            return Err(fault(ErrorCode::InvalidArgument, "no setting is named; write NAME=VALUE"));
        }
        let leading = self.shared.leading()?;
        let _one_at_a_time = self.shared.changing_settings.lock().await;
        let mut settings = self.shared.read(|tables| query::settings(tables)).await?;
        for change in &changes {
            settings.change(&change.name, &change.value).map_err(|why| fault(ErrorCode::InvalidArgument, why))?;
        }
        self.shared.propose(Kind::PutSettings(PutSettings { settings: settings.clone() })).await?;
        if changes.iter().any(|change| change.name == BALANCE_AUTOMATIC.name) {
            leading.soft().repairing.balancing.stopped = false;
        }
        for change in changes {
            tracing::info!(name = change.name, value = change.value, "a setting was changed");
        }
        Ok(shown(&settings))
    }
}

fn shown(settings: &Settings) -> v1::SettingsReply {
    let one = |definition: &settings::Definition| v1::Setting {
        name: definition.name.into(),
        value: settings::show(definition.unit, settings.get(definition)),
        about: format!("{}; {}", definition.about, settings::range(definition)),
        default_value: settings::show(definition.unit, definition.default),
    };
    let mut all: Vec<v1::Setting> = settings::all().map(one).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    v1::SettingsReply { settings: all }
}
