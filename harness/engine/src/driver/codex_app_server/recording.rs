//! How Codex is made to send its requests to the recording proxy.

/// Arguments that direct Codex to `base_url`, without a change of the user's own settings.
pub(super) fn settings(base_url: &str, has_key: bool) -> Vec<String> {
    let provider = "model_providers.cutpoint-record";
    let login = if has_key {
        "env_key=\"OPENAI_API_KEY\""
    } else {
        "requires_openai_auth=true"
    };
    let settings = [
        "model_provider=\"cutpoint-record\"".to_owned(),
        format!("{provider}.name=\"cutpoint record\""),
        format!("{provider}.base_url=\"{base_url}\""),
        format!("{provider}.wire_api=\"responses\""),
        format!("{provider}.supports_websockets=false"),
        format!("{provider}.{login}"),
    ];
    settings
        .into_iter()
        .flat_map(|setting| ["-c".to_owned(), setting])
        .collect()
}
