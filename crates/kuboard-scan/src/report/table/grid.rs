//! A table of seven columns that fits the terminal: the title gives way first, then the status
//! moves into the empty cells of "fixed in", then columns get narrower and their cells higher.
//!
//! Widths are those of Unicode: a Chinese character takes two columns.

use std::{borrow::Cow, io};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::super::text;

/// How many columns a whole table has.
pub(super) const COLUMNS: usize = 7;

const HEADS: [&str; COLUMNS] =
    ["Package", "Vulnerability", "Severity", "Status", "Installed", "Fixed in", "Title"];
/// Width that a column gets without asking.
const COMFORTABLE: [usize; COLUMNS] = [28, 20, 12, 19, 24, 24, 24];
/// Width below which a column is of no use.
const LEAST: [usize; COLUMNS] = [8, 14, 10, 12, 8, 8, 20];
/// Width that no column exceeds.
const MOST: [usize; COLUMNS] = [48, 32, 24, 19, 40, 48, 80];
/// The columns that a narrow table does without, in order.
const DROPPED: [usize; 3] = [TITLE, STATUS, 4];
const STATUS: usize = 3;
const TITLE: usize = 6;
const GAP: usize = 2;
/// Lines of a title, and of any other cell.
const TITLE_LINES: usize = 3;
const CELL_LINES: usize = 12;

/// How a text stands out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Paint {
    Plain,
    Strong,
    Faint,
    Alarm,
    Bad,
    Warning,
    Mild,
    Good,
}

impl Paint {
    /// The text with its colour, if wanted.
    pub(super) fn on(self, text: &str, color: bool) -> Cow<'_, str> {
        let code = match self {
            Paint::Plain => "",
            Paint::Strong => "1",
            Paint::Faint => "2",
            Paint::Alarm => "1;31",
            Paint::Bad => "31",
            Paint::Warning => "33",
            Paint::Mild => "36",
            Paint::Good => "32",
        };
        if !color || code.is_empty() || text.is_empty() {
            return Cow::Borrowed(text);
        }
        Cow::Owned(format!("\u{1b}[{code}m{text}\u{1b}[0m"))
    }
}

/// A cell: paragraphs, each with its colour.
#[derive(Clone)]
pub(super) struct Cell {
    paragraphs: Vec<(String, Paint)>,
    /// Only shown where the table has no status column.
    stands_in: bool,
}

impl Cell {
    pub(super) fn new(text: &str, paint: Paint) -> Self {
        let text = text::line(text).trim().to_owned();
        Self { paragraphs: vec![(text, paint)], stands_in: false }
    }

    pub(super) fn stand_in(text: &str, paint: Paint) -> Self {
        Self { stands_in: true, ..Self::new(text, paint) }
    }

    pub(super) fn add(&mut self, text: &str, paint: Paint) {
        self.paragraphs.push((text::line(text).trim().to_owned(), paint));
    }

    fn width(&self) -> usize {
        self.paragraphs.iter().map(|(text, _)| text.width()).max().unwrap_or(0)
    }

    fn lines(&self, width: usize, most: usize) -> Vec<(String, Paint)> {
        let mut lines: Vec<(String, Paint)> = Vec::new();
        for (text, paint) in &self.paragraphs {
            lines.extend(wrap(text, width).into_iter().map(|line| (line, *paint)));
        }
        if lines.len() > most {
            lines.truncate(most);
            if let Some((last, _)) = lines.last_mut() {
                while last.width() >= width {
                    last.pop();
                }
                last.push('…');
            }
        }
        lines
    }
}

/// A table while it is being filled.
pub(super) struct Grid {
    width: Option<usize>,
    color: bool,
    rows: Vec<[Cell; COLUMNS]>,
}

