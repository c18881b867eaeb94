//! Tables of what is due, and runs on a real catalogue of either kind.

use std::{collections::HashMap, sync::Arc};

use kuboard_catalog::{ImageName, InventoryRow, JobState, NamedImage, ReportRow};
use kuboard_oci::Digest;

use super::{PolicySpec, Run, Times, due, images_of, run_due, spread};

const HOUR: i64 = 3_600_000;
/// A day in 2023, midnight.
const DAY: i64 = 1_699_920_000_000;

/// Every so many milliseconds since 1970.
struct Every(i64);

impl Times for Every {
    fn next_after(&self, ms: i64) -> Option<i64> {
        Some((ms.div_euclid(self.0) + 1) * self.0)
    }

    fn last_before(&self, ms: i64) -> Option<i64> {
        Some((ms - 1).div_euclid(self.0) * self.0)
    }
}

fn policy(name: &str, every_ms: i64) -> PolicySpec {
    PolicySpec {
        name: name.to_owned(),
        schedule: format!("every {every_ms}"),
        times: Arc::new(Every(every_ms)),
        covers: Arc::new(|name| !name.registry.ends_with(".internal.corp")),
    }
}

fn image(registry: &str, tag: &str, content: &str, seen_ms: i64) -> NamedImage {
    let name = ImageName {
        registry: registry.to_owned(),
        repository: "team/app".to_owned(),
        tag: tag.to_owned(),
    };
    NamedImage { name, image: Digest::sha256(content.as_bytes()), seen_ms }
}

#[test]
fn what_is_due_follows_from_the_last_run() {
    let six = 6 * HOUR;
    let mark = |due_ms: i64| Run { schedule: format!("every {six}"), due_ms, ..Run::default() };
    // (last run, now) -> (time that is done with, window)
    for (case, last, now, expected) in [
        ("new", None, DAY + 1, Some((DAY + 1, None))),
        ("not yet", Some(mark(DAY)), DAY + six - 1, None),
        ("just now", Some(mark(DAY)), DAY + six, Some((DAY + six, Some(600_000)))),
        ("a little late", Some(mark(DAY)), DAY + six + 5000, Some((DAY + six, Some(600_000)))),
        ("done", Some(mark(DAY + six)), DAY + six + 5000, None),
        (
            "first run since it is known",
            Some(mark(DAY + 1)),
            DAY + six,
            Some((DAY + six, Some(600_000))),
        ),
        (
            "missed four, made up once",
            Some(mark(DAY)),
            DAY + 4 * six + 9,
            Some((DAY + 4 * six, Some(600_000))),
        ),
        (
            "another schedule",
            Some(Run { schedule: "x".into(), due_ms: 0, ..Run::default() }),
            DAY,
            Some((DAY, None)),
        ),
        ("clock set back a little", Some(mark(DAY + 1000)), DAY, None),
        ("clock set back far", Some(mark(DAY + 9 * six)), DAY, Some((DAY, None))),
    ] {
        let policies = [policy("p", six)];
        let marks: HashMap<String, Run> =
            last.map(|run| ("p".to_owned(), run)).into_iter().collect();
        let planned = due(&policies, &marks, now);
        let planned: Vec<_> = planned.iter().map(|it| (it.due_ms, it.window_ms)).collect();
        assert_eq!(planned, expected.into_iter().collect::<Vec<_>>(), "{case}");
    }
    // Short intervals have short windows.
    let policies = [policy("p", 60_000)];
    let mark = Run { schedule: "every 60000".into(), due_ms: DAY, ..Run::default() };
    let planned = due(&policies, &HashMap::from([("p".to_owned(), mark)]), DAY + 60_000);
    assert_eq!(planned[0].window_ms, Some(30_000));
}

#[test]
fn images_are_what_names_mean_now() {
    let seen = [
        image("", "1", "hosted", 5),
        image("docker.io", "", "by digest", 1),
        image("docker.io", "", "another", 2),
        image("docker.io", "latest", "old", 1),
        image("docker.io", "latest", "new", 9),
        image("docker.io", "stable", "new", 3),
        image("reg.internal.corp", "1", "secret", 9),
    ];
    let images = images_of(&policy("p", HOUR), &seen);
    let names: Vec<String> = images
        .iter()
        .map(|it| format!("{}:{} {}", it.name.registry, it.name.tag, it.seen_ms))
        .collect();
    let mut by_digest = ["docker.io: 1", "docker.io: 2"];
    if Digest::sha256(b"another") < Digest::sha256(b"by digest") {
        by_digest.reverse();
    }
    assert_eq!(names, [":1 5", "docker.io:latest 9", by_digest[0], by_digest[1]]);
}

#[test]
fn turns_are_spread_and_stay() {
    let window = 600_000;
    let turns: Vec<i64> = (0..1000_u32)
        .map(|number| spread(&Digest::sha256(&number.to_be_bytes()), window))
        .collect();
    assert!(turns.iter().all(|turn| (0..window).contains(turn)));
    for tenth in 0..10 {
        let range = tenth * window / 10..(tenth + 1) * window / 10;
        let count = turns.iter().filter(|turn| range.contains(turn)).count();
        assert!((60..150).contains(&count), "{tenth}: {count}");
    }
    let digest = Digest::sha256(b"a");
    assert_eq!(spread(&digest, window), spread(&digest, window));
    assert_eq!((spread(&digest, 0), spread(&digest, -5)), (0, 0));
}

