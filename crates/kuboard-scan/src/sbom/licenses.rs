//! Licences: which texts are SPDX expressions, and how the others are written.
//!
//! The identifiers are those of the SPDX licence list 3.2x, which is in the public domain.

use std::{collections::BTreeMap, sync::OnceLock};

const LICENSES: &str = include_str!("spdx-licenses.txt");
const EXCEPTIONS: &str = include_str!("spdx-exceptions.txt");
/// The longest expression that is looked at.
const MAX_LENGTH: usize = 2048;

/// Whether a sorted list has a word.
fn is_in(list: &'static OnceLock<Vec<&'static str>>, text: &'static str, word: &str) -> bool {
    list.get_or_init(|| text.lines().collect()).binary_search(&word).is_ok()
}

/// Whether a word is an identifier of the list.
pub(super) fn is_id(word: &str) -> bool {
    static LIST: OnceLock<Vec<&'static str>> = OnceLock::new();
    is_in(&LIST, LICENSES, word)
}

fn is_exception(word: &str) -> bool {
    static LIST: OnceLock<Vec<&'static str>> = OnceLock::new();
    is_in(&LIST, EXCEPTIONS, word)
}

fn is_reference(word: &str) -> bool {
    let Some(rest) = word.strip_prefix("LicenseRef-") else { return false };
    !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
}

/// Parentheses, operators and operands of an expression.
pub(super) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(['(', ')', ' ', '\t', '\n']).flat_map(|piece| {
        let word = piece.trim_end_matches(['(', ')', ' ', '\t', '\n']);
        let (word, end) = piece.split_at(word.len());
        [word, end.trim()].into_iter().filter(|token| !token.is_empty())
    })
}

/// Whether a text is a valid SPDX licence expression.
pub(super) fn is_expression(text: &str) -> bool {
    if text.len() > MAX_LENGTH {
        return false;
    }
    let mut depth = 0_u32;
    // What came before: an operand may follow; an operator may follow; WITH may follow; the
    // exception must follow.
    let (mut wants_operand, mut may_with, mut wants_exception) = (true, false, false);
    for token in tokens(text) {
        if wants_exception {
            if !is_exception(token) {
                return false;
            }
            wants_exception = false;
            continue;
        }
        match token {
            "(" if wants_operand => depth += 1,
            ")" if !wants_operand && depth > 0 => {
                depth -= 1;
                may_with = false;
            }
            "AND" | "OR" if !wants_operand => (wants_operand, may_with) = (true, false),
            "WITH" if may_with => (wants_exception, may_with) = (true, false),
            word if wants_operand => {
                let id = word.strip_suffix('+').filter(|id| is_id(id)).unwrap_or(word);
                if !is_id(id) && !is_reference(word) {
                    return false;
                }
                (wants_operand, may_with) = (false, true);
            }
            _ => return false,
        }
    }
    depth == 0 && !wants_operand && !wants_exception
}

/// Whether an expression has more than one operand.
fn is_compound(expression: &str) -> bool {
    tokens(expression).any(|token| matches!(token, "AND" | "OR"))
}

fn joined(expressions: &[String]) -> String {
    match expressions {
        [one] => one.clone(),
        several => {
            let parts = several.iter().map(|one| {
                let needs = tokens(one).any(|token| token == "OR");
                if needs { format!("({one})") } else { one.clone() }
            });
            parts.collect::<Vec<_>>().join(" AND ")
        }
    }
}

/// CycloneDX's `licenses`: an expression, or a list of ids and names. Expressions and others
/// can't be mixed.
pub(super) fn cyclonedx(licenses: &[String]) -> Vec<serde_json::Value> {
    use serde_json::json;
    let licenses: Vec<String> =
        licenses.iter().map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect();
    if licenses.is_empty() {
        return Vec::new();
    }
    let all = licenses.iter().all(|one| is_expression(one));
    if all && licenses.iter().any(|one| !is_id(one)) {
        return vec![json!({ "expression": joined(&licenses) })];
    }
    let choice = |one: &String| match is_id(one) {
        true => json!({ "license": { "id": one } }),
        false => json!({ "license": { "name": one } }),
    };
    licenses.iter().map(choice).collect()
}

/// Licences of an SPDX document that are in no list: `LicenseRef-…` to the text it stands for.
#[derive(Default)]
pub(super) struct References {
    by_text: BTreeMap<String, String>,
    taken: BTreeMap<String, usize>,
}