impl Grid {
    pub(super) fn new(width: Option<u16>, color: bool) -> Self {
        Self { width: width.map(usize::from), color, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: [Cell; COLUMNS]) {
        self.rows.push(cells);
    }

    pub(super) fn write(&self, to: &mut dyn io::Write) -> io::Result<()> {
        let widths = self.widths();
        let has_status = widths.iter().any(|(column, _)| *column == STATUS);
        let heads = HEADS.map(|head| Cell::new(head, Paint::Strong));
        self.cells(&heads, &widths, true, to)?;
        let rules = widths.iter().map(|(_, width)| "─".repeat(*width)).collect::<Vec<_>>();
        let rule = rules.join(&" ".repeat(GAP));
        writeln!(to, "{}", Paint::Faint.on(&rule, self.color))?;
        for row in &self.rows {
            self.cells(row, &widths, has_status, to)?;
        }
        Ok(())
    }

    /// Columns that are shown, with their widths.
    fn widths(&self) -> Vec<(usize, usize)> {
        let mut wanted: [usize; COLUMNS] = HEADS.map(str::len);
        for row in &self.rows {
            for (width, cell) in wanted.iter_mut().zip(row) {
                if !cell.stands_in {
                    *width = (*width).max(cell.width());
                }
            }
        }
        let wanted = wanted.into_iter().zip(MOST).map(|(width, most)| width.min(most)).enumerate();
        let wanted: Vec<(usize, usize)> = wanted.collect();
        let Some(available) = self.width else { return wanted };
        let mut columns = wanted.clone();
        for dropped in 0..=DROPPED.len() {
            let without = DROPPED.get(..dropped).unwrap_or_default();
            columns =
                wanted.iter().filter(|(column, _)| !without.contains(column)).copied().collect();
            squeeze(&mut columns, &COMFORTABLE, available);
            // Narrow columns are better than no version, but worse than no title or status.
            if dropped >= 2 {
                squeeze(&mut columns, &LEAST, available);
            }
            if fits(&columns, available) {
                break;
            }
        }
        columns
    }

    fn cells(
        &self,
        row: &[Cell; COLUMNS],
        widths: &[(usize, usize)],
        has_status: bool,
        to: &mut dyn io::Write,
    ) -> io::Result<()> {
        let cells: Vec<(usize, Vec<(String, Paint)>)> = widths
            .iter()
            .map(|(column, width)| {
                let most = if *column == TITLE { TITLE_LINES } else { CELL_LINES };
                let cell = row.get(*column).filter(|cell| !(cell.stands_in && has_status));
                (*width, cell.map(|cell| cell.lines(*width, most)).unwrap_or_default())
            })
            .collect();
        let height = cells.iter().map(|(_, lines)| lines.len()).max().unwrap_or(0);
        for number in 0..height {
            let mut blanks = 0;
            for (width, lines) in &cells {
                let Some((text, paint)) = lines.get(number).filter(|(text, _)| !text.is_empty())
                else {
                    blanks += width + GAP;
                    continue;
                };
                write!(to, "{:blanks$}{}", "", paint.on(text, self.color))?;
                blanks = width.saturating_sub(text.width()) + GAP;
            }
            writeln!(to)?;
        }
        Ok(())
    }
}

fn total(columns: &[(usize, usize)]) -> usize {
    let gaps = columns.len().saturating_sub(1) * GAP;
    columns.iter().map(|(_, width)| width).sum::<usize>() + gaps
}

fn fits(columns: &[(usize, usize)], available: usize) -> bool {
    total(columns) <= available
}

/// Narrows the widest column, again and again, none below its limit, until the table fits.
fn squeeze(columns: &mut [(usize, usize)], limits: &[usize; COLUMNS], available: usize) {
    for _ in available..total(columns) {
        let spare = |(column, width): &&mut (usize, usize)| {
            limits.get(*column).is_some_and(|limit| width > limit)
        };
        match columns.iter_mut().filter(spare).max_by_key(|(_, width)| *width) {
            Some((_, width)) => *width -= 1,
            None => return,
        }
    }
}

/// Lines of at most `width` columns, broken at blanks, or inside of words that are too long.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(2);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    let mut is_start = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let size = word.width();
        let gap = usize::from(!is_start);
        if used + gap + size <= width {
            line.push_str(if is_start { "" } else { " " });
            line.push_str(word);
            used += gap + size;
            is_start = false;
            continue;
        }
        if size <= width && !is_start {
            lines.push(std::mem::replace(&mut line, word.to_owned()));
            used = size;
            continue;
        }
        if !is_start {
            line.push(' ');
            used += 1;
        }
        for c in word.chars() {
            let size = c.width().unwrap_or(0);
            if used + size > width {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
                used = 0;
            }
            line.push(c);
            used += size;
        }
        is_start = false;
    }
    if !line.trim().is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrap;
    use unicode_width::UnicodeWidthStr;

    fn check(text: &str, width: usize, want: &[&str]) {
        assert_eq!(wrap(text, width), want, "{text:?} at {width}");
    }

    #[test]
    fn texts_are_wrapped() {
        check("", 10, &[]);
        check("one two three", 7, &["one two", "three"]);
        check("abcdefghij", 4, &["abcd", "efgh", "ij"]);
        check("ab cdefghij", 4, &["ab c", "defg", "hij"]);
        check("中文字符很长", 5, &["中文", "字符", "很长"]);
        check("  a  b ", 10, &["a b"]);
        check("中", 1, &["中"]);
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_too_wide(text in "[a-z中 é]{0,60}", width in 2_usize..20) {
            for line in wrap(&text, width) {
                proptest::prop_assert!(line.width() <= width, "{line:?}");
            }
        }
    }
}
