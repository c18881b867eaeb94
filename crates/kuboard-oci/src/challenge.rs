//! Authentication challenges: the `WWW-Authenticate` header of RFC 9110, section 11.6.1.
//!
//! The grammar is ambiguous in its commas, which separate challenges as well as their parameters:
//! a word followed by `=` is a parameter, any other begins a new challenge.

use std::fmt;

use thiserror::Error;

/// Longest header value that is read, in bytes.
pub const MAX_BYTES: usize = 8 * 1024;
/// Most challenges in one header value.
pub const MAX_CHALLENGES: usize = 16;
/// Most parameters of one challenge.
pub const MAX_PARAMS: usize = 32;

/// One way of authenticating that a server offers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Challenge {
    /// The scheme in lower case: `basic`, `bearer`.
    pub scheme: String,
    /// Name, in lower case, and value of each parameter, in the order sent.
    pub params: Vec<(String, String)>,
    /// What a scheme such as Negotiate sends in place of parameters.
    pub token68: Option<String>,
}

impl Challenge {
    /// A challenge without parameters. The scheme is written as given.
    #[must_use]
    pub fn new(scheme: impl Into<String>) -> Challenge {
        Challenge { scheme: scheme.into(), ..Challenge::default() }
    }

    /// The same with one more parameter.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Challenge {
        self.params.push((name.into(), value.into()));
        self
    }

    /// The first parameter of this (lower-case) name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for Challenge {
    /// The header value; every parameter is quoted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.scheme)?;
        if let Some(token68) = &self.token68 {
            write!(f, " {token68}")?;
        }
        for (position, (name, value)) in self.params.iter().enumerate() {
            write!(f, "{}{name}=\"", if position == 0 { " " } else { "," })?;
            for c in value.chars() {
                if matches!(c, '"' | '\\') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
            f.write_str("\"")?;
        }
        Ok(())
    }
}

/// Why a header value is not a list of challenges.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum ChallengeError {
    /// Above one of the limits of this module.
    #[error("the authentication challenge is too large")]
    TooLarge,
    /// No challenge in it.
    #[error("the authentication challenge is empty")]
    Empty,
    /// Against the grammar.
    #[error("the authentication challenge is malformed at byte {at}")]
    Malformed {
        /// Offset of the first byte that does not fit.
        at: usize,
    },
    /// A quoted value without its closing quote.
    #[error("the authentication challenge has an open quote")]
    OpenQuote,
}

/// Reads one header value, which may hold several challenges. Values in quotes may hold commas;
/// values without quotes may, beyond the standard, hold any visible character but a comma or a
/// quote.
///
/// # Errors
/// See [`ChallengeError`].
pub fn parse(header: &str) -> Result<Vec<Challenge>, ChallengeError> {
    if header.len() > MAX_BYTES {
        return Err(ChallengeError::TooLarge);
    }
    let mut scanner = Scanner { text: header, at: 0 };
    let mut challenges = Vec::new();
    loop {
        scanner.skip_commas();
        if scanner.rest().is_empty() {
            break;
        }
        if challenges.len() == MAX_CHALLENGES {
            return Err(ChallengeError::TooLarge);
        }
        challenges.push(scanner.challenge()?);
    }
    if challenges.is_empty() { Err(ChallengeError::Empty) } else { Ok(challenges) }
}

struct Scanner<'a> {
    text: &'a str,
    /// Always at the border of a character.
    at: usize,
}

impl<'a> Scanner<'a> {
    fn challenge(&mut self) -> Result<Challenge, ChallengeError> {
        let scheme = self.take_while(is_token);
        if scheme.is_empty() {
            return Err(self.malformed());
        }
        let mut challenge = Challenge::new(scheme.to_ascii_lowercase());
        if !self.skip_blanks() {
            return if self.at_border() { Ok(challenge) } else { Err(self.malformed()) };
        }
        if let Some(token68) = self.token68() {
            challenge.token68 = Some(token68.to_owned());
            return Ok(challenge);
        }
        while let Some(name) = self.param_name() {
            if challenge.params.len() == MAX_PARAMS {
                return Err(ChallengeError::TooLarge);
            }
            challenge.params.push((name.to_ascii_lowercase(), self.value()?));
            self.skip_blanks();
            if !self.at_border() {
                return Err(self.malformed());
            }
            self.skip_commas();
        }
        if challenge.params.is_empty() && !self.at_border() {
            return Err(self.malformed());
        }
        Ok(challenge)
    }

    /// Takes `name =`, or nothing if that is not what comes next.
    fn param_name(&mut self) -> Option<&'a str> {
        let before = self.at;
        let name = self.take_while(is_token);
        self.skip_blanks();
        if name.is_empty() || !self.take('=') {
            self.at = before;
            return None;
        }
        self.skip_blanks();
        Some(name)
    }

    /// Takes a token68 if it reaches to the next comma, or nothing.
    fn token68(&mut self) -> Option<&'a str> {
        let before = self.at;
        let is_token68 = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
        let has_begin = !self.take_while(is_token68).is_empty();
        self.take_while(|c| c == '=');
        let token68 = &self.text[before..self.at];
        self.skip_blanks();
        if has_begin && self.at_border() {
            return Some(token68);
        }
        self.at = before;
        None
    }

    fn value(&mut self) -> Result<String, ChallengeError> {
        if self.take('"') {
            return self.quoted();
        }
        let value = self.take_while(|c| c.is_ascii_graphic() && !matches!(c, ',' | '"'));
        if value.is_empty() { Err(self.malformed()) } else { Ok(value.to_owned()) }
    }

    /// The rest of a quoted value, its opening quote being taken.
    fn quoted(&mut self) -> Result<String, ChallengeError> {
        let mut value = String::new();
        let mut escaped = false;
        let begin = self.at;
        for (offset, c) in self.text[begin..].char_indices() {
            self.at = begin + offset;
            match c {
                _ if c.is_control() && c != '\t' => return Err(self.malformed()),
                '"' if !escaped => {
                    self.at += 1;
                    return Ok(value);
                }
                '\\' if !escaped => escaped = true,
                _ => {
                    value.push(c);
                    escaped = false;
                }
            }
        }
        Err(ChallengeError::OpenQuote)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// At a comma or at the end.
    fn at_border(&self) -> bool {
        self.rest().is_empty() || self.rest().starts_with(',')
    }

    fn take(&mut self, expected: char) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.at += expected.len_utf8();
        }
        found
    }

    fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !fits(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn skip_blanks(&mut self) -> bool {
        !self.take_while(|c| matches!(c, ' ' | '\t')).is_empty()
    }

    fn skip_commas(&mut self) {
        self.take_while(|c| matches!(c, ' ' | '\t' | ','));
    }

    fn malformed(&self) -> ChallengeError {
        ChallengeError::Malformed { at: self.at }
    }
}

/// A character of a token in RFC 9110.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}