impl References {
    /// SPDX's `licenseDeclared`.
    pub(super) fn declared(&mut self, licenses: &[String]) -> String {
        let parts: Vec<String> = licenses
            .iter()
            .map(|one| one.trim())
            .filter(|one| !one.is_empty() && !matches!(*one, "NOASSERTION" | "NONE"))
            .map(|one| {
                // A reference of another document means nothing in this one.
                let foreign = tokens(one).any(is_reference);
                if is_expression(one) && !foreign { one.to_owned() } else { self.reference(one) }
            })
            .collect();
        if parts.is_empty() { "NOASSERTION".to_owned() } else { joined(&parts) }
    }

    fn reference(&mut self, text: &str) -> String {
        if let Some(id) = self.by_text.get(text) {
            return id.clone();
        }
        let word = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let base: String = text.chars().take(48).map(word).collect();
        let count = self.taken.entry(base.clone()).or_default();
        *count += 1;
        let id = match *count {
            1 => format!("LicenseRef-{base}"),
            more => format!("LicenseRef-{base}-{more}-"),
        };
        self.by_text.insert(text.to_owned(), id.clone());
        id
    }

    /// SPDX's `hasExtractedLicensingInfos`.
    pub(super) fn extracted(&self) -> Vec<serde_json::Value> {
        let all = self.by_text.iter();
        let info = |(text, id): (&String, &String)| serde_json::json!({ "licenseId": id, "name": text, "extractedText": text });
        all.map(info).collect()
    }
}

/// An expression as a list of licences: its parts, if all of them hold.
pub(super) fn parts(expression: &str) -> Vec<String> {
    let expression = expression.trim();
    if matches!(expression, "" | "NOASSERTION" | "NONE") {
        return Vec::new();
    }
    let plain = !tokens(expression).any(|token| matches!(token, "OR" | "(" | ")"));
    if !plain || !is_compound(expression) {
        return vec![expression.to_owned()];
    }
    expression.split(" AND ").map(|part| part.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::{References, cyclonedx, is_expression, parts};

    #[test]
    fn expressions_are_told_from_other_texts() {
        for (text, good) in [
            ("MIT", true),
            ("GPL-2.0-or-later WITH Classpath-exception-2.0", true),
            ("(MIT OR Apache-2.0) AND BSD-3-Clause", true),
            ("Apache-2.0+", true),
            ("LicenseRef-a.b-1", true),
            ("GPL-2+", false),
            ("GPLv2+ and MIT", false),
            ("MIT AND", false),
            ("MIT OR OR MIT", false),
            ("(MIT", false),
            ("MIT)", false),
            ("()", false),
            ("MIT MIT", false),
            ("MIT WITH MIT", false),
            ("", false),
        ] {
            assert_eq!(is_expression(text), good, "{text}");
        }
        assert!(!is_expression(&"(".repeat(3000)));
    }

    fn check(licenses: &[&str], cyclone: &str, spdx: &str) {
        let licenses: Vec<String> = licenses.iter().map(|one| (*one).to_owned()).collect();
        assert_eq!(serde_json::to_string(&cyclonedx(&licenses)).unwrap(), cyclone);
        assert_eq!(References::default().declared(&licenses), spdx);
    }

    #[test]
    fn licences_are_written() {
        check(&[], "[]", "NOASSERTION");
        check(&["MIT"], r#"[{"license":{"id":"MIT"}}]"#, "MIT");
        check(
            &["MIT OR ISC", "Zlib"],
            r#"[{"expression":"(MIT OR ISC) AND Zlib"}]"#,
            "(MIT OR ISC) AND Zlib",
        );
        check(
            &["GPL-2+", "MIT"],
            r#"[{"license":{"name":"GPL-2+"}},{"license":{"id":"MIT"}}]"#,
            "LicenseRef-GPL-2- AND MIT",
        );
    }

    #[test]
    fn references_are_unique() {
        let mut references = References::default();
        assert_eq!(references.declared(&["a b".to_owned()]), "LicenseRef-a-b");
        assert_eq!(references.declared(&["a-b".to_owned()]), "LicenseRef-a-b-2-");
        assert_eq!(references.declared(&["a b".to_owned()]), "LicenseRef-a-b");
        assert_eq!(references.extracted().len(), 2);
    }

    #[test]
    fn expressions_fall_apart() {
        assert_eq!(parts("MIT AND ISC"), ["MIT", "ISC"]);
        assert_eq!(parts("(MIT AND ISC) OR Zlib"), ["(MIT AND ISC) OR Zlib"]);
        assert_eq!(parts("NOASSERTION"), [""; 0]);
    }
}
