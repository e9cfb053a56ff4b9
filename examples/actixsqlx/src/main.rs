//! Start and end of the process: one line when it serves, one line when it cannot.

use std::process::ExitCode;

use actixsqlx::{Config, run};

#[actix_web::main]
#[expect(clippy::print_stderr, reason = "a process that cannot start says so")]
async fn main() -> ExitCode {
    let result = match Config::from_env() {
        Ok(config) => run(config).await,
        Err(problem) => Err(problem),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("actixsqlx: {problem}");
            ExitCode::FAILURE
        }
    }
}
