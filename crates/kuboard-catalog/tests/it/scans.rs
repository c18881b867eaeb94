//! The job queue, inventories, findings and the outbox.

use kuboard_catalog::{
    AfterFailure, DecisionFilter, FindingRow, ImageName, InventoryRow, JobState, NewDecision,
    NewEvent, NewJob, Published, ReportRow,
};
use kuboard_oci::Digest;

use crate::harness::{World, both};

both![
    jobs_are_leased_by_priority_and_ended,
    asking_again_joins_the_open_job,
    a_lease_that_is_over_is_anybodys,
    a_job_that_used_up_its_attempts_is_set_aside_and_revived,
    what_was_asked_while_it_ran_survives_a_failure,
    a_job_given_back_loses_no_attempt,
    workers_never_share_a_job,
    inventories_are_found_by_what_they_hold,
    reports_names_and_marks_are_kept,
    findings_and_their_events_are_stored_together,
    what_was_decided_on_old_findings_is_not_stored,
    a_name_means_the_image_last_seen,
    deliveries_are_retried_set_aside_and_replayed,
    notifications_are_read_in_pages,
    changed_reports_are_followed,
    reports_made_at_once_are_all_followed,
    decisions_are_listed_and_forgotten,
];

fn job(kind: &str, subject: &str, priority: i64) -> NewJob {
    NewJob {
        kind: kind.into(),
        subject: subject.into(),
        payload: "{}".into(),
        priority,
        run_after_ms: 0,
        max_attempts: 2,
    }
}

async fn next(world: &World, worker: &str, now_ms: i64) -> Option<(i64, String, u32)> {
    let taken = world.catalog.lease_job(&["scan", "rematch"], worker, now_ms + 100, now_ms).await;
    taken.unwrap().map(|job| (job.id, job.subject, job.attempt))
}

async fn jobs_are_leased_by_priority_and_ended(world: World) {
    let catalog = &world.catalog;
    let low = catalog.enqueue(&job("scan", "low", 0), 10).await.unwrap();
    let high = catalog.enqueue(&job("scan", "high", 5), 11).await.unwrap();
    catalog.enqueue(&NewJob { run_after_ms: 50, ..job("scan", "later", 9) }, 12).await.unwrap();
    catalog.enqueue(&job("other", "kind", 9), 12).await.unwrap();
    assert_eq!(next(&world, "a", 20).await, Some((high, "high".into(), 1)));
    assert_eq!(next(&world, "b", 20).await, Some((low, "low".into(), 1)));
    assert_eq!(next(&world, "a", 20).await, None);
    assert!(catalog.complete_job(high, "a", 30).await.unwrap());
    assert!(!catalog.complete_job(low, "a", 30).await.unwrap(), "it is b's");
    assert!(catalog.renew_job(low, "b", 500).await.unwrap());
    assert_eq!(next(&world, "a", 60).await.unwrap().1, "later");
    let depths = catalog.queue_depths().await.unwrap();
    let seen: Vec<_> =
        depths.iter().map(|d| (d.kind.as_str(), d.state, d.count, d.oldest_ms)).collect();
    assert_eq!(seen, [("other", JobState::Waiting, 1, 12), ("scan", JobState::Running, 2, 10)]);
    assert_eq!(catalog.last_job("scan", "high").await.unwrap().unwrap().state, JobState::Done);
    assert_eq!(catalog.forget_jobs(31).await.unwrap(), 1);
    assert!(catalog.last_job("scan", "high").await.unwrap().is_none());
}

async fn asking_again_joins_the_open_job(world: World) {
    let catalog = &world.catalog;
    let first = catalog.enqueue(&job("scan", "x", 1), 1).await.unwrap();
    assert_eq!(catalog.enqueue(&job("scan", "x", 7), 2).await.unwrap(), first);
    assert_eq!(catalog.enqueue(&job("scan", "x", 0), 2).await.unwrap(), first);
    assert_eq!(catalog.last_job("scan", "x").await.unwrap().unwrap().priority, 7);
    assert_eq!(next(&world, "a", 10).await.unwrap().0, first);
    // While it runs: once more afterwards.
    assert_eq!(catalog.enqueue(&job("scan", "x", 1), 11).await.unwrap(), first);
    assert!(catalog.complete_job(first, "a", 12).await.unwrap());
    assert_eq!(next(&world, "a", 13).await, Some((first, "x".into(), 1)));
    assert!(catalog.complete_job(first, "a", 14).await.unwrap());
    assert_eq!(next(&world, "a", 15).await, None);
    assert_ne!(catalog.enqueue(&job("scan", "x", 1), 16).await.unwrap(), first);
}

