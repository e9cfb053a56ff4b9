//! The users of a Redis.

use std::ffi::OsString;

/// The user of the test bed, where it cannot be the default one.
const TEST_BED: &str = "test-bed";

/// Users besides the default one, which is all-powerful and the one of the test bed unless it is off.
#[derive(Debug, Default)]
pub(super) struct Acl {
    users: Vec<User>,
    /// The password of [`TEST_BED`] when the default user is off.
    instead_of_default: Option<String>,
}

#[derive(Debug)]
struct User {
    name: String,
    password: String,
    rules: String,
}

impl Acl {
    pub(super) fn add(&mut self, name: String, password: String, rules: String) {
        self.users.push(User { name, password, rules });
    }

    pub(super) fn turn_default_off(&mut self) {
        self.instead_of_default = Some(format!("{:032x}", fastrand::u128(..)));
    }

    /// In the server's configuration, so that they are there after each start.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        let mut user = |name: &str, rules: &[&str]| {
            arguments.extend(["--user", name].into_iter().chain(rules.iter().copied()).map(OsString::from));
        };
        for User { name, password, rules } in &self.users {
            let password = format!(">{password}");
            let rules: Vec<&str> = ["on", &password].into_iter().chain(rules.split_whitespace()).collect();
            user(name, &rules);
        }
        if let Some(password) = &self.instead_of_default {
            user(TEST_BED, &["on", &format!(">{password}"), "~*", "&*", "+@all"]);
            user("default", &["off"]);
        }
        arguments
    }

    /// The credentials of the user that was added last.
    pub(super) fn userinfo(&self) -> Option<String> {
        self.users.last().map(|User { name, password, .. }| format!("{name}:{password}@"))
    }

    /// What the test bed logs in with when that is not the default user.
    pub(super) fn login(&self) -> Option<[&str; 2]> {
        self.instead_of_default.as_deref().map(|password| [TEST_BED, password])
    }
}
