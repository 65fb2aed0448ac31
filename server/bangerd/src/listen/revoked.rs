//! Revoked certificates, by who issued them: found at once, however long the lists are. A verifier looks whether a list
//! is genuine each time that it goes by it, which takes as long as the list is: see [`super::listed`].

use std::collections::{HashMap, HashSet};

use rustls::pki_types::CertificateRevocationListDer;
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Certificate};

/// The most certificates on all lists together: with their numbers some hundred megabytes, twice while lists are read
/// anew.
pub(super) const REVOKED_MAX: usize = 1_000_000;

/// All lists together.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    by_issuer: HashMap<Vec<u8>, Lists>,
}

/// The lists of one issuer, which is known by its encoded name.
#[derive(Debug)]
struct Lists {
    /// Serial numbers.
    serials: HashSet<Vec<u8>>,
    /// Whether they are of all that it issued.
    are_whole: bool,
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
    ///
    /// # Errors
    /// With their number if they are more than [`REVOKED_MAX`].
    pub(super) fn new(lists: &[CertificateRevocationListDer<'_>]) -> Result<Self, usize> {
        Self::within(lists, REVOKED_MAX)
    }

    pub(super) fn within(
        lists: &[CertificateRevocationListDer<'_>],
        most: usize,
    ) -> Result<Self, usize> {
        let mut revoked = Self::default();
        let mut count = 0;
        for list in lists {
            let Ok((_, list)) = CertificateRevocationList::from_der(list) else {
                continue;
            };
            count += list.iter_revoked_certificates().count();
            if count > most {
                return Err(count);
            }
            let issuer = list.issuer().as_raw().to_vec();
            let of_issuer = revoked.by_issuer.entry(issuer).or_insert_with(|| Lists {
                serials: HashSet::new(),
                are_whole: true,
            });
            let serials = list.iter_revoked_certificates();
            let serials = serials.map(|revoked| revoked.raw_serial().to_vec());
            of_issuer.serials.extend(serials);
            let mut extensions = list.extensions().iter();
            of_issuer.are_whole &=
                !extensions.any(|found| found.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
        }
        Ok(revoked)
    }

    /// Whether there is a list of this issuer.
    pub(super) fn covers(&self, issuer: &[u8]) -> bool {
        self.by_issuer.contains_key(issuer)
    }

    /// Whether there are lists of this issuer, of all that it issued.
    pub(super) fn covers_all_of(&self, issuer: &[u8]) -> bool {
        let lists = self.by_issuer.get(issuer);
        lists.is_some_and(|lists| lists.are_whole)
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
            Some(lists) if lists.serials.contains(certificate.raw_serial()) => Standing::Revoked,
            Some(_) => Standing::Good,
        }
    }
}
