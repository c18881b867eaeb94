//! Tokens that this registry gives to those whom it has fetch its content for it, such as an
//! external scanner.

use super::access::Access;
use super::caller::Action;
use super::error::ApiError;
use super::scope::Granted;
use super::token::Subject;

impl Access {
    /// A token by which one repository can be read for five minutes, whoever carries it. `name` is
    /// what it goes by in logs; `repository` is named in full, as rights are checked.
    ///
    /// # Errors
    /// It can't be signed.
    pub fn reading_token(
        &self,
        name: &str,
        repository: &str,
        now_ms: i64,
    ) -> Result<String, ApiError> {
        let subject = Subject { name: Some(name), workload: None };
        let access = vec![Granted::repository(repository.to_owned(), &[Action::Pull])];
        let (token, _) = self.signer.token(subject, access, now_ms, None)?;
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

    use super::super::{Access, AccessConfig, Action, Anonymous, NoKeys};

    #[tokio::test]
    async fn it_reads_one_repository_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let config = AccessConfig {
            anonymous: Anonymous::None,
            htpasswd: None,
            token_key: folder.path().join("key.pem"),
            service: "kuboard".to_owned(),
            external_url: None,
        };
        let access = Access::new(config, Arc::new(NoKeys)).unwrap();
        let token = access.reading_token("scanner", "team/app", 1_000).unwrap();
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        headers.insert(AUTHORIZATION, value);
        let caller = access.caller(&headers, None, 2_000).await.unwrap();
        for (action, repository, may) in [
            (Action::Pull, "team/app", true),
            (Action::Push, "team/app", false),
            (Action::Pull, "team/other", false),
        ] {
            assert_eq!(caller.may(action, repository), may, "{action:?} {repository}");
        }
        assert!(access.caller(&headers, None, 400_000).await.is_err());
    }
}
