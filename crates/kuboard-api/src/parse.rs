//! From the text of kuboard.toml to a [`Config`], with the place of everything that is wrong.
//!
//! The text is read twice: once against the schema, which finds every unknown key and remembers
//! where each key stands, then into the typed configuration.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::Config;
use crate::error::{ConfigError, Problem};
use crate::schema::{Described, Key, Shape, nearest};

const DEFAULT_FILE: &str = "kuboard.toml";

/// Where the values of a configuration stood in its text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Origin {
    file: String,
    /// Line and column of each key, by its dotted path.
    places: BTreeMap<String, (usize, usize)>,
}

impl Default for Origin {
    fn default() -> Self {
        Self { file: DEFAULT_FILE.to_owned(), places: BTreeMap::new() }
    }
}

impl Origin {
    /// The error that these problems make, each at the place of its key or of the nearest table
    /// around it.
    pub(crate) fn error(&self, mut problems: Vec<Problem>) -> ConfigError {
        for problem in &mut problems {
            if problem.line.is_some() {
                continue;
            }
            let mut path = problem.key.as_str();
            while !path.is_empty() {
                if let Some((line, column)) = self.places.get(path) {
                    (problem.line, problem.column) = (Some(*line), Some(*column));
                    break;
                }
                path = path.rfind(['.', '[']).map_or("", |end| &path[..end]);
            }
        }
        ConfigError::new(&self.file, problems)
    }
}

impl Config {
    /// Reads the text of a configuration file called kuboard.toml; see [`Config::parse_file`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::parse_file(DEFAULT_FILE, text)
    }

    /// Reads the text of a configuration file; `file` is what messages call it.
    ///
    /// Refuses what is wrong in the text itself: syntax, unknown keys, types, values out of
    /// bounds, upstream rules that contradict each other. What depends on how the process is
    /// started is left to [`Config::validate`], which belongs after the command line.
    pub fn parse_file(file: &str, text: &str) -> Result<Self, ConfigError> {
        let mut reading = Reading { text, problems: Vec::new(), keys: Vec::new() };
        let mut origin = Origin { file: file.to_owned(), places: BTreeMap::new() };
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(fault) => return Err(origin.error(vec![reading.fault(&fault)])),
        };
        if let Shape::Table(_, keys) = Config::shape() {
            reading.table(table.get_ref(), &keys, "");
        }
        for (path, key, _) in &reading.keys {
            origin.places.insert(path.clone(), place(text, key.start));
        }
        if !reading.problems.is_empty() {
            return Err(origin.error(reading.problems));
        }
        let read = Config::deserialize(toml::de::Deserializer::from(table));
        let mut config = match read {
            Ok(config) => config,
            Err(fault) => return Err(origin.error(vec![reading.fault(&fault)])),
        };
        config.origin = origin;
        config.check_values()?;
        Ok(config)
    }
}

/// Line and column of a byte offset, both from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

struct Reading<'t> {
    text: &'t str,
    problems: Vec<Problem>,
    /// Dotted path, place of the key, place of the value.
    keys: Vec<(String, Range<usize>, Range<usize>)>,
}

