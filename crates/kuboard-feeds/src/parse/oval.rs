//! OVAL definitions (<https://oval.mitre.org/>), as far as vendors of rpm distributions use them:
//! definitions with criteria first, then the tests, objects and states that the criteria name.

use std::collections::HashMap;
use std::io::Read;

use super::cursor::{Cursor, Element, Step};
use super::{MAX_ITEM, ParseError, text};

/// Criteria, criterions and references of one definition.
const MAX_NODES: usize = 200_000;
/// Tests, objects and states of one document, and their bytes.
const MAX_PARTS: usize = 4_000_000;
const MAX_PART_BYTES: usize = 512 << 20;

/// A definition, as it stands.
#[derive(Default)]
pub(super) struct Definition {
    pub id: String,
    pub title: String,
    pub description: String,
    pub severity: String,
    pub issued: String,
    pub updated: String,
    pub platforms: Vec<String>,
    /// Source, id and address.
    pub references: Vec<(String, String, String)>,
    /// CVE and the value of its `cvss3` attribute: `8.1/CVSS:3.0/AV:N/…`.
    pub cves: Vec<(String, String)>,
    pub criteria: Node,
    pub too_large: bool,
}

/// Criteria: a tree of conditions.
pub(super) enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Criterion(Criterion),
}

impl Default for Node {
    fn default() -> Self {
        Node::All(Vec::new())
    }
}

/// One condition.
pub(super) struct Criterion {
    pub test: String,
    pub comment: String,
    pub negate: bool,
}

/// What the tests say.
#[derive(Default)]
pub(super) struct Parts {
    /// Test to object and state.
    tests: HashMap<String, (String, String)>,
    /// Object to the package's name.
    objects: HashMap<String, String>,
    states: HashMap<String, State>,
    bytes: usize,
}

/// A state of a package: its version compared.
#[derive(Default)]
pub(super) struct State {
    /// `less than`, …
    pub operation: String,
    pub evr: String,
    pub arch: String,
}

impl Parts {
    /// The package and the state that a test is about.
    pub(super) fn of(&self, test: &str) -> Option<(&str, &State)> {
        let (object, state) = self.tests.get(test)?;
        Some((self.objects.get(object)?, self.states.get(state)?))
    }

    fn check(&self) -> Result<(), ParseError> {
        if self.tests.len() + self.objects.len() + self.states.len() > MAX_PARTS {
            return Err(ParseError::TooMuch { what: "OVAL tests", limit: MAX_PARTS as u64 });
        }
        if self.bytes > MAX_PART_BYTES {
            let limit = MAX_PART_BYTES as u64;
            return Err(ParseError::TooMuch { what: "bytes of OVAL tests", limit });
        }
        Ok(())
    }
}

/// Reads a document: `take` gets each definition, what the tests say is returned if `with_parts`.
pub(super) fn read(
    input: impl Read,
    format: &'static str,
    with_parts: bool,
    take: &mut dyn FnMut(Definition) -> Result<(), ParseError>,
) -> Result<Parts, ParseError> {
    let mut cursor = Cursor::new(input, format)?;
    match cursor.step()? {
        Step::Open(root) if root.name == "oval_definitions" => {}
        _ => return Err(ParseError::format(format, "it does not begin with `oval_definitions`")),
    }
    let mut parts = Parts::default();
    loop {
        let element = match cursor.step()? {
            Step::Open(element) => element,
            Step::Close(..) => continue,
            Step::End => return Ok(parts),
        };
        match element.name.as_str() {
            "definition" => take(definition(&mut cursor, &element)?)?,
            name if with_parts && name.ends_with("_test") => {
                test(&mut cursor, &element, &mut parts)?
            }
            name if with_parts && name.ends_with("_object") => {
                object(&mut cursor, &element, &mut parts)?;
            }
            name if with_parts && name.ends_with("_state") => {
                state(&mut cursor, &element, &mut parts)?
            }
            _ => {}
        }
        parts.check()?;
    }
}

