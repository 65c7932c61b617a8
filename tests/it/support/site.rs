//! A place with an emulated platform beside it, and the configuration that fits it.

use std::ops::Deref;

use super::{Place, Sandbox};

pub struct Site {
    place: Place,
    pub sandbox: Sandbox,
}

impl Deref for Site {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Site {
    /// Three tenants with tokens of an hour.
    pub fn new() -> Self {
        Self::with("1h", "")
    }

    /// `more` goes to the end of the configuration.
    pub fn with(token_life: &str, more: &str) -> Self {
        Self::granting("client_credentials", 3, token_life, more)
    }

    /// Tenants whose configuration uses these grants.
    pub fn granted(grants: &str, tenants: usize, token_life: &str) -> Self {
        Self::granting(grants, tenants, token_life, "")
    }

    fn granting(grants: &str, tenants: usize, token_life: &str, more: &str) -> Self {
        let place = Place::new();
        let sandbox = Sandbox::granting(&place, grants, tenants, token_life);
        place.configure(|text| format!("{text}\n[host]\nname = \"rec-1\"\n\n{more}"));
        // Segments that a handful of recordings fill.
        place.configure(|text| text.replacen("[store]", "[store]\nsegment_bytes = \"1MiB\"", 1));
        Self { place, sandbox }
    }

    /// Gives every command here a defect, for a test that must notice it.
    pub fn sabotaged(mut self, sabotage: &'static str) -> Self {
        self.place.sabotage = sabotage;
        self
    }

    /// Nothing owed, lost or dead, and the platform has `chunks` of them, each once and in order.
    #[track_caller]
    pub fn assert_all_delivered(&self, chunks: u64) {
        for told in [self.stats(), self.fsck()] {
            assert!(told.is_balanced(), "{}", told.0);
            assert_eq!(told.balance("enqueued"), chunks, "{}", told.0);
            assert_eq!(told.balance("delivered"), chunks, "{}", told.0);
        }
        let ledger = self.sandbox.ledger();
        assert_eq!(ledger["delivered"], chunks, "{ledger}");
        for fault in [
            "order_inversions",
            "conflicts",
            "undeclared_gaps",
            "after_last",
        ] {
            assert_eq!(ledger[fault], 0, "{fault}: {ledger}");
        }
    }
}
