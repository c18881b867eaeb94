//! Asking for lists: tags, and referrers of a manifest. The upstream itself is asked before its
//! mirrors, which often list only what they happen to hold.

use bytes::Bytes;
use http::{Method, StatusCode, header};
use kuboard_oci::{Digest, media_type};
use serde_json::Value;

use super::{
    endpoint::Order,
    error::Failure,
    exchange::{Answer, Ask},
    shared::{Ground, Lane, Operation},
};

/// Longest list, or page of one, in bytes; the limit of manifests.
const MAX_LIST: usize = kuboard_oci::MAX_MANIFEST_BYTES;
/// Most pages of referrers that are put together.
pub(super) const MAX_PAGES: usize = 32;

/// One page of a list.
pub(super) struct Page {
    pub(super) bytes: Bytes,
    /// The `Link` header as sent.
    pub(super) link: Option<String>,
    /// What the upstream says to have filtered by.
    pub(super) filters: String,
}

/// Asks for one page.
pub(super) struct GetPage {
    pub(super) tail: String,
    pub(super) query: Option<String>,
    pub(super) accept: &'static str,
}

impl GetPage {
    pub(super) fn tags(query: &str) -> GetPage {
        let query = Some(query).filter(|query| !query.is_empty()).map(str::to_owned);
        GetPage { tail: String::from("tags/list"), query, accept: media_type::JSON }
    }

    pub(super) fn referrers(subject: &Digest, artifact_type: Option<&str>) -> GetPage {
        let query = artifact_type.map(|wanted| {
            url::form_urlencoded::Serializer::new(String::new())
                .append_pair("artifactType", wanted)
                .finish()
        });
        GetPage { tail: format!("referrers/{subject}"), query, accept: media_type::OCI_INDEX }
    }

    /// The same list, further on.
    pub(super) fn next(self, query: String) -> GetPage {
        GetPage { query: Some(query), ..self }
    }
}

impl Operation for GetPage {
    type Output = Page;
    const LANE: Lane = Lane::Small;

    fn order(&self) -> Order {
        Order::OwnFirst
    }

    fn ask(&self) -> Ask {
        let mut ask = Ask::new(Method::GET, self.tail.clone());
        ask.query.clone_from(&self.query);
        ask.accept = Some(self.accept);
        ask
    }

    async fn read(&self, answer: Answer, ground: Ground) -> Result<Page, Failure> {
        if answer.status() != StatusCode::OK {
            return Err(Failure::invalid("it answered with a part of the list"));
        }
        let link = answer.header(header::LINK).map(str::to_owned);
        let filters = answer.header("oci-filters-applied").unwrap_or_default().to_owned();
        let bytes = ground.shared.transport.body(answer.response, MAX_LIST).await?;
        Ok(Page { bytes, link, filters })
    }
}

/// The query of the next page: of `</v2/…?n=10&last=x>; rel="next"`. Only the query is believed;
/// the list stays where it was asked.
pub(super) fn next_query(link: Option<&str>) -> Option<String> {
    let (target, parameters) = link?.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|parameter| {
        let (name, value) = parameter.trim().split_once('=').unwrap_or((parameter, ""));
        name.trim() == "rel" && value.trim().trim_matches('"').eq_ignore_ascii_case("next")
    });
    let (_, query) = target.split_once('?')?;
    (is_next && !query.is_empty()).then(|| query.to_owned())
}

/// The index of referrers made of its pages. One page that needs no filtering stays as it came.
/// The error says what is wrong with it.
pub(super) fn referrers(pages: Vec<Page>, artifact_type: Option<&str>) -> Result<Bytes, String> {
    let unfiltered = |page: &Page| {
        !page.filters.split(',').any(|filter| filter.trim().eq_ignore_ascii_case("artifactType"))
    };
    let filter = artifact_type.filter(|_| pages.iter().any(unfiltered));
    let mut index: Option<Value> = None;
    let mut all = Vec::new();
    for page in &pages {
        // Some web servers answer any path with their start page: that is not "no referrers".
        let mut value: Value = serde_json::from_slice(&page.bytes)
            .map_err(|error| format!("its list of referrers is not JSON: {error}"))?;
        let Some(Value::Array(manifests)) = value.get_mut("manifests").map(Value::take) else {
            return Err(String::from("its list of referrers has no manifests"));
        };
        all.extend(manifests.into_iter().filter(|referrer| {
            filter.is_none_or(|wanted| referrer.get("artifactType") == Some(&Value::from(wanted)))
        }));
        index.get_or_insert(value);
    }
    if let ([page], None) = (pages.as_slice(), filter) {
        return Ok(page.bytes.clone());
    }
    let mut index = index.ok_or("it gave no list of referrers")?;
    index["manifests"] = Value::Array(all);
    Ok(index.to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_links() {
        let cases = [
            (Some("</v2/a/tags/list?n=2&last=b>; rel=\"next\""), Some("n=2&last=b")),
            (Some("<https://evil.test/x?n=2>; rel=next"), Some("n=2")),
            (Some("</x?n=2>; title=\"x\"; rel=\"NEXT\""), Some("n=2")),
            (Some("</x?n=2>; rel=\"prev\""), None),
            (Some("</x>; rel=\"next\""), None),
            (Some("</x?>; rel=\"next\""), None),
            (Some("x"), None),
            (None, None),
        ];
        for (link, expected) in cases {
            assert_eq!(next_query(link).as_deref(), expected, "{link:?}");
        }
    }

    fn page(bytes: &'static str, filters: &str) -> Page {
        Page { bytes: Bytes::from_static(bytes.as_bytes()), link: None, filters: filters.into() }
    }

    #[track_caller]
    fn check(pages: &[(&'static str, &str)], wanted: Option<&str>, expected: Result<&str, &str>) {
        let pages = pages.iter().map(|(bytes, filters)| page(bytes, filters)).collect();
        match (referrers(pages, wanted), expected) {
            (Ok(bytes), Ok(expected)) => assert_eq!(bytes, expected.as_bytes()),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (seen, expected) => panic!("{seen:?}, not {expected:?}"),
        }
    }

    #[test]
    fn referrers_are_put_together_and_filtered_if_need_be() {
        const ONE: &str = r#"{ "manifests": [{"artifactType":"a"},{"artifactType":"b"},{}] }"#;
        const TWO: &str = r#"{"manifests":[{"artifactType":"a","digest":"2"}]}"#;
        check(&[(ONE, "")], None, Ok(ONE));
        check(&[(ONE, "artifactType")], Some("a"), Ok(ONE));
        check(&[(ONE, "")], Some("a"), Ok(r#"{"manifests":[{"artifactType":"a"}]}"#));
        check(&[(ONE, "")], Some("c"), Ok(r#"{"manifests":[]}"#));
        check(
            &[(ONE, ""), (TWO, "")],
            Some("a"),
            Ok(r#"{"manifests":[{"artifactType":"a"},{"artifactType":"a","digest":"2"}]}"#),
        );
        check(&[("<html>", "")], None, Err("not JSON"));
        check(&[("{}", "")], None, Err("no manifests"));
        check(&[(r#"{"manifests":{}}"#, "")], None, Err("no manifests"));
        check(&[("[]", "")], None, Err("no manifests"));
        check(&[], None, Err("no list"));
    }
}
