//! The service manager's units are ones that it accepts.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{WORKER, tool_is_missing};

fn unit_files() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let listed = fs::read_dir(folder).unwrap();
    listed.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn the_units_are_clean_and_start_this_binary_with_arguments_it_knows() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        return tool_is_missing("systemd-analyze");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for unit in unit_files() {
        let text = fs::read_to_string(&unit).unwrap();
        for line in text
            .lines()
            .filter_map(|line| line.strip_prefix("ExecStart="))
        {
            let arguments: Vec<_> = line.split(' ').skip(1).collect();
            let helped = Command::new(WORKER)
                .args(&arguments)
                .arg("--help")
                .output()
                .unwrap();
            assert!(helped.status.success(), "{line}");
        }
        let path = dir.path().join(unit.file_name().unwrap());
        fs::write(&path, text.replace("/usr/bin/worker", WORKER)).unwrap();
        paths.push(path);
    }
    assert_eq!(paths.len(), 3);
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--recursive-errors=one"])
        .args(&paths)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && told.is_empty(), "{told}");
}
