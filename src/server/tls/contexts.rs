//! What TLS connections are made with: certificates, keys, authorities and ciphers, as the configuration names them.

use std::ffi::OsStr;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, Error as TlsError, InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion,
};

use crate::config::choice::TlsAuthClients;
use crate::config::table::Config;
use crate::persist::disk::plain;
use crate::server::tls::sessions::Sessions;
use crate::server::tls::verify::{ClientVerifier, ServerVerifier};

/// How both kinds of connections begin.
#[derive(Debug)]
pub struct Contexts {
    /// Those that clients open.
    pub server: Arc<ServerConfig>,
    /// Those that this server opens; `None` where no authority is known that peers could be checked against.
    pub client: Option<Arc<ClientConfig>>,
}

/// A path, as people read it.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// A directive that is given, and not as nothing.
fn given(value: Option<&Vec<u8>>) -> Option<&[u8]> {
    value.map(Vec::as_slice).filter(|value| !value.is_empty())
}

impl Contexts {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// What is missing or wrong, in words for the log.
    pub fn read(config: &Config) -> Result<Contexts, String> {
        let (Some(cert), Some(key)) = (given(config.tls_cert_file.as_ref()), given(config.tls_key_file.as_ref()))
        else {
            let missing = if given(config.tls_cert_file.as_ref()).is_none() { "cert" } else { "key" };
            return Err(format!("No tls-{missing}-file configured!"));
        };
        let asks = config.tls_auth_clients != TlsAuthClients::No;
        let named = given(config.tls_ca_cert_file.as_ref()).or(given(config.tls_ca_cert_dir.as_ref()));
        if named.is_none() && (asks || config.tls_cluster || config.tls_replication) {
            return Err("Either tls-ca-cert-file or tls-ca-cert-dir must be specified when tls-cluster, tls-replication or tls-auth-clients are enabled!".into());
        }
        let provider = Arc::new(provider(config)?);
        let versions = versions(config)?;
        let pass = given(config.tls_key_file_pass.as_ref());
        let server_identity = identity(&provider, cert, key, pass)?;
        let authorities = authorities(config)?;
        let wrong_ciphers = |error: TlsError| format!("Failed to configure ciphers: {error}");
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)
            .map_err(wrong_ciphers)?;
        let wrong = |error: &dyn Display| format!("Failed to configure CA certificate(s) file/directory: {error}");
        let mut server = match &authorities {
            Some(known) if asks => {
                let builder = WebPkiClientVerifier::builder_with_provider(known.store(), provider.clone());
                let builder = match config.tls_auth_clients {
                    TlsAuthClients::Optional => builder.allow_unauthenticated(),
                    _ => builder,
                };
                let inner = builder.build().map_err(|error| wrong(&error))?;
                server.with_client_cert_verifier(Arc::new(ClientVerifier::new(inner, known.certificates.clone())))
            }
            _ => server.with_no_client_auth(),
        }
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(server_identity.clone())));
        server.ignore_client_order = config.tls_prefer_server_ciphers;
        if config.tls_session_caching {
            let timeout = u64::from(config.tls_session_cache_timeout);
            server.session_storage =
                Arc::new(Sessions::new(usize::try_from(config.tls_session_cache_size).unwrap_or(0), timeout));
        } else {
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
        }
        let client = match authorities {
            None => None,
            Some(known) => {
                let inner = WebPkiServerVerifier::builder_with_provider(known.store(), provider.clone());
                let inner = inner.build().map_err(|error| wrong(&error))?;
                let verifier = Arc::new(ServerVerifier::new(inner, known.certificates));
                // A certificate of its own only where it is asked for one: else that of the server.
                let own = given(config.tls_client_cert_file.as_ref()).zip(given(config.tls_client_key_file.as_ref()));
                let identity = match own {
                    Some((cert, key)) => {
                        identity(&provider, cert, key, given(config.tls_client_key_file_pass.as_ref()))?
                    }
                    None => server_identity,
                };
                let builder = ClientConfig::builder_with_provider(provider)
                    .with_protocol_versions(&versions)
                    .map_err(wrong_ciphers)?;
                let client = builder
                    .dangerous()
                    .with_custom_certificate_verifier(verifier)
                    .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
                Some(Arc::new(client))
            }
        };
        Ok(Contexts { server: Arc::new(server), client })
    }
}

/// A certificate with what leads to its authority, and its key.
fn identity(provider: &CryptoProvider, cert: &[u8], key: &[u8], pass: Option<&[u8]>) -> Result<CertifiedKey, String> {
    let chain = certificates(path_of(cert)).and_then(|chain| match chain.is_empty() {
        true => Err("there is no certificate in it".into()),
        false => Ok(chain),
    });
    let chain = chain.map_err(|why| format!("Failed to load certificate: {}: {why}", shown(cert)))?;
    let key = private_key(path_of(key), pass)
        .and_then(|der| provider.key_provider.load_private_key(der).map_err(|error| error.to_string()))
        .map_err(|why| format!("Failed to load private key: {}: {why}", shown(key)))?;
    let identity = CertifiedKey::new(chain, key);
    // A certificate that cannot be looked into may still be shown: others judge it.
    match identity.keys_match() {
        Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            Err(format!("Failed to load private key: it is not that of the certificate {}", shown(cert)))
        }
        _ => Ok(identity),
    }
}

/// The certificates in a PEM file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = std::fs::read(path).map_err(|error| plain(&error))?;
    CertificateDer::pem_slice_iter(&text).map(|cert| cert.map_err(|error| error.to_string())).collect()
}

