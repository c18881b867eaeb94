//! The query string of a request: bounded, decoded once.

use http::StatusCode;
use percent_encoding::percent_decode_str;

use super::{ApiError, ErrorCode};

/// Most parameters of a request: a manifest may be pushed with many tags, nothing needs more.
const MAX_PARAMETERS: usize = 128;

/// Longest query string.
const MAX_LENGTH: usize = 16 << 10;

/// The parameters of a request, in their order.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what stands behind the `?`.
    ///
    /// # Errors
    /// 400 when it is too long, has too many parameters, or decodes to something else than UTF-8
    /// without control characters.
    pub fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let query = query.unwrap_or_default();
        if query.len() > MAX_LENGTH {
            return Err(bad("the query string is too long"));
        }
        let mut parameters = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if parameters.len() == MAX_PARAMETERS {
                return Err(bad("the query string has too many parameters"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters.push((decode(name)?, decode(value)?));
        }
        Ok(Self(parameters))
    }

    /// The first parameter of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// All parameters of this name, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(have, _)| have == name).map(|(_, value)| value.as_str())
    }
}

/// Names only: a form may hold a password.
impl std::fmt::Debug for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

fn decode(text: &str) -> Result<String, ApiError> {
    // A plus stays a plus: tags and media types ("application/vnd.x+json") are sent both ways.
    let decoded =
        percent_decode_str(text).decode_utf8().map_err(|_| bad("the query string is not UTF-8"))?;
    if decoded.chars().any(char::is_control) {
        return Err(bad("the query string has control characters"));
    }
    Ok(decoded.into_owned())
}

fn bad(message: &str) -> ApiError {
    ApiError::new(ErrorCode::Unsupported, message).with_status(StatusCode::BAD_REQUEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_once_and_bounded() {
        for (query, name, expected) in [
            ("", "a", Some(vec![])),
            ("a=1&b=2&a=3", "a", Some(vec!["1", "3"])),
            ("a=%2Fx%20y&&", "a", Some(vec!["/x y"])),
            ("a=x+json", "a", Some(vec!["x+json"])),
            ("a=x%2Bjson", "a", Some(vec!["x+json"])),
            ("a=%252f", "a", Some(vec!["%2f"])),
            ("a", "a", Some(vec![""])),
            ("a=%00", "a", None),
            ("a=%ff", "a", None),
        ] {
            let got = Query::parse(Some(query)).ok();
            let got = got.as_ref().map(|query| query.get_all(name).collect::<Vec<_>>());
            assert_eq!(got, expected, "{query}");
        }
        assert!(Query::parse(Some(&"a=1&".repeat(MAX_PARAMETERS + 1))).is_err());
        assert!(Query::parse(Some(&"a".repeat(MAX_LENGTH + 1))).is_err());
    }
}
