//! A conversation with the registry as text, one request a line:
//!
//! ```text
//! PATCH @ [content-range: 0-4] "hello" => 202 range=0-4
//! ```
//!
//! Method, URI, headers in brackets, body in quotes; then the status, the code of a refusal in
//! capitals, headers as `name=value` (`name=` for none) and the body in quotes. `@` is the last
//! `Location`, `{text}` the sha256 digest of the text, `{512:text}` its sha512 digest.

use kuboard_oci::{Algorithm, Digest};

use super::Bench;

/// Runs a conversation on a fresh registry.
pub(super) async fn check(conversation: &str) {
    run(&Bench::new().await, conversation).await;
}

/// Runs a conversation; the last location.
pub(super) async fn run(bench: &Bench, conversation: &str) -> String {
    let mut location = String::new();
    for line in conversation.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (asked, expected) = line.split_once(" => ").expect("a line has ' => '");
        let words = words(&filled(asked, &location));
        let (mut headers, mut body) = (Vec::new(), String::new());
        for word in &words[2..] {
            match word.strip_prefix('[') {
                Some(header) => {
                    let (name, value) = header.trim_end_matches(']').split_once(": ").unwrap();
                    headers.push((name, value));
                }
                None => body = word.trim_matches('"').to_owned(),
            }
        }
        let answer = bench.ask(&words[0], &words[1], &headers, body.as_bytes()).await;
        if let Some(value) = answer.headers.get("location") {
            location = value.to_str().unwrap().to_owned();
        }
        for word in self::words(&filled(expected, &location)) {
            let shown = match word.chars().next() {
                Some('0'..='9') => answer.status.to_string(),
                Some('A'..='Z') => answer.code(),
                Some('"') => format!("\"{}\"", String::from_utf8_lossy(&answer.body)),
                _ => {
                    let header = word.split_once('=').expect("name=value").0;
                    format!("{header}={}", answer.header(header).replace(' ', "_"))
                }
            };
            assert_eq!(shown, word, "{line}\n{:?} {:?}", answer.headers, answer.body);
        }
    }
    location
}

/// Words, with what is in brackets or quotes kept together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let end = match rest.chars().next() {
            Some('[') => rest.find(']').map(|at| at + 1),
            Some('"') => rest[1..].find('"').map(|at| at + 2),
            _ => rest.find(' '),
        };
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

fn filled(text: &str, location: &str) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (inner, after) = after.split_once('}').expect("a closing brace");
        filled.push_str(before);
        let digest = match inner.strip_prefix("512:") {
            Some(text) => Digest::of(Algorithm::Sha512, text.as_bytes()),
            None => Digest::sha256(inner.as_bytes()),
        };
        filled.push_str(&digest.to_string());
        rest = after;
    }
    filled.push_str(rest);
    // Only where a URI begins: an artifact may be called name@version.
    filled.replace(" @", &format!(" {location}"))
}
