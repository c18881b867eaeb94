//! Asks a docker credential helper: a program `docker-credential-NAME` that is given a server on
//! its input and prints a user name and a secret.

use std::{ffi::OsString, path::Path, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
};

use super::{Credential, CredentialError, keyring::credential};

/// A helper may ask a cloud or a keychain, not a person.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer read.
const MAX_ANSWER: u64 = 64 * 1024;
/// What helpers print, with a failure, when they know nothing of the server.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    secret: String,
}

/// The credential that the helper `name` holds for `server`. The program is looked for in
/// `folder`, or on the `PATH`.
///
/// # Errors
/// There is no such program, it fails, takes more than ten seconds or prints something else.
/// None of the errors holds what it printed.
pub(super) async fn ask(
    name: &str,
    folder: Option<&Path>,
    server: &str,
) -> Result<Option<Credential>, CredentialError> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(CredentialError::lasting(format!(
            "the credential helper {name:?} is not the name of a program; hint: write \
             \"ecr-login\" for docker-credential-ecr-login"
        )));
    }
    let program = OsString::from(format!("docker-credential-{name}"));
    let program = folder.map_or(program.clone(), |folder| folder.join(&program).into_os_string());
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            CredentialError::lasting(format!(
                "the credential helper docker-credential-{name} cannot be started; hint: \
                 install it beside kuboard, or remove it from the docker configuration"
            ))
            .because(error)
        })?;
    let (output, success) = match tokio::time::timeout(PATIENCE, talk(&mut child, server)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            return Err(failed(name, "cannot be talked to").because(error));
        }
        Err(_) => return Err(failed(name, "did not answer within 10 seconds")),
    };
    if !success {
        let unknown = String::from_utf8_lossy(&output).contains(NOT_FOUND);
        return if unknown { Ok(None) } else { Err(failed(name, "failed")) };
    }
    // Nothing of a malformed answer is shown: it may hold the secret.
    let answer: Answer = serde_json::from_slice(&output)
        .map_err(|_| failed(name, "did not print a JSON object with a Secret"))?;
    Ok((!answer.secret.is_empty()).then(|| credential(answer.username, answer.secret)))
}

fn failed(name: &str, how: &str) -> CredentialError {
    CredentialError::passing(format!("the credential helper docker-credential-{name} {how}"))
}

async fn talk(child: &mut Child, server: &str) -> std::io::Result<(Vec<u8>, bool)> {
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read its input is free to hang up.
        let _ = input.write_all(format!("{server}\n").as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_ANSWER + 1).read_to_end(&mut output).await?;
    }
    if u64::try_from(output.len()).is_ok_and(|length| length > MAX_ANSWER) {
        return Err(std::io::Error::other("it printed more than 64 KiB"));
    }
    Ok((output, child.wait().await?.success()))
}