async fn a_lease_that_is_over_is_anybodys(world: World) {
    let catalog = &world.catalog;
    let id = catalog.enqueue(&job("scan", "x", 1), 1).await.unwrap();
    assert_eq!(next(&world, "a", 10).await.unwrap().2, 1);
    assert_eq!(next(&world, "b", 110).await, None, "the lease holds to its last moment");
    assert_eq!(next(&world, "b", 111).await, Some((id, "x".into(), 2)));
    assert!(!catalog.renew_job(id, "a", 900).await.unwrap());
    assert!(!catalog.complete_job(id, "a", 120).await.unwrap());
    // b dies too, and attempts are used up.
    assert_eq!(next(&world, "c", 400).await, None);
    let failed = catalog.last_job("scan", "x").await.unwrap().unwrap();
    assert_eq!(failed.state, JobState::Failed);
    assert!(failed.reason.contains("vanished"), "{}", failed.reason);
}

async fn a_job_that_used_up_its_attempts_is_set_aside_and_revived(world: World) {
    let catalog = &world.catalog;
    let id = catalog.enqueue(&job("scan", "x", 1), 1).await.unwrap();
    next(&world, "a", 10).await.unwrap();
    let retry = AfterFailure::RetryAt(50);
    assert!(catalog.fail_job(id, "a", "first", retry, 20).await.unwrap());
    assert_eq!(next(&world, "a", 49).await, None);
    assert_eq!(next(&world, "a", 50).await, Some((id, "x".into(), 2)));
    assert!(catalog.fail_job(id, "a", "second\0", retry, 60).await.unwrap());
    let failed = catalog.jobs(JobState::Failed, "scan", 10).await.unwrap();
    assert_eq!((failed.len(), failed[0].reason.as_str()), (1, "second"));
    assert!(catalog.revive_job(id, 70).await.unwrap());
    assert!(!catalog.revive_job(id, 70).await.unwrap());
    assert_eq!(next(&world, "a", 70).await, Some((id, "x".into(), 1)));
    assert!(catalog.fail_job(id, "a", "bad", AfterFailure::SetAside, 80).await.unwrap());
    assert_eq!(catalog.last_job("scan", "x").await.unwrap().unwrap().state, JobState::Failed);
}

async fn what_was_asked_while_it_ran_survives_a_failure(world: World) {
    let catalog = &world.catalog;
    let id = catalog.enqueue(&job("scan", "x", 1), 1).await.unwrap();
    let anew = NewJob { payload: "[1]".into(), ..job("scan", "x", 1) };
    let ends = [AfterFailure::SetAside, AfterFailure::RetryAt(90_000)];
    for (now, end) in (10..).step_by(10).zip(ends) {
        next(&world, "a", now).await.unwrap();
        assert_eq!(catalog.enqueue(&anew, now).await.unwrap(), id);
        assert!(catalog.fail_job(id, "a", "the old one", end, now).await.unwrap());
        let row = catalog.last_job("scan", "x").await.unwrap().unwrap();
        let said = (row.state, row.attempts, row.payload.as_str());
        assert_eq!(said, (JobState::Waiting, 0, "[1]"));
    }
    // And it survives a worker that vanishes in the last attempt.
    next(&world, "a", 30).await.unwrap();
    next(&world, "b", 200).await.unwrap();
    catalog.enqueue(&anew, 210).await.unwrap();
    assert_eq!(next(&world, "c", 400).await, Some((id, "x".into(), 1)));
    // Not asked for again, a failure for good is one.
    assert!(catalog.fail_job(id, "c", "bad", AfterFailure::SetAside, 410).await.unwrap());
    assert_eq!(catalog.last_job("scan", "x").await.unwrap().unwrap().state, JobState::Failed);
}

