//! Brings the tables up to date: numbered files per dialect, embedded, applied in one transaction
//! that one process at a time can be in.

use sqlx::{AnyConnection, Connection, Executor};

use crate::{
    dialect::Dialect,
    error::{Error, ErrorKind, Result},
    repositories::Hold,
};

/// All schemas in order; the first one is version 1. A released file never changes.
fn schemas(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::Sqlite => &[
            include_str!("../migrations/sqlite/0001_registry.sql"),
            include_str!("../migrations/sqlite/0002_scan.sql"),
            include_str!("../migrations/sqlite/0003_admission.sql"),
        ],
        Dialect::Postgres => &[
            include_str!("../migrations/postgres/0001_registry.sql"),
            include_str!("../migrations/postgres/0002_scan.sql"),
            include_str!("../migrations/postgres/0003_admission.sql"),
        ],
    }
}

pub(crate) async fn run(dialect: Dialect, connection: &mut AnyConnection) -> Result<()> {
    let schemas = schemas(dialect);
    let mut transaction = connection.begin_with(dialect.begin()).await?;
    if dialect == Dialect::Postgres {
        // Another process may be migrating for long, and so may we.
        transaction.execute("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0").await?;
    }
    if let Some(hold) = dialect.hold(Hold::Exclusive) {
        sqlx::query(hold).bind("migrations of the catalogue").execute(&mut *transaction).await?;
    }
    transaction
        .execute(
            "CREATE TABLE IF NOT EXISTS catalog_migrations (version BIGINT NOT NULL PRIMARY KEY)",
        )
        .await?;
    let (applied,): (i64,) =
        sqlx::query_as("SELECT COALESCE(MAX(version), 0) FROM catalog_migrations")
            .fetch_one(&mut *transaction)
            .await?;
    let known = schemas.len();
    let applied = usize::try_from(applied).unwrap_or(usize::MAX);
    if applied > known {
        return Err(Error::new(
            ErrorKind::Other,
            format!(
                "it has schema {applied} and this program knows {known} at most; hint: run the \
                 newer program, or restore the backup made before the upgrade"
            ),
        ));
    }
    for (version, schema) in schemas.iter().enumerate().skip(applied) {
        transaction.execute(*schema).await?;
        sqlx::query("INSERT INTO catalog_migrations (version) VALUES ($1)")
            .bind(version as i64 + 1)
            .execute(&mut *transaction)
            .await?;
    }
    Ok(transaction.commit().await?)
}
