//! Whom a source trusts over TLS when it was given certificates of its own (the setting `ca_file`).
//!
//! They are trusted besides the system's: as authorities, and, where a server shows exactly one of them, as that
//! server's own. The second is the usual way of a NAS whose certificate stands for itself; the common rules (RFC 5280)
//! refuse it because it also calls itself an authority.
//!
//! Always true: a certificate that has expired, or is for another name, is refused, given or not.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;

/// Prepares TLS that trusts the system's authorities and the certificates of `pem`, or says why they cannot be used.
pub(super) fn tls(pem: &[u8]) -> Result<ClientConfig, String> {
    let given: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    if given.is_empty() {
        return Err("it holds none".into());
    }
    let unusable = |error: Error| error.to_string();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let rules = Verifier::new_with_extra_roots(given.clone(), Arc::clone(&provider)).map_err(unusable)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trust { rules, given }))
        .with_no_client_auth();
    Ok(config)
}

/// Makes sure that the certificates which this system trusts can all be used, or says which cannot. FTP's library takes
/// that for granted, and panics at the first connection where it is not so.
pub(super) fn check_system() -> Result<(), String> {
    let found = rustls_native_certs::load_native_certs();
    if let Some(error) = found.errors.first() {
        return Err(format!(
            "the certificates that this system trusts cannot be read: {error}"
        ));
    }
    let mut store = RootCertStore::empty();
    for certificate in found.certs {
        store
            .add(certificate)
            .map_err(|error| format!("a certificate that this system trusts cannot be used: {error}"))?;
    }
    Ok(())
}

/// Settles which cryptography the process uses where a library does not say. FTP does not; two are linked into this
/// program, and as long as none is chosen, every connection over TLS panics.
pub(super) fn choose_cryptography() {
    if aws_lc_rs::default_provider().install_default().is_err() {
        tracing::trace!("the process has chosen its cryptography already");
    }
}

#[derive(Debug)]
struct Trust {
    rules: Verifier,
    given: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.rules.verify_server_cert(shown, between, name, ocsp_response, now) {
            // The rules come to this after the times, and before the name.
            Err(error) if is_an_authority(&error) && self.given.contains(shown) => {
                verify_server_name(&ParsedCertificate::try_from(shown)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.rules.verify_tls12_signature(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.rules.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.rules.supported_verify_schemes()
    }
}

/// Tells whether a certificate was refused for calling itself an authority, and nothing else.
fn is_an_authority(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else {
        return false;
    };
    matches!(
        other.0.downcast_ref::<webpki::Error>(),
        Some(webpki::Error::CaUsedAsEndEntity)
    )
}