impl Reading<'_> {
    /// Checks the keys of a table that stands under `prefix`.
    fn table(&mut self, table: &DeTable<'_>, keys: &[Key], prefix: &str) {
        for (name, value) in table {
            let path = match prefix {
                "" => name.get_ref().to_string(),
                _ => format!("{prefix}.{}", name.get_ref()),
            };
            self.keys.push((path.clone(), name.span(), value.span()));
            match keys.iter().find(|key| key.name == name.get_ref()) {
                Some(key) => self.value(value, key, &path),
                None => self.unknown(name.get_ref(), keys, prefix, path),
            }
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, key: &Key, path: &str) {
        match (&key.shape, value.get_ref()) {
            (Shape::Table(_, keys), DeValue::Table(table)) => self.table(table, keys, path),
            (Shape::Table(..), _) => self.problems.push(
                Problem::at(path, format!("`{path}` is a table"))
                    .hint(format!("write its keys under a line [{path}]")),
            ),
            (Shape::Tables(_, keys), DeValue::Array(entries)) => {
                for (index, entry) in entries.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.keys.push((path.clone(), entry.span(), entry.span()));
                    if let DeValue::Table(table) = entry.get_ref() {
                        self.table(table, keys, &path);
                    }
                }
            }
            (Shape::Tables(..), _) => self.problems.push(
                Problem::at(path, format!("`{path}` is a list of tables"))
                    .hint(format!("write [[{path}]] instead of [{path}]")),
            ),
            (Shape::Value(_), _) => {}
        }
    }

    fn unknown(&mut self, name: &str, keys: &[Key], prefix: &str, path: String) {
        let place = match prefix {
            "" => "at the top of the file".to_owned(),
            _ => format!("in [{}]", plain(prefix)),
        };
        let known = keys.iter().map(|key| key.name);
        let hint = if let Some(meant) = nearest(name, known.clone()) {
            format!("did you mean `{meant}`?")
        } else if let Some(table) = home_of(name) {
            format!("`{name}` belongs in [{table}]")
        } else {
            format!("the keys here are {}", known.collect::<Vec<_>>().join(", "))
        };
        self.problems.push(Problem::at(path, format!("unknown key `{name}` {place}")).hint(hint));
    }

    /// A fault of the TOML reader, at the key whose value it is about.
    fn fault(&self, fault: &toml::de::Error) -> Problem {
        let (message, hint) = match fault.message().split_once("\nhint: ") {
            Some((message, hint)) => (message, Some(hint.to_owned())),
            None => (fault.message(), None),
        };
        let span = fault.span().unwrap_or(0..0);
        let about = self
            .keys
            .iter()
            .filter(|(_, _, value)| value.start <= span.start && span.end <= value.end)
            .min_by_key(|(_, _, value)| value.len());
        let mut problem = match about {
            Some((path, ..)) => Problem::at(path, format!("{path}: {}", message.trim_end())),
            None => Problem::at("", message.trim_end().replace('\n', ", ")),
        };
        problem.hint = hint.or_else(|| about.and_then(|(path, ..)| type_hint(path)));
        let (line, column) = place(self.text, span.start);
        (problem.line, problem.column) = (Some(line), Some(column));
        problem
    }
}

/// A path without the indexes of its lists, as table headers are written.
fn plain(path: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            _ if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

/// The table that a misplaced key belongs in, if it is the only one that knows it.
fn home_of(name: &str) -> Option<String> {
    let mut homes = Vec::new();
    each_key(&mut |table, key| {
        if key.name == name && !table.is_empty() {
            homes.push(table.to_owned());
        }
    });
    match homes.as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    }
}

/// What the schema expects at a path, with an example.
fn type_hint(path: &str) -> Option<String> {
    let path = plain(path);
    let mut hint = None;
    each_key(&mut |table, key| {
        let full =
            if table.is_empty() { key.name.to_owned() } else { format!("{table}.{}", key.name) };
        if let (true, Shape::Value(words)) = (full == path, &key.shape) {
            let example = match &key.default {
                Some(default) => format!(", for example {} = {default}", key.name),
                None => String::new(),
            };
            hint = Some(format!("write a value of type {words}{example}"));
        }
    });
    hint
}

/// Calls `visit` with every key of the schema and the table it stands in.
pub(crate) fn each_key(visit: &mut dyn FnMut(&str, &Key)) {
    fn walk(table: &str, keys: &[Key], visit: &mut dyn FnMut(&str, &Key)) {
        for key in keys {
            visit(table, key);
            if let Shape::Table(_, below) | Shape::Tables(_, below) = &key.shape {
                let path = if table.is_empty() {
                    key.name.to_owned()
                } else {
                    format!("{table}.{}", key.name)
                };
                walk(&path, below, visit);
            }
        }
    }
    if let Shape::Table(_, keys) = Config::shape() {
        walk("", &keys, visit);
    }
}
