//! `kuboard config`: says what is wrong with a configuration before a server does.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use kuboard_api::{Config, Rules};

use crate::{
    cli::{ConfigArgs, ConfigOrder, Format},
    output,
};

/// Runs the command.
pub(crate) fn run(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let ConfigOrder::Check { file, output: format } = &args.order;
    let file = file.clone().unwrap_or_else(|| PathBuf::from("kuboard.toml"));
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("{} can't be read", file.display()))?;
    let config = Config::parse_file(&file.display().to_string(), &text)?;
    config.validate()?;
    let rules = Rules::new(&config)?;
    let upstreams: Vec<String> =
        rules.upstreams().iter().map(|rule| rule.name.to_string()).collect();
    let advice: Vec<String> = config.advice().iter().map(ToString::to_string).collect();
    match format {
        Format::Json => output::json(&serde_json::json!({
            "file": file,
            "ok": true,
            "advice": advice,
            "upstreams": upstreams,
        }))?,
        Format::Table => {
            output::line(&format!("{}: ok", file.display()));
            output::line(&format!("upstreams: {}", upstreams.join(", ")));
            for advice in advice {
                output::line(&format!("advice: {advice}"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
