//! `kuboard fsck`: proves the stored content whole, while a server runs or not.

use std::process::ExitCode;

use kuboard_rt::Tasks;

use crate::{
    boot,
    cli::{Format, FsckArgs},
    output,
};

/// The exit code of a store that is not whole.
const NOT_WHOLE: u8 = 3;

/// Runs the command.
pub(crate) fn run(args: &FsckArgs) -> anyhow::Result<ExitCode> {
    let config = boot::config(&args.place)?;
    boot::require_data(&config)?;
    let report = boot::block_on(async move {
        let stores = boot::Stores::open(&config, boot::Use::Look, Tasks::default()).await?;
        let bar = output::spinner("checking");
        let told = {
            let bar = bar.clone();
            move |blobs: u64, bytes: u64| {
                bar.set_message(format!("checked {blobs} blobs, {}", output::bytes(bytes)));
            }
        };
        let report = kuboard_proxy::fsck::check(&stores.subject(), &told).await;
        bar.finish_and_clear();
        report
    })?;
    match args.output {
        Format::Json => output::json(&report)?,
        Format::Table => {
            output::line(&format!(
                "checked {} blobs, {}",
                report.checked_blobs,
                output::bytes(report.checked_bytes)
            ));
            for name in &report.corrupt {
                output::line(&format!("corrupt  {name}"));
            }
            for digest in &report.missing {
                output::line(&format!("missing  {digest}"));
            }
            for path in &report.foreign {
                output::line(&format!("foreign  {path}"));
            }
            if report.unfinished > 0 {
                output::line(&format!("{} uploads never finished", report.unfinished));
            }
            output::line(if report.is_whole() { "whole" } else { "NOT whole" });
        }
    }
    Ok(if report.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(NOT_WHOLE) })
}
