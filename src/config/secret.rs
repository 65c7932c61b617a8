//! Secrets are files: where one is looked for and who may read it. The value is read by whoever uses
//! it, when it is used; nothing here keeps or prints one.

use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A configured secret file and the place that names it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretFile {
    pub path: PathBuf,
    /// As configured, for messages once the file is known to exist.
    name: String,
    /// systemd hands credentials over in a directory that only the service can enter.
    from_credentials: bool,
    /// `worker.toml:12`.
    origin: String,
}

/// A configured value is not printed until it is known to be a file's name: people paste the secret itself.
impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretFile({})", self.origin)
    }
}

/// Permission bits that let somebody else read or change a file.
const OTHERS: u32 = 0o077;

impl SecretFile {
    /// Beside the file that names it, or in `$CREDENTIALS_DIRECTORY`, which wins.
    pub fn locate(name: &str, beside: &Path, credentials: Option<&Path>, origin: String) -> Self {
        let plain = !name.contains('/');
        let handed = credentials
            .filter(|_| plain)
            .map(|directory| directory.join(name))
            .filter(|path| path.exists());
        Self {
            from_credentials: handed.is_some(),
            path: handed.unwrap_or_else(|| beside.join(name)),
            name: name.to_owned(),
            origin,
        }
    }

    /// What is wrong with the file now, as the operator should read it.
    pub fn finding(&self) -> Option<String> {
        let about = match std::fs::metadata(&self.path) {
            Ok(about) => about,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Some(format!(
                    "{}: client_secret_file names no file, neither beside the configuration nor in \
                     $CREDENTIALS_DIRECTORY; it takes a file's name, never the secret",
                    self.origin
                ));
            }
            Err(error) => return Some(format!("{}: client_secret_file: {error}", self.origin)),
        };
        let mode = about.permissions().mode() & 0o777;
        let name = &self.name;
        if !about.is_file() {
            return Some(format!("{name} is not a regular file"));
        }
        if mode & OTHERS != 0 && !self.from_credentials {
            return Some(format!(
                "{name} is {} by others ({mode:04o}): chmod 600 {}",
                if mode & 0o044 != 0 {
                    "readable"
                } else {
                    "accessible"
                },
                self.name
            ));
        }
        if about.size() == 0 {
            return Some(format!("{name} is empty: write the client secret into it"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn secret(mode: u32, text: &str) -> (tempfile::TempDir, SecretFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acme.secret");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let file = SecretFile::locate("acme.secret", dir.path(), None, "worker.toml:3".into());
        (dir, file)
    }

    #[test]
    fn a_secret_that_others_may_read_is_a_finding_with_the_cure() {
        let (_dir, file) = secret(0o644, "canary");
        assert_eq!(
            file.finding().unwrap(),
            "acme.secret is readable by others (0644): chmod 600 acme.secret"
        );
        assert_eq!(secret(0o600, "canary").1.finding(), None);
    }

    #[test]
    fn an_empty_secret_is_a_finding() {
        let (_dir, file) = secret(0o600, "");
        assert!(file.finding().unwrap().contains("is empty"));
    }

    #[test]
    fn a_secret_pasted_in_place_of_a_file_name_is_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let file = SecretFile::locate("canary-secret", dir.path(), None, "worker.toml:3".into());
        let finding = file.finding().unwrap();
        assert!(finding.starts_with("worker.toml:3: "), "{finding}");
        assert!(!finding.contains("canary"), "{finding}");
        assert!(!format!("{file:?}").contains("canary"));
    }

    #[test]
    fn a_credential_handed_over_by_systemd_wins_and_its_mode_is_systemds_business() {
        let (dir, _) = secret(0o644, "outer");
        let handed = tempfile::tempdir().unwrap();
        let path = handed.path().join("acme.secret");
        fs::write(&path, "inner").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
        let file = SecretFile::locate(
            "acme.secret",
            dir.path(),
            Some(handed.path()),
            String::new(),
        );
        assert_eq!(file.path, path);
        assert_eq!(file.finding(), None);
    }
}
