//! What commands print: tables for people, JSON for machines, errors that end in a hint.
#![expect(clippy::print_stderr, reason = "the one place where commands write to the terminal")]

use std::{io::Write, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use kuboard_scan::inspect::LayerStep;
use kuboard_vuln::LayerReference;
use serde::Serialize;

/// Prints an error with its causes.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// Prints a note beside the output.
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}

/// Prints a line of output.
pub(crate) fn line(text: &str) {
    // A reader that went away (`| head`) is no failure of the command.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Prints a value as JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Prints rows under headings, columns aligned.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let print = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        line(padded.join("  ").trim_end());
    };
    print(headings.to_vec());
    for row in rows {
        print(row.iter().map(String::as_str).collect());
    }
}

/// Bytes as people read them: `512.0 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A moving line for work whose end is not known, silent when nobody watches.
pub(crate) fn spinner(text: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.set_message(text.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Columns of the terminal, if the output goes to one.
pub(crate) fn terminal_width() -> Option<u16> {
    console::Term::stdout().size_checked().map(|(_, columns)| columns)
}

/// A line of progress a layer that is being read, silent when nobody watches.
pub(crate) struct LayerBars {
    bar: ProgressBar,
}

impl LayerBars {
    /// Bars for these layers.
    pub(crate) fn new(quiet: bool, layers: &[LayerReference]) -> Self {
        let total = layers.iter().map(|layer| layer.size).sum();
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(total) };
        let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar }
    }

    /// Something happened to a layer.
    pub(crate) fn step(&self, layer: &LayerReference, step: LayerStep) {
        match step {
            LayerStep::Known | LayerStep::Done => self.bar.inc(layer.size),
            LayerStep::Begun => {
                let hex = layer.digest.hex();
                self.bar.set_message(format!("reading layer {}", hex.get(..12).unwrap_or(&hex)));
            }
        }
    }

    /// All is read.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_read_well() {
        for (count, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (536_870_912, "512.0 MiB"),
            (1 << 41, "2.0 TiB"),
        ] {
            assert_eq!(super::bytes(count), expected);
        }
    }
}
