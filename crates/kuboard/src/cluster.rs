//! The roles that know a cluster: what is wanted and what runs as snapshots, the webhook for the
//! API server, and what is written back.

use std::sync::Arc;

use arc_swap::ArcSwap;
use kuboard_api::desired::{Desired, Running};
use kuboard_rt::{Scope, health::Health, metrics::Metrics};
use kuboard_scan::engine::{Engine, Repositories};

use crate::{admission, cli::Role, scanning::Ground};

/// What is wanted and what runs, as it was last seen.
#[derive(Clone, Default)]
pub(crate) struct Snapshots {
    pub(crate) desired: Arc<ArcSwap<Desired>>,
    pub(crate) running: Arc<ArcSwap<Running>>,
}

/// What these roles rest on.
pub(crate) struct Parts<'a> {
    pub(crate) ground: &'a Ground<'a>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) repositories: Arc<dyn Repositories>,
    pub(crate) snapshots: &'a Snapshots,
}

/// Starts them.
pub(crate) async fn start(
    parts: Parts<'_>,
    roles: &[Role],
    scope: &mut Scope,
    metrics: &Metrics,
    health: &Health,
) -> anyhow::Result<()> {
    let Parts { ground, engine, repositories, snapshots } = parts;
    if roles.contains(&Role::Admission) {
        let parts =
            admission::Parts { ground, engine, repositories, snapshots, events: Arc::new(()) };
        let _admission = admission::open(parts, scope, health, metrics.registry())?;
    }
    Ok(())
}
