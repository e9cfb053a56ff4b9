//! TLS, as the builders and URLs of the network backends say it.

use cache_kit_net::TlsBuilder;

use crate::config::Params;
use crate::error::{Error, Result};

/// The settings of TLS in a URL; `tls_roots`, `tls_certificate` and `tls_key` are paths of PEM files.
pub(super) fn from_params(params: &mut Params<'_>) -> Result<TlsBuilder> {
    let mut file = |name: &'static str| -> Result<Option<Vec<u8>>> {
        let Some(path) = params.take(name, "", |path| Some(path.to_owned()))? else {
            return Ok(None);
        };
        std::fs::read(path).map(Some).map_err(|error| {
            Error::config(format!("the file that {name} names cannot be read")).with_source(error)
        })
    };
    let mut tls = TlsBuilder::default();
    if let Some(roots) = file("tls_roots")? {
        tls = tls.root_certificates(roots);
    }
    match (file("tls_certificate")?, file("tls_key")?) {
        (None, None) => {}
        (Some(certificate), Some(key)) => tls = tls.client_certificate(certificate, key),
        _ => return Err(Error::config("tls_certificate and tls_key belong together")),
    }
    if let Some(name) = params.take("tls_server_name", "", |name| Some(name.to_owned()))? {
        tls = tls.server_name(name);
    }
    Ok(tls)
}

/// The methods about TLS of a builder that has a field `tls: Option<TlsBuilder>`.
macro_rules! tls_methods {
    ($builder:ty) => {
        impl $builder {
            /// Encrypts the connections, trusting what the operating system trusts. Certificate and name of each server
            /// are verified.
            pub fn tls(self) -> Self {
                self.with_tls(|tls| tls)
            }

            /// Encrypts the connections, trusting the certificates of this PEM text and nobody else.
            pub fn tls_root_certificates(self, pem: impl Into<Vec<u8>>) -> Self {
                self.with_tls(|tls| tls.root_certificates(pem))
            }

            /// Encrypts the connections, showing this certificate (PEM) with its key (PEM) to servers that ask for one.
            pub fn tls_client_certificate(
                self,
                certificate: impl Into<Vec<u8>>,
                key: impl Into<Vec<u8>>,
            ) -> Self {
                self.with_tls(|tls| tls.client_certificate(certificate, key))
            }

            /// Encrypts the connections, to servers whose certificates have this name. Default: the host of each
            /// server.
            pub fn tls_server_name(self, name: impl Into<String>) -> Self {
                self.with_tls(|tls| tls.server_name(name))
            }

            /// Encrypts the connections, and takes any certificate of anybody as the right one. Whoever can stand between
            /// this process and a server then reads and changes everything, credentials included: for tests only.
            /// There is no such thing in a URL.
            pub fn danger_accept_invalid_certificates(self) -> Self {
                self.with_tls(|tls| tls.danger_accept_invalid_certificates())
            }

            fn with_tls(
                mut self,
                change: impl FnOnce(cache_kit_net::TlsBuilder) -> cache_kit_net::TlsBuilder,
            ) -> Self {
                self.tls = Some(change(self.tls.take().unwrap_or_default()));
                self
            }
        }
    };
}

pub(super) use tls_methods;
