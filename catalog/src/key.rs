//! Keys: ed25519 (RFC 8032), written as one line of text.

use std::fmt;
use std::str::FromStr;

use banger_core::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

const PUBLIC_PREFIX: &str = "ed25519:";
const SECRET_PREFIX: &str = "ed25519-secret:";

/// A text that is no key. What was given is not repeated: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a public key.
    #[error("it is not a public key (`ed25519:` and 44 characters of base64)")]
    Public,
    /// A secret key where the public one is asked for.
    #[error("it is a secret key: give the public one, and keep the secret to yourself")]
    SecretForPublic,
    /// Not a secret key.
    #[error("it is not a secret key (`ed25519-secret:` and 44 characters of base64)")]
    Secret,
}

/// The key a catalog's users pin.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// What a signature names its key by.
    #[must_use]
    pub fn id(&self) -> String {
        Digest::of(self.0.as_bytes()).hex()
    }

    /// Whether `signature` is this key's over `message`. Strict: a signature has one encoding, and weak keys
    /// sign nothing.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.0.verify_strict(message, &signature).is_ok())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PUBLIC_PREFIX}{}", STANDARD.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.starts_with(SECRET_PREFIX) {
            return Err(KeyError::SecretForPublic);
        }
        let bytes =
            decode(text.strip_prefix(PUBLIC_PREFIX).unwrap_or(text)).ok_or(KeyError::Public)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Public)?;
        if key.is_weak() {
            return Err(KeyError::Public);
        }
        Ok(Self(key))
    }
}

/// The key a catalog's maker signs with. Never shown by `Debug`.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// From 32 random bytes of the operating system.
    #[must_use]
    pub fn from_random(bytes: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(bytes))
    }

    /// The key to give to users.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// As its file holds it, with the newline.
    #[must_use]
    pub fn to_file(&self) -> String {
        format!("{SECRET_PREFIX}{}\n", STANDARD.encode(self.0.as_bytes()))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).to_bytes().to_vec()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretKey").field(&self.public()).finish()
    }
}

impl FromStr for SecretKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = text
            .trim()
            .strip_prefix(SECRET_PREFIX)
            .and_then(decode)
            .ok_or(KeyError::Secret)?;
        Ok(Self(SigningKey::from_bytes(&bytes)))
    }
}

fn decode(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_standards() {
        // RFC 8032 §7.1, test 1: the empty message.
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
                .collect()
        };
        let secret = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
        let secret = SecretKey::from_random(&secret.try_into().unwrap());
        assert_eq!(
            secret.sign(b""),
            hex(
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
            )
        );
        assert!(secret.public().verifies(b"", &secret.sign(b"")));
        assert!(!secret.public().verifies(b"x", &secret.sign(b"")));
        assert!(!secret.public().verifies(b"", &[0; 64]));
        assert!(!secret.public().verifies(b"", b"short"));
    }

    #[test]
    fn keys_survive_text_and_secrets_are_not_shown() {
        let secret = SecretKey::from_random(&[7; 32]);
        let again: SecretKey = secret.to_file().parse().unwrap();
        assert_eq!(again.public(), secret.public());
        let public: PublicKey = secret.public().to_string().parse().unwrap();
        assert_eq!(public, secret.public());
        let bare = public.to_string().replace("ed25519:", "");
        assert_eq!(bare.parse::<PublicKey>().unwrap(), public);
        assert_eq!(public.id().len(), 64);
        assert!(!format!("{secret:?}").contains(&STANDARD.encode([7; 32])));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let secret = SecretKey::from_random(&[7; 32]);
        assert_eq!(
            secret.to_file().parse::<PublicKey>(),
            Err(KeyError::SecretForPublic)
        );
        let public = secret.public().to_string();
        assert_eq!(public.parse::<SecretKey>().unwrap_err(), KeyError::Secret);
        let weak = format!("ed25519:{}", STANDARD.encode([0; 32]));
        for text in [
            "",
            "ed25519:",
            "rsa:AAAA",
            &public[..40],
            &format!("{public}A"),
            &weak,
        ] {
            assert_eq!(text.parse::<PublicKey>(), Err(KeyError::Public), "{text}");
        }
    }
}
