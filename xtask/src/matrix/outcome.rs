//! What a run of tests says of itself.

/// Counts, and the names of what failed, of any number of test programs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) passed: usize,
    pub(super) failed: Vec<String>,
    /// The program that is running.
    program: String,
}

impl Outcome {
    pub(super) fn of(program: &str) -> Self {
        Self { program: program.to_owned(), ..Self::default() }
    }

    /// Takes the next line that the test program wrote.
    pub(super) fn line(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += passed(counts).unwrap_or_default();
        } else if let Some(name) =
            line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED"))
        {
            self.failed.push(format!("{} {name}", self.program));
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
    }
}

/// Reads `ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.20s`.
fn passed(counts: &str) -> Option<usize> {
    let (_, counts) = counts.split_once(". ")?;
    counts.split("; ").find_map(|part| part.strip_suffix(" passed"))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_is_counted_and_what_failed_is_named() {
        let mut all = Outcome::default();
        for (program, lines) in [
            (
                "behaviour",
                "\nrunning 2 tests\ntest redis::reads ... ok\ntest redis::slow ... ignored\n\n\
                 test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 9 filtered out; finished in 1.20s\n",
            ),
            (
                "redis_races",
                "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\ntest b said something\n\n\
                 test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
            ),
        ] {
            let mut outcome = Outcome::of(program);
            lines.lines().for_each(|line| outcome.line(line));
            all.add(outcome);
        }
        assert_eq!((all.passed, all.failed), (13, vec!["redis_races b".to_owned()]));
    }
}
