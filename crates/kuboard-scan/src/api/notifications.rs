//! The notifier's pages: what a notification says, until its reader deletes it.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    answer::{Answer, Head, Outcome, Refusal},
    clair::{ClairApi, uuid_of},
    content::choose,
};

const TYPE: &str = "application/vnd.clair.notification_page.v1+json";
/// Items of a page if the client names no number, and at most.
const PAGE: u32 = 500;
const MAX_PAGE: u32 = 10_000;

impl ClairApi {
    /// `notification/{id}`.
    pub(super) async fn notification(&self, head: &Head, id: &str) -> Outcome {
        head.expect(&[Method::GET, Method::DELETE])?;
        let id = uuid_of(id)?.to_string();
        let unknown = || Refusal::not_found(format!("there is no notification {id}"));
        if head.method == Method::DELETE {
            let gone = self.engine.catalog().remove_notification(&id).await?;
            return if gone { Ok(Answer::empty(StatusCode::OK)) } else { Err(unknown()) };
        }
        let size = match head.parameter("page_size") {
            None => PAGE,
            Some(text) => text.parse::<i64>().ok().map_or_else(
                || Err(Refusal::bad("could not parse \"page_size\" query param into integer")),
                |size| Ok(u32::try_from(size).unwrap_or(0)),
            )?,
        };
        let size = if size == 0 { PAGE } else { size.min(MAX_PAGE) };
        let after = head.parameter("next").map(|next| uuid_of(&next)).transpose()?;
        let after = after.filter(|id| !id.is_nil()).map(|id| id.to_string()).unwrap_or_default();
        let media_type = choose(&head.headers, &[TYPE, "application/json"])?;
        // One more than the page, to learn whether there is a next one.
        let items = self.engine.catalog().notification(&id, &after, size + 1).await?;
        let items = items.ok_or_else(unknown)?;
        let shown = items.get(..size as usize);
        let next = shown.and_then(<[_]>::last).map(|(item, _)| item.clone());
        let has_more = items.len() > size as usize;
        let shown = shown.unwrap_or(&items);
        let bodies: Vec<Value> =
            shown.iter().filter_map(|(_, body)| serde_json::from_str(body).ok()).collect();
        let mut page = json!({"size": size});
        if let Some(next) = next.filter(|_| has_more) {
            page["next"] = Value::String(next);
        }
        let document = json!({"page": page, "notifications": bodies});
        Answer::json(StatusCode::OK, media_type, &document)
    }
}
