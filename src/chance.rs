//! The only door to randomness.

use std::sync::Mutex;

/// A seedable source of draws in `[0, 1)`, shared by reference.
#[derive(Debug)]
pub struct Chance(Mutex<fastrand::Rng>);

impl Chance {
    pub fn from_system() -> Self {
        Self(Mutex::new(fastrand::Rng::new()))
    }

    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(fastrand::Rng::with_seed(seed)))
    }

    pub fn draw(&self) -> f64 {
        self.0.lock().expect("no draw panics").f64()
    }
}
