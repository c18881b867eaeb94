//! CycloneDX as XML. Entities that a document defines are not expanded, and nothing is fetched.

use kuboard_oci::Digest;
use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};

use super::{
    collect::{Collector, Component, Kind},
    read_cyclonedx::{grouped, incomplete, is_incomplete, kind},
};

/// Elements inside of each other.
const MAX_DEPTH: usize = 128;
/// The longest text that is kept.
const MAX_TEXT: usize = 64 << 10;
/// Attributes of an element that are looked at.
const MAX_ATTRIBUTES: usize = 64;
/// Licences and properties of a component that are kept.
const MAX_ITEMS: usize = 2048;

/// Reads a document.
pub(super) fn read(bytes: &[u8], collector: &mut Collector) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_end_names = true;
    let mut document = Document {
        collector,
        open: Vec::new(),
        components: Vec::new(),
        text: String::new(),
        attribute: String::new(),
        done: false,
    };
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(start) => document.start(&start)?,
            Event::Empty(start) => {
                document.start(&start)?;
                document.end();
            }
            Event::End(_) => document.end(),
            Event::Text(text) => document.append(&text.xml10_content()),
            Event::CData(text) => document.append(&text.xml10_content()),
            Event::GeneralRef(entity) => {
                let whole = format!("&{};", entity.into_inner());
                if let Ok(text) = quick_xml::escape::unescape(&whole) {
                    document.append(&text);
                }
            }
            Event::Eof if document.done => return Ok(()),
            Event::Eof => return Err("the document is cut off".to_owned()),
            _ => {}
        }
    }
}

struct Document<'c> {
    collector: &'c mut Collector,
    /// Names of the open elements.
    open: Vec<String>,
    /// Open components, each with the number of elements that were open inside of its own tag.
    components: Vec<(Component, String, usize)>,
    /// Text of the innermost element.
    text: String,
    /// Its attribute that matters: a property's name, a hash's algorithm.
    attribute: String,
    /// Whether the root element has ended.
    done: bool,
}

impl Document<'_> {
    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), String> {
        let name = start.local_name().as_ref().to_owned();
        if self.open.is_empty() && (name != "bom" || self.done) {
            return Err("its root element is not `bom`".to_owned());
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} elements inside of each other"));
        }
        self.text.clear();
        self.attribute.clear();
        let wanted = match name.as_str() {
            "component" => "type",
            "property" => "name",
            "hash" => "alg",
            _ => "",
        };
        if !wanted.is_empty() {
            self.attribute = attribute(start, wanted).unwrap_or_default();
        }
        let is_component = name == "component" && self.holds_components();
        self.open.push(name);
        if is_component {
            self.collector.count()?;
            let component = Component { kind: kind(&self.attribute), ..Component::default() };
            self.components.push((component, String::new(), self.open.len()));
        }
        Ok(())
    }

    /// Whether a component here is one of the document's: not of a tool, not of a pedigree.
    fn holds_components(&self) -> bool {
        let inside = self.components.last().map(|(_, _, depth)| self.open.len() - depth);
        match self.open.last().map(String::as_str) {
            Some("components") => inside == Some(1) || (inside.is_none() && self.open.len() == 2),
            Some("metadata") => inside.is_none() && self.open.len() == 2,
            _ => false,
        }
    }

    fn append(&mut self, text: &str) {
        if self.text.len() + text.len() <= MAX_TEXT {
            self.text.push_str(text);
        }
    }

    fn end(&mut self) {
        let text = std::mem::take(&mut self.text).trim().to_owned();
        let attribute = std::mem::take(&mut self.attribute);
        match self.components.pop() {
            Some((component, group, depth)) if depth == self.open.len() => {
                self.open.pop();
                self.component(component, &group);
                return;
            }
            Some((mut component, mut group, depth)) => {
                let path = self.open.get(depth..).unwrap_or_default();
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                member(&mut component, &mut group, &path, attribute, text);
                self.components.push((component, group, depth));
            }
            None => self.member(&attribute, &text),
        }
        self.open.pop();
        self.done |= self.open.is_empty();
    }

    fn component(&mut self, mut component: Component, group: &str) {
        component.name = grouped(group, component.name);
        if self.open.last().is_some_and(|parent| parent == "metadata") {
            self.collector.subject(&component);
            if component.kind != Kind::Package || component.purl.is_empty() {
                return;
            }
        }
        self.collector.component(component);
    }

    /// What the document says of itself.
    fn member(&mut self, attribute: &str, text: &str) {
        let path: Vec<&str> = self.open.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["bom", "properties", "property"] | ["bom", "metadata", "properties", "property"] => {
                self.collector.document_property(attribute, text);
            }
            ["bom", "compositions", "composition", "aggregate"] if is_incomplete(text) => {
                incomplete(self.collector);
            }
            _ => {}
        }
    }
}

fn member(
    component: &mut Component,
    group: &mut String,
    path: &[&str],
    attribute: String,
    text: String,
) {
    match path {
        ["group"] => *group = text,
        ["name"] => component.name = text,
        ["version"] => component.version = text,
        ["purl"] => component.purl = text,
        ["description"] => component.about = text,
        ["licenses", "expression"] | ["licenses", "license", "id" | "name"]
            if !text.is_empty() && component.licenses.len() < MAX_ITEMS =>
        {
            component.licenses.push(text);
        }
        ["hashes", "hash"] if attribute == "SHA-256" => {
            let digest = format!("sha256:{text}").parse::<Digest>().ok();
            component.hash = component.hash.take().or(digest);
        }
        ["properties", "property"] if component.properties.len() < MAX_ITEMS => {
            component.properties.push((attribute, text));
        }
        _ => {}
    }
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Option<String> {
    // Without the check for duplicates, whose cost grows with the square of their number.
    let mut attributes = start.attributes();
    let all = attributes.with_checks(false).take(MAX_ATTRIBUTES);
    let found = all.flatten().find(|one| one.key.local_name().as_ref() == name)?;
    let value = quick_xml::escape::unescape(&found.value).ok()?;
    Some(value.chars().take(1024).collect())
}
