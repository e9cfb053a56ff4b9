//! How values become bytes.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};

/// The format of payloads. An entry says which one it is in, so caches with different codecs read each
/// other's entries if both formats are compiled in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// Compact and fast; field names are not stored. The serde attributes `skip_serializing_if`, `flatten`,
    /// `untagged`, `tag` and skipped enum variants do not work with it: a check in debug builds says so.
    #[default]
    Postcard,
    /// MessagePack with field names: fields may be added or removed, all serde attributes work.
    #[cfg(feature = "msgpack")]
    MessagePack,
    /// JSON: readable with any client; maps need string keys, and floats must be finite.
    #[cfg(feature = "json")]
    Json,
}

impl Codec {
    /// What helps when a type and the codec do not go together.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::Postcard => {
                "use Codec::MessagePack or Codec::Json (features `msgpack`, `json`), or remove the serde \
                 attributes that postcard cannot read back: skip_serializing_if, flatten, untagged, tag, and \
                 skip on enum variants"
            }
            #[cfg(feature = "msgpack")]
            Self::MessagePack => "make sure that its Serialize and Deserialize agree",
            #[cfg(feature = "json")]
            Self::Json => {
                "JSON has neither maps with keys that are no strings nor NaN and infinity; otherwise make sure \
                 that its Serialize and Deserialize agree"
            }
        }
    }

    pub(super) fn id(self) -> u8 {
        match self {
            Self::Postcard => 1,
            #[cfg(feature = "msgpack")]
            Self::MessagePack => 2,
            #[cfg(feature = "json")]
            Self::Json => 3,
        }
    }

    pub(super) fn from_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(Self::Postcard),
            #[cfg(feature = "msgpack")]
            2 => Some(Self::MessagePack),
            #[cfg(feature = "json")]
            3 => Some(Self::Json),
            _ => None,
        }
    }

    /// The codec of this name: `postcard`, `msgpack`, `json`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "postcard" => Some(Self::Postcard),
            #[cfg(feature = "msgpack")]
            "msgpack" => Some(Self::MessagePack),
            #[cfg(feature = "json")]
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Appends the encoded value to `buffer`.
    pub(super) fn encode<T: Serialize>(self, value: &T, buffer: Vec<u8>) -> Result<Vec<u8>> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Codec, "the serializer failed").with_source(error)
        };
        match self {
            Self::Postcard => postcard::to_extend(value, buffer).map_err(|error| failed(error.into())),
            #[cfg(feature = "msgpack")]
            Self::MessagePack => {
                let mut buffer = buffer;
                rmp_serde::encode::write_named(&mut buffer, value).map_err(|error| failed(error.into()))?;
                Ok(buffer)
            }
            #[cfg(feature = "json")]
            Self::Json => {
                let mut buffer = buffer;
                serde_json::to_writer(&mut buffer, value).map_err(|error| failed(error.into()))?;
                Ok(buffer)
            }
        }
    }

    /// The value, if the payload is exactly one.
    pub(super) fn decode<T: DeserializeOwned>(self, payload: &[u8]) -> Option<T> {
        match self {
            Self::Postcard => match postcard::take_from_bytes(payload) {
                Ok((value, [])) => Some(value),
                _ => None,
            },
            #[cfg(feature = "msgpack")]
            Self::MessagePack => {
                let mut reader = std::io::Cursor::new(payload);
                let value = rmp_serde::decode::from_read(&mut reader).ok()?;
                (reader.position() == payload.len() as u64).then_some(value)
            }
            #[cfg(feature = "json")]
            Self::Json => serde_json::from_slice(payload).ok(),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postcard => "postcard",
            #[cfg(feature = "msgpack")]
            Self::MessagePack => "msgpack",
            #[cfg(feature = "json")]
            Self::Json => "json",
        })
    }
}
