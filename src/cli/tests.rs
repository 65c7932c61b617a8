//! The command line as a whole.

use clap::CommandFactory;

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
