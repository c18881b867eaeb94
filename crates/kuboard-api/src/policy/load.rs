//! Policies and exemptions of a folder: YAML files with any number of documents. A folder as Kubernetes mounts a
//! ConfigMap, in which files are links, is read as well; links that lead out of it are not
//! followed.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::Read,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned, de::IgnoredAny};

use super::{
    API_VERSION, Exemption, ImageScanPolicySpec, Metadata, Policy, Scope, check::shortened,
};
use crate::{
    crd::{ImageExemptionSpec, unknown_fields},
    error::Problem,
};

/// Bytes of one file.
const MAX_FILE: u64 = 1 << 20;
/// Files of a folder, documents of a file.
const MAX_COUNT: usize = 1000;

/// A policy and where it stood.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The file.
    pub file: PathBuf,
    /// The line its document begins at, from 1.
    pub line: usize,
    /// The policy.
    pub policy: Policy,
}

/// An exemption and where it stood.
#[derive(Clone, Debug)]
pub struct LoadedExemption {
    /// The file.
    pub file: PathBuf,
    /// The line its document begins at, from 1.
    pub line: usize,
    /// The exemption. Whether it ends too late was not looked at: that takes the time of day.
    pub exemption: Exemption,
}

/// A document that is neither a policy nor an exemption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub file: PathBuf,
    /// The line its document begins at, from 1.
    pub line: usize,
    /// What it is: `v1 ServiceAccount`.
    pub what: String,
}

/// What a folder holds.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    /// Policies, by file and line.
    pub policies: Vec<Loaded>,
    /// Exemptions, by file and line.
    pub exemptions: Vec<LoadedExemption>,
    /// Objects of other kinds.
    pub skipped: Vec<Skipped>,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyProblem {
    /// The file, or the folder.
    pub file: PathBuf,
    /// What.
    pub problem: Problem,
}

/// Policies that can't be used. Displayed as `file:line: key: fact`, followed by `hint: …`, a
/// problem after the other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct PolicyError {
    problems: Vec<PolicyProblem>,
}

impl PolicyError {
    pub(crate) fn new(problems: Vec<PolicyProblem>) -> Self {
        Self { problems }
    }

    /// What is wrong; never empty.
    #[must_use]
    pub fn problems(&self) -> &[PolicyProblem] {
        &self.problems
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, PolicyProblem { file, problem }) in self.problems.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", file.display())?;
            if let Some(line) = problem.line {
                write!(f, ":{line}")?;
            }
            if !problem.key.is_empty() {
                write!(f, ": {}", problem.key)?;
            }
            write!(f, ": {}", problem.message)?;
            if let Some(hint) = &problem.hint {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        Ok(())
    }
}

/// Reads the files `*.yaml` and `*.yml` of a folder, not those of folders in it.
///
/// # Errors
/// The folder can't be read, or anything in its files is wrong.
pub fn load(dir: &Path) -> Result<Folder, PolicyError> {
    let mut reading = Reading::default();
    match files(dir) {
        Err(problem) => reading.add(dir, problem),
        Ok(files) => {
            for file in files {
                match read(dir, &file) {
                    Ok(text) => reading.text(&file, &text),
                    Err(problem) => reading.add(&file, problem),
                }
            }
        }
    }
    reading.end()
}

