//! Whom to trust over HTTPS, and how to show who we are.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt as _;

use crate::backend::{Error, ErrorKind, Result};

/// The files that a secure connection is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files<'a> {
    /// The client's certificate and key, PEM.
    pub(super) identity: Option<(&'a Path, &'a Path)>,
    /// Whom to believe that it is the server.
    pub(super) trust: Trust<'a>,
}

/// Whom to believe that it is the server.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trust<'a> {
    /// Whom the machine's authorities vouch for.
    Authorities,
    /// Whoever has this one certificate, PEM.
    Pin(&'a Path),
    /// Anybody: only where the caller has asked for it by name.
    Anybody,
}

impl<'a> Trust<'a> {
    /// A pin, where there is one.
    pub(super) fn of(pin: Option<&'a Path>) -> Self {
        pin.map_or(Self::Authorities, Self::Pin)
    }
}

/// Reads the files and puts the connection's rules together.
pub(super) fn config(files: Files<'_>) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(cannot)?;
    let pinned = |certificate| {
        let verifier = Arc::new(Pinned { certificate, provider });
        builder.clone().dangerous().with_custom_certificate_verifier(verifier)
    };
    let builder = match files.trust {
        Trust::Pin(pin) => pinned(Some(certificate(pin)?)),
        Trust::Anybody => pinned(None),
        Trust::Authorities => builder.with_platform_verifier().map_err(cannot)?,
    };
    let config = match files.identity {
        None => builder.with_no_client_auth(),
        Some((certificate_file, key_file)) => {
            let chain: Vec<_> = CertificateDer::pem_file_iter(certificate_file)
                .and_then(Iterator::collect)
                .map_err(|error| unreadable(certificate_file, "certificate").with_source(error))?;
            let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| {
                unreadable(key_file, "private key")
                    .with_hint("an encrypted key cannot be used: there is nobody to ask for its password")
                    .with_source(error)
            })?;
            builder.with_client_auth_cert(chain, key).map_err(cannot)?
        }
    };
    Ok(Arc::new(config))
}

/// Trusts nobody: for connections that need no TLS, whose client wants rules all the same.
pub(super) fn nobody() -> Result<ClientConfig> {
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(cannot)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}

fn certificate(file: &Path) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(file).map_err(|error| unreadable(file, "certificate").with_source(error))
}

fn unreadable(file: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::Invalid,
        format!("cannot read the {what} in {}", file.display()),
    )
}

fn cannot(error: rustls::Error) -> Error {
    Error::new(ErrorKind::Invalid, "cannot prepare a secure connection").with_source(error)
}

/// Trusts one certificate, byte for byte, whatever it says: names and dates of a pinned certificate do not
/// matter. That its key signed the handshake does. Without one, trusts any.
#[derive(Debug)]
struct Pinned {
    certificate: Option<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.certificate.as_ref().is_none_or(|pinned| end_entity == pinned) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
