//! What the documents show must work as shown.

use std::fs;
use std::path::{Path, PathBuf};

use reelay::config::{ConfigError, load_text};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["", "docs", "docs/adr"] {
        let Ok(listed) = fs::read_dir(root().join(folder)) else {
            continue;
        };
        let paths = listed.map(|entry| entry.unwrap().path());
        found.extend(paths.filter(|path| path.extension().is_some_and(|e| e == "md")));
    }
    found
}

/// The ```toml blocks of a document with the line they begin at.
fn toml_blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match &mut open {
            None if line.trim() == "```toml" => open = Some((number + 2, String::new())),
            None => {}
            Some(_) if line.trim() == "```" => blocks.extend(open.take()),
            Some((_, block)) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    blocks
}

/// A block may show a part of a configuration; what it shows must be right.
fn findings(block: &str) -> Vec<String> {
    match load_text(block, Path::new("/nowhere/block.toml"), None) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Missing { looked }) => vec![looked],
        Err(ConfigError::Wrong(found)) => found
            .iter()
            .map(ToString::to_string)
            .filter(|finding| !finding.contains(" needs "))
            .collect(),
    }
}

#[test]
fn every_toml_block_in_the_documents_is_a_right_configuration() {
    let mut seen = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for (line, block) in toml_blocks(&text) {
            let found = findings(&block);
            assert!(
                found.is_empty(),
                "{}:{line}: {found:#?}",
                document.display()
            );
            seen += 1;
        }
    }
    assert!(seen > 0, "no block was found");
    assert!(!findings("[store]\nmax_byte = 3\n").is_empty());
}
