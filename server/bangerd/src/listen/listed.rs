//! Looks at clients' certificates by the lists of revoked ones, and goes through a list once.
//!
//! The verifier of TLS looks, each time that it goes by a list, whether the authority signed it: through all of the list,
//! for each client that comes. Here it does so for the first client of each authority; what it found of the authority's
//! key is remembered, and from then on the numbers are looked up. Whatever is not that plain (authorities of one name with
//! several keys, lists of a part of what an authority issued, lists that nobody looked at with success) is left to it
//! every time.
//!
//! ```text
//! client ─▶ which keys must have signed? ─▶ their lists are known to be genuine? ─▶ signatures and dates ─▶ numbers
//!                     │ not plain                     │ not yet
//!                     └───────────────────────────────┴─▶ all of it by the verifier of TLS ─▶ remember
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::revoked::{Revoked, Standing};
use super::trust::Authority;

/// The encoded name of an authority.
type Name = Vec<u8>;
/// The encoded public key of one.
type Key = Vec<u8>;

/// See the module.
pub(super) struct Listed {
    /// Looks by all there is to go by.
    whole: Arc<dyn ClientCertVerifier>,
    /// Looks by all but the lists.
    unlisted: Arc<dyn ClientCertVerifier>,
    roots: Vec<Authority>,
    revoked: Revoked,
    /// Whose lists were found to be signed by which key. There is no more of it than of lists.
    genuine: Mutex<HashMap<Name, Key>>,
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listed")
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

impl Listed {
    pub(super) fn new(
        whole: Arc<dyn ClientCertVerifier>,
        unlisted: Arc<dyn ClientCertVerifier>,
        roots: Vec<Authority>,
        revoked: Revoked,
    ) -> Self {
        Self {
            whole,
            unlisted,
            roots,
            revoked,
            genuine: Mutex::default(),
        }
    }

    /// Whether the holder of this chain, who was let in before, would be let in now. Goes through no list for it.
    ///
    /// # Errors
    /// With the reason if not.
    pub(super) fn verify_again(&self, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        let (own, rest) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        if self.revoked.standing(own) == Standing::Revoked {
            return Err(CertificateError::Revoked.into());
        }
        // What came along may have nothing to do with it: who has read all of the lists knows.
        let mut shown = chain.iter();
        let verifier = match shown.all(|shown| self.revoked.standing(shown) == Standing::Good) {
            true => &self.unlisted,
            false => &self.whole,
        };
        let verified = verifier.verify_client_cert(own, rest, UnixTime::now());
        verified.map(drop)
    }

    /// The one way from `own` to a trusted authority, if there is but one.
    fn path<'a>(&self, own: &'a [u8], rest: &'a [CertificateDer<'_>]) -> Option<Vec<Link<'a>>> {
        let rest = rest.iter().map(|der| Some((&**der, read(der)?)));
        let rest: Vec<(&[u8], X509Certificate<'_>)> = rest.collect::<Option<_>>()?;
        let mut path = Vec::new();
        let (mut der, mut certificate) = (own, read(own)?);
        // Each of them is passed once at most.
        for _ in 0..=rest.len() {
            let name = certificate.issuer().as_raw();
            let mut roots = self.roots.iter().filter(|root| root.name == name);
            let named = rest
                .iter()
                .filter(|(_, other)| other.subject().as_raw() == name);
            let root = roots.next();
            // Some send along what is trusted anyway.
            let is_copy = |other: &X509Certificate<'_>| {
                let is_own_issuer = other.issuer().as_raw() == name;
                is_own_issuer && root.is_some_and(|root| root.key == other.public_key().raw)
            };
            let mut between = named.filter(|(_, other)| !is_copy(other));
            let next = between.next();
            if roots.next().is_some() || between.next().is_some() {
                return None;
            }
            let (key, next) = match (root, next) {
                (Some(root), None) => (root.key.clone(), None),
                (None, Some((der, next))) => (next.public_key().raw.to_vec(), Some((*der, next))),
                (Some(_), Some(_)) | (None, None) => return None,
            };
            if !self.revoked.covers_all_of(name) {
                return None;
            }
            path.push(Link {
                certificate: der,
                name: name.to_vec(),
                key,
            });
            match next {
                None => return Some(path),
                Some((next_der, next)) => (der, certificate) = (next_der, next.clone()),
            }
        }
        None
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<Name, Key>) -> T) -> T {
        change(&mut self.genuine.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_known(&self, path: &[Link<'_>]) -> bool {
        self.with(|genuine| {
            path.iter()
                .all(|link| genuine.get(&link.name) == Some(&link.key))
        })
    }

    fn remember(&self, path: Vec<Link<'_>>) {
        self.with(|genuine| genuine.extend(path.into_iter().map(|link| (link.name, link.key))));
    }
}

/// A certificate, and who must have signed it.
struct Link<'a> {
    certificate: &'a [u8],
    name: Name,
    key: Key,
}

fn read(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der)
        .ok()
        .map(|(_, certificate)| certificate)
}

impl ClientCertVerifier for Listed {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.whole.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let path = self.path(own, rest);
        if let Some(path) = &path
            && self.is_known(path)
        {
            let verified = self.unlisted.verify_client_cert(own, rest, now)?;
            let mut links = path.iter();
            let standing = |link: &Link<'_>| self.revoked.standing(link.certificate);
            return match links.all(|link| standing(link) == Standing::Good) {
                true => Ok(verified),
                false => Err(CertificateError::Revoked.into()),
            };
        }
        let verified = self.whole.verify_client_cert(own, rest, now);
        let is_revoked = matches!(
            verified,
            Err(Error::InvalidCertificate(CertificateError::Revoked))
        );
        match path {
            Some(path) if verified.is_ok() => self.remember(path),
            // Its only list was found to be genuine before the number was looked for.
            Some(path) if is_revoked && path.len() == 1 => self.remember(path),
            _ => {}
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.whole
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.whole
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.whole.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
