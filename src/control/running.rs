//! What the operator's side needs of an engine at work. The service implements it over the engine; tests
//! over plain data.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::model::{
    ChunkKey, FailureRecord, GapWaitView, GateView, PaceView, TenantId, TokenView, WorkersView,
};
use crate::store::{StoreError, StoreView};

use super::trend::Trend;
use super::wire::{DrainReport, DrainSpec, Finding};

/// A lane as the engine sees it now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lane {
    pub gate: GateView,
    pub token: Option<TokenView>,
    pub pace: Option<PaceView>,
    pub gap_wait: Option<GapWaitView>,
    pub last_delivery_s: Option<u64>,
    /// `None` where no engine runs.
    pub retries_used: Option<u64>,
    pub eta_empty_s: Option<u64>,
    /// The newest failure, and of which chunk.
    pub last_failure: Option<(ChunkKey, FailureRecord)>,
}

pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

pub trait Running: Send + Sync + 'static {
    /// `run` or `drain`.
    fn command(&self) -> &'static str;
    /// `view` is the store's of this moment.
    fn lanes(&self, view: &StoreView) -> BTreeMap<TenantId, Lane>;
    fn workers(&self) -> WorkersView;
    /// Blocking. Whether the tenant was paused before.
    fn pause(&self, tenant: &TenantId) -> Result<bool, StoreError>;
    /// Blocking. How many holds it removed or told to try now.
    fn resume(&self, tenant: &TenantId) -> Result<usize, StoreError>;
    /// Dropping the future stops nothing but the waiting.
    fn drain(&self, spec: DrainSpec) -> Later<'_, DrainReport>;
    fn check(&self) -> Later<'_, Vec<Finding>>;
    /// Ends a drain early, so that the store is free. `false`: this holder stays.
    fn hand_over(&self) -> bool;
    /// Leases nothing more, gives uploads in flight this long, releases the rest.
    fn stop(&self, grace: Duration) -> Later<'_, ()>;
    /// Ends when the engine cannot go on by itself; a healthy one never does.
    fn ended(&self) -> Later<'_, Ended>;
}

/// Why an engine ended that nobody stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The store's index is lost: the next start rebuilds it.
    IndexLost(String),
    /// A fault of this program.
    Fault(String),
}

/// Who answers: the open store, what is configured, and the engine if one runs on it.
#[derive(Clone)]
pub struct Holder {
    pub store: crate::store::Store,
    pub config: Arc<crate::config::Config>,
    pub clock: Arc<dyn crate::clock::Clock>,
    pub running: Option<Arc<dyn Running>>,
    /// Samples of every snapshot; shared by all clones.
    pub trend: Arc<Mutex<Trend>>,
}
