//! What a server says of itself when a connection is made.

use redis::{Pipeline, RedisError, Value};

use super::error::is_no_permission;

/// How a server is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ServerMode {
    #[default]
    Alone,
    /// A node of a cluster.
    Cluster,
    Sentinel,
}

/// What a server is to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Role {
    Primary,
    Replica,
    /// It did not say: servers before 6.0.
    #[default]
    Unknown,
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) mode: ServerMode,
    pub(super) role: Role,
    /// Whether the user may run scripts.
    pub(super) may_run_scripts: bool,
}

impl Greeting {
    /// Asks for all of it, and for a sign of health: a greeting without credentials or a database may have asked nothing.
    pub(super) fn questions() -> Pipeline {
        let mut questions = Pipeline::with_capacity(3);
        questions.cmd("PING");
        questions.cmd("HELLO");
        questions.cmd("EVAL").arg("return 1").arg(0);
        questions
    }

    /// Reads the answers.
    ///
    /// # Errors
    /// The server's, where it serves nobody, or not this user.
    pub(super) fn read(answers: &[Value]) -> Result<Self, RedisError> {
        let [ping, hello, eval] = answers else { return Ok(Self::default()) };
        let mut greeting = Self::of_hello(hello);
        if greeting.mode == ServerMode::Sentinel {
            return Ok(greeting);
        }
        if let Value::ServerError(error) = ping {
            return Err(error.clone().into());
        }
        greeting.may_run_scripts = match eval {
            Value::ServerError(error) => !is_no_permission(&error.clone().into()),
            _ => true,
        };
        Ok(greeting)
    }

    /// What `HELLO` says; nothing, where the server does not know it.
    pub(super) fn of_hello(answer: &Value) -> Self {
        let mut greeting = Self::default();
        let mut learn = |name: &Value, value: &Value| match (text(name), text(value)) {
            (Some("mode"), Some("cluster")) => greeting.mode = ServerMode::Cluster,
            (Some("mode"), Some("sentinel")) => greeting.mode = ServerMode::Sentinel,
            (Some("role"), Some("master" | "primary")) => greeting.role = Role::Primary,
            (Some("role"), Some("replica" | "slave")) => greeting.role = Role::Replica,
            _ => {}
        };
        match answer {
            Value::Array(parts) => {
                for pair in parts.chunks_exact(2) {
                    learn(&pair[0], &pair[1]);
                }
            }
            Value::Map(pairs) => pairs.iter().for_each(|(name, value)| learn(name, value)),
            _ => {}
        }
        greeting
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(mode: &str, role: &str) -> Value {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        Value::Array(vec![
            bulk("server"),
            bulk("redis"),
            bulk("id"),
            Value::Int(7),
            bulk("mode"),
            bulk(mode),
            bulk("role"),
            bulk(role),
        ])
    }

    fn refused(code: &str) -> Value {
        let text = format!("-{code} because\r\n");
        redis::parse_redis_value(text.as_bytes()).unwrap()
    }

    #[test]
    fn mode_and_role_are_read_from_hello() {
        let answers = [Value::SimpleString("PONG".into()), hello("cluster", "replica"), Value::Int(1)];
        let greeting = Greeting::read(&answers).unwrap();
        assert_eq!((greeting.mode, greeting.role), (ServerMode::Cluster, Role::Replica));
        assert!(greeting.may_run_scripts);
        assert_eq!(Greeting::of_hello(&hello("standalone", "master")).role, Role::Primary);
    }

    #[test]
    fn a_server_that_knows_no_hello_is_one_alone() {
        let answers = [Value::SimpleString("PONG".into()), refused("ERR"), refused("NOPERM")];
        let greeting = Greeting::read(&answers).unwrap();
        assert_eq!((greeting.mode, greeting.role), (ServerMode::Alone, Role::Unknown));
        assert!(!greeting.may_run_scripts);
    }

    #[test]
    fn a_server_that_serves_nobody_is_an_error_and_a_sentinel_is_not() {
        let answers = [refused("LOADING"), hello("standalone", "master"), refused("LOADING")];
        assert_eq!(Greeting::read(&answers).unwrap_err().code(), Some("LOADING"));
        let answers = [refused("ERR"), hello("sentinel", ""), refused("ERR")];
        assert_eq!(Greeting::read(&answers).unwrap().mode, ServerMode::Sentinel);
    }
}
