//! The command line as a whole.

use std::path::Path;

use clap::{CommandFactory, Parser};

use super::Cli;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

/// Every command with its path from the program's name.
fn commands(command: &clap::Command, path: &str, into: &mut Vec<(String, clap::Command)>) {
    let path = format!("{path} {}", command.get_name()).trim().to_owned();
    for sub in command.get_subcommands() {
        commands(sub, &path, into);
    }
    into.push((path, command.clone()));
}

#[test]
fn every_argument_says_what_it_is() {
    let mut all = Vec::new();
    commands(&Cli::command(), "", &mut all);
    let mut silent = Vec::new();
    for (path, command) in all {
        for argument in command.get_arguments() {
            let help = argument.get_help().map(ToString::to_string);
            // A default alone tells nobody what the argument is.
            let says = help.is_some_and(|help| !help.is_empty() && !help.starts_with('['));
            if !says {
                silent.push(format!("{path} {}", argument.get_id()));
            }
        }
    }
    assert!(silent.is_empty(), "without help: {silent:?}");
}

#[test]
fn every_help_has_one_copyable_example_of_its_own_command() {
    let mut all = Vec::new();
    commands(&Cli::command(), "", &mut all);
    for (path, command) in all {
        let after = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default();
        let lines: Vec<_> = after.lines().collect();
        assert!(
            matches!(lines.as_slice(), ["Example:", example] if example.trim_start().starts_with(&path)),
            "{path}: {after:?}"
        );
    }
}

/// What stands in place of a name that a message fills in.
fn filled(word: &str) -> String {
    match word {
        "SEQUENCE" | "{sequence}" | "{head}" => "7".to_owned(),
        _ if word.starts_with('{') => "7".to_owned(),
        _ => word.to_owned(),
    }
}

/// Whether clap takes as much of a text that begins with a command as can be a command: prose may follow, a flag or a name not.
fn is_a_command(text: &str) -> Result<(), String> {
    let cut = |c: char| c == '"' || c == '`' || c == '\\';
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let whole = word.split(cut).next().unwrap_or_default();
        let bare = whole.trim_end_matches([';', ',', '.', ':', ')']);
        words.push(filled(bare));
        if bare.len() < word.len() {
            break;
        }
    }
    words.retain(|word| !word.is_empty());
    let takes = |count: &usize| match Cli::try_parse_from(&words[..*count]) {
        Ok(_) => true,
        Err(error) => !error.use_stderr(),
    };
    let said = || words.join(" ");
    let longest = (2..=words.len()).rev().find(takes).ok_or_else(said)?;
    match text.split_whitespace().nth(longest) {
        Some(next) if longest < words.len() && next.starts_with(['-', '{']) => Err(said()),
        _ => Ok(()),
    }
}

/// Every place of a source text that names a command of this program, in messages only.
fn named_commands(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
    let lines = code.lines().map(str::trim);
    let code: String = lines
        .filter(|line| !line.starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect();
    let code = code.replace("\\\n", "");
    let verbs: Vec<_> = (Cli::command().get_subcommands())
        .map(|command| command.get_name().to_owned())
        .chain(["--stats".to_owned()])
        .collect();
    let places = code.match_indices("worker ").map(|(at, _)| &code[at..]);
    let named = places.filter(|text| {
        let verb = text["worker ".len()..].split([' ', '"', ';', ',', '`', '\n', ')']);
        verb.into_iter()
            .next()
            .is_some_and(|verb| verbs.iter().any(|known| known == verb))
    });
    named
        .map(|text| text.split('\n').next().unwrap_or_default().to_owned())
        .collect()
}

fn sources(folder: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, into);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            into.push(std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// Seen: `worker why` said `worker dead list --tenant acme`, which ends with a complaint about the argument.
#[test]
fn every_command_that_a_message_tells_is_one_that_this_program_takes() {
    let planted = r#"format!("worker dead list --tenant {tenant}")"#;
    assert!(is_a_command(&named_commands(planted)[0]).is_err());
    let mut texts = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut texts,
    );
    let named: Vec<_> = texts.iter().flat_map(|text| named_commands(text)).collect();
    assert!(named.len() > 60, "only {} found", named.len());
    let wrong: Vec<_> = named
        .iter()
        .filter_map(|text| is_a_command(text).err())
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
