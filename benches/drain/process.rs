//! A child process, and what the system says of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

/// Linux tells processor time to programs in this unit, on every machine.
const TICKS_A_SECOND: f64 = 100.0;

/// Ends with its owner.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Of all its threads, and of the system on their behalf.
pub fn cpu_seconds(pid: u32) -> f64 {
    let told = fs::read_to_string(proc(pid).join("stat")).unwrap_or_default();
    let behind_name = told.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let ticks = fields.get(11..13).unwrap_or_default().iter();
    ticks.filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / TICKS_A_SECOND
}

/// `None` once it has ended.
pub fn peak_mib(pid: u32) -> Option<f64> {
    let told = fs::read_to_string(proc(pid).join("status")).ok()?;
    let line = told.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

fn proc(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}
