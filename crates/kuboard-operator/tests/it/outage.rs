//! An API server that goes away and comes back: what was known stays, and what is new arrives.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kuboard_api::policy::Threshold;
use kuboard_operator::{
    OperatorMetrics, crds,
    lease::{Lease, Timing},
    watch::Watch,
};
use kuboard_rt::{Scope, SystemClock};
use kuboard_testkit::cluster::{Cluster, Component, Level};

use crate::ground::{self, ARTICLE, until};

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_changes_nothing() {
    let cluster = Cluster::start(Level::ApiServer).unwrap();
    let client = ground::client(&cluster).await;
    crds::install(&client, None).await.unwrap();
    cluster.apply(ARTICLE).unwrap();
    let metrics = Arc::new(OperatorMetrics::new(&prometheus::Registry::new()).unwrap());
    let watch = Watch::new(Arc::new(SystemClock), metrics);
    let mut scope = Scope::default();
    let (watching, with) = (watch.clone(), client.clone());
    scope.spawn("watch", move |stop| async move {
        watching.run(with, stop).await;
        Ok(())
    });
    let terms = Arc::new(AtomicUsize::default());
    let leads = Arc::new(AtomicUsize::default());
    let lease = Lease {
        client,
        namespace: "default".to_owned(),
        name: "leader".to_owned(),
        identity: "one".to_owned(),
        timing: Timing {
            duration: Duration::from_secs(3),
            renew_deadline: Duration::from_secs(2),
            retry: Duration::from_millis(300),
        },
        clock: Arc::new(SystemClock),
    };
    let (begun, leading) = (terms.clone(), leads.clone());
    scope.spawn("candidate", move |stop| async move {
        let tell = move |leads: bool| leading.store(usize::from(leads), Ordering::SeqCst);
        let work = |_| {
            begun.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>()
        };
        lease.run(stop, tell, work).await;
        Ok(())
    });
    let threshold = || watch.desired().load().policies.first().and_then(|it| it.threshold);
    let test = async {
        until("the policy", async || watch.is_synced() && threshold().is_some()).await;
        until("a leader", async || leads.load(Ordering::SeqCst) == 1).await;
        cluster.stop_component(Component::ApiServer).unwrap();
        until("the end of the term", async || leads.load(Ordering::SeqCst) == 0).await;
        assert_eq!(threshold(), Some(Threshold::High), "what was known stays");
        assert!(watch.is_synced());
        cluster.start_component(Component::ApiServer).unwrap();
        cluster.apply(&ARTICLE.replace("HIGH", "LOW")).unwrap();
        until("the new policy", async || threshold() == Some(Threshold::Low)).await;
        until("another term", async || terms.load(Ordering::SeqCst) == 2).await;
    };
    scope.run(test, Duration::from_secs(10)).await.unwrap();
}
