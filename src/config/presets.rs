//! Region presets: a short name for a pair of hosts.

/// The hosts of one region.
pub struct Preset {
    pub api_url: String,
    pub token_url: String,
}

/// # Errors
/// The known names.
pub fn check(region: &str) -> Result<Preset, String> {
    match region {
        "us1" => Ok(Preset {
            api_url: "https://api.mypurecloud.com".to_owned(),
            token_url: "https://login.mypurecloud.com/oauth/token".to_owned(),
        }),
        _ => Err("unknown region; known: us1".to_owned()),
    }
}