/// The key in a PEM file.
fn private_key(path: &Path, pass: Option<&[u8]>) -> Result<PrivateKeyDer<'static>, String> {
    let text = std::fs::read(path).map_err(|error| plain(&error))?;
    let is_in = |what: &[u8]| memchr::memmem::find(&text, what).is_some();
    if is_in(b"BEGIN ENCRYPTED PRIVATE KEY") {
        let pass = pass.ok_or("it is encrypted, and there is no pass phrase")?;
        let text = std::str::from_utf8(&text).map_err(|_| "it is no text")?;
        let from = text.find("-----BEGIN ENCRYPTED PRIVATE KEY").unwrap_or_default();
        let (_, sealed) = pkcs8::SecretDocument::from_pem(&text[from..]).map_err(|error| error.to_string())?;
        let sealed = pkcs8::EncryptedPrivateKeyInfo::try_from(sealed.as_bytes()).map_err(|error| error.to_string())?;
        let open = sealed.decrypt(pass).map_err(|_| "the pass phrase is wrong, or it is encrypted in an old way")?;
        return Ok(PrivatePkcs8KeyDer::from(open.as_bytes().to_vec()).into());
    }
    if is_in(b"Proc-Type: 4,ENCRYPTED") {
        return Err("it is encrypted in the form of old: 'openssl pkcs8 -topk8' makes a new one of it".into());
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| error.to_string())
}

/// Those whose word is believed about peers.
struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    store: RootCertStore,
}

impl Authorities {
    fn store(&self) -> Arc<RootCertStore> {
        Arc::new(self.store.clone())
    }
}

/// The authorities of the file and of the directory; `None` where none is named.
fn authorities(config: &Config) -> Result<Option<Authorities>, String> {
    let wrong = |path: &[u8], why: String| {
        format!("Failed to configure CA certificate(s) file/directory: {}: {why}", shown(path))
    };
    let mut all = Vec::new();
    let file = given(config.tls_ca_cert_file.as_ref());
    let dir = given(config.tls_ca_cert_dir.as_ref());
    if file.is_none() && dir.is_none() {
        return Ok(None);
    }
    if let Some(file) = file {
        all.extend(certificates(path_of(file)).map_err(|why| wrong(file, why))?);
    }
    if let Some(dir) = dir {
        let entries = std::fs::read_dir(path_of(dir)).map_err(|error| wrong(dir, plain(&error)))?;
        for entry in entries.flatten() {
            // There may be anything beside certificates, and the same one under several names.
            all.extend(certificates(&entry.path()).unwrap_or_default());
        }
    }
    let mut store = RootCertStore::empty();
    let (known, _) = store.add_parsable_certificates(all.iter().cloned());
    if known == 0 {
        return Err(wrong(file.or(dir).unwrap_or_default(), "there is no certificate in it".into()));
    }
    Ok(Some(Authorities { certificates: all, store }))
}

/// The versions that are spoken.
fn versions(config: &Config) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let Some(text) = given(config.tls_protocols.as_ref()) else { return Ok(rustls::ALL_VERSIONS.to_vec()) };
    let mut versions = Vec::new();
    for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        match &*word.to_ascii_lowercase() {
            b"tlsv1.2" => versions.push(&rustls::version::TLS12),
            b"tlsv1.3" => versions.push(&rustls::version::TLS13),
            // Nobody should speak them any more, and here nobody does.
            b"tlsv1" | b"tlsv1.1" => {}
            _ => return Err("Invalid tls-protocols specified. Use a combination of 'TLSv1.2' and 'TLSv1.3'.".into()),
        }
    }
    if versions.is_empty() {
        return Err("Invalid tls-protocols specified: versions before TLSv1.2 are not spoken.".into());
    }
    Ok(versions)
}

/// The cipher suites of TLS 1.2 by OpenSSL's names, which the configuration has.
const OPENSSL_NAMES: [(&str, &str); 6] = [
    ("ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    ("ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    ("ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
];

/// Cryptography, with the ciphers that the configuration wants, in its order.
fn provider(config: &Config) -> Result<CryptoProvider, String> {
    let mut provider = ring::default_provider();
    let all = std::mem::take(&mut provider.cipher_suites);
    let name = |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite());
    let (new, old): (Vec<_>, Vec<_>) = all.into_iter().partition(|suite| suite.tls13().is_some());
    let chosen = match given(config.tls_ciphersuites.as_ref()) {
        None => new,
        Some(text) => {
            let text = shown(text);
            let named = |word: &str| new.iter().find(|suite| name(suite) == word.replacen("TLS_", "TLS13_", 1));
            let chosen: Vec<_> = text.split(':').filter_map(|word| named(word.trim())).copied().collect();
            if chosen.is_empty() {
                return Err(format!("Failed to configure ciphersuites: {text}"));
            }
            chosen
        }
    };
    provider.cipher_suites = chosen;
    match given(config.tls_ciphers.as_ref()) {
        None => provider.cipher_suites.extend(old),
        Some(text) => {
            let text = shown(text);
            let named: Vec<&str> = OPENSSL_NAMES
                .iter()
                .filter(|(theirs, _)| text.split([':', ',', ' ']).any(|word| word.eq_ignore_ascii_case(theirs)))
                .map(|(_, ours)| *ours)
                .collect();
            // What OpenSSL calls by a property (DEFAULT, HIGH, ECDHE+AESGCM) holds for all that are here: they are the
            // best of it.
            let by_name = text
                .split([':', ',', ' '])
                .filter(|word| !word.is_empty())
                .all(|word| word.contains('-') && !word.starts_with(['!', '-', '+', '@']));
            let before = provider.cipher_suites.len();
            provider.cipher_suites.extend(old.into_iter().filter(|suite| !by_name || named.contains(&&*name(suite))));
            if by_name && provider.cipher_suites.len() == before {
                return Err(format!("Failed to configure ciphers: {text}"));
            }
        }
    }
    Ok(provider)
}
