//! The figures of several scanners side by side, with targets for ours.

use std::fmt::Write;

use serde_json::{Value, json};

use super::peers::OURS;
use crate::series::Series;

/// One measured quantity; less is better.
pub(crate) struct Row {
    name: String,
    unit: &'static str,
    cells: Vec<(&'static str, Series)>,
    target: Option<Target>,
}

enum Target {
    AtMost(f64),
    /// Each of these peers' medians divided by ours is at least this.
    TimesLess(f64, &'static [&'static str]),
}

impl Row {
    pub(crate) fn new(name: String, unit: &'static str) -> Row {
        Row { name, unit, cells: Vec::new(), target: None }
    }

    pub(crate) fn put(&mut self, who: &'static str, series: Series) {
        self.cells.push((who, series));
    }

    pub(crate) fn at_most(&mut self, most: f64) {
        self.target = Some(Target::AtMost(most));
    }

    pub(crate) fn times_less(&mut self, times: f64, than: &'static [&'static str]) {
        self.target = Some(Target::TimesLess(times, than));
    }

    fn median(&self, who: &str) -> Option<f64> {
        self.cells.iter().find(|(name, _)| *name == who).map(|(_, series)| series.median())
    }

    fn ratio(&self, who: &str) -> Option<f64> {
        Some(self.median(who)? / self.median(OURS)?).filter(|ratio| ratio.is_finite())
    }

    fn passes(&self) -> Option<bool> {
        Some(match self.target.as_ref()? {
            Target::AtMost(most) => self.median(OURS).is_some_and(|it| it <= *most),
            Target::TimesLess(times, than) => {
                than.iter().all(|who| self.ratio(who).is_some_and(|ratio| ratio >= *times))
            }
        })
    }

    fn target_text(&self) -> String {
        match &self.target {
            None => String::new(),
            Some(Target::AtMost(most)) => format!("<= {most}"),
            Some(Target::TimesLess(times, than)) => format!("<= 1/{times} of {}", than.join(", ")),
        }
    }

    fn verdict(&self) -> &'static str {
        match self.passes() {
            None => "",
            Some(true) => "PASS",
            Some(false) => "MISS",
        }
    }

    fn cell(&self, who: &str) -> String {
        let Some((_, series)) = self.cells.iter().find(|(name, _)| *name == who) else {
            return String::new();
        };
        let spread =
            format!("{:.3} ({:.3}..{:.3})", series.median(), series.least(), series.most());
        match self.ratio(who) {
            Some(ratio) if who != OURS => format!("{spread} x{ratio:.1}"),
            _ => spread,
        }
    }

    fn json(&self) -> Value {
        let cells: serde_json::Map<String, Value> =
            self.cells.iter().map(|(who, series)| ((*who).to_owned(), series.json())).collect();
        let ratios: serde_json::Map<String, Value> =
            self.cells.iter().map(|(who, _)| ((*who).to_owned(), json!(self.ratio(who)))).collect();
        json!({
            "measure": self.name, "unit": self.unit, "figures": cells, "ratios": ratios,
            "target": self.target_text(), "verdict": self.verdict(),
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

/// All rows, a column for each scanner; `xN` is how many times ours it is.
pub(crate) fn table(rows: &[Row], names: &[&str]) -> String {
    let mut head = vec!["measure".to_owned(), "unit".to_owned()];
    head.extend(names.iter().map(|name| (*name).to_owned()));
    head.extend(["target", ""].map(str::to_owned));
    let mut lines = vec![head];
    for row in rows {
        let mut line = vec![row.name.clone(), row.unit.to_owned()];
        line.extend(names.iter().map(|name| row.cell(name)));
        line.extend([row.target_text(), row.verdict().to_owned()]);
        lines.push(line);
    }
    columns(&lines)
}

/// Lines of cells with the columns under each other.
pub(crate) fn columns(lines: &[Vec<String>]) -> String {
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        lines.iter().filter_map(|line| line.get(at)).map(|it| it.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
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

#[cfg(test)]
mod tests {
    use super::{Row, score};

    #[test]
    fn targets_are_judged_by_medians() {
        let check = |theirs: f64, times: f64, passes: bool| {
            let mut row = Row::new("x".to_owned(), "s");
            row.put("kuboard", 1.0.into());
            row.put("trivy", theirs.into());
            row.times_less(times, &["trivy"]);
            assert_eq!(row.passes(), Some(passes), "{theirs} {times}");
        };
        check(5.0, 5.0, true);
        check(4.9, 5.0, false);
        check(f64::NAN, 5.0, false);
        let mut row = Row::new("x".to_owned(), "s");
        row.at_most(1.0);
        assert_eq!(score(&[row]), (0, 1), "what was not measured does not pass");
    }
}