async fn a_job_given_back_loses_no_attempt(world: World) {
    let catalog = &world.catalog;
    let id = catalog.enqueue(&job("scan", "x", 1), 1).await.unwrap();
    for now in [10, 20, 30, 40] {
        assert_eq!(next(&world, "a", now).await, Some((id, "x".into(), 1)));
        assert!(!catalog.postpone_job(id, "b", now).await.unwrap(), "it is a's");
        assert!(catalog.postpone_job(id, "a", now + 5).await.unwrap());
        assert_eq!(next(&world, "a", now + 4).await, None);
    }
}

async fn workers_never_share_a_job(world: World) {
    let catalog = &world.catalog;
    for number in 0..40 {
        catalog.enqueue(&job("scan", &format!("s{number}"), 0), 1).await.unwrap();
    }
    let workers = (0..4).map(|worker| {
        let catalog = catalog.clone();
        async move {
            let name = format!("w{worker}");
            let mut taken = Vec::new();
            while let Some(job) = catalog.lease_job(&["scan"], &name, 900, 5).await.unwrap() {
                taken.push(job.id);
            }
            taken
        }
    });
    let mut all = Vec::new();
    let mut set = tokio::task::JoinSet::new();
    for worker in workers {
        set.spawn(worker);
    }
    while let Some(taken) = set.join_next().await {
        all.extend(taken.unwrap());
    }
    all.sort_unstable();
    let count = all.len();
    all.dedup();
    assert_eq!((count, all.len()), (40, 40));
}

async fn inventories_are_found_by_what_they_hold(world: World) {
    let catalog = &world.catalog;
    let (a, b) = (Digest::sha256(b"a"), Digest::sha256(b"b"));
    catalog.put_layer_inventory(&a, "v1", &[0, 1, 255], 1).await.unwrap();
    assert_eq!(catalog.layer_inventory(&a, "v1").await.unwrap(), Some(vec![0, 1, 255]));
    assert_eq!(catalog.layer_inventory(&a, "v2").await.unwrap(), None);
    let row = |image: Digest| InventoryRow {
        image,
        indexer: "v1".into(),
        body: image.to_string().into_bytes(),
        indexed_ms: 5,
    };
    let keys = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    catalog.put_image_inventory(&row(a), keys(&["debian:12 openssl", "npm x"])).await.unwrap();
    catalog.put_image_inventory(&row(b), keys(&["npm x"])).await.unwrap();
    assert_eq!(catalog.image_inventory(&a).await.unwrap(), Some(row(a)));
    let mut both = vec![a, b];
    both.sort_by_key(ToString::to_string);
    assert_eq!(catalog.images_with(&keys(&["npm x", "go y"])).await.unwrap(), both);
    assert_eq!(catalog.images_with(&keys(&["debian:12 openssl"])).await.unwrap(), [a]);
    // Indexed anew, it holds less.
    catalog.put_image_inventory(&row(a), keys(&["npm x"])).await.unwrap();
    assert_eq!(catalog.images_with(&keys(&["debian:12 openssl"])).await.unwrap(), []);
    assert_eq!(catalog.inventoried_images(None, 10).await.unwrap(), both);
    assert_eq!(catalog.inventoried_images(Some(&both[0]), 10).await.unwrap(), [both[1]]);
    assert!(catalog.forget_image(&a).await.unwrap());
    assert!(!catalog.forget_image(&a).await.unwrap());
    assert_eq!(catalog.images_with(&keys(&["npm x"])).await.unwrap(), [b]);
}

async fn reports_names_and_marks_are_kept(world: World) {
    let catalog = &world.catalog;
    let image = Digest::sha256(b"a");
    let row = ReportRow {
        image,
        body: vec![7; 100_000],
        summary: "{}".into(),
        generation: 3,
        reported_ms: 9,
        first_ms: 9,
    };
    assert_eq!(catalog.report(&image).await.unwrap(), None);
    catalog.put_report(&row).await.unwrap();
    let newer = ReportRow { generation: 4, ..row };
    catalog.put_report(&newer).await.unwrap();
    assert_eq!(catalog.report(&image).await.unwrap(), Some(newer));
    assert_eq!(catalog.report_summaries(None, 5).await.unwrap(), [(image, "{}".to_owned())]);
    let name = ImageName { registry: "r".into(), repository: "a/b".into(), tag: "1".into() };
    catalog.name_image(&name, &image, 10).await.unwrap();
    catalog.name_image(&name, &image, 20).await.unwrap();
    let names = catalog.image_names(&image).await.unwrap();
    assert_eq!((names.len(), names[0].seen_ms), (1, 20));
    assert_eq!(catalog.images_seen_since(20).await.unwrap(), names);
    assert_eq!(catalog.images_seen_since(21).await.unwrap(), []);
    assert_eq!(catalog.mark("m").await.unwrap(), None);
    catalog.set_mark("m", "1").await.unwrap();
    catalog.set_mark("m", "2").await.unwrap();
    assert_eq!(catalog.mark("m").await.unwrap().as_deref(), Some("2"));
}

