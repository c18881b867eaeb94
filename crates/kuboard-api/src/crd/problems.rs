//! What is wrong with an object, gathered.

use crate::{error::Problem, globs::Globs};

/// Problems so far.
#[derive(Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn add(
        &mut self,
        key: impl Into<String>,
        fact: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.0.push(Problem::at(key, fact).hint(hint));
    }

    /// A fact that may carry its hint after a line break.
    pub(crate) fn told(&mut self, key: impl Into<String>, fact: &str) {
        let problem = match fact.split_once("\nhint: ") {
            Some((fact, hint)) => Problem::at(key, fact).hint(hint),
            None => Problem::at(key, fact),
        };
        self.0.push(problem);
    }

    /// Compiles a list of globs.
    pub(crate) fn globs(&mut self, key: &str, patterns: &[String], most: usize) -> Globs {
        if patterns.len() > most {
            self.0.push(Problem::at(key, format!("more than {most} patterns")));
            return Globs::default();
        }
        match Globs::checked(patterns) {
            Ok(globs) => globs,
            Err((number, fact)) => {
                let hint = "* stands for any part, ? for one character, [a-z] for one of them";
                self.add(format!("{key}[{number}]"), fact, hint);
                Globs::default()
            }
        }
    }

    pub(crate) fn end(self) -> Result<(), Vec<Problem>> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(self.0),
        }
    }
}

/// A DNS label.
pub(crate) fn is_namespace(text: &str) -> bool {
    is_name(text, 63, b"-")
}

/// Lower-case letters and digits, and inside of it others.
pub(crate) fn is_name(text: &str, most: usize, others: &[u8]) -> bool {
    let outer = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=most).contains(&bytes.len())
        && bytes.iter().all(|byte| outer(*byte) || others.contains(byte))
        && bytes.first().is_some_and(|byte| outer(*byte))
        && bytes.last().is_some_and(|byte| outer(*byte))
}