/// A run over a catalogue: who is asked for, once, and again after a restart.
async fn runs(ground: super::ground::Ground) {
    let clock = Arc::new(kuboard_rt::ManualClock::new(DAY + 10));
    let engine = ground.engine(clock.clone());
    let catalog = engine.catalog().clone();
    for seen in [
        image("docker.io", "1", "never scanned", DAY),
        image("docker.io", "2", "current", DAY),
        image("docker.io", "3", "older indexers", DAY),
        image("docker.io", "4", "other advisories", DAY),
        image("docker.io", "5", "out of use", DAY - 40 * 24 * HOUR),
        image("reg.internal.corp", "6", "excluded", DAY),
    ] {
        catalog.name_image(&seen.name, &seen.image, seen.seen_ms).await.unwrap();
    }
    for (content, indexer, generation) in [
        ("current", engine.state(), 0),
        ("older indexers", "older".to_owned(), 0),
        ("other advisories", engine.state(), 7),
    ] {
        let image = Digest::sha256(content.as_bytes());
        let row = InventoryRow { image, indexer, body: vec![1], indexed_ms: DAY };
        catalog.put_image_inventory(&row, Vec::new()).await.unwrap();
        let (body, summary) = (vec![1], String::new());
        let report =
            ReportRow { image, body, summary, generation, reported_ms: DAY, first_ms: DAY };
        catalog.put_report(&report).await.unwrap();
    }
    let policies = [policy("production", 6 * HOUR)];
    let now = || kuboard_rt::Clock::now_ms(&*clock);
    assert_eq!(run_due(&engine, &policies, now()).await.unwrap(), [], "new: it waits");
    clock.set(DAY + 6 * HOUR + 3);
    let ran = run_due(&engine, &policies, now()).await.unwrap();
    let [(name, run)] = ran.as_slice() else { panic!("{ran:?}") };
    assert_eq!(name, "production");
    assert_eq!((run.images, run.queued, run.current), (4, 3, 1));
    assert_eq!((run.due_ms, run.ran_ms), (DAY + 6 * HOUR, now()));
    let jobs = catalog.jobs(JobState::Waiting, "scan", 10).await.unwrap();
    let mut subjects: Vec<&str> = jobs.iter().map(|job| job.subject.as_str()).collect();
    subjects.sort_unstable();
    let mut expected = ["never scanned", "older indexers", "other advisories"]
        .map(|content| Digest::sha256(content.as_bytes()).to_string());
    expected.sort_unstable();
    assert_eq!(subjects, expected);
    for job in &jobs {
        assert_eq!(job.priority, 10);
        assert!((now()..now() + 600_000).contains(&job.run_after_ms), "{job:?}");
        let asked: crate::engine::ScanJob = serde_json::from_str(&job.payload).unwrap();
        assert!(asked.fetch && asked.repository == "team/app" && !asked.tag.is_empty());
    }
    // Another engine, or the same after a restart, has nothing to do.
    let other = ground.engine(clock.clone());
    assert_eq!(run_due(&other, &policies, now()).await.unwrap(), []);
    // Killed before the mark was set: the same is asked for again, and stands there once.
    let before = Run { schedule: policies[0].schedule.clone(), due_ms: DAY, ..Run::default() };
    let mark = serde_json::to_string(&before).unwrap();
    catalog.set_mark("schedule production", &mark).await.unwrap();
    assert_eq!(run_due(&other, &policies, now()).await.unwrap()[0].1.queued, 3);
    assert_eq!(catalog.jobs(JobState::Waiting, "scan", 10).await.unwrap().len(), 3);
    // Days later: one run makes up for all.
    clock.set(DAY + 100 * HOUR);
    assert_eq!(run_due(&other, &policies, now()).await.unwrap().len(), 1);
    assert_eq!(run_due(&other, &policies, now()).await.unwrap(), []);
    let last = super::last_run(&engine, "production").await.unwrap().unwrap();
    assert_eq!(last.due_ms, DAY + 96 * HOUR);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_on_sqlite() {
    runs(super::ground::Ground::sqlite().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_on_postgres() {
    runs(super::ground::Ground::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_runner_runs_and_stops() {
    let ground = super::ground::Ground::sqlite().await;
    let clock = Arc::new(kuboard_rt::ManualClock::new(DAY + 10));
    let engine = ground.engine(clock.clone());
    let seen = image("docker.io", "1", "never scanned", DAY);
    engine.catalog().name_image(&seen.name, &seen.image, DAY).await.unwrap();
    let tasks = kuboard_rt::Tasks::default();
    let (stop, running) = (tasks.shutdown(), engine.clone());
    tasks.spawn("schedules", async move {
        super::run(running, Arc::new(|| vec![policy("p", HOUR)]), stop).await.unwrap();
    });
    while super::last_run(&engine, "p").await.unwrap().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    tasks.drain(std::time::Duration::from_secs(10)).await;
    assert_eq!(tasks.running(), 0);
}
