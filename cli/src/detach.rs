//! The keys that detach from a session: found in what is typed, across reads.

use std::str::FromStr;

/// Keys that, typed one after the other, detach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    /// How many of the keys were just typed.
    typed: usize,
}

/// Why a text names no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{key}` is no key: write keys as in ctrl-p,ctrl-q, with ctrl-a to ctrl-z, ctrl-@ [ \\ ] ^ _, or single characters"
)]
pub(crate) struct KeysError {
    key: String,
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self {
            keys: vec![0x10, 0x11],
            typed: 0,
        }
    }
}

impl FromStr for DetachKeys {
    type Err = KeysError;

    fn from_str(text: &str) -> Result<Self, KeysError> {
        let keys: Result<Vec<u8>, _> = text.split(',').map(key).collect();
        Ok(Self {
            keys: keys?,
            typed: 0,
        })
    }
}

fn key(text: &str) -> Result<u8, KeysError> {
    let single = |text: &str| match text.as_bytes() {
        [byte] if byte.is_ascii_graphic() => Some(*byte),
        _ => None,
    };
    let found = match text.strip_prefix("ctrl-") {
        Some(letter) => single(letter)
            .map(|byte| byte.to_ascii_uppercase())
            .and_then(|byte| matches!(byte, b'@'..=b'_').then_some(byte & 0x1f)),
        None => single(text),
    };
    found.ok_or_else(|| KeysError {
        key: text.to_owned(),
    })
}

impl DetachKeys {
    /// What of `typed` is for the process; `None` in second place unless the keys were completed.
    /// The first keys are held back until it is clear that they do not detach.
    pub(crate) fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(typed.len());
        for &byte in typed {
            if byte == self.keys[self.typed] {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    self.typed = 0;
                    return (pass, true);
                }
                continue;
            }
            pass.extend_from_slice(&self.keys[..self.typed]);
            self.typed = usize::from(byte == self.keys[0]);
            if self.typed == 0 {
                pass.push(byte);
            }
        }
        (pass, false)
    }

    /// What was held back, where nothing follows.
    pub(crate) fn held(&mut self) -> Vec<u8> {
        let typed = std::mem::take(&mut self.typed);
        self.keys[..typed].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_detach_even_when_read_one_by_one() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.filter(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.filter(b"\x11"), (vec![], true));
    }

    #[test]
    fn keys_that_do_not_detach_reach_the_process() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.filter(b"\x10x"), (b"\x10x".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.filter(b"\x11"), (vec![], true));
    }

    #[test]
    fn keys_that_nothing_follows_reach_the_process() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.filter(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.held(), b"\x10");
        assert_eq!(keys.held(), b"");
    }

    #[test]
    fn keys_are_named_as_people_know_them() {
        assert_eq!("ctrl-p,ctrl-q".parse(), Ok(DetachKeys::default()));
        assert_eq!("ctrl-],x".parse::<DetachKeys>().unwrap().keys, [0x1d, b'x']);
        assert!("ctrl-pp".parse::<DetachKeys>().is_err());
        assert!("".parse::<DetachKeys>().is_err());
    }
}
