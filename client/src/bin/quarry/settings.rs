//! `quarry settings`.

use quarry_client::Setting;
use serde_json::{Value, json};

use crate::{args::Settings, context::Context, enough, error::Outcome, human, output::Out};

/// Lists the settings; with changes, makes them first.
pub async fn run(context: &Context, args: Settings) -> Outcome {
    let client = context.client().await?;
    let changes: Vec<(&str, &str)> = args.changes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut settings =
        if changes.is_empty() { client.settings().await? } else { client.set_settings(&changes).await? };
    if !changes.is_empty() {
        settings.retain(|setting| changes.iter().any(|(name, _)| *name == setting.name));
        enough::warn_settings(context, client, &settings).await;
    }
    let mut out = Out::new();
    if context.global.json {
        out.json(&json!({"settings": settings.iter().map(json_of).collect::<Vec<_>>()})).await?;
        return out.flush().await;
    }
    let rows: Vec<Vec<String>> = settings.into_iter().map(|s| vec![s.name, s.value, s.default, s.about]).collect();
    for line in human::table(&["SETTING", "VALUE", "DEFAULT", "WHAT IT DOES"], &["VALUE", "DEFAULT"], &rows) {
        out.line(line).await?;
    }
    out.flush().await
}

fn json_of(setting: &Setting) -> Value {
    json!({"name": setting.name, "value": setting.value, "default": setting.default, "about": setting.about})
}
