//! Text of strangers: made safe for terminals, pages, XML and JSON.

use std::{borrow::Cow, io};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

/// Characters that control a terminal, reorder what is shown, or are not shown at all. The two
/// non-characters are not allowed in XML.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{fffe}' | '\u{ffff}' | '\u{e0000}'..='\u{e007f}')
}

/// One line: line ends and tabs are blanks, other hidden characters are left out.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let shown = text.chars().filter_map(|c| match c {
        '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => Some(' '),
        c => (!is_hidden(c)).then_some(c),
    });
    Cow::Owned(shown.collect())
}

/// The same, but line ends stay.
fn lines(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let shown = text.chars().filter_map(|c| match c {
        '\n' => Some('\n'),
        '\t' => Some(' '),
        c => (!is_hidden(c)).then_some(c),
    });
    Cow::Owned(shown.collect())
}

/// Text between tags or in a quoted attribute, of HTML and of XML.
pub(crate) fn markup(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in lines(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// An address that may be a link: `http` or `https`, without blanks or quotes.
pub(crate) fn link(url: &str) -> Option<&str> {
    let known = url.starts_with("https://") || url.starts_with("http://");
    let strange =
        |c: char| c.is_whitespace() || is_hidden(c) || matches!(c, '"' | '<' | '>' | '\\');
    (known && url.len() <= 2048 && !url.contains(strange)).then_some(url)
}

/// Percent-encoding of all but the unreserved characters and those of `kept`.
pub(crate) fn percent_encoded(text: &str, kept: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte);
        if plain {
            out.push(char::from(byte));
        } else {
            let digit = |value: u8| DIGITS.get(usize::from(value)).map_or('0', |c| char::from(*c));
            out.push('%');
            out.push(digit(byte >> 4));
            out.push(digit(byte & 15));
        }
    }
    out
}

/// The first `max` characters, with an ellipsis if there are more.
pub(crate) fn cut(text: &str, max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max) {
        None => Cow::Borrowed(text),
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or(text).trim_end())),
    }
}

/// How JSON is laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layout {
    /// For people: indented, with a line end at the end.
    Pretty,
    /// For programs.
    Compact,
}

/// Writes JSON whose hidden characters are escaped, so that it can be shown on a terminal.
pub(crate) fn write_json<T: Serialize + ?Sized>(
    value: &T,
    layout: Layout,
    to: &mut dyn io::Write,
) -> io::Result<()> {
    match layout {
        Layout::Pretty => {
            let formatter = Shown(PrettyFormatter::new());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut *to, formatter))?;
            to.write_all(b"\n")
        }
        Layout::Compact => {
            let formatter = Shown(CompactFormatter);
            value.serialize(&mut serde_json::Serializer::with_formatter(to, formatter))?;
            Ok(())
        }
    }
}

/// Another formatter, with hidden characters escaped.
struct Shown<F>(F);

impl<F: Formatter> Formatter for Shown<F> {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if fragment.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some((at, hidden)) = rest.char_indices().find(|(_, c)| is_hidden(*c)) {
            let (before, after) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            for unit in hidden.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = after.get(hidden.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::{Layout, cut, line, link, markup, percent_encoded, write_json};

    #[test]
    fn what_hides_is_left_out() {
        assert_eq!(line("a\u{1b}[31mred\u{9b}0m\nb\0\u{202e}c\t中文"), "a[31mred0m bc 中文");
        assert_eq!(markup("a<b>&'\"\u{ffff}\n\u{1b}"), "a&lt;b&gt;&amp;&#39;&quot;\n");
    }

    #[test]
    fn json_shows_nothing_hidden_and_loses_nothing() {
        let text = "\u{1b}[0m\u{9b}x\u{202e}\u{e0041}\u{7f}\0 中\"";
        let mut out = Vec::new();
        write_json(&text, Layout::Compact, &mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(!out.chars().any(super::is_hidden), "{out}");
        assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
    }

    #[test]
    fn links_are_of_the_web() {
        for (url, good) in [
            ("https://example.org/a?b=c#d", true),
            ("http://example.org", true),
            ("javascript:alert(1)", false),
            ("https://example.org/\"onclick=", false),
            ("https://example.org/a b", false),
            (" https://example.org", false),
        ] {
            assert_eq!(link(url).is_some(), good, "{url}");
        }
    }

    #[test]
    fn texts_are_encoded_and_cut() {
        assert_eq!(percent_encoded("a b/ü:~", b"/"), "a%20b/%C3%BC%3A~");
        assert_eq!(cut("äöü", 2), "äö…");
        assert_eq!(cut("äöü", 3), "äöü");
    }
}
