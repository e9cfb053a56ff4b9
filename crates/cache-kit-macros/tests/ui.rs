//! What the compiler says to those who hold the macros wrong: each case must fail to compile, with the message beside it.
//!
//! The compiler's own part of the messages is that of the current stable one; `TRYBUILD=overwrite` writes them anew.

#[test]
fn whatever_is_wrong_the_message_says_what_to_write() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*/*.rs");
}
