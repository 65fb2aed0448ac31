//! Revoked certificates, by who issued them: found at once, however long the lists are. A verifier looks whether a list
//! is genuine each time that it goes by it, which takes as long as the list is; that is for handshakes.

use std::collections::{HashMap, HashSet};

use rustls::pki_types::CertificateRevocationListDer;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

/// All lists together.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    /// Serial numbers by the encoded name of their issuer.
    by_issuer: HashMap<Vec<u8>, HashSet<Vec<u8>>>,
}

/// What the lists say of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is not in them.
    Good,
    /// It is revoked.
    Revoked,
    /// There are lists, and none of its issuer.
    Unknown,
}

impl Revoked {
    /// Those of `lists`. What cannot be read is left out: it is refused, with its reason, by the verifier.
    pub(super) fn new(lists: &[CertificateRevocationListDer<'_>]) -> Self {
        let mut revoked = Self::default();
        for list in lists {
            if let Ok((_, list)) = CertificateRevocationList::from_der(list) {
                let issuer = list.issuer().as_raw().to_vec();
                let serials = list.iter_revoked_certificates();
                let serials = serials.map(|revoked| revoked.raw_serial().to_vec());
                revoked.by_issuer.entry(issuer).or_default().extend(serials);
            }
        }
        revoked
    }

    /// Whether there is a list of this issuer.
    pub(super) fn covers(&self, issuer: &[u8]) -> bool {
        self.by_issuer.contains_key(issuer)
    }

    /// What they say of a certificate.
    pub(super) fn standing(&self, certificate: &[u8]) -> Standing {
        if self.by_issuer.is_empty() {
            return Standing::Good;
        }
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return Standing::Unknown;
        };
        match self.by_issuer.get(certificate.issuer().as_raw()) {
            None => Standing::Unknown,
            Some(serials) if serials.contains(certificate.raw_serial()) => Standing::Revoked,
            Some(_) => Standing::Good,
        }
    }
}