fn definition(cursor: &mut Cursor<'_>, element: &Element) -> Result<Definition, ParseError> {
    let mut out = Definition { id: element.attribute("id").to_owned(), ..Definition::default() };
    let outer = cursor.depth();
    let mut stack: Vec<Node> = Vec::new();
    let mut nodes = 0_usize;
    let mut bytes = 0_usize;
    loop {
        match cursor.step()? {
            Step::Open(element) => {
                nodes += 1;
                bytes = bytes.saturating_add(element.size());
                if nodes > MAX_NODES || bytes as u64 > MAX_ITEM {
                    out.too_large = true;
                    continue;
                }
                open(&mut out, &mut stack, &element);
            }
            Step::Close(name, text) => {
                if cursor.depth() < outer {
                    return Ok(out);
                }
                if name == "criteria" {
                    // The stack has as many as were opened, unless the limit was reached.
                    let Some(node) = stack.pop() else { continue };
                    match stack.last_mut() {
                        Some(Node::All(inside) | Node::Any(inside)) => inside.push(node),
                        _ => out.criteria = node,
                    }
                } else if !out.too_large {
                    close(&mut out, &name, text);
                }
            }
            Step::End => return Ok(out),
        }
    }
}

fn open(out: &mut Definition, stack: &mut Vec<Node>, element: &Element) {
    match element.name.as_str() {
        "criteria" if element.attribute("operator") == "OR" => stack.push(Node::Any(Vec::new())),
        "criteria" => stack.push(Node::All(Vec::new())),
        "criterion" => {
            let criterion = Node::Criterion(Criterion {
                test: element.attribute("test_ref").to_owned(),
                comment: element.attribute("comment").to_owned(),
                negate: element.attribute("negate") == "true",
            });
            if let Some(Node::All(inside) | Node::Any(inside)) = stack.last_mut() {
                inside.push(criterion);
            }
        }
        "reference" => out.references.push((
            element.attribute("source").to_owned(),
            element.attribute("ref_id").to_owned(),
            element.attribute("ref_url").to_owned(),
        )),
        "issued" => out.issued = element.attribute("date").to_owned(),
        "updated" => out.updated = element.attribute("date").to_owned(),
        "cve" => out.cves.push((String::new(), element.attribute("cvss3").to_owned())),
        _ => {}
    }
}

fn close(out: &mut Definition, name: &str, text: String) {
    match name {
        "title" => out.title = text,
        "description" => out.description = text::cut(&text, text::MAX_DETAILS),
        "severity" => out.severity = text,
        "platform" => out.platforms.push(text),
        "advisory_date" => out.issued = text,
        "cve" => {
            if let Some((cve, _)) = out.cves.last_mut() {
                *cve = text.trim().to_owned();
            }
        }
        _ => {}
    }
}

/// Calls `open` and `close` for what is inside an element, until it ends.
fn inside(cursor: &mut Cursor<'_>, mut each: impl FnMut(Step)) -> Result<(), ParseError> {
    let outer = cursor.depth();
    loop {
        let step = cursor.step()?;
        if matches!(step, Step::End) || cursor.depth() < outer {
            return Ok(());
        }
        each(step);
    }
}

fn test(cursor: &mut Cursor<'_>, element: &Element, parts: &mut Parts) -> Result<(), ParseError> {
    let (mut object, mut state) = (String::new(), String::new());
    inside(cursor, |step| {
        if let Step::Open(element) = step {
            match element.name.as_str() {
                "object" => object = element.attribute("object_ref").to_owned(),
                "state" => state = element.attribute("state_ref").to_owned(),
                _ => {}
            }
        }
    })?;
    parts.bytes = parts.bytes.saturating_add(element.size() + object.len() + state.len());
    parts.tests.insert(element.attribute("id").to_owned(), (object, state));
    Ok(())
}

fn object(cursor: &mut Cursor<'_>, element: &Element, parts: &mut Parts) -> Result<(), ParseError> {
    let mut name = String::new();
    inside(cursor, |step| {
        if let Step::Close(element, text) = step
            && element == "name"
        {
            name = text.trim().to_owned();
        }
    })?;
    parts.bytes = parts.bytes.saturating_add(element.size() + name.len());
    parts.objects.insert(element.attribute("id").to_owned(), name);
    Ok(())
}

fn state(cursor: &mut Cursor<'_>, element: &Element, parts: &mut Parts) -> Result<(), ParseError> {
    let mut state = State::default();
    inside(cursor, |step| match step {
        Step::Open(element) if element.name == "evr" => {
            state.operation = element.attribute("operation").to_owned();
        }
        Step::Close(name, text) if name == "evr" => state.evr = text.trim().to_owned(),
        Step::Close(name, text) if name == "arch" => state.arch = text.trim().to_owned(),
        _ => {}
    })?;
    let size = state.operation.len() + state.evr.len() + state.arch.len();
    parts.bytes = parts.bytes.saturating_add(element.size() + size);
    parts.states.insert(element.attribute("id").to_owned(), state);
    Ok(())
}
