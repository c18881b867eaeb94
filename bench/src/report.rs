//! The table of results, with floors, ratios and targets, and the same as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::contender::Kind;
use crate::series::Series;

/// One measured quantity.
pub(crate) struct Row {
    name: String,
    unit: &'static str,
    floor: Option<f64>,
    cells: Vec<(Kind, Series)>,
    target: Target,
    ratio: Ratio,
}

/// How two contenders compare.
#[derive(Clone, Copy)]
enum Ratio {
    /// Less is better: theirs divided by ours.
    Cost,
    /// More is better: ours divided by theirs.
    Gain,
    /// A quotient would say nothing.
    None,
}

/// What ours shall reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// Stands beside, decides nothing.
    None,
    /// The yardstick's figure divided by ours is at least this.
    TimesLess(f64),
    /// Ours is at most this.
    AtMost(f64),
    /// Ours is at least this.
    AtLeast(f64),
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str) -> Row {
        let (cells, target, ratio) = (Vec::new(), Target::None, Ratio::Cost);
        Row { name: name.into(), unit, floor: None, cells, target, ratio }
    }

    /// More is better.
    pub(crate) fn gain(mut self) -> Row {
        self.ratio = Ratio::Gain;
        self
    }

    /// The figures stand for themselves; their quotient would say nothing.
    pub(crate) fn absolute(mut self) -> Row {
        self.ratio = Ratio::None;
        self
    }

    /// What the machine itself needs for it.
    pub(crate) fn floor(mut self, floor: f64) -> Row {
        self.floor = Some(floor);
        self
    }

    pub(crate) fn cell(mut self, who: Kind, series: impl Into<Series>) -> Row {
        self.cells.push((who, series.into()));
        self
    }

    pub(crate) fn target(mut self, target: Target) -> Row {
        self.target = target;
        self
    }

    fn series(&self, who: Kind) -> Option<&Series> {
        self.cells.iter().find(|(other, _)| *other == who).map(|(_, series)| series)
    }

    /// How many times better the median of ours is than the yardstick's.
    fn ratio(&self) -> Option<f64> {
        let ours = self.series(Kind::Kuboard)?.median();
        let theirs = self.series(Kind::Distribution)?.median();
        let ratio = match self.ratio {
            Ratio::Cost => theirs / ours,
            Ratio::Gain => ours / theirs,
            Ratio::None => return None,
        };
        Some(ratio).filter(|ratio| ratio.is_finite())
    }

    fn passes(&self) -> Option<bool> {
        let ours = self.series(Kind::Kuboard).map_or(f64::NAN, Series::median);
        match self.target {
            Target::None => None,
            Target::TimesLess(times) => Some(self.ratio().is_some_and(|ratio| ratio >= times)),
            Target::AtMost(most) => Some(ours <= most),
            Target::AtLeast(least) => Some(ours >= least),
        }
    }

    fn verdict(&self) -> &'static str {
        match self.passes() {
            None => "",
            Some(true) => "PASS",
            Some(false) => "MISS",
        }
    }

    fn target_text(&self) -> String {
        match self.target {
            Target::None => String::new(),
            Target::TimesLess(times) => format!("<= 1/{times}"),
            Target::AtMost(most) => format!("<= {}", number(most)),
            Target::AtLeast(least) => format!(">= {}", number(least)),
        }
    }

    fn json(&self) -> Value {
        let cells: serde_json::Map<String, Value> =
            self.cells.iter().map(|(who, series)| (who.name().to_owned(), series.json())).collect();
        json!({
            "measure": self.name, "unit": self.unit, "floor": self.floor, "figures": cells,
            "ratio": self.ratio(), "target": self.target_text(), "verdict": self.verdict(),
        })
    }
}

/// All rows as JSON.
pub(crate) fn json(rows: &[Row]) -> Value {
    rows.iter().map(Row::json).collect()
}

/// How many of the rows with a target pass, and how many there are.
pub(crate) fn score(rows: &[Row]) -> (usize, usize) {
    let judged: Vec<bool> = rows.iter().filter_map(Row::passes).collect();
    (judged.iter().filter(|passes| **passes).count(), judged.len())
}

/// All rows as a table: median and, of several rounds, least and most.
pub(crate) fn table(rows: &[Row], kinds: &[Kind]) -> String {
    let mut head = vec!["measure".to_owned(), "unit".to_owned(), "floor".to_owned()];
    head.extend(kinds.iter().map(|kind| kind.name().to_owned()));
    head.extend(["ratio", "target", ""].map(str::to_owned));
    let mut lines = vec![head];
    for row in rows {
        let mut line = vec![row.name.clone(), row.unit.to_owned()];
        line.push(row.floor.map_or_else(String::new, number));
        line.extend(kinds.iter().map(|kind| row.series(*kind).map_or_else(String::new, spread)));
        line.push(row.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}")));
        line.extend([row.target_text(), row.verdict().to_owned()]);
        lines.push(line);
    }
    columns(&lines)
}

fn columns(lines: &[Vec<String>]) -> String {
    let count = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..count)
        .map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in lines {
        for (cell, width) in line.iter().zip(&widths) {
            // Writing to a string does not fail.
            let _ = write!(text, "{cell:<width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn spread(series: &Series) -> String {
    let (median, least, most) = (series.median(), series.least(), series.most());
    if least.to_bits() == most.to_bits() {
        return number(median);
    }
    format!("{} ({}..{})", number(median), number(least), number(most))
}

/// Three significant digits.
fn number(value: f64) -> String {
    match value.abs() {
        _ if value.fract() == 0.0 && value.abs() < 1e6 => format!("{value}"),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Row, Target, score, table};
    use crate::contender::Kind;

    #[test]
    fn targets_are_judged_by_medians() {
        let check = |target, ours: f64, theirs: f64, passes: Option<bool>| {
            let row = Row::new("x", "s").cell(Kind::Kuboard, ours).cell(Kind::Distribution, theirs);
            assert_eq!(row.target(target).passes(), passes, "{target:?} {ours} {theirs}");
        };
        check(Target::None, 1.0, 2.0, None);
        check(Target::TimesLess(2.0), 1.0, 2.0, Some(true));
        check(Target::TimesLess(2.5), 1.0, 2.0, Some(false));
        check(Target::TimesLess(2.5), f64::NAN, 2.0, Some(false));
        check(Target::AtMost(1.0), 1.0, 9.0, Some(true));
        check(Target::AtMost(1.0), f64::NAN, 9.0, Some(false));
        check(Target::AtLeast(1.0), 0.5, 9.0, Some(false));
    }

    #[test]
    fn the_table_has_a_column_for_each_contender() {
        let rows = [Row::new("blob", "CPU s/GiB")
            .floor(0.05)
            .cell(Kind::Kuboard, 0.2)
            .cell(
                Kind::Distribution,
                [0.5, 0.6, 0.7].into_iter().collect::<crate::series::Series>(),
            )
            .target(Target::TimesLess(2.5))];
        let text = table(&rows, &[Kind::Kuboard, Kind::Distribution]);
        let line = text.lines().nth(1).unwrap();
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>().join(" "),
            "blob CPU s/GiB 0.050 0.200 0.600 (0.500..0.700) 3.00 <= 1/2.5 PASS"
        );
        assert_eq!(score(&rows), (1, 1));
    }
}
