//! Scopes, as challenges and token requests spell them: `repository:team/app:pull,push`.

use serde::{Deserialize, Serialize};

use super::caller::Action;

/// Scopes that one token may carry.
const MAX_SCOPES: usize = 64;

/// A scope that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Repository { name: String, actions: Vec<Action> },
    Catalog,
}

/// A scope that a token carries, in the field names of the token specification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Granted {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) actions: Vec<String>,
}

impl Granted {
    pub(crate) fn repository(name: String, actions: &[Action]) -> Self {
        let actions = actions.iter().map(|action| action.as_str().to_owned()).collect();
        Self { kind: "repository".to_owned(), name, actions }
    }

    pub(crate) fn catalog() -> Self {
        let (kind, name) = ("registry".to_owned(), "catalog".to_owned());
        Self { kind, name, actions: vec!["*".to_owned()] }
    }

    pub(crate) fn covers(&self, action: Action, repository: &str) -> bool {
        match action {
            Action::Catalog => self.kind == "registry" && self.name == "catalog",
            _ => {
                self.kind == "repository"
                    && self.name == repository
                    && self.actions.iter().any(|word| word == action.as_str())
            }
        }
    }
}

impl std::fmt::Display for Granted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.kind, self.name, self.actions.join(","))
    }
}

/// The scopes of `scope` parameters, each of which may hold several between spaces. What is not
/// understood is left out, as the specification wants: a token may grant less than was asked.
pub(crate) fn parse<'a>(parameters: impl Iterator<Item = &'a str>) -> Vec<Asked> {
    let words = parameters.flat_map(|parameter| parameter.split(' '));
    words.filter(|word| !word.is_empty()).filter_map(parse_one).take(MAX_SCOPES).collect()
}

fn parse_one(text: &str) -> Option<Asked> {
    // A name may hold colons, the port of a host in it, so it ends at the last one.
    let (kind, rest) = text.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    // `repository(plugin)` names the class of a repository, which nothing depends on.
    match kind.split('(').next() {
        Some("repository") if !name.is_empty() && name.len() <= 512 => {
            let mut asked: Vec<Action> = Vec::new();
            for word in actions.split(',') {
                let all = [Action::Pull, Action::Push, Action::Delete];
                let meant = all.into_iter().filter(|action| word == "*" || word == action.as_str());
                for action in meant {
                    if !asked.contains(&action) {
                        asked.push(action);
                    }
                }
            }
            Some(Asked::Repository { name: name.to_owned(), actions: asked })
        }
        Some("registry") if name == "catalog" => Some(Asked::Catalog),
        _ => None,
    }
}

/// The scope that a challenge names for an action.
pub(crate) fn needed(action: Action, repository: &str) -> String {
    match action {
        Action::Pull => format!("repository:{repository}:pull"),
        Action::Push => format!("repository:{repository}:pull,push"),
        Action::Delete => format!("repository:{repository}:delete"),
        Action::Catalog => "registry:catalog:*".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_clients_write_them() {
        let check = |text: &str, expected: &str| {
            let read = parse([text].into_iter());
            let shown: Vec<String> = read
                .iter()
                .map(|asked| match asked {
                    Asked::Repository { name, actions } => {
                        Granted::repository(name.clone(), actions).to_string()
                    }
                    Asked::Catalog => Granted::catalog().to_string(),
                })
                .collect();
            assert_eq!(shown.join(" "), expected, "{text}");
        };
        check("", "");
        check("repository:team/app:pull", "repository:team/app:pull");
        check("repository:team/app:push,pull", "repository:team/app:push,pull");
        check("repository:team/app:pull,pull", "repository:team/app:pull");
        check("repository:team/app:*", "repository:team/app:pull,push,delete");
        check("repository:team/app:fly", "repository:team/app:");
        check("repository:host:5000/app:pull", "repository:host:5000/app:pull");
        check("repository(plugin):team/app:pull", "repository:team/app:pull");
        check("registry:catalog:*", "registry:catalog:*");
        check("registry:users:*", "");
        check("repository::pull", "");
        check("repository", "");
        check("repository:a:pull repository:b:push", "repository:a:pull repository:b:push");
        check(&"repository:a:pull ".repeat(1000), "repository:a:pull ".repeat(64).trim_end());
        check(&format!("repository:{}:pull", "a".repeat(600)), "");
    }
}
