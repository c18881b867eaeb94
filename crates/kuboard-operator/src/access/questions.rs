//! The questions that the API server is asked for a right to a repository. Pure.

use kuboard_registry::server::Action;

/// Rules by prefix are looked for on so many levels: `a/*`, `a/b/*`, …
const MAX_LEVELS: usize = 5;

/// One question: may the subject do `verb` on `repositories.registry.kuboard.cn`?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// `get`, `create`, `delete` or `list`.
    pub verb: &'static str,
    /// The namespace; empty for the whole cluster.
    pub namespace: String,
    /// The name that a rule's `resourceNames` must list, if it has any.
    pub name: String,
}

/// The questions for an action on a repository, in the order in which they are asked; the first
/// yes is the answer.
///
/// The first path component is the namespace: `team/app` lies in the namespace `team`. Whether that
/// namespace exists need not be known, because only what is granted in the whole cluster counts in
/// one that does not. Names without a second component, and names whose first component can be no
/// namespace (`docker.io/library/alpine`), lie in none: they need a ClusterRoleBinding.
///
/// `resourceNames` know no patterns, so patterns are asked for as names: a rule for `team/base/*`
/// covers everything below, to five levels.
#[must_use]
pub fn questions(action: Action, repository: &str) -> Vec<Question> {
    let verb = match action {
        Action::Pull => "get",
        Action::Push => "create",
        Action::Delete => "delete",
        Action::Catalog => {
            let (namespace, name) = (String::new(), String::new());
            return vec![Question { verb: "list", namespace, name }];
        }
    };
    let namespace = namespace(repository).unwrap_or_default();
    let exact = std::iter::once(repository.to_owned());
    let levels = repository.match_indices('/').map(|(at, _)| format!("{}/*", &repository[..at]));
    let levels = levels.take(MAX_LEVELS).filter(|name| name != repository);
    exact
        .chain(levels)
        .map(|name| Question { verb, namespace: namespace.to_owned(), name })
        .collect()
}

/// The namespace that a repository lies in.
fn namespace(repository: &str) -> Option<&str> {
    let (first, _) = repository.split_once('/')?;
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = (1..=63).contains(&first.len())
        && first.bytes().all(fits)
        && !first.starts_with('-')
        && !first.ends_with('-');
    is_label.then_some(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn repositories_lie_in_the_namespace_of_their_first_component() {
        let check = |action: Action, repository: &str, expected: &[&str]| {
            let asked: Vec<String> = questions(action, repository)
                .into_iter()
                .map(|Question { verb, namespace, name }| format!("{verb} {namespace}:{name}"))
                .collect();
            assert_eq!(asked, expected, "{repository}");
        };
        let pull = Action::Pull;
        check(pull, "team/app", &["get team:team/app", "get team:team/*"]);
        check(
            pull,
            "team/base/java",
            &["get team:team/base/java", "get team:team/*", "get team:team/base/*"],
        );
        check(pull, "app", &["get :app"]);
        check(Action::Push, "team/app", &["create team:team/app", "create team:team/*"]);
        check(Action::Delete, "team/app", &["delete team:team/app", "delete team:team/*"]);
        check(
            pull,
            "docker.io/library/alpine",
            &["get :docker.io/library/alpine", "get :docker.io/*", "get :docker.io/library/*"],
        );
        check(pull, "localhost:5000/app", &["get :localhost:5000/app", "get :localhost:5000/*"]);
        check(pull, "a_b/app", &["get :a_b/app", "get :a_b/*"]);
        check(pull, "-a/app", &["get :-a/app", "get :-a/*"]);
        check(pull, "team/*", &["get team:team/*"]);
        check(pull, "docker.io/*", &["get :docker.io/*"]);
        check(Action::Catalog, "", &["list :"]);
        check(
            pull,
            "a/b/c/d/e/f/g",
            &[
                "get a:a/b/c/d/e/f/g",
                "get a:a/*",
                "get a:a/b/*",
                "get a:a/b/c/*",
                "get a:a/b/c/d/*",
                "get a:a/b/c/d/e/*",
            ],
        );
    }

    proptest! {
        /// Nothing is ever asked in a namespace that the name does not begin with, and a name that
        /// stands for many repositories always contains the one that is asked for.
        #[test]
        fn no_question_reaches_beyond_the_repository(
            repository in "[a-z0-9.:_-]{1,6}(/[a-z0-9._-]{1,6}){0,8}",
        ) {
            let asked = questions(Action::Pull, &repository);
            prop_assert!(asked.len() <= MAX_LEVELS + 1);
            prop_assert_eq!(&asked[0].name, &repository);
            for question in asked {
                let inside = format!("{}/", question.namespace);
                prop_assert!(question.namespace.is_empty() || repository.starts_with(&inside));
                let covers = match question.name.strip_suffix('*') {
                    Some(prefix) => repository.starts_with(prefix),
                    None => question.name == repository,
                };
                prop_assert!(covers, "{} for {repository}", question.name);
            }
        }
    }
}
