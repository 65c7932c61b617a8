//! A configured secret file. The value is read by whoever uses it, when it is used; nothing here keeps or
//! prints one.

use std::fmt;
use std::path::PathBuf;

use crate::auth::{SecretError, SecretPlaces, SecretSource, SigningKey, read_secret};

/// A secret file and the place that names it.
#[derive(Clone, Eq)]
pub struct SecretFile {
    /// As configured.
    pub name: PathBuf,
    pub places: SecretPlaces,
    /// `worker.toml:12`.
    pub origin: String,
}

/// A configured value is not printed until it is known to be a file's name: people paste the secret itself.
impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretFile({})", self.origin)
    }
}

/// The same file, wherever it is named.
impl PartialEq for SecretFile {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.places) == (&other.name, &other.places)
    }
}

impl SecretFile {
    pub fn source(&self) -> SecretSource {
        SecretSource {
            name: self.name.clone(),
            places: self.places.clone(),
        }
    }

    /// What is wrong with the file now, as the operator should read it; `key` is the setting that names it.
    pub fn finding(&self, key: &str) -> Option<String> {
        let origin = &self.origin;
        match read_secret(&self.name, &self.places) {
            Ok(text) if key == "key_file" => {
                let parsed = SigningKey::from_pem(&text, &self.name.display().to_string());
                parsed.err().map(|error| error.to_string())
            }
            Ok(_) => None,
            Err(SecretError::Missing { .. }) => Some(format!(
                "{origin}: {key} names no file, neither beside the configuration nor in \
                 $CREDENTIALS_DIRECTORY; it takes a file's name, never the secret"
            )),
            Err(SecretError::Io { source, .. }) => Some(format!("{origin}: {key}: {source}")),
            Err(error) => Some(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn file(name: &str, beside: &Path, credentials: Option<&Path>) -> SecretFile {
        SecretFile {
            name: name.into(),
            places: SecretPlaces {
                beside_config: beside.to_owned(),
                credentials: credentials.map(Path::to_owned),
            },
            origin: "worker.toml:3".into(),
        }
    }

    fn secret(mode: u32, text: &str) -> (tempfile::TempDir, SecretFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("acme.secret");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let file = file("acme.secret", dir.path(), None);
        (dir, file)
    }

    #[test]
    fn a_secret_that_others_may_read_is_a_finding_with_the_cure() {
        let (_dir, file) = secret(0o644, "canary");
        assert_eq!(
            file.finding("client_secret_file").unwrap(),
            "acme.secret is readable by others (0644): chmod 600 acme.secret"
        );
        assert_eq!(
            secret(0o600, "canary").1.finding("client_secret_file"),
            None
        );
    }

    #[test]
    fn a_key_that_cannot_sign_is_a_finding_and_any_text_may_be_a_secret() {
        let (_dir, file) = secret(0o600, "canary");
        assert_eq!(
            file.finding("key_file").unwrap(),
            "acme.secret holds no private key in PEM form"
        );
        assert_eq!(file.finding("token_file"), None);
    }

    #[test]
    fn an_empty_secret_is_a_finding() {
        let (_dir, file) = secret(0o600, "");
        assert!(
            file.finding("client_secret_file")
                .unwrap()
                .contains("is empty")
        );
    }

    #[test]
    fn a_secret_pasted_in_place_of_a_file_name_is_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        for pasted in ["canary-secret".to_owned(), "canary".repeat(100)] {
            let file = file(&pasted, dir.path(), None);
            let finding = file.finding("client_secret_file").unwrap();
            assert!(finding.starts_with("worker.toml:3: "), "{finding}");
            assert!(!finding.contains("canary"), "{finding}");
            assert!(!format!("{file:?}").contains("canary"));
        }
    }

    #[test]
    fn a_credential_handed_over_by_systemd_wins_and_its_mode_is_systemds_business() {
        let (dir, _) = secret(0o644, "outer");
        let handed = tempfile::tempdir().unwrap();
        let path = handed.path().join("acme.secret");
        fs::write(&path, "inner").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
        let file = file("acme.secret", dir.path(), Some(handed.path()));
        assert_eq!(file.finding("client_secret_file"), None);
    }
}
