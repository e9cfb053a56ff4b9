//! What the command line says.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
A database without a cache and with one, an update, and a stampede.

Usage: cargo run --release --example quickstart -- [options]

  --backend URL   where to cache, as Cache::from_url takes it [memory://]; its
                  namespace, `quickstart` if it names none, is cleared first
  --requests N    requests made without the cache; with the cache the same are
                  made again, and then 20 times as many [3000]
  --tasks N       tasks that make requests at the same time [32]
  --seed N        another seed is another stream of requests [42]
  --help          print this
";

/// What the program is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Print [`HELP`].
    Help,
    /// Run with these settings.
    Run(Args),
}

/// The settings of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Args {
    /// Where to cache. May hold a password: not to be printed.
    pub(crate) backend: String,
    /// Requests without the cache.
    pub(crate) requests: usize,
    /// Tasks that make requests at the same time.
    pub(crate) tasks: usize,
    /// Seed of the stream of requests.
    pub(crate) seed: u64,
}

impl Default for Args {
    fn default() -> Self {
        Self { backend: "memory://".to_owned(), requests: 3000, tasks: 32, seed: 42 }
    }
}

/// Reads the arguments that follow the program's name. The error is a sentence that names the flag.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut args = Args::default();
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        match argument {
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => return Ok(Command::Help),
            lexopt::Arg::Long("backend") => args.backend = text(&mut parser, "--backend")?,
            lexopt::Arg::Long("requests") => args.requests = number(&mut parser, "--requests", 1..=100_000)?,
            lexopt::Arg::Long("tasks") => args.tasks = number(&mut parser, "--tasks", 1..=10_000)?,
            lexopt::Arg::Long("seed") => args.seed = number(&mut parser, "--seed", 0..=u64::MAX)?,
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(Command::Run(args))
}

fn text(parser: &mut lexopt::Parser, flag: &str) -> Result<String, String> {
    let value = parser.value().map_err(|_| format!("{flag} needs a value"))?;
    value.into_string().map_err(|_| format!("the value of {flag} is not UTF-8"))
}

fn number<N>(parser: &mut lexopt::Parser, flag: &str, allowed: RangeInclusive<N>) -> Result<N, String>
where
    N: FromStr + PartialOrd + std::fmt::Display,
{
    let value = text(parser, flag)?;
    match value.parse() {
        Ok(number) if allowed.contains(&number) => Ok(number),
        _ => {
            let (least, most) = allowed.into_inner();
            Err(format!("{flag} takes a whole number from {least} to {most}, not `{value}`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(parsed(""), Ok(Command::Run(Args::default())));
    }

    #[test]
    fn every_flag_is_heard_in_both_spellings() {
        let wanted = Args { backend: "memory://?namespace=mine".to_owned(), requests: 7, tasks: 8, seed: 9 };
        let spaces = "--backend memory://?namespace=mine --requests 7 --tasks 8 --seed 9";
        assert_eq!(parsed(&spaces.replace("d m", "d=m").replace("s 7", "s=7")), parsed(spaces));
        assert_eq!(parsed(spaces), Ok(Command::Run(wanted)));
    }

    #[test]
    fn help_wins() {
        assert_eq!(parsed("--tasks 3 --help"), Ok(Command::Help));
        assert_eq!(parsed("-h"), Ok(Command::Help));
    }

    #[test]
    fn an_error_names_the_flag() {
        for line in [
            "--requests",
            "--requests 0",
            "--requests -3",
            "--requests=ten",
            "--requests 99999999999999999999999",
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains("--requests"), "{line}: {error}");
        }
        assert!(parsed("--tasks 10001").unwrap_err().contains("from 1 to 10000"));
        assert!(parsed("--task 3").unwrap_err().contains("--task"));
        assert!(parsed("--backend").unwrap_err().contains("--backend"));
        assert!(parsed("--help=yes").is_ok(), "help is help");
        assert!(parsed("-x").unwrap_err().contains("-x"));
        assert!(parsed("twelve").unwrap_err().contains("twelve"));
    }
}
