//! A platform's request quota, from the other side: who was counted when, and who was refused.

use std::collections::VecDeque;
use std::time::Duration;

use super::stage::MINUTE;
use crate::platform::Limits;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// A minute from its first request.
    Fixed,
    /// Always the last minute; what is told is when the oldest request leaves it.
    Sliding,
}

#[derive(Debug)]
pub struct Meter {
    window: Window,
    allowed: u64,
    opened: Option<Duration>,
    counted: VecDeque<Duration>,
    /// When, and by which engine.
    pub accepted: Vec<(Duration, u64)>,
    pub refused: Vec<Duration>,
}

impl Meter {
    pub fn new(window: Window, allowed: u64) -> Self {
        Self {
            window,
            allowed,
            opened: None,
            counted: VecDeque::new(),
            accepted: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Counts a request, unless it is refused; what its answer tells.
    pub fn count(&mut self, now: Duration, engine: u64) -> (bool, Limits) {
        match self.window {
            Window::Fixed if self.opened.is_none_or(|at| now >= at + MINUTE) => {
                self.opened = Some(now);
                self.counted.clear();
            }
            Window::Fixed => {}
            Window::Sliding => {
                while self.counted.front().is_some_and(|at| *at + MINUTE <= now) {
                    self.counted.pop_front();
                }
            }
        }
        let within = (self.counted.len() as u64) < self.allowed;
        if within {
            self.counted.push_back(now);
            self.accepted.push((now, engine));
        } else {
            self.refused.push(now);
        }
        let ends = match self.window {
            Window::Fixed => self.opened.unwrap_or(now) + MINUTE,
            Window::Sliding => self.counted.front().map_or(now, |at| *at + MINUTE),
        };
        let seconds = (ends - now).as_millis().div_ceil(1000);
        let limits = Limits {
            allowed: Some(self.allowed),
            remaining: Some(self.allowed - self.counted.len() as u64),
            reset_in: Some(Duration::from_secs(u64::try_from(seconds).unwrap())),
        };
        (within, limits)
    }

    /// The part of the quota that was used between two minutes of the run.
    pub fn used(&self, from: u64, to: u64) -> f64 {
        let inside = MINUTE * (from as u32)..MINUTE * (to as u32);
        let used = self.accepted.iter().filter(|(at, _)| inside.contains(at));
        used.count() as f64 / (self.allowed * (to - from)) as f64
    }

    pub fn refused_part(&self) -> f64 {
        let refused = self.refused.len() as f64;
        refused / (refused + self.accepted.len() as f64)
    }
}
