//! What operators set.

use quarry_proto::v1;

use crate::{Client, ClientError, admin::admin};

/// A setting of the cluster. Values are written as people write them: `10s`, `50MB/s`, `20 %`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// What it is called.
    pub name: String,
    /// What holds now.
    pub value: String,
    /// What holds when nothing is set.
    pub default: String,
    /// What it does, and what may be set.
    pub about: String,
}

fn settings(reply: v1::SettingsReply) -> Vec<Setting> {
    let setting =
        |one: v1::Setting| Setting { name: one.name, value: one.value, default: one.default_value, about: one.about };
    reply.settings.into_iter().map(setting).collect()
}

impl Client {
    /// Every setting of the cluster, by name.
    ///
    /// # Errors
    /// When no master answers.
    pub async fn settings(&self) -> Result<Vec<Setting>, ClientError> {
        self.shared
            .ask("asking for the settings", v1::GetSettingsRequest {}, |channel, request| {
                Box::pin(async move { admin(channel).get_settings(request).await })
            })
            .await
            .map(settings)
    }

    /// Changes settings by name, all of them or none. They hold from then on; all settings as they are now.
    ///
    /// # Errors
    /// [`quarry_types::ErrorCode::InvalidArgument`] names what cannot be and what can, and others.
    pub async fn set_settings(&self, changes: &[(&str, &str)]) -> Result<Vec<Setting>, ClientError> {
        let change = |(name, value): &(&str, &str)| v1::Setting {
            name: (*name).into(),
            value: (*value).into(),
            ..v1::Setting::default()
        };
        let request = v1::SetSettingsRequest { settings: changes.iter().map(change).collect() };
        self.shared
            .ask("changing settings", request, |channel, request| {
                Box::pin(async move { admin(channel).set_settings(request).await })
            })
            .await
            .map(settings)
    }
}