/// Reads one text; `file` is what messages call it.
///
/// # Errors
/// Anything in it is wrong.
pub fn parse(file: &Path, text: &str) -> Result<Folder, PolicyError> {
    let mut reading = Reading::default();
    reading.text(file, text);
    reading.end()
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Problem> {
    let failed = |error: std::io::Error| {
        Problem::at("", format!("the folder can't be read: {error}"))
            .hint("scan.policies names a folder with YAML files")
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_yaml = path.extension().is_some_and(|it| it == "yaml" || it == "yml");
        let is_hidden = path.file_name().is_none_or(|it| it.to_string_lossy().starts_with('.'));
        if !is_yaml || is_hidden {
            continue;
        }
        if files.len() >= MAX_COUNT {
            return Err(Problem::at("", format!("more than {MAX_COUNT} files")));
        }
        files.push(path);
    }
    files.sort();
    Ok(files)
}

fn read(dir: &Path, file: &Path) -> Result<String, Problem> {
    let failed = |error: std::io::Error| Problem::at("", format!("can't be read: {error}"));
    let real = file.canonicalize().map_err(failed)?;
    if !real.starts_with(dir.canonicalize().map_err(failed)?) {
        return Err(Problem::at("", "a link that leads out of its folder").hint("copy the file"));
    }
    if !fs::metadata(&real).map_err(failed)?.is_file() {
        return Err(Problem::at("", "no file"));
    }
    let mut bytes = Vec::new();
    let opened = fs::File::open(&real).map_err(failed)?;
    opened.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Problem::at("", format!("larger than {MAX_FILE} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| Problem::at("", "not UTF-8"))
}

/// What is read so far.
#[derive(Default)]
struct Reading {
    folder: Folder,
    problems: Vec<PolicyProblem>,
    /// Where an object of that kind and name stood.
    names: BTreeMap<(&'static str, String), (PathBuf, usize)>,
}

/// The kinds that are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Policy(Scope),
    Exemption,
}

impl Kind {
    const ALL: [Self; 3] =
        [Self::Policy(Scope::Namespace), Self::Policy(Scope::Cluster), Self::Exemption];

    fn name(self) -> &'static str {
        match self {
            Self::Policy(scope) => scope.kind(),
            Self::Exemption => "ImageExemption",
        }
    }
}

/// What a document holds.
enum Found {
    Policy(Box<Policy>),
    Exemption(Box<Exemption>),
}

/// An object whose metadata and spec are read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "S: Deserialize<'de>"))]
struct Object<S> {
    metadata: Metadata,
    spec: S,
    /// What a cluster reports about it.
    #[serde(default, rename = "status")]
    _status: Option<IgnoredAny>,
}

/// What every object says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

impl Reading {
    fn add(&mut self, file: &Path, problem: Problem) {
        self.problems.push(PolicyProblem { file: file.to_owned(), problem });
    }

    fn end(self) -> Result<Folder, PolicyError> {
        match self.problems.is_empty() {
            true => Ok(self.folder),
            false => Err(PolicyError::new(self.problems)),
        }
    }

    fn text(&mut self, file: &Path, text: &str) {
        if text.len() as u64 > MAX_FILE {
            return self.add(file, Problem::at("", format!("larger than {MAX_FILE} bytes")));
        }
        for (count, document) in documents(text).into_iter().enumerate() {
            if count >= MAX_COUNT {
                return self.add(file, Problem::at("", format!("more than {MAX_COUNT} documents")));
            }
            match document.object() {
                Ok(Some(found)) => self.take(file, &document, found),
                Ok(None) => {}
                Err(Wrong::Other(what)) => {
                    let skipped = Skipped { file: file.to_owned(), line: document.line(), what };
                    self.folder.skipped.push(skipped);
                }
                Err(Wrong::Problems(problems)) => {
                    for problem in problems {
                        self.add(file, problem);
                    }
                }
            }
        }
    }

    fn take(&mut self, file: &Path, document: &Document<'_>, found: Found) {
        let line = document.line();
        let (kind, name) = match &found {
            Found::Policy(policy) => (policy.scope.kind(), policy.name()),
            Found::Exemption(exemption) => (Kind::Exemption.name(), exemption.full_name()),
        };
        if let Some((before, at)) = self.names.get(&(kind, name.clone())) {
            let fact = format!("{kind} {name} stands in {}:{at} too", before.display());
            let problem = Problem::at("metadata.name", fact).hint("give one of them another name");
            return self.add(file, document.placed(problem));
        }
        let file = file.to_owned();
        self.names.insert((kind, name), (file.clone(), line));
        match found {
            Found::Policy(policy) => {
                self.folder.policies.push(Loaded { file, line, policy: *policy });
            }
            Found::Exemption(exemption) => {
                let exemption = LoadedExemption { file, line, exemption: *exemption };
                self.folder.exemptions.push(exemption);
            }
        }
    }
}

/// Why nothing was taken from a document.
enum Wrong {
    /// It is something else, which is fine.
    Other(String),
    Problems(Vec<Problem>),
}

/// A document of a text.
struct Document<'t> {
    text: &'t str,
    /// Lines of the file before it.
    before: usize,
}

/// Splits a text at `---`. Such a line ends a document wherever it stands.
fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let is_mark = line.trim_end() == "---" || line.starts_with("--- ");
        if is_mark {
            documents.push(Document { text: &text[start..offset], before: start_line });
            // What stands behind the mark on its line belongs to the document.
            (start, start_line) = (offset + 3, number);
        }
        offset += line.len();
    }
    documents.push(Document { text: &text[start..], before: start_line });
    documents
}

