//! `kuboard config`: says what is wrong with a configuration before a server does.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use kuboard_api::{Config, ConfigError, Rules};

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
    let (config, rules) = match read(&file, &text) {
        Ok(read) => read,
        Err(error) if *format == Format::Json => {
            output::json(&refusal(&file, &error))?;
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    };
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

fn read(file: &Path, text: &str) -> Result<(Config, Rules), ConfigError> {
    let config = Config::parse_file(&file.display().to_string(), text)?;
    config.validate()?;
    let rules = Rules::new(&config)?;
    Ok((config, rules))
}

/// What is wrong, for machines.
fn refusal(file: &Path, error: &ConfigError) -> serde_json::Value {
    let problems: Vec<_> = error
        .problems()
        .iter()
        .map(|problem| {
            serde_json::json!({
                "key": problem.key,
                "line": problem.line,
                "column": problem.column,
                "message": problem.message,
                "hint": problem.hint,
            })
        })
        .collect();
    serde_json::json!({ "file": file, "ok": false, "problems": problems })
}
