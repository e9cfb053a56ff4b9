//! Finding a Python that has pylibmc, and saying what to do when there is none.

use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::locate::variable;

const VARIABLE: &str = "CACHE_KIT_PYTHON";
/// Packages of the system are in the system's own Python, which another one on the path can hide.
const USUAL: [&str; 2] = ["python3", "/usr/bin/python3"];

/// The interpreter of the environment variable, the first on the path, the system's: the first that has pylibmc.
pub(super) fn with_pylibmc() -> &'static OsString {
    static FOUND: OnceLock<Option<OsString>> = OnceLock::new();
    let candidates = || variable(VARIABLE).into_iter().chain(USUAL.map(OsString::from));
    match FOUND.get_or_init(|| candidates().find(imports_pylibmc)) {
        Some(python) => python,
        None => panic!(
            "no Python with pylibmc; this test compares with a real libmemcached.\n\
             install it:    apt-get install python3-pylibmc   |   dnf install python3-pylibmc   |   \
             brew install libmemcached && python3 -m pip install pylibmc\n\
             or let xtask:  cargo xtask test --install\n\
             or name an interpreter that has it with {VARIABLE}=<path>; tried: {:?}",
            candidates().collect::<Vec<_>>()
        ),
    }
}

fn imports_pylibmc(python: &OsString) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", "import pylibmc"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
