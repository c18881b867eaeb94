//! Pulls XML apart, bounded: no document is held, entities are never expanded beyond the five of
//! XML itself and characters, depth and the size of one element's text are limited.

use std::io::{BufRead, Read};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::compressed::{Allowance, Metered};
use super::{MAX_FEED, ParseError, compressed};

const MAX_DEPTH: usize = 64;
/// Text of one element, and one tag with its attributes.
const MAX_TEXT: usize = 1 << 20;
const MAX_EVENT: u64 = 16 << 20;
const MAX_ATTRIBUTES: usize = 64;

/// What is next in the document.
pub(super) enum Step {
    /// An element begins; its local name and attributes by local name.
    Open(Element),
    /// An element ends; its local name and the text directly inside it.
    Close(String, String),
    /// The document ends.
    End,
}

/// The start of an element.
#[derive(Default)]
pub(super) struct Element {
    pub name: String,
    attributes: Vec<(String, String)>,
}

impl Element {
    /// The attribute's value, or an empty one.
    pub(super) fn attribute(&self, name: &str) -> &str {
        self.attributes.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Bytes of it.
    pub(super) fn size(&self) -> usize {
        self.attributes.iter().fold(self.name.len(), |sum, (key, value)| {
            sum.saturating_add(key.len()).saturating_add(value.len())
        })
    }
}

/// A walk over one document.
pub(super) struct Cursor<'a> {
    reader: Reader<Metered<Box<dyn BufRead + 'a>>>,
    allowance: Allowance,
    buffer: Vec<u8>,
    open: Vec<(String, String)>,
    /// An empty element is told as one that opens and closes.
    pending: bool,
    begun: bool,
    format: &'static str,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(input: impl Read + 'a, format: &'static str) -> Result<Self, ParseError> {
        let plain = compressed::open(input, MAX_FEED)?;
        let (metered, allowance) = Metered::new(plain, MAX_EVENT);
        let mut reader = Reader::from_reader(metered);
        reader.config_mut().check_end_names = true;
        Ok(Self {
            reader,
            allowance,
            buffer: Vec::new(),
            open: Vec::new(),
            pending: false,
            begun: false,
            format,
        })
    }

    /// The next step.
    pub(super) fn step(&mut self) -> Result<Step, ParseError> {
        if self.pending {
            self.pending = false;
            return self.close();
        }
        loop {
            self.buffer.clear();
            self.allowance.renew();
            let format = self.format;
            let event = self.reader.read_event_into(&mut self.buffer);
            let event = event.map_err(|error| xml_error(format, error))?;
            let empty = matches!(event, Event::Empty(_));
            match event {
                Event::Start(start) | Event::Empty(start) => {
                    let element = element(&start).map_err(|why| ParseError::format(format, why))?;
                    self.begun = true;
                    self.pending = empty;
                    if self.open.len() >= MAX_DEPTH {
                        return Err(ParseError::format(format, "it is nested too deeply"));
                    }
                    self.open.push((element.name.clone(), String::new()));
                    return Ok(Step::Open(element));
                }
                Event::End(_) => return self.close(),
                Event::Text(text) => append(&mut self.open, &text.xml10_content()),
                Event::CData(text) => append(&mut self.open, &text.xml10_content()),
                Event::GeneralRef(entity) => {
                    // An unknown entity is left out: documents may not define their own.
                    let name = entity.into_inner();
                    let mut whole = String::with_capacity(name.len() + 2);
                    whole.push('&');
                    whole.push_str(&name);
                    whole.push(';');
                    if let Ok(text) = quick_xml::escape::unescape(&whole) {
                        append(&mut self.open, &text);
                    }
                }
                Event::Eof if self.open.is_empty() && self.begun => return Ok(Step::End),
                Event::Eof => {
                    return Err(ParseError::Read(std::io::Error::new(
                        std::io::ErrorKind::UnexpectedEof,
                        "the XML document is cut off",
                    )));
                }
                _ => {}
            }
        }
    }

    fn close(&mut self) -> Result<Step, ParseError> {
        match self.open.pop() {
            Some((name, text)) => Ok(Step::Close(name, text)),
            None => Err(ParseError::format(self.format, "an element ends that never began")),
        }
    }

    /// How many elements are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }
}

fn append(open: &mut [(String, String)], text: &str) {
    // Longer texts are cut silently: descriptions alone are that long, and they are cut anyway.
    if let Some((_, whole)) = open.last_mut()
        && whole.len() + text.len() <= MAX_TEXT
    {
        whole.push_str(text);
    }
}

fn element(start: &BytesStart<'_>) -> Result<Element, String> {
    let mut element =
        Element { name: start.local_name().as_ref().to_owned(), attributes: Vec::new() };
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        if element.attributes.len() >= MAX_ATTRIBUTES {
            return Err("an element has too many attributes".to_owned());
        }
        let key = attribute.key.local_name().as_ref().to_owned();
        let value =
            quick_xml::escape::unescape(&attribute.value).map_err(|error| error.to_string())?;
        element.attributes.push((key, value.into_owned()));
    }
    Ok(element)
}

fn xml_error(format: &'static str, error: quick_xml::Error) -> ParseError {
    match error {
        quick_xml::Error::Io(error) => {
            ParseError::Read(std::io::Error::new(error.kind(), error.to_string()))
        }
        quick_xml::Error::Syntax(error) => ParseError::Read(std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            format!("the XML document is broken or cut off: {error}"),
        )),
        other => ParseError::format(format, other),
    }
}