fn event(key: &str) -> NewEvent {
    NewEvent { key: key.into(), kind: "k".into(), body: "{}".into() }
}

async fn findings_and_their_events_are_stored_together(world: World) {
    let catalog = &world.catalog;
    let finding = FindingRow {
        subject: "r/a:1".into(),
        key: "CVE-1 p path".into(),
        state: "open".into(),
        body: "{}".into(),
        first_seen_ms: 1,
        changed_ms: 1,
    };
    // A name given twice is one receiver.
    let receivers = ["one".to_owned(), "two".to_owned(), "one".to_owned()];
    let rows = [finding.clone()];
    catalog.record_findings(&rows, &[event("e1")], &receivers, 5).await.unwrap();
    // The same happening told twice is one event.
    catalog.record_findings(&rows, &[event("e1")], &receivers, 6).await.unwrap();
    let later = FindingRow { state: "fixed".into(), first_seen_ms: 9, changed_ms: 9, ..finding };
    catalog.record_findings(&[later], &[], &receivers, 9).await.unwrap();
    let stored = catalog.findings("r/a:1").await.unwrap();
    assert_eq!((stored.len(), stored[0].state.as_str()), (1, "fixed"));
    assert_eq!((stored[0].first_seen_ms, stored[0].changed_ms), (1, 9), "first seen stays");
    assert_eq!(catalog.finding_states().await.unwrap(), [("fixed".to_owned(), 1)]);
    let waiting = |receiver: &str| (receiver.to_owned(), "waiting".to_owned(), 1);
    assert_eq!(catalog.delivery_states().await.unwrap(), [waiting("one"), waiting("two")]);
}

async fn what_was_decided_on_old_findings_is_not_stored(world: World) {
    let catalog = &world.catalog;
    let finding = FindingRow {
        subject: "r/a:1".into(),
        key: "CVE-1 p path".into(),
        state: "open".into(),
        body: "{}".into(),
        first_seen_ms: 1,
        changed_ms: 1,
    };
    let image = Digest::sha256(b"a");
    let report = reported(image, 1, 1);
    let (rows, events, receivers) = ([finding], [event("e1")], ["one".to_owned()]);
    let published = Published {
        report: Some(&report),
        subject: "r/a:1",
        known: &[],
        changed: &rows,
        events: &events,
        receivers: &receivers,
    };
    assert!(catalog.publish(&published, 5).await.unwrap());
    let newer = ReportRow { generation: 2, ..report.clone() };
    let late = Published { report: Some(&newer), events: &[event("e2")], ..published };
    assert!(!catalog.publish(&late, 6).await.unwrap(), "it did not know of the finding");
    assert_eq!(catalog.report(&image).await.unwrap().unwrap(), report);
    assert_eq!(catalog.delivery_states().await.unwrap(), [("one".into(), "waiting".into(), 1)]);
    assert!(catalog.publish(&Published { known: &rows, ..late }, 7).await.unwrap());
    assert_eq!(catalog.report(&image).await.unwrap(), Some(newer));
}

async fn a_name_means_the_image_last_seen(world: World) {
    let catalog = &world.catalog;
    let [a, b] = [Digest::sha256(b"a"), Digest::sha256(b"b")];
    let name = ImageName { registry: String::new(), repository: "x".into(), tag: "1".into() };
    assert_eq!(catalog.image_named(&name).await.unwrap(), None);
    for (image, at_ms) in [(a, 1), (b, 2), (a, 3)] {
        catalog.name_image(&name, &image, at_ms).await.unwrap();
        assert_eq!(catalog.image_named(&name).await.unwrap(), Some(image));
    }
    assert_eq!(catalog.image_indexer(&a).await.unwrap(), None);
    let row = InventoryRow { image: a, indexer: "v".into(), body: Vec::new(), indexed_ms: 1 };
    catalog.put_image_inventory(&row, []).await.unwrap();
    assert_eq!(catalog.image_indexer(&a).await.unwrap().as_deref(), Some("v"));
}

