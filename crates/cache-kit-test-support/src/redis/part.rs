//! What a Redis is among others.

use std::ffi::OsString;
use std::path::Path;

/// In the server's directory.
const FILE: &str = "redis.conf";

/// What a Redis is among others.
#[derive(Debug, Default)]
pub(super) enum Part {
    #[default]
    Alone,
    /// A node of a cluster.
    Node,
    /// Watched by sentinels, which let it rewrite its configuration, so that a restart keeps what they made of it.
    Watched { configuration: String },
    /// One of those that watch; it rewrites its configuration too.
    Sentinel { configuration: String },
}

impl Part {
    pub(super) fn prepare(&self, dir: &Path) -> Result<(), String> {
        match self {
            Self::Alone | Self::Node => Ok(()),
            Self::Watched { configuration } | Self::Sentinel { configuration } => {
                std::fs::write(dir.join(FILE), configuration).map_err(|error| error.to_string())
            }
        }
    }

    /// Arguments that come before all others, as the name of the file has to.
    pub(super) fn arguments(&self, dir: &Path) -> Vec<OsString> {
        match self {
            Self::Alone => Vec::new(),
            Self::Node => {
                ["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"].map(OsString::from).into()
            }
            Self::Watched { .. } => vec![dir.join(FILE).into()],
            Self::Sentinel { .. } => vec![dir.join(FILE).into(), "--sentinel".into()],
        }
    }
}
