//! `kuboard keys`: access keys for robots.

use std::process::ExitCode;

use anyhow::{Context, bail};
use kuboard_catalog::KeyRow;
use kuboard_registry::server::{Action, NewKey, Rule};
use kuboard_rt::{Clock, SystemClock, Tasks};

use crate::{
    boot,
    cli::{Format, KeysArgs, KeysOrder},
    output,
};

const DAY_MS: i64 = 24 * 3600 * 1000;

/// Runs the command.
pub(crate) fn run(args: &KeysArgs) -> anyhow::Result<ExitCode> {
    let config = boot::config(&args.place)?;
    boot::block_on(async {
        let stores = boot::Stores::open(&config, boot::Use::Look, Tasks::default()).await?;
        let catalog = &stores.catalog;
        match &args.order {
            KeysOrder::Create { owner, scopes, days } => {
                let rules =
                    scopes.iter().map(|scope| rule(scope)).collect::<Result<Vec<_>, _>>()?;
                let key = NewKey::generate()?;
                let created_ms = SystemClock.now_ms();
                let row = KeyRow {
                    id: key.id.clone(),
                    secret_hash: key.secret_hash.clone(),
                    owner: owner.clone(),
                    scopes_json: serde_json::to_string(&rules)?,
                    created_ms,
                    expires_ms: days.map(|days| created_ms + i64::from(days) * DAY_MS),
                };
                catalog.add_key(&row).await?;
                show_new(&key, owner, args.output)?;
            }
            KeysOrder::Ls => show(&catalog.keys().await?, args.output)?,
            KeysOrder::Rm { id } => {
                if !catalog.remove_key(id).await? {
                    bail!("there is no key {id}; hint: see `kuboard keys ls`");
                }
                output::note("removed; a running server forgets it within five minutes");
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Reads `team/**=pull,push`.
fn rule(scope: &str) -> anyhow::Result<Rule> {
    let (pattern, actions) = scope.split_once('=').with_context(|| {
        format!("scope {scope} has no actions; hint: write REPOSITORY-GLOB=pull,push")
    })?;
    let actions = actions.split(',').map(|word| match word.trim() {
        "pull" => Ok(Action::Pull),
        "push" => Ok(Action::Push),
        "delete" => Ok(Action::Delete),
        "catalog" => Ok(Action::Catalog),
        other => bail!("{other} is no action; hint: pull, push, delete or catalog"),
    });
    Ok(Rule { pattern: pattern.to_owned(), actions: actions.collect::<Result<_, _>>()? })
}

fn show_new(key: &NewKey, owner: &str, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(&serde_json::json!({
            "id": key.id,
            "owner": owner,
            "secret": key.expose(),
        })),
        Format::Table => {
            output::line(key.expose());
            output::note("this is shown once; use it as the password of any user name");
            Ok(())
        }
    }
}

fn show(keys: &[KeyRow], format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => {
            let list: Vec<_> = keys
                .iter()
                .map(|key| {
                    serde_json::json!({
                        "id": key.id,
                        "owner": key.owner,
                        "scopes": serde_json::from_str::<serde_json::Value>(&key.scopes_json).ok(),
                        "createdMs": key.created_ms,
                        "expiresMs": key.expires_ms,
                    })
                })
                .collect();
            output::json(&list)
        }
        Format::Table => {
            let rows: Vec<Vec<String>> = keys
                .iter()
                .map(|key| {
                    let expires = key.expires_ms.map_or_else(
                        || "never".to_owned(),
                        |at| format!("in {} days", (at - SystemClock.now_ms()).max(0) / DAY_MS),
                    );
                    vec![key.id.clone(), key.owner.clone(), key.scopes_json.clone(), expires]
                })
                .collect();
            output::table(&["ID", "OWNER", "SCOPES", "EXPIRES"], &rows);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read() {
        let read = rule("team/**=pull,push").unwrap();
        assert_eq!(read.pattern, "team/**");
        assert_eq!(read.actions, [Action::Pull, Action::Push]);
        assert!(rule("team/**").is_err());
        assert!(rule("team/**=fly").is_err());
    }
}