async fn deliveries_are_retried_set_aside_and_replayed(world: World) {
    let catalog = &world.catalog;
    let receivers = ["one".to_owned()];
    for key in ["e1", "e2"] {
        catalog.add_event(&event(key), &receivers, 5).await.unwrap();
    }
    let taken = catalog.take_deliveries(10, 50, 5).await.unwrap();
    let keys: Vec<_> = taken.iter().map(|d| (d.key.as_str(), d.attempts)).collect();
    assert_eq!(keys, [("e1", 1), ("e2", 1)]);
    assert_eq!(catalog.take_deliveries(10, 50, 6).await.unwrap(), [], "they are somebody's");
    catalog.delivered(taken[0].event, "one").await.unwrap();
    catalog.not_delivered(taken[1].event, "one", "HTTP 500", Some(60)).await.unwrap();
    assert_eq!(catalog.take_deliveries(10, 90, 59).await.unwrap(), []);
    // Killed while it delivers: the delivery comes back by itself.
    assert_eq!(catalog.take_deliveries(10, 90, 60).await.unwrap().len(), 1);
    let again = catalog.take_deliveries(10, 200, 90).await.unwrap();
    assert_eq!((again.len(), again[0].attempts, again[0].reason.as_str()), (1, 3, "HTTP 500"));
    catalog.not_delivered(again[0].event, "one", "gone", None).await.unwrap();
    assert_eq!(catalog.take_deliveries(10, 900, 500).await.unwrap(), []);
    let dead = catalog.dead_letters("", 10).await.unwrap();
    assert_eq!((dead.len(), dead[0].key.as_str(), dead[0].reason.as_str()), (1, "e2", "gone"));
    assert_eq!(catalog.replay("two", None, 600).await.unwrap(), 0);
    assert_eq!(catalog.replay("one", Some(dead[0].event), 600).await.unwrap(), 1);
    assert_eq!(catalog.take_deliveries(10, 900, 600).await.unwrap().len(), 1);
    catalog.delivered(dead[0].event, "one").await.unwrap();
    assert_eq!(catalog.forget_events(6).await.unwrap(), 2);
    assert_eq!(catalog.delivery_states().await.unwrap(), []);
}

async fn notifications_are_read_in_pages(world: World) {
    let catalog = &world.catalog;
    let items: Vec<_> = (0..5).map(|n| (format!("i{n}"), "{}".to_owned())).collect();
    catalog.add_notification("n", &items, 5).await.unwrap();
    catalog.add_notification("n", &items, 6).await.unwrap();
    assert_eq!(catalog.notification("n", "", 2).await.unwrap().unwrap(), items[..2]);
    assert_eq!(catalog.notification("n", "i1", 9).await.unwrap().unwrap(), items[2..]);
    assert_eq!(catalog.notification("other", "", 2).await.unwrap(), None);
    assert_eq!(catalog.old_notifications(6).await.unwrap(), ["n"]);
    assert!(catalog.remove_notification("n").await.unwrap());
    assert!(!catalog.remove_notification("n").await.unwrap());
}

fn reported(image: Digest, at_ms: i64, first_ms: i64) -> ReportRow {
    let summary = "{}".to_owned();
    ReportRow { image, body: vec![1], summary, generation: 1, reported_ms: at_ms, first_ms }
}

