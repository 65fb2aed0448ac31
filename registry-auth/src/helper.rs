//! Credential helpers: programs called `docker-credential-NAME` that answer `get` with a secret
//! (the docker-credential-helpers protocol). Run directly, never through a shell, with a deadline and bounded
//! answers.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::{AuthError, Login};

/// Bytes of an answer: a token and a user.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Characters of a helper's complaint that are repeated.
const PROBLEM_MAX: usize = 200;
/// The user name that says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// How helpers say that they know nothing of a registry.
const NOT_FOUND: &str = "credentials not found";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// The program of a helper; `None` where the name could be a path or an option.
pub(crate) fn program(name: &str) -> Option<String> {
    let fits = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    fits.then(|| format!("docker-credential-{name}"))
}

/// Asks a helper for a registry's secret.
pub(crate) async fn get(
    program: &str,
    registry: &str,
    deadline: Duration,
) -> Result<Option<Login>, AuthError> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| AuthError::HelperStart {
            program: program.to_owned(),
            source,
        })?;
    let group = child.id();
    let answer = match tokio::time::timeout(deadline, talk(&mut child, registry)).await {
        Ok(Ok(Some((success, answer)))) => understand(program, success, &answer),
        Ok(Ok(None)) => Err(AuthError::HelperAnswer {
            program: program.to_owned(),
        }),
        Ok(Err(source)) => Err(AuthError::HelperStart {
            program: program.to_owned(),
            source,
        }),
        Err(_) => Err(AuthError::HelperDeadline {
            program: program.to_owned(),
            deadline,
        }),
    };
    // One that was not waited for goes with all it started. One that ended may have left an agent behind that
    // others use; and its group's number may be another's by now.
    if child.id().is_some() {
        end_group(group);
    }
    answer
}

/// Whether it succeeded, and its answer; `None` where that is longer than any.
async fn talk(child: &mut Child, registry: &str) -> std::io::Result<Option<(bool, Vec<u8>)>> {
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read what it is asked says why in its answer.
        let _ = stdin.write_all(format!("{registry}\n").as_bytes()).await;
    }
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let mut bounded = stdout.take(ANSWER_BYTES_MAX + 1);
        bounded.read_to_end(&mut answer).await?;
    }
    if answer.len() as u64 > ANSWER_BYTES_MAX {
        return Ok(None);
    }
    Ok(Some((child.wait().await?.success(), answer)))
}

fn end_group(group: Option<u32>) {
    let group = group
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // An error says that nobody is left.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

fn understand(program: &str, success: bool, answer: &[u8]) -> Result<Option<Login>, AuthError> {
    if !success {
        let text = String::from_utf8_lossy(answer);
        if text.to_ascii_lowercase().contains(NOT_FOUND) {
            return Ok(None);
        }
        let problem: String = text
            .trim()
            .chars()
            .filter(|c| !c.is_control())
            .take(PROBLEM_MAX)
            .collect();
        return Err(AuthError::HelperFailed {
            program: program.to_owned(),
            problem: if problem.is_empty() {
                "it says nothing".to_owned()
            } else {
                problem
            },
        });
    }
    let answer: Answer = serde_json::from_slice(answer).map_err(|_| AuthError::HelperAnswer {
        program: program.to_owned(),
    })?;
    if answer.username.is_empty() && answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(if answer.username == TOKEN_USER {
        Login::IdentityToken(answer.secret)
    } else {
        Login::Password {
            username: answer.username,
            password: answer.secret,
        }
    }))
}
