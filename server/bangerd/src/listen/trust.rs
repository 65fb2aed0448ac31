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
    /// Of each that is valid now, its encoded name, and the same for people.
    pub(super) subjects: Vec<(Vec<u8>, String)>,
    /// When others will be: seconds since the Unix epoch.
    pub(super) changes_at: Option<i64>,
}

impl Trust {
    pub(super) const fn new() -> Self {
        Self {
            roots: RootCertStore { roots: Vec::new() },
            subjects: Vec::new(),
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
        let subject = (read.subject().as_raw().to_vec(), read.subject().to_string());
        // Its last second is the one that it names.
        let changes = [begin, end.saturating_add(1)];
        let next = changes.into_iter().filter(|&at| at > now).min();
        self.changes_at = [self.changes_at, next].into_iter().flatten().min();
        if now > end {
            tracing::error!(
                authority = subject.1,
                "an authority has expired: its clients are let in no longer"
            );
            return Ok(());
        }
        if now < begin {
            tracing::warn!(
                authority = subject.1,
                "an authority is not valid yet: its clients are not let in"
            );
            return Ok(());
        }
        self.roots.add(certificate)?;
        self.subjects.push(subject);
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
