//! Memcached with TLS: its files, and a second port without TLS for the test bed.

use std::ffi::OsString;
use std::path::Path;

use crate::certificates;
use crate::identity::Identity;
use crate::place::loopback;
use crate::ports::Port;

/// A TLS port, and what the server shows and asks there.
#[derive(Debug, Default)]
pub(super) struct Tls {
    pub(super) identity: Identity,
    /// Without TLS: whether the server serves is asked there, and so is everything that is no test of TLS.
    plain: Option<Port>,
}

impl Tls {
    pub(super) fn prepare(&mut self, dir: &Path) -> Result<(), String> {
        self.identity.prepare(dir)?;
        self.plain = Some(Port::reserve()?);
        Ok(())
    }

    pub(super) fn arguments(&self, dir: &Path) -> Vec<OsString> {
        let files = [
            ("ssl_chain_cert", certificates::SERVER),
            ("ssl_key", certificates::SERVER_KEY),
            ("ssl_ca_cert", certificates::AUTHORITY),
        ];
        let mut options = OsString::new();
        for (option, file) in files {
            options.push(format!("{option}="));
            options.push(dir.join(file));
            options.push(",");
        }
        options.push(if self.identity.asks_clients { "ssl_verify_mode=2" } else { "ssl_verify_mode=0" });
        let plain = format!("notls:{}", self.plain_addr());
        ["-Z".into(), "-o".into(), options, "-l".into(), plain.into()].into()
    }

    pub(super) fn plain_addr(&self) -> String {
        loopback(self.plain.as_ref().map(Port::number).unwrap_or_default())
    }
}
