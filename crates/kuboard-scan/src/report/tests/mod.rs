mod forms;
mod hostile;
pub(crate) mod sample;
mod schema;
mod tables;

use std::str::FromStr;

use kuboard_vuln::Report;

use super::{Format, Language, WriteOptions, write};

pub(crate) const OPTIONS: WriteOptions<'static> = WriteOptions {
    width: None,
    color: false,
    now_ms: sample::NOW,
    tool_version: "0.1.0",
    lang: Language::En,
};

pub(crate) fn written(report: &Report, format: Format, options: &WriteOptions<'_>) -> String {
    let mut out = Vec::new();
    write(report, format, options, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn formats_have_names() {
    for format in Format::ALL {
        assert_eq!(Format::from_str(format.as_str()), Ok(format));
    }
    assert!(Format::from_str("pdf").unwrap_err().to_string().contains("hint: table"));
}
