//! Shell assignments, as far as `os-release` allows them.

/// The assignments of a text in its order: a name, and its value without quotes. What is no
/// assignment is left out. There is no expansion, and a quoted value ends with its line at the
/// latest.
pub(super) fn assignments(text: &str) -> impl Iterator<Item = (&str, String)> {
    text.lines().filter_map(|text| {
        let text = text.trim();
        let (key, value) = text.split_once('=')?;
        let key = key.strip_prefix("export ").unwrap_or(key).trim();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        (!key.is_empty() && key.chars().all(is_name)).then(|| (key, unquoted(value)))
    })
}

fn unquoted(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    let mut quote = None;
    let mut chars = text.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if c == open => quote = None,
            (Some('"'), '\\') => match chars.next_if(|c| "\"\\$`".contains(*c)) {
                Some(escaped) => value.push(escaped),
                None => value.push(c),
            },
            (None, '\\') => value.extend(chars.next()),
            (None, '#') if value.ends_with(char::is_whitespace) => break,
            _ => value.push(c),
        }
    }
    value.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::assignments;

    #[track_caller]
    fn check(text: &str, want: &[(&str, &str)]) {
        let found: Vec<_> = assignments(text).collect();
        let found: Vec<_> = found.iter().map(|(key, value)| (*key, value.as_str())).collect();
        assert_eq!(found, want);
    }

    #[test]
    fn quotes_are_removed() {
        check("A=b", &[("A", "b")]);
        check("A=\"b c\"\nB='d e'\r\n", &[("A", "b c"), ("B", "d e")]);
        check("A=\"say \\\"hi\\\" \\$x \\n\"", &[("A", "say \"hi\" $x \\n")]);
        check("A='a\\b'\nB=a\\ b", &[("A", "a\\b"), ("B", "a b")]);
        check("A=a\"b\"'c'", &[("A", "abc")]);
        check("# A=b\n\nA\n=b\nA B=c\nexport C=d", &[("C", "d")]);
        check("A=\nB=\"\"\nC=\"open", &[("A", ""), ("B", ""), ("C", "open")]);
        check("A=b # c\nB=\"d#e\"\nC=f#g", &[("A", "b"), ("B", "d#e"), ("C", "f#g")]);
        check("A=\"15.1 \"\nB=\\", &[("A", "15.1"), ("B", "")]);
    }
}
