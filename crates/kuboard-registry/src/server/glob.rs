//! Patterns over repository names: `*` stands for any part of one path component, `**` for any
//! text at all, `?` for one character of a component.

/// True if the pattern matches the whole text. Takes time in proportion to the product of both
/// lengths, whatever the pattern.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let text = text.as_bytes();
    // `reached[n]` tells whether the pattern so far can end before byte `n` of the text.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut pattern = pattern.as_bytes();
    while let Some((&first, rest)) = pattern.split_first() {
        pattern = rest;
        if first == b'*' {
            let any = pattern.first() == Some(&b'*');
            if any {
                pattern = pattern.get(1..).unwrap_or_default();
            }
            for at in 0..text.len() {
                reached[at + 1] |= reached[at] && (any || text[at] != b'/');
            }
            continue;
        }
        let mut before = reached[0];
        reached[0] = false;
        for at in 0..text.len() {
            let fits = text[at] == first || (first == b'?' && text[at] != b'/');
            let next = before && fits;
            before = std::mem::replace(&mut reached[at + 1], next);
        }
    }
    reached[text.len()]
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_stay_in_their_component_unless_doubled() {
        let check = |pattern: &str, text: &str, expected: bool| {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        };
        check("team/app", "team/app", true);
        check("team/app", "team/apps", false);
        check("team/*", "team/app", true);
        check("team/*", "team/", true);
        check("team/*", "team/app/web", false);
        check("team/**", "team/app/web", true);
        check("team/**", "team", false);
        check("team/**", "teams/app", false);
        check("**", "", true);
        check("**", "a/b/c", true);
        check("*", "a/b", false);
        check("*/app", "team/app", true);
        check("**/app", "a/b/app", true);
        check("**/app", "app", false);
        check("te?m/app", "team/app", true);
        check("team?app", "team/app", false);
        check("a*b*c", "aXbYc", true);
        check("a*b*c", "aXbY", false);
        check("", "", true);
        check("", "a", false);
        check("***", "a/b", true);
        check(&"**a".repeat(80), &"a".repeat(255), true);
        check(&"*a".repeat(80), &format!("{}b", "a".repeat(254)), false);
    }
}