async fn changed_reports_are_followed(world: World) {
    let catalog = &world.catalog;
    let [a, b] = [Digest::sha256(b"a"), Digest::sha256(b"b")];
    let images = async |after: u64, limit: u32| {
        let changes = catalog.report_changes(after, limit).await.unwrap();
        let last = changes.last().map_or(after, |change| change.number);
        (last, changes.iter().map(|change| (change.image, change.reported_ms)).collect::<Vec<_>>())
    };
    assert_eq!(images(0, 9).await, (0, vec![]));
    for row in [reported(a, 5, 0), reported(b, 4, 4)] {
        catalog.put_report(&row).await.unwrap();
    }
    let (first, one) = images(0, 1).await;
    assert_eq!(one, [(a, 5)]);
    let (last, other) = images(first, 9).await;
    assert_eq!(other, [(b, 4)]);
    assert_eq!(images(last, 9).await, (last, vec![]));
    // Made anew, it is told once more and not in its old place.
    catalog.put_report(&reported(a, 7, 7)).await.unwrap();
    assert_eq!(images(0, 9).await.1, [(b, 4), (a, 7)]);
    let (last, news) = images(last, 9).await;
    assert_eq!(news, [(a, 7)]);
    // The first report that says something stays the first.
    catalog.put_report(&reported(a, 9, 9)).await.unwrap();
    assert_eq!(catalog.report(&a).await.unwrap().unwrap().first_ms, 7);
    assert_eq!(catalog.report(&b).await.unwrap().unwrap().first_ms, 4);
    catalog.forget_image(&a).await.unwrap();
    assert_eq!(images(last, 9).await.1, []);
    catalog.put_report(&reported(a, 12, 12)).await.unwrap();
    assert_eq!(images(last, 9).await.1, [(a, 12)]);
    assert_eq!(catalog.report(&a).await.unwrap().unwrap().first_ms, 12);
}

async fn reports_made_at_once_are_all_followed(world: World) {
    const WRITERS: usize = 4;
    const EACH: usize = 25;
    let mut set = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let catalog = world.catalog.clone();
        set.spawn(async move {
            for number in 0..EACH {
                let image = Digest::sha256(format!("{writer} {number}").as_bytes());
                catalog.put_report(&reported(image, 1, 1)).await.unwrap();
            }
        });
    }
    // Whoever reads along misses none, although transactions end in any order.
    let (mut seen, mut after) = (std::collections::HashSet::new(), 0);
    while seen.len() < WRITERS * EACH {
        for change in world.catalog.report_changes(after, 7).await.unwrap() {
            assert!(change.number > after);
            after = change.number;
            seen.insert(change.image);
        }
        if set.is_empty() {
            assert_eq!(seen.len(), WRITERS * EACH);
        }
        let _ended = set.try_join_next();
    }
}

async fn decisions_are_listed_and_forgotten(world: World) {
    let catalog = &world.catalog;
    let decision = |at_ms: i64, namespace: &str, outcome: &str| NewDecision {
        at_ms,
        uid: format!("uid-{at_ms}"),
        operation: "CREATE".into(),
        namespace: namespace.into(),
        pod: "web-\0".into(),
        owner: "ReplicaSet/web".into(),
        user: "somebody".into(),
        outcome: outcome.into(),
        policy: "p".into(),
        image: "docker.io/library/nginx:1".into(),
        digest: String::new(),
        detail: "{}".into(),
    };
    let all = [
        decision(1, "a", "allow"),
        decision(2, "b", "deny"),
        decision(3, "a", "deny"),
        decision(4, "a", "allow"),
    ];
    catalog.put_decisions(&all[..3]).await.unwrap();
    catalog.put_decisions(&all[3..]).await.unwrap();
    catalog.put_decisions(&[]).await.unwrap();
    let listed = async |filter: DecisionFilter<'_>, limit: u32| {
        let rows = catalog.decisions(&filter, limit).await.unwrap();
        rows.iter().map(|row| row.decision.at_ms).collect::<Vec<_>>()
    };
    let any = DecisionFilter::default();
    assert_eq!(listed(any, 9).await, [4, 3, 2, 1]);
    assert_eq!(listed(any, 2).await, [4, 3]);
    assert_eq!(listed(DecisionFilter { namespace: "a", ..any }, 9).await, [4, 3, 1]);
    assert_eq!(listed(DecisionFilter { outcome: "deny", ..any }, 9).await, [3, 2]);
    let both = DecisionFilter { namespace: "a", outcome: "deny", ..any };
    assert_eq!(listed(both, 9).await, [3]);
    assert_eq!(listed(DecisionFilter { since_ms: 3, ..any }, 9).await, [4, 3]);
    let newest = catalog.decisions(&any, 1).await.unwrap().remove(0);
    assert_eq!(listed(DecisionFilter { before: newest.id, ..any }, 9).await, [3, 2, 1]);
    let whole = NewDecision { pod: "web-".into(), ..all[3].clone() };
    assert_eq!(newest.decision, whole);
    assert_eq!(catalog.prune_decisions(2, 100).await.unwrap(), 1);
    assert_eq!(catalog.prune_decisions(0, 2).await.unwrap(), 1);
    assert_eq!(listed(any, 9).await, [4, 3]);
}
