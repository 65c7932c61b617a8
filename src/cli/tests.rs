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
