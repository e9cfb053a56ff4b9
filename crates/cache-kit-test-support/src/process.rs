//! Looking at processes and signalling them, by id.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// True while the process exists and has not ended; a process that ended but was not waited for is not running.
#[must_use]
pub fn is_running(pid: u32) -> bool {
    states(pid).first().is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// True when each thread of the process is stopped.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let states = states(pid);
    !states.is_empty() && states.iter().all(|state| *state == 'T')
}

/// The state letters of the process's threads, the main one first; empty when there is no such process.
fn states(pid: u32) -> Vec<char> {
    if !std::path::Path::new("/proc/self/stat").exists() {
        return state_from_ps(pid).into_iter().collect();
    }
    let main = state_from_proc(&format!("/proc/{pid}/stat"));
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let threads = threads.filter_map(|thread| state_from_proc(&thread.path().join("stat").to_string_lossy()));
    main.into_iter().chain(threads).collect()
}

/// The third field; the second, the program's name, is in parentheses and may hold anything.
fn state_from_proc(path: &str) -> Option<char> {
    let stat = std::fs::read_to_string(path).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

fn state_from_ps(pid: u32) -> Option<char> {
    let output = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().chars().next()
}

/// Sends a signal by its name without `SIG`. Through the shell, whose `kill` is built in: the standard library can
/// signal only its own children, and only to kill them.
pub(crate) fn signal(pid: u32, name: &str) -> bool {
    let status = Command::new("sh")
        .args(["-c", r#"kill -s "$1" "$2""#, "sh", name, &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Asks `condition` again and again until it holds or `limit` has passed; says whether it held.
pub(crate) fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_is_not_running_even_before_it_is_waited_for() {
        let mut child = Command::new("sh").args(["-c", "exit 0"]).spawn().unwrap();
        assert!(wait_until(Duration::from_secs(10), || !is_running(child.id())));
        child.wait().unwrap();
        assert!(!is_running(child.id()));
    }

    #[test]
    fn this_process_runs_and_is_not_stopped() {
        assert!(is_running(std::process::id()));
        assert!(!is_stopped(std::process::id()));
    }
}
