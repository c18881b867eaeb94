//! The signals that end a process in good order.

use tokio::signal::unix::{SignalKind, signal};

/// Completes when the process is asked to end (SIGTERM, or SIGINT from a terminal).
pub async fn terminated() {
    let (terminate, interrupt) =
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(err), _) | (_, Err(err)) => {
                // Without handlers the kernel's default holds: the signal just kills us.
                tracing::error!("cannot watch for signals, stopping will not drain: {err}");
                return std::future::pending().await;
            }
        };
    let (mut terminate, mut interrupt) = (terminate, interrupt);
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
    }
}
