//! Redis with TLS, and with nothing else on its port.

use std::ffi::OsString;

use crate::certificates;
use crate::identity::Identity;
use crate::place::Place;

/// A TLS port and no plain one. Links to other servers, and the bus of a cluster, are TLS too: there is no port where
/// the others would be reached otherwise.
pub(super) fn arguments(identity: &Identity, place: Place<'_>) -> Vec<OsString> {
    let asks = if identity.asks_clients { "yes" } else { "no" };
    let port = place.port.to_string();
    let mut arguments: Vec<OsString> = ["--port", "0", "--tls-port", &port, "--tls-auth-clients", asks]
        .into_iter()
        .chain(["--tls-replication", "yes", "--tls-cluster", "yes"])
        .map(OsString::from)
        .collect();
    for (option, file) in [
        ("--tls-cert-file", certificates::SERVER),
        ("--tls-key-file", certificates::SERVER_KEY),
        ("--tls-ca-cert-file", certificates::AUTHORITY),
    ] {
        arguments.extend([option.into(), place.dir.join(file).into()]);
    }
    arguments
}
