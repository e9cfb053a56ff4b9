//! Named, timed steps; the first that fails ends the run.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::say;

/// A run of steps, all of them or the named ones.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    only: Vec<String>,
    done: Vec<(String, Duration)>,
}

impl Steps {
    /// Runs only the steps named here, or all when there are no names. A step's name may go on after a space
    /// (`features json`); its first word selects it.
    pub(crate) fn only(names: &[String]) -> Self {
        Self { only: names.to_vec(), done: Vec::new() }
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        let first = name.split(' ').next();
        self.only.is_empty() || self.only.iter().any(|only| only == name || Some(only.as_str()) == first)
    }

    /// Runs a command, which succeeds or fails the step by its status.
    pub(crate) fn command(&mut self, name: &str, command: &mut Command) -> Result<(), String> {
        self.check(name, || {
            let shown = shown(command);
            say(&shown);
            match command.status() {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(format!("{shown}: {status}")),
                Err(error) => Err(format!("{shown} did not start: {error}")),
            }
        })
    }

    /// Runs a check that is written here.
    pub(crate) fn check(
        &mut self,
        name: &str,
        check: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), String> {
        if !self.wants(name) {
            return Ok(());
        }
        say(format_args!("\n== {name}"));
        let start = Instant::now();
        let result = check();
        self.done.push((name.to_owned(), start.elapsed()));
        result.map_err(|problem| {
            self.summary();
            format!("\nFAILED in step {name:?}; what comes after it did not run.\n{problem}")
        })
    }

    /// Prints how long each step took; an error when no step had a name that was asked for.
    pub(crate) fn finish(self) -> Result<(), String> {
        let unknown = |name: &&String| {
            !self.done.iter().any(|(done, _)| done == *name || done.split(' ').next() == Some(name))
        };
        if let Some(name) = self.only.iter().find(unknown) {
            return Err(format!("no step {name:?}, or nothing for it to do"));
        }
        self.summary();
        say("all good");
        Ok(())
    }

    fn summary(&self) {
        say("");
        for (name, took) in &self.done {
            say(format_args!("{:>8.1} s  {name}", took.as_secs_f64()));
        }
        let total: Duration = self.done.iter().map(|(_, took)| *took).sum();
        say(format_args!("{:>8.1} s  in all", total.as_secs_f64()));
    }
}

/// The command as one would type it, with the environment that is set for it.
fn shown(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        Some(format!("{}={:?}", name.to_string_lossy(), value?.to_string_lossy()))
    });
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    let words = words.map(|word| word.to_string_lossy().into_owned());
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_steps_run() {
        let mut steps = Steps::only(&["features".to_owned()]);
        steps.check("fmt", || Err("must not run".to_owned())).unwrap();
        steps.check("features json", || Ok(())).unwrap();
        assert_eq!(steps.done.len(), 1);
        steps.finish().unwrap();
    }

    #[test]
    fn a_failure_names_the_step_and_says_why() {
        let problem = Steps::default().check("fmt", || Err("badly formatted".to_owned())).unwrap_err();
        assert!(problem.contains("fmt") && problem.contains("badly formatted"));
        let problem = Steps::default().command("no", &mut Command::new("false")).unwrap_err();
        assert!(problem.contains("exit status: 1"), "{problem}");
    }

    #[test]
    fn a_name_without_a_step_is_an_error() {
        Steps::only(&["fnt".to_owned()]).finish().unwrap_err();
    }

    #[test]
    fn a_command_is_shown_as_it_is_typed() {
        let mut command = Command::new("/some/where/cargo");
        command.arg("doc").env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(shown(&command), r#"RUSTDOCFLAGS="-D warnings" cargo doc"#);
    }
}
