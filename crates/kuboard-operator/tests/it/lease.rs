//! Leases on a real API server: one leads, others take over, never two at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kuboard_operator::lease::{Lease, Timing};
use kuboard_rt::{Scope, SystemClock, Tasks};
use serde_json::json;

use crate::ground::{self, until};

const TIMING: Timing = Timing {
    duration: Duration::from_secs(3),
    renew_deadline: Duration::from_secs(2),
    retry: Duration::from_millis(300),
};

/// How many lead now, and how often somebody began to.
#[derive(Default)]
struct Count {
    now: AtomicUsize,
    terms: AtomicUsize,
}

/// Counts down however the work ends.
struct Leading(Arc<Count>);

impl Drop for Leading {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn candidate(name: &str) -> Lease {
    Lease {
        client: ground::client(ground::shared()).await,
        namespace: "leases".to_owned(),
        name: "leader".to_owned(),
        identity: name.to_owned(),
        timing: TIMING,
        clock: Arc::new(SystemClock),
    }
}

fn run(scope: &mut Scope, lease: Lease, count: &Arc<Count>) {
    let count = count.clone();
    scope.spawn("candidate", move |stop| async move {
        let work = |term: kuboard_operator::lease::Term| {
            let count = count.clone();
            async move {
                let before = count.now.fetch_add(1, Ordering::SeqCst);
                let leading = Leading(count.clone());
                assert_eq!(before, 0, "two lead");
                count.terms.fetch_add(1, Ordering::SeqCst);
                assert!(term.lasts());
                std::future::pending::<()>().await;
                drop(leading);
            }
        };
        lease.run(stop, |_| {}, work).await;
        Ok(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_others_take_over() {
    let cluster = ground::shared();
    ground::namespace(cluster, "leases", json!({}));
    let count = Arc::new(Count::default());
    let holder = || {
        let path = "/apis/coordination.k8s.io/v1/namespaces/leases/leases/leader";
        let lease = cluster.get_json(path).ok()?;
        lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
    };
    // The first one dies without a word: its scope is dropped.
    let mut first = Scope::default();
    run(&mut first, candidate("first").await, &count);
    until("the first leader", async || count.terms.load(Ordering::SeqCst) == 1).await;
    assert_eq!(holder().as_deref(), Some("first"));
    let mut others = Scope::default();
    for name in ["second", "third"] {
        run(&mut others, candidate(name).await, &count);
    }
    drop(first);
    until("the second leader", async || count.terms.load(Ordering::SeqCst) == 2).await;
    assert!(matches!(holder().as_deref(), Some("second" | "third")));
    // Those that are told to stop give it back.
    let tasks = Tasks::default();
    others.run(async {}, Duration::from_secs(10)).await.unwrap();
    tasks.drain(Duration::ZERO).await;
    assert_eq!(holder().as_deref(), Some(""));
    assert_eq!(count.now.load(Ordering::SeqCst), 0);
}
