//! Authorities whose certificates clients may show, as far as they are valid now. A verifier does not look when an
//! authority's own certificate begins and ends: here those that are not valid are left out, and it is known when that
//! changes.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore,
    SignatureScheme,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The authorities.
#[derive(Debug)]
pub(super) struct Trust {
    /// Those that are valid now.
    pub(super) roots: RootCertStore,
    /// The same, by what their certificates say.
    pub(super) authorities: Vec<Authority>,
    /// When others will be: seconds since the Unix epoch.
    pub(super) changes_at: Option<i64>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    /// Its name, encoded.
    pub(super) name: Vec<u8>,
    /// The same for people.
    pub(super) told: String,
    /// Its public key, encoded.
    pub(super) key: Vec<u8>,
}

impl Trust {
    pub(super) const fn new() -> Self {
        Self {
            roots: RootCertStore { roots: Vec::new() },
            authorities: Vec::new(),
            changes_at: None,
        }
    }

    /// Adds an authority, if it is valid at `now`.
    ///
    /// # Errors
    /// If it cannot be one.
    pub(super) fn add(
        &mut self,
        certificate: CertificateDer<'static>,
        now: i64,
    ) -> Result<(), Error> {
        let Ok((_, read)) = X509Certificate::from_der(&certificate) else {
            return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
        };
        let (begin, end) = (
            read.validity().not_before.timestamp(),
            read.validity().not_after.timestamp(),
        );
        let authority = Authority {
            name: read.subject().as_raw().to_vec(),
            told: read.subject().to_string(),
            key: read.public_key().raw.to_vec(),
        };
        // Its last second is the one that it names.
        let changes = [begin, end.saturating_add(1)];
        let next = changes.into_iter().filter(|&at| at > now).min();
        self.changes_at = [self.changes_at, next].into_iter().flatten().min();
        if now > end {
            tracing::error!(
                authority = authority.told,
                "an authority has expired: its clients are let in no longer"
            );
            return Ok(());
        }
        if now < begin {
            tracing::warn!(
                authority = authority.told,
                "an authority is not valid yet: its clients are not let in"
            );
            return Ok(());
        }
        self.roots.add(certificate)?;
        self.authorities.push(authority);
        Ok(())
    }
}

/// Lets nobody in: where no authority is valid.
#[derive(Debug)]
pub(super) struct Nobody(pub(super) Arc<CryptoProvider>);

impl ClientCertVerifier for Nobody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