impl Document<'_> {
    /// The first line with content, from 1 in the file.
    fn line(&self) -> usize {
        let is_content = |line: &str| !line.trim().is_empty() && !line.trim().starts_with('#');
        let first = self.text.lines().position(is_content).unwrap_or(0);
        self.before + first + 1
    }

    /// `None`: nothing stands in it.
    fn object(&self) -> Result<Option<Found>, Wrong> {
        let is_empty = |line: &str| {
            let line = line.trim();
            line.is_empty() || line.starts_with(['#', '%']) || line == "..."
        };
        if self.text.lines().all(is_empty) {
            return Ok(None);
        }
        let head: Head = self.read()?;
        let kind = self.kind(&head)?;
        let found = match kind {
            Kind::Policy(scope) => {
                let object: Object<ImageScanPolicySpec> = self.read()?;
                let checked = Policy::check(scope, object.metadata, &object.spec);
                Found::Policy(Box::new(self.checked(kind, checked)?))
            }
            Kind::Exemption => {
                let object: Object<ImageExemptionSpec> = self.read()?;
                let checked = Exemption::undated(object.metadata, &object.spec);
                Found::Exemption(Box::new(self.checked(kind, checked)?))
            }
        };
        Ok(Some(found))
    }

    /// What was checked, if nothing is wrong with it and no field is unknown: an API server would
    /// say so, here nobody else does.
    fn checked<T>(&self, kind: Kind, checked: Result<T, Vec<Problem>>) -> Result<T, Wrong> {
        let mut problems = unknown_fields(kind.name(), &self.read()?);
        match checked {
            Ok(value) if problems.is_empty() => return Ok(value),
            Ok(_) => {}
            Err(others) => problems.extend(others),
        }
        Err(Wrong::Problems(problems.into_iter().map(|problem| self.placed(problem)).collect()))
    }

    fn kind(&self, head: &Head) -> Result<Kind, Wrong> {
        let wrong = |problem: Problem| Err(Wrong::Problems(vec![self.placed(problem)]));
        let (group, version) = head.api_version.split_once('/').unwrap_or(("", &head.api_version));
        let known = Kind::ALL.into_iter().find(|kind| kind.name() == head.kind);
        let near = Kind::ALL.into_iter().find(|kind| {
            head.kind.len() < 64 && strsim::damerau_levenshtein(kind.name(), &head.kind) <= 3
        });
        match (group, known) {
            ("kuboard.cn", Some(kind)) if version == "v1alpha1" => Ok(kind),
            (_, Some(_)) => wrong(
                Problem::at("apiVersion", format!("not \"{}\"", shortened(&head.api_version)))
                    .hint(format!("write apiVersion: {API_VERSION}")),
            ),
            ("kuboard.cn", None) if let Some(near) = near => wrong(
                Problem::at("kind", format!("no such kind: \"{}\"", shortened(&head.kind)))
                    .hint(format!("did you mean {}?", near.name())),
            ),
            _ if head.api_version.is_empty() || head.kind.is_empty() => wrong(
                Problem::at("", "apiVersion or kind is missing")
                    .hint(format!("write apiVersion: {API_VERSION} and kind: ImageScanPolicy")),
            ),
            // Policies could hide in it.
            _ if head.kind == "List"
                || head.kind.ends_with("PolicyList")
                || head.kind.ends_with("ExemptionList") =>
            {
                wrong(
                    Problem::at("kind", "lists are not read")
                        .hint("write the items as documents of their own, with --- between them"),
                )
            }
            _ => Err(Wrong::Other(shortened(&format!("{} {}", head.api_version, head.kind)))),
        }
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, Wrong> {
        serde_yaml_ng::from_str(self.text).map_err(|error| {
            let line = error.location().map(|place| self.before + place.line());
            // The place is told apart; within its document it would mislead.
            let message = error.to_string();
            let fact = match message.rfind(" at line ") {
                Some(end) => message.get(..end).unwrap_or(&message),
                None => &message,
            };
            let mut problem = Problem::at("", shortened_to(fact, 400));
            problem.line = line.or_else(|| Some(self.line()));
            Wrong::Problems(vec![problem])
        })
    }

    /// The problem at the line of its key.
    fn placed(&self, mut problem: Problem) -> Problem {
        let key = problem.key.rsplit('.').next().unwrap_or_default();
        let (name, number) = match key.split_once('[') {
            Some((name, number)) => (name, number.trim_end_matches(']').parse::<usize>().ok()),
            None => (key, None),
        };
        let is_key = |line: &str| {
            let line = line.trim_start_matches([' ', '-', '"', '\'', '{']);
            line.strip_prefix(name).is_some_and(|rest| {
                rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':')
            })
        };
        let found = self.text.lines().position(is_key).filter(|_| !name.is_empty());
        problem.line = Some(match found {
            None => self.line(),
            Some(at) => {
                // Items of a list, one a line, follow their key.
                let items = self.text.lines().enumerate().skip(at + 1);
                let item = items
                    .filter(|(_, line)| !line.trim().is_empty() && !line.trim().starts_with('#'))
                    .take_while(|(_, line)| line.trim_start().starts_with('-'))
                    .nth(number.unwrap_or(usize::MAX));
                self.before + item.map_or(at, |(line, _)| line) + 1
            }
        });
        problem
    }
}

fn shortened_to(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
