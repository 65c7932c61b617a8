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

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The test functions of a source file.
fn tests_of(file: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    let mut found = Vec::new();
    let mut is_next = false;
    for line in text.lines().map(str::trim) {
        is_next |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_next) {
            let name = rest.split('(').next().unwrap_or_default();
            found.push(name.to_owned());
            is_next = false;
        }
    }
    found
}

/// What is wrong with a row of the behaviours: `(number, of what, decided in, tests)`.
fn row_findings(row: &str) -> Vec<String> {
    let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
    let [number, what, decided, tests] = cells[..] else {
        return vec![format!("not four cells: {row}")];
    };
    let mut wrong = Vec::new();
    for file in quoted(decided) {
        if !root().join(file).exists() {
            wrong.push(format!("{number}: no file {file}"));
        }
    }
    for link in what.split("](").skip(1) {
        let link = link.split(')').next().unwrap_or_default();
        if !root().join("docs").join(link).exists() {
            wrong.push(format!("{number}: no document {link}"));
        }
    }
    let mut named = 0;
    let mut known: (&str, Vec<String>) = ("", Vec::new());
    for word in quoted(tests) {
        if word.ends_with(".rs") {
            known = (word, tests_of(word));
        } else if known.1.iter().any(|test| test == word) {
            named += 1;
        } else {
            wrong.push(format!("{number}: {} has no test {word}", known.0));
        }
    }
    if named == 0 {
        wrong.push(format!("{number}: no test"));
    }
    wrong
}

#[test]
fn every_behaviour_names_files_and_tests_that_exist() {
    let text = fs::read_to_string(root().join("docs/BEHAVIOURS.md")).unwrap();
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| #"))
        .collect();
    let numbers: Vec<String> = rows
        .iter()
        .map(|row| row[2..].split(' ').next().unwrap().to_owned())
        .collect();
    let wanted: Vec<String> = (1..=40).map(|number| number.to_string()).collect();
    assert_eq!(numbers, wanted);
    let wrong: Vec<String> = rows.into_iter().flat_map(row_findings).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_behaviour_without_its_test_file_or_document_is_found() {
    let row = |decided: &str, tests: &str| {
        format!("| 7 | so ([ADR](adr/none.md)) | {decided} | {tests} |")
    };
    let found = row_findings(&row("`src/none.rs`", "`tests/it/documents.rs` `quoted`"));
    assert_eq!(
        found,
        [
            "7: no file src/none.rs",
            "7: no document adr/none.md",
            "7: tests/it/documents.rs has no test quoted",
            "7: no test"
        ]
    );
    assert!(row_findings("| 7 | two |").len() == 1);
}
