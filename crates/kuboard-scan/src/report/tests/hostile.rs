//! What attackers write comes out as text, in every form.

use quick_xml::{Reader, events::Event};

use super::{OPTIONS, sample, written};
use crate::report::{Format, WriteOptions};

#[test]
fn nothing_controls_the_terminal() {
    for format in Format::ALL {
        let text = written(&sample::hostile(), format, &OPTIONS);
        for c in text.chars() {
            let is_hidden = (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}');
            assert!(!is_hidden, "{format}: {c:?}");
        }
    }
    let options = WriteOptions { color: true, width: Some(80), ..OPTIONS };
    let colored = written(&sample::hostile(), Format::Table, &options);
    assert!(!colored.contains("\u{1b}[31mscript") && !colored.contains("\u{9b}"), "{colored}");
}

#[test]
fn json_forms_are_json() {
    for format in [
        Format::Json,
        Format::Sarif,
        Format::CycloneDx,
        Format::Spdx,
        Format::Clair,
        Format::Harbor,
    ] {
        let text = written(&sample::hostile(), format, &OPTIONS);
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        assert!(!text.contains("javascript:") || format == Format::Json, "{format}");
    }
}

#[test]
fn junit_is_well_formed() {
    let text = written(&sample::hostile(), Format::Junit, &OPTIONS);
    let mut reader = Reader::from_str(&text);
    let mut failures = 0;
    loop {
        match reader.read_event().unwrap() {
            Event::Eof => break,
            Event::Start(start) | Event::Empty(start) => {
                let name = start.name().as_ref().to_owned();
                let known = ["testsuites", "testsuite", "testcase", "failure", "error", "skipped"];
                assert!(known.contains(&name.as_str()), "{name}");
                failures += usize::from(name == "failure");
                assert!(start.attributes().all(|one| one.is_ok()));
            }
            _ => {}
        }
    }
    assert_eq!(failures, 4);
}

#[test]
fn a_page_has_no_foreign_markup() {
    let page = written(&sample::hostile(), Format::Html, &OPTIONS);
    assert_eq!(page.matches("<script>").count(), 1);
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(!page.contains("javascript:"));
    let links: Vec<_> = page.match_indices("href=\"").collect();
    assert_eq!(links.len(), 4, "one good link for each finding");
    assert!(page.contains("href=\"https://example.org/good?a=1&amp;b=2\""));
}

#[test]
fn markdown_of_sarif_has_no_markup() {
    let text = written(&sample::hostile(), Format::Sarif, &OPTIONS);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let help = document["runs"][0]["tool"]["driver"]["rules"][0]["help"]["markdown"].as_str();
    assert!(!help.unwrap().contains("<script>"), "{help:?}");
}
