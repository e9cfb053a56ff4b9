//! A connection to ask something over, outside of any pool.

use cache_kit_net::Address;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Value};

use super::conn::{Driver, connect, connection_info, greeting_failed};
use super::credentials::RedisCredentials;
use super::error::convert;
use super::settings::Settings;
use crate::error::Result;

/// A connection that its owner alone uses. Ends with it.
pub(super) struct Line {
    handle: MultiplexedConnection,
    _driver: Driver,
}

impl Line {
    /// Connects. The caller bounds the time.
    pub(super) async fn open(
        address: &Address,
        settings: &Settings,
        credentials: Option<RedisCredentials>,
    ) -> Result<Self> {
        let (stream, late) = connect(address, settings).await?;
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let made =
            MultiplexedConnection::new_with_config(&connection_info(credentials), stream, config).await;
        let (handle, driver) = made.map_err(|error| greeting_failed(address, 0, &late, error))?;
        Ok(Self { handle, _driver: Driver(tokio::spawn(driver).abort_handle()) })
    }

    /// Asks, and waits for the answer. The caller bounds the time. Errors of the server are errors.
    pub(super) async fn ask(&self, operation: &'static str, command: &Cmd) -> Result<Value> {
        match self.handle.clone().send_packed_command(command).await {
            Ok(Value::ServerError(error)) => Err(convert(operation, error.into())),
            Ok(answer) => Ok(answer),
            Err(error) => Err(convert(operation, error)),
        }
    }
}
