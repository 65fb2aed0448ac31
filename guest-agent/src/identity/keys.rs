//! The keys that may log in as a user: lines of sshd(8)'s `authorized_keys`.

use super::file::User;
use crate::refusal::Refusal;

const DIRECTORY: &str = "~/.ssh";
const FILE: &str = "~/.ssh/authorized_keys";
/// sshd believes no file that others can write.
const MODE: u32 = 0o600;

/// Adds the keys that are not there.
pub(super) fn authorize(user: &User<'_>, keys: &[String]) -> Result<(), Refusal> {
    if let Some(text) = extended(&user.read(FILE)?, keys) {
        user.write(FILE, MODE, text.as_bytes())?;
    }
    user.close(DIRECTORY)
}

/// The new content; none where nothing is to be added.
fn extended(text: &str, keys: &[String]) -> Option<String> {
    let mut new = text.to_owned();
    for key in keys {
        let blob = key.split_whitespace().nth(1).unwrap_or(key);
        if new
            .lines()
            .any(|line| line.split_whitespace().any(|word| word == blob))
        {
            continue;
        }
        if !new.is_empty() && !new.ends_with('\n') {
            new.push('\n');
        }
        new.push_str(key);
        new.push('\n');
    }
    (new != text).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_added_once_whatever_its_comment() {
        let keys = [
            "ssh-ed25519 AAAA ann".to_owned(),
            "ssh-ed25519 BBBB".to_owned(),
        ];
        let image = "# the image's own\nno-pty ssh-ed25519 AAAA other";
        let text = extended(image, &keys).unwrap();
        assert_eq!(text, format!("{image}\nssh-ed25519 BBBB\n"));
        assert_eq!(extended(&text, &keys), None);
    }
}
