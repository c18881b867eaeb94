//! Proof that statements find rows by index: their query plans in both databases.

use kuboard_testkit::postgres::Postgres;
use sqlx::AssertSqlSafe;

use crate::{
    Catalog, DecisionFilter, Dialect, blobs, cached, decisions, inventories, keys, manifests, pins,
    repositories, sweep, tags, untagged,
};

/// Statements with the types of their parameters: t(ext), i(nteger), a(rray of text).
fn statements(dialect: Dialect) -> Vec<(&'static str, String)> {
    let fixed = [
        ("t", repositories::FIND),
        ("tt", repositories::INSERT),
        ("ti", repositories::LIST),
        ("tit", repositories::LIST_KIND),
        ("ti", blobs::ANNOUNCE),
        ("t", blobs::LOCK_CONTENT),
        ("itii", blobs::LINK),
        ("tt", blobs::BLOB),
        ("tt", blobs::LEASE),
        ("iti", blobs::RENEW),
        ("tt", blobs::HOSTED_SIZE),
        ("t", blobs::FIND_BLOB),
        ("it", blobs::UNLINK),
        ("t", blobs::LOOSEN),
        ("ti", blobs::HOSTED),
        ("tt", cached::LINKED),
        ("t", cached::FORGET[0]),
        ("t", cached::FORGET[1]),
        ("t", cached::FORGET[2]),
        ("ittittti", manifests::PUT),
        ("tt", manifests::META),
        ("tt", manifests::REFERRERS),
        ("ttt", manifests::REFERRERS_OF_TYPE),
        ("it", manifests::EXPIRE),
        ("it", manifests::UNTAG),
        ("it", manifests::DELETE),
        ("tt", tags::RESOLVE),
        ("ittit", tags::SET),
        ("it", tags::HAS_MANIFEST),
        ("tt", tags::DELETE_TAG),
        ("iti", tags::TAGS),
        ("ii", sweep::OVERDUE),
        ("ti", sweep::LOOSE),
        ("t", sweep::FASTEN),
        ("t", sweep::HELD),
        ("t", sweep::DROP_CONTENT),
        ("t", sweep::DROP_EMPTY),
        ("ii", untagged::UNNAMED),
        ("iti", untagged::STILL_UNNAMED),
        ("tti", pins::ADD),
        ("tt", pins::REMOVE),
        ("ttttii", keys::ADD),
        ("t", keys::KEY),
        ("t", keys::REMOVE),
        ("", inventories::NEXT_CHANGE),
        ("ii", inventories::CHANGES),
        ("t", inventories::REPORT),
        ("i", decisions::PRUNE),
        ("i", decisions::PRUNE_MORE),
    ];
    let listed = |namespace, outcome| {
        decisions::list_statement(&DecisionFilter {
            namespace,
            outcome,
            ..DecisionFilter::default()
        })
    };
    let made = [
        ("iii", listed("", "")),
        ("iiti", listed("x", "")),
        ("iiti", listed("", "x")),
        ("iitti", listed("x", "x")),
        ("ia", cached::link_all(dialect)),
        ("ia", manifests::missing_blobs(dialect)),
        ("ia", manifests::missing_manifests(dialect)),
        ("ita", manifests::refer(dialect)),
        ("itia", tags::point(dialect)),
        ("iia", sweep::take_over(dialect)),
        ("iia", sweep::loosen_overdue(dialect)),
        ("iia", sweep::unlink_overdue(dialect)),
    ];
    fixed.into_iter().map(|(types, sql)| (types, sql.to_owned())).chain(made).collect()
}

/// Plans in which a table is read from end to end.
async fn scans(catalog: &Catalog) -> Vec<String> {
    let mut write = catalog.write().await.unwrap();
    let (explain, column, scan) = match catalog.dialect() {
        Dialect::Sqlite => ("EXPLAIN QUERY PLAN", 3, "SCAN "),
        Dialect::Postgres => {
            // The tables are empty, so a scan would be cheapest whatever indexes there are.
            let no_scans = sqlx::query("SET LOCAL enable_seqscan = off");
            no_scans.execute(write.connection()).await.unwrap();
            ("EXPLAIN", 0, "Seq Scan")
        }
    };
    let mut scans = Vec::new();
    for (types, sql) in statements(catalog.dialect()) {
        let mut query = sqlx::query(AssertSqlSafe(format!("{explain} {sql}")));
        for kind in types.chars() {
            query = match kind {
                'i' => query.bind(1_i64),
                'a' => query.bind("[]"),
                _ => query.bind("x"),
            };
        }
        let rows = query.fetch_all(write.connection()).await;
        let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let lines = rows.iter().map(|row| sqlx::Row::get::<String, usize>(row, column));
        let harmless = ["SCAN item", "SCAN CONSTANT ROW"];
        let found: Vec<String> = lines
            .filter(|line| line.contains(scan) && !harmless.iter().any(|it| line.contains(it)))
            .collect();
        if !found.is_empty() {
            scans.push(format!("{sql}\n  {}", found.join("\n  ")));
        }
    }
    scans
}

#[tokio::test]
async fn no_statement_scans_a_table_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::open_file(&folder.path().join("catalog.db")).await.unwrap();
    assert_eq!(scans(&catalog).await, Vec::<String>::new());
}

#[tokio::test]
async fn no_statement_scans_a_table_in_postgres() {
    let server = Postgres::shared().unwrap_or_else(|error| panic!("{error:#}"));
    let catalog = Catalog::open(&server.database().unwrap()).await.unwrap();
    assert_eq!(scans(&catalog).await, Vec::<String>::new());
}
