//! Region presets: where a region's API and token endpoint are. A convenience only: regions are
//! added faster than releases, so a configuration may always state both URLs itself.

/// The addresses of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preset {
    pub api_url: String,
    pub token_url: String,
}

/// A region that no preset is known for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown region {name:?}; known: {known}. For any other, set api_url and token_url")]
pub struct UnknownRegion {
    pub name: String,
    known: String,
}

/// Name and domain; the short names are what people write for the first two regions.
const REGIONS: [(&str, &str); 20] = [
    ("us1", "mypurecloud.com"),
    ("eu1", "mypurecloud.ie"),
    ("us-east-1", "mypurecloud.com"),
    ("us-east-2", "use2.us-gov-pure.cloud"),
    ("us-west-2", "usw2.pure.cloud"),
    ("ca-central-1", "cac1.pure.cloud"),
    ("mx-central-1", "mxc1.pure.cloud"),
    ("sa-east-1", "sae1.pure.cloud"),
    ("eu-west-1", "mypurecloud.ie"),
    ("eu-west-2", "euw2.pure.cloud"),
    ("eu-central-1", "mypurecloud.de"),
    ("eu-central-2", "euc2.pure.cloud"),
    ("eusc-de-east-1", "edee1.eusc-pure.cloud"),
    ("ap-northeast-1", "mypurecloud.jp"),
    ("ap-northeast-2", "apne2.pure.cloud"),
    ("ap-northeast-3", "apne3.pure.cloud"),
    ("ap-southeast-1", "apse1.pure.cloud"),
    ("ap-southeast-2", "mypurecloud.com.au"),
    ("ap-south-1", "aps1.pure.cloud"),
    ("me-central-1", "mec1.pure.cloud"),
];

/// # Errors
/// [`UnknownRegion`] names the known ones.
pub fn preset(name: &str) -> Result<Preset, UnknownRegion> {
    let region = REGIONS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name));
    let Some((_, domain)) = region else {
        return Err(UnknownRegion {
            name: name.to_owned(),
            known: REGIONS.map(|(known, _)| known).join(", "),
        });
    };
    Ok(Preset {
        api_url: format!("https://api.{domain}"),
        token_url: format!("https://login.{domain}/oauth/token"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_names_its_api_and_token_endpoint() {
        let us = Preset {
            api_url: "https://api.mypurecloud.com".into(),
            token_url: "https://login.mypurecloud.com/oauth/token".into(),
        };
        assert_eq!(preset("us1"), Ok(us.clone()));
        assert_eq!(preset("US-East-1"), Ok(us));
        assert_eq!(
            preset("eu-central-1").unwrap().api_url,
            "https://api.mypurecloud.de"
        );
        assert_eq!(preset("eu1"), preset("eu-west-1"));
    }

    #[test]
    fn an_unknown_region_is_answered_with_the_known_ones() {
        let message = preset("us9").unwrap_err().to_string();
        assert!(
            message.starts_with("unknown region \"us9\"; known: us1, eu1, us-east-1"),
            "{message}"
        );
        assert!(message.contains("me-central-1"), "{message}");
        assert!(message.contains("api_url"), "{message}");
    }
}
