//! `kuboard cache`: what is in the cache, what to drop, what to keep.

use std::process::ExitCode;

use kuboard_proxy::{CachedBlob, CachedImage, Stats, Touched};

use crate::{
    boot,
    cli::{CacheArgs, CacheOrder, Format},
    control::{self, Answer, Order},
    output,
};

/// Runs the command.
pub(crate) fn run(args: &CacheArgs) -> anyhow::Result<ExitCode> {
    let config = boot::config(&args.place)?;
    let order = match &args.order {
        CacheOrder::Ls { blobs: false } => Order::Images,
        CacheOrder::Ls { blobs: true } => Order::Blobs,
        CacheOrder::Stats => Order::Stats,
        CacheOrder::Rm { target } => Order::Remove(target.clone()),
        CacheOrder::Pin { target } => Order::Pin(target.clone()),
        CacheOrder::Unpin { target } => Order::Unpin(target.clone()),
    };
    let answer = boot::block_on(async move {
        let bar = output::spinner("asking the cache");
        let data_dir = config.data_dir.clone();
        let answer = control::order(&data_dir, order, async || boot::offline(config).await).await;
        bar.finish_and_clear();
        answer
    })?;
    match (answer, args.output) {
        (Answer::Images(images), Format::Json) => output::json(&images)?,
        (Answer::Blobs(blobs), Format::Json) => output::json(&blobs)?,
        (Answer::Stats(stats), Format::Json) => output::json(&stats)?,
        (Answer::Touched(touched), Format::Json) => output::json(&touched)?,
        (Answer::Images(images), Format::Table) => show_images(&images),
        (Answer::Blobs(blobs), Format::Table) => show_blobs(&blobs),
        (Answer::Stats(stats), Format::Table) => show_stats(&stats),
        (Answer::Touched(touched), Format::Table) => show_touched(&args.order, &touched),
        (Answer::Failed(why), _) => anyhow::bail!("{why}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn show_images(images: &[CachedImage]) {
    let rows: Vec<Vec<String>> = images
        .iter()
        .map(|image| {
            vec![
                image.repository.clone(),
                image.tag.clone(),
                short(&image.digest.to_string()),
                output::bytes(image.cached_bytes),
                output::bytes(image.total_bytes),
                if image.pinned { "pinned".to_owned() } else { String::new() },
            ]
        })
        .collect();
    output::table(&["REPOSITORY", "TAG", "DIGEST", "CACHED", "TOTAL", ""], &rows);
}

fn show_blobs(blobs: &[CachedBlob]) {
    let rows: Vec<Vec<String>> = blobs
        .iter()
        .map(|blob| {
            let marks = [(blob.pinned, "pinned"), (blob.leased, "in use")];
            let marks: Vec<&str> =
                marks.iter().filter(|(set, _)| *set).map(|(_, mark)| *mark).collect();
            vec![
                blob.digest.to_string(),
                output::bytes(blob.size),
                blob.hits.to_string(),
                marks.join(", "),
            ]
        })
        .collect();
    output::table(&["DIGEST", "SIZE", "HITS", ""], &rows);
}

fn show_stats(stats: &Stats) {
    let share = match stats.limit_bytes {
        0 => 0.0,
        limit => stats.used_bytes as f64 * 100.0 / limit as f64,
    };
    output::line(&format!(
        "used      {} of {} ({share:.1} %)",
        output::bytes(stats.used_bytes),
        output::bytes(stats.limit_bytes)
    ));
    output::line(&format!("blobs     {} ({} pinned)", stats.blobs, stats.pinned_blobs));
    output::line(&format!(
        "evicted   {} blobs, {}",
        stats.evicted_blobs,
        output::bytes(stats.evicted_bytes)
    ));
    output::line(&format!("downloads {} under way", stats.fills_running));
}

fn show_touched(order: &CacheOrder, touched: &Touched) {
    let done = match order {
        CacheOrder::Rm { .. } => "removed",
        CacheOrder::Pin { .. } => "pinned",
        _ => "unpinned",
    };
    output::line(&format!(
        "{done} {} ({} blobs and manifests, {})",
        if touched.tags.is_empty() { "digest".to_owned() } else { touched.tags.join(", ") },
        touched.digests.len(),
        output::bytes(touched.bytes)
    ));
}

fn short(digest: &str) -> String {
    digest.chars().take(19).collect()
}
