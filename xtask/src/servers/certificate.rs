//! A certificate authority of our own, and one server certificate signed by it.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

use crate::Result;
use crate::error::Context;

/// Paths of the PEM files.
#[derive(Clone)]
pub(super) struct Certificate {
    pub(super) authority: PathBuf,
    pub(super) server: PathBuf,
    pub(super) key: PathBuf,
}

impl Certificate {
    /// Writes a fresh authority and a certificate for `localhost` and 127.0.0.1 into the folder.
    pub(super) fn create(folder: &Path) -> Result<Self> {
        let (authority, certificate, key) = issue().context(|| "cannot make the TLS certificate".to_owned())?;
        let write = |name: &str, pem: String| -> Result<PathBuf> {
            let path = folder.join(name);
            fs::write(&path, pem).context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        };
        Ok(Self {
            authority: write("ca.pem", authority)?,
            server: write("server.pem", certificate)?,
            key: write("server.key", key)?,
        })
    }
}

fn issue() -> Result<(String, String, String), rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "kvsync test authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "kvsync test server");
    let certificate = params.signed_by(&key, &authority)?;
    Ok((authority.pem(), certificate.pem(), key.serialize_pem()))
}
