//! One `[tenants.NAME.recordings]` table: where a tenant's recordings are asked for, and whether they are compared.

use std::time::Duration;

use super::section::Section;
use super::tenant::plain_path;

/// How a tenant's recordings are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recordings {
    /// The id follows it after a slash.
    pub path: String,
    /// The platform's own list, if it has one.
    pub list_path: Option<String>,
    /// Sessions that ended are compared with what the platform has.
    pub verify: bool,
    /// A session that is silent for so long has ended.
    pub session_idle: Duration,
}

/// The path seen in the field.
const DEFAULT_PATH: &str = "/api/v2/screenshare/recordings";
/// Longer than any pause of a person at a screen that a capture program goes on after.
const DEFAULT_IDLE: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

impl Default for Recordings {
    fn default() -> Self {
        Self {
            path: DEFAULT_PATH.to_owned(),
            list_path: None,
            verify: false,
            session_idle: DEFAULT_IDLE,
        }
    }
}

/// A key with a complaint keeps its default.
pub fn read(section: Section<'_, '_>) -> Recordings {
    let default = Recordings::default();
    let path = section
        .text("path")
        .and_then(|found| plain_path(&section, "path", found));
    let list_path = section
        .text("list_path")
        .and_then(|found| plain_path(&section, "list_path", found));
    let recordings = Recordings {
        path: path.unwrap_or(default.path),
        list_path,
        verify: section.flag("verify").unwrap_or(default.verify),
        session_idle: section
            .duration("session_idle", Duration::from_secs(1)..=WEEK)
            .unwrap_or(default.session_idle),
    };
    section.finish();
    recordings
}
