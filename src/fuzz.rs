//! What the fuzzer calls, by name: every decoder of bytes that this program did not write in the same process. A target
//! must not panic, and where it takes something, what it takes must read back as the same.

/// A decoder, and what it is called.
pub type Target = (&'static str, fn(&[u8]));

const OWN: [Target; 2] = [("configuration", configuration), ("control", control)];

/// All of them.
pub fn targets() -> impl Iterator<Item = Target> {
    let store = crate::store::fuzzing::TARGETS.into_iter();
    let platform = crate::platform::fuzzing::TARGETS.into_iter();
    let auth = crate::auth::fuzzing::TARGETS.into_iter();
    store.chain(platform).chain(auth).chain(OWN)
}

/// Runs one of them.
///
/// # Panics
/// The name is unknown, or a defect was found.
pub fn run(name: &str, bytes: &[u8]) {
    let found = targets().find(|(known, _)| *known == name);
    let (_, target) = found.unwrap_or_else(|| panic!("no target {name}"));
    target(bytes);
}

fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // An include would read files of this machine.
    if text.contains("include") {
        return;
    }
    let path = std::path::Path::new("/nonexistent/worker.toml");
    if let Err(error) = crate::config::load_text(text, path, None) {
        assert!(!error.to_string().is_empty());
    }
}

fn control(bytes: &[u8]) {
    use crate::control::wire::{ChunkQuery, Reply, Request};
    fn same<T>(bytes: &[u8])
    where
        T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        if let Ok(read) = serde_json::from_slice::<T>(bytes) {
            let written = serde_json::to_vec(&read).expect("plain data is JSON");
            let again: T = serde_json::from_slice(&written).expect("what we write we read");
            assert_eq!(again, read);
        }
    }
    same::<Request>(bytes);
    same::<ChunkQuery>(bytes);
    // Floats of a reply need not print as they were written.
    drop(serde_json::from_slice::<Reply>(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn corpus() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
    }

    /// What the fuzzer found once, and what it grew from, stays harmless; and no decoder is without.
    #[test]
    fn every_input_that_was_ever_kept_is_harmless_to_its_decoder() {
        let mut seen = BTreeSet::new();
        for (name, target) in targets() {
            assert!(seen.insert(name), "{name} twice");
            let mut files = 0;
            let kept = fs::read_dir(corpus().join(name));
            for entry in kept.unwrap_or_else(|error| panic!("corpus of {name}: {error}")) {
                let path = entry.unwrap().path();
                let bytes = fs::read(&path).unwrap();
                println!("{}", path.display());
                target(&bytes);
                files += 1;
            }
            assert!(files >= 3, "{name} has {files} inputs");
        }
        let folders: BTreeSet<_> = fs::read_dir(corpus())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let names = seen.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(folders, names);
    }

    #[test]
    fn every_decoder_has_its_program() {
        let programs = corpus().with_file_name("targets");
        for (name, _) in targets() {
            let text = fs::read_to_string(programs.join(format!("{name}.rs")));
            let text = text.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(text.contains(&format!("run(\"{name}\"")), "{name}: {text}");
        }
    }
}
