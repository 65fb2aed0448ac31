use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::server::WebPkiClientVerifier;
use time::{Duration, OffsetDateTime};

use super::super::trust::Trust;
use super::*;

/// An authority, and its certificate.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Ca {
    fn new(name: &str) -> Self {
        let (params, key) = (ca_params(name), KeyPair::generate().unwrap());
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// One that this one vouches for.
    fn below(&self, name: &str) -> Self {
        let (mut params, key) = (ca_params(name), KeyPair::generate().unwrap());
        params.serial_number = Some(SerialNumber::from(1_000_u64));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self {
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    fn client(&self, serial: u64) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        made.der().clone()
    }

    fn list(&self, serials: &[u64]) -> CertificateRevocationListDer<'static> {
        self.list_of(serials, None)
    }

    fn list_of(
        &self,
        serials: &[u64],
        part: Option<CrlIssuingDistributionPoint>,
    ) -> CertificateRevocationListDer<'static> {
        let now = OffsetDateTime::now_utc();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now - Duration::hours(1),
            next_update: now + Duration::days(1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: part,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().into()
    }
}

/// A verifier that is counted.
#[derive(Debug)]
struct Counted(Arc<dyn ClientCertVerifier>, Arc<AtomicUsize>);

impl ClientCertVerifier for Counted {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.verify_client_cert(own, rest, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What a daemon has that trusts these, and how often its lists were gone through.
struct Daemon {
    listed: Listed,
    passes: Arc<AtomicUsize>,
}

impl Daemon {
    fn new(roots: &[&Ca], lists: &[CertificateRevocationListDer<'static>]) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut trust = Trust::new();
        for root in roots {
            let now = OffsetDateTime::now_utc().unix_timestamp();
            trust.add(root.certificate.clone(), now).unwrap();
        }
        let roots: Arc<RootCertStore> = Arc::new(trust.roots);
        let verifier = |lists: &[CertificateRevocationListDer<'static>]| {
            let builder =
                WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
            builder.with_crls(lists.to_vec()).build().unwrap()
        };
        let passes = Arc::new(AtomicUsize::new(0));
        let whole = Arc::new(Counted(verifier(lists), passes.clone()));
        let revoked = Revoked::new(lists).unwrap();
        Self {
            listed: Listed::new(whole, verifier(&[]), trust.authorities, revoked),
            passes,
        }
    }

    /// Whether a client is let in that shows this.
    fn admits(&self, own: &CertificateDer<'_>, rest: &[&CertificateDer<'static>]) -> bool {
        let rest: Vec<_> = rest.iter().map(|&der| der.clone()).collect();
        let verified = self.listed.verify_client_cert(own, &rest, UnixTime::now());
        verified.is_ok()
    }

    fn passes(&self) -> usize {
        self.passes.swap(0, Ordering::Relaxed)
    }
}

#[test]
fn a_list_is_gone_through_for_the_first_client_and_then_looked_into() {
    let ca = Ca::new("the authority");
    let daemon = Daemon::new(&[&ca], &[ca.list(&[7])]);
    for serial in 20..30 {
        assert!(daemon.admits(&ca.client(serial), &[]));
        // Some send along what is trusted.
        assert!(daemon.admits(&ca.client(serial), &[&ca.certificate]));
        assert!(!daemon.admits(&ca.client(7), &[]));
    }
    // What has nothing to do with it costs nobody anything.
    let stranger = Ca::new("a stranger");
    assert!(daemon.admits(&ca.client(30), &[&stranger.certificate]));
    assert_eq!(daemon.passes(), 1);
    // Nor does who is revoked, when no other comes.
    let daemon = Daemon::new(&[&ca], &[ca.list(&[7])]);
    for _ in 0..3 {
        assert!(!daemon.admits(&ca.client(7), &[]));
    }
    assert_eq!(daemon.passes(), 1);
}

#[test]
fn whom_no_trusted_authority_vouches_for_is_refused_before_and_after() {
    let (ca, other) = (Ca::new("the authority"), Ca::new("another"));
    let namesake = Ca::new("the authority");
    let daemon = Daemon::new(&[&ca], &[ca.list(&[])]);
    for _ in 0..2 {
        assert!(!daemon.admits(&other.client(1), &[&other.certificate]));
        assert!(!daemon.admits(&namesake.client(1), &[]));
        assert!(!daemon.admits(&namesake.client(1), &[&namesake.certificate]));
        assert!(daemon.admits(&ca.client(1), &[]));
    }
}

#[test]
fn a_list_that_its_authority_did_not_sign_lets_nobody_in() {
    let (ca, namesake) = (Ca::new("the authority"), Ca::new("the authority"));
    let daemon = Daemon::new(&[&ca], &[namesake.list(&[])]);
    for _ in 0..3 {
        assert!(!daemon.admits(&ca.client(1), &[]));
    }
    assert_eq!(daemon.passes(), 3);
    // Of two keys of one name the list counts for the one that signed it.
    let daemon = Daemon::new(&[&ca, &namesake], &[ca.list(&[7])]);
    for _ in 0..2 {
        assert!(daemon.admits(&ca.client(1), &[]));
        assert!(!daemon.admits(&ca.client(7), &[]));
        assert!(!daemon.admits(&namesake.client(1), &[]));
    }
    // The same where the second key comes with the client: the first vouches for it.
    let daemon = Daemon::new(&[&ca], &[ca.list(&[])]);
    let renewed = ca.below("the authority");
    assert!(daemon.admits(&ca.client(1), &[]));
    for _ in 0..2 {
        assert!(!daemon.admits(&renewed.client(1), &[&renewed.certificate]));
    }
}

#[test]
fn authorities_between_need_lists_of_their_own_and_can_be_revoked() {
    let root = Ca::new("the authority");
    let between = root.below("one between");
    let way: &[&CertificateDer<'static>] = &[&between.certificate];
    let daemon = Daemon::new(&[&root], &[root.list(&[])]);
    assert!(daemon.admits(&root.client(1), &[]));
    for _ in 0..2 {
        assert!(!daemon.admits(&between.client(1), way));
    }
    let daemon = Daemon::new(&[&root], &[root.list(&[]), between.list(&[7])]);
    for _ in 0..3 {
        assert!(daemon.admits(&between.client(1), way));
        assert!(!daemon.admits(&between.client(7), way));
        // Without the way there.
        assert!(!daemon.admits(&between.client(1), &[]));
    }
    assert_eq!(daemon.passes(), 1 + 3);
    let daemon = Daemon::new(&[&root], &[root.list(&[1_000]), between.list(&[])]);
    assert!(daemon.admits(&root.client(1), &[]));
    for _ in 0..2 {
        assert!(!daemon.admits(&between.client(1), way));
    }
}

#[test]
fn a_list_of_a_part_is_left_to_the_verifier() {
    let ca = Ca::new("the authority");
    let part = CrlIssuingDistributionPoint {
        distribution_point: CrlDistributionPoint {
            uris: vec!["http://lists.example/part".to_owned()],
        },
        scope: None,
    };
    let daemon = Daemon::new(&[&ca], &[ca.list_of(&[7], Some(part))]);
    for _ in 0..2 {
        let by_verifier =
            daemon
                .listed
                .whole
                .verify_client_cert(&ca.client(1), &[], UnixTime::now());
        assert_eq!(daemon.admits(&ca.client(1), &[]), by_verifier.is_ok());
    }
    assert_eq!(daemon.passes(), 4);
}

#[test]
fn what_all_lists_name_together_is_bounded() {
    let ca = Ca::new("the authority");
    let short: Vec<_> = (0..3).map(|first| ca.list(&[first, first + 1])).collect();
    assert_eq!(Revoked::within(&short, 6).map(|_| ()), Ok(()));
    assert_eq!(Revoked::within(&short, 5).map(|_| ()), Err(6));
}
