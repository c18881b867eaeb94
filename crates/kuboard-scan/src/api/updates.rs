//! The matcher's update operations: a generation of the advisories is an operation of each source.
//!
//! The database knows itself and how it differs from the generation before; so those two are the
//! operations that there are, and differences are given between nothing and now, or between the
//! two. Of advisories that are gone or were different before, only the ids are known.

use std::{collections::BTreeMap, io, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use http::{Method, StatusCode, header::ETAG};
use kuboard_feeds::database::{Database, SourceInfo};
use kuboard_rt::http::Body;
use kuboard_vuln::Advisories;
use serde::Serialize;
use uuid::Uuid;

use super::{
    answer::{Answer, Head, Outcome, Refusal},
    clair::{ClairApi, stable_id, uuid_of},
    vulnerabilities::{NO_TIME, of_advisory, of_id},
};
use crate::report::dates;

const OPERATIONS_TYPE: &str = "application/vnd.clair.update_operations.v1+json";
const DIFF_TYPE: &str = "application/vnd.clair.update_diff.v1+json";
/// Sources that rate and add, but say of no package that it is affected.
const ENRICHMENTS: [&str; 3] = ["epss", "kev", "nvd"];
/// Says when a release ends; neither of the two.
const NEITHER: &str = "eol";
/// Bytes of one piece of a long answer.
const PIECE: usize = 64 << 10;

#[derive(Clone, Serialize)]
struct Operation {
    r#ref: String,
    updater: String,
    fingerprint: String,
    date: String,
    kind: &'static str,
}

fn reference(source: &str, generation: u64) -> Uuid {
    stable_id(&["update operation", source, &generation.to_string()])
}

fn operation(source: &SourceInfo, generation: u64, is_current: bool) -> Operation {
    let is_enrichment = ENRICHMENTS.contains(&source.name.as_str());
    Operation {
        r#ref: reference(&source.name, generation).to_string(),
        updater: source.name.clone(),
        fingerprint: if is_current { source.fingerprint.clone() } else { String::new() },
        date: match is_current && source.fetched_ms > 0 {
            true => dates::rfc3339(source.fetched_ms),
            false => NO_TIME.to_owned(),
        },
        kind: if is_enrichment { "enrichment" } else { "vulnerability" },
    }
}

/// The operation that stands for nothing.
fn nothing() -> Operation {
    Operation {
        r#ref: Uuid::nil().to_string(),
        updater: String::new(),
        fingerprint: String::new(),
        date: NO_TIME.to_owned(),
        kind: "",
    }
}

impl ClairApi {
    /// `update_operation`.
    pub(super) fn update_operations(&self, head: &Head) -> Outcome {
        head.expect(&[Method::GET])?;
        let kind = head.parameter("kind").unwrap_or_else(|| "vulnerability".to_owned());
        if !matches!(kind.as_str(), "vulnerability" | "enrichment") {
            return Err(Refusal::bad(format!("unknown kind: {kind:?}")));
        }
        // Go's ParseBool.
        let latest = head.parameter("latest");
        let latest = matches!(latest.as_deref(), Some("1" | "t" | "T" | "true" | "TRUE" | "True"));
        let Some(database) = self.engine.database() else {
            return Answer::json(StatusCode::OK, OPERATIONS_TYPE, &serde_json::json!({}));
        };
        let generation = database.generation();
        let previous = if latest { None } else { previous(&database) };
        let mut operations: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
        for source in database.sources().iter().filter(|source| source.name != NEITHER) {
            let current = operation(source, generation, true);
            if current.kind != kind {
                continue;
            }
            let before = previous.map(|number| operation(source, number, false));
            operations.insert(&source.name, [current].into_iter().chain(before).collect());
        }
        let newest = operations.values().flatten().max_by(|one, two| one.date.cmp(&two.date));
        let tag = newest.map(|operation| format!("\"{}\"", operation.r#ref));
        if let Some(tag) = &tag
            && head.has_unmodified(tag)
        {
            return Ok(Answer::empty(StatusCode::NOT_MODIFIED));
        }
        let answer = Answer::json(StatusCode::OK, OPERATIONS_TYPE, &operations)?;
        Ok(match tag {
            Some(tag) => answer.with(ETAG, &tag),
            None => answer,
        })
    }

    /// `update_diff`.
    pub(super) fn update_diff(&self, head: &Head) -> Outcome {
        head.expect(&[Method::GET])?;
        let before = head.parameter("prev").map(|text| uuid_of(&text)).transpose()?;
        let before = before.filter(|id| !id.is_nil());
        let Some(wanted) = head.parameter("cur") else {
            return Err(Refusal::bad("\"cur\" query param is required"));
        };
        let wanted = uuid_of(&wanted)?;
        let unknown = || Refusal::not_found("there is no such update operation any more");
        let database = self.engine.database().ok_or_else(unknown)?;
        let generation = database.generation();
        let sources = database.sources().iter();
        let source = sources
            .filter(|source| source.name != NEITHER)
            .find(|source| reference(&source.name, generation) == wanted)
            .cloned()
            .ok_or_else(unknown)?;
        let current = operation(&source, generation, true);
        let (prev, added, removed) = match before {
            None => (nothing(), Added::All, Vec::new()),
            Some(id) if id == wanted => (current.clone(), Added::These(Vec::new()), Vec::new()),
            Some(id) => {
                let number = previous(&database).ok_or_else(unknown)?;
                if reference(&source.name, number) != id {
                    return Err(unknown());
                }
                let changes = database.changed().map_err(Refusal::internal)?;
                let of_source = |list: &[(String, String)]| -> Vec<String> {
                    let own = list.iter().filter(|(name, _)| *name == source.name);
                    own.map(|(_, id)| id.clone()).collect()
                };
                let changed = of_source(&changes.changed);
                let added = [of_source(&changes.added), changed.clone()].concat();
                let removed = [of_source(&changes.removed), changed].concat();
                (operation(&source, number, false), Added::These(added), removed)
            }
        };
        let begin = serde_json::json!({"prev": prev, "cur": current}).to_string();
        let diff = Diff {
            database,
            source: source.name,
            added,
            removed,
            at: 0,
            begin,
            stage: 0,
            filled: false,
        };
        Ok(Answer::stream(StatusCode::OK, DIFF_TYPE, diff.into_body()))
    }
}

/// The generation before, where it is known how this one differs.
fn previous(database: &Database) -> Option<u64> {
    database.changed().ok()?.since
}

/// What `added` lists.
enum Added {
    /// All advisories of the source.
    All,
    /// Advisories with these ids.
    These(Vec<String>),
}

/// A difference that is written piece by piece, since it may be a whole source.
struct Diff {
    database: Arc<Database>,
    source: String,
    added: Added,
    removed: Vec<String>,
    /// How far the present list was written.
    at: usize,
    /// The document's beginning, without its last brace.
    begin: String,
    /// What comes next: 0 the beginning, 1 `added`, 2 `removed`, 3 nothing.
    stage: u8,
    /// Whether the present list has something in it.
    filled: bool,
}

impl Diff {
    fn into_body(self) -> Body {
        Body::stream(stream::unfold(self, |mut diff| async move {
            loop {
                let piece = diff.piece()?;
                if !piece.is_empty() {
                    return Some((Ok::<_, io::Error>(Bytes::from(piece)), diff));
                }
                // Another source's advisories were passed over; others may run meanwhile.
                tokio::task::yield_now().await;
            }
        }))
    }

    fn piece(&mut self) -> Option<Vec<u8>> {
        let mut piece = Vec::with_capacity(PIECE + (PIECE >> 2));
        match self.stage {
            0 => {
                self.begin.pop();
                piece.extend_from_slice(self.begin.as_bytes());
                piece.extend_from_slice(b",\"added\":[");
                self.stage = 1;
            }
            1 => self.write_added(&mut piece),
            2 => {
                for (number, id) in self.removed.iter().enumerate() {
                    append(&mut piece, number > 0, &of_id(&self.source, id));
                }
                piece.extend_from_slice(b"]}\n");
                self.stage = 3;
            }
            _ => return None,
        }
        Some(piece)
    }

    fn write_added(&mut self, piece: &mut Vec<u8>) {
        let mut looked = 0;
        while piece.len() < PIECE && looked < 4096 {
            looked += 1;
            let found = match &self.added {
                Added::All => {
                    if self.at >= self.database.len() {
                        break;
                    }
                    let index = u32::try_from(self.at).unwrap_or(u32::MAX);
                    // The head is enough to pass over other sources' advisories.
                    match self.database.head(index) {
                        Ok(head) if head.source == self.source => {
                            self.database.advisory(index).ok().into_iter().collect()
                        }
                        _ => Vec::new(),
                    }
                }
                Added::These(ids) => {
                    let Some(id) = ids.get(self.at) else { break };
                    let mut found = self.database.find(id);
                    found.retain(|one| one.source == self.source && one.id == *id);
                    found
                }
            };
            self.at += 1;
            for vulnerability in found.iter().flat_map(of_advisory) {
                append(piece, self.filled, &vulnerability);
                self.filled = true;
            }
        }
        let len = match &self.added {
            Added::All => self.database.len(),
            Added::These(ids) => ids.len(),
        };
        if self.at >= len {
            piece.extend_from_slice(b"],\"removed\":[");
            self.stage = 2;
        }
    }
}

fn append<T: Serialize>(piece: &mut Vec<u8>, comma: bool, value: &T) {
    let before = piece.len();
    if comma {
        piece.push(b',');
    }
    if serde_json::to_writer(&mut *piece, value).is_err() {
        piece.truncate(before);
    }
}
