//! Structured logs on standard error.

use anyhow::{Context, anyhow};
use std::str::FromStr;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, with the fields of the event on top and its spans beside it.
    Json,
}

impl FromStr for Format {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(anyhow!("unknown log format {other:?}; hint: use \"text\" or \"json\"")),
        }
    }
}

/// Starts logging for the whole process, panics included. `filter` is a level (`info`) or directives
/// (`info,kuboard_registry=debug`).
///
/// # Errors
/// When `filter` does not parse or logging was started before.
pub fn init(format: Format, filter: &str) -> anyhow::Result<()> {
    let filter = parse_filter(filter)?;
    let lines = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        Format::Text => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
            lines.with(layer.with_ansi(colour)).try_init()
        }
        Format::Json => lines.with(layer.json().flatten_event(true)).try_init(),
    }
    .context("cannot start logging")?;
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(at, "panic: {}", crate::tasks::panic_message(panic.payload()));
    }));
    Ok(())
}

fn parse_filter(filter: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::builder()
        .parse(filter)
        .with_context(|| format!("log filter {filter:?} does not parse"))
        .context(
            "hint: use a level such as \"info\" or directives such as \"info,kuboard_rt=debug\"",
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_and_formats_are_checked() {
        for good in ["info", "warn,kuboard_rt=debug", "off"] {
            parse_filter(good).unwrap();
        }
        let err = parse_filter("info,=,=").unwrap_err();
        assert!(format!("{err:#}").contains("hint: use a level"), "{err:#}");
        assert_eq!("json".parse::<Format>().unwrap(), Format::Json);
        assert!("xml".parse::<Format>().unwrap_err().to_string().contains("hint"));
    }
}
