//! The replies of Redis, in the second version of its protocol.

use std::io::{self, BufRead};

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A status, a number or a value.
    Data(Vec<u8>),
    /// A refusal, without the leading `-`.
    Error(String),
    Nil,
    Array(Vec<Reply>),
}

impl Reply {
    pub(super) fn read(reader: &mut impl BufRead) -> io::Result<Self> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        let length = || line[1..].parse::<i64>().map_err(|_| invalid(line));
        match line.as_bytes().first() {
            Some(b'+' | b':') => Ok(Self::Data(line.as_bytes()[1..].to_vec())),
            Some(b'-') => Ok(Self::Error(line[1..].to_owned())),
            Some(b'$') => match usize::try_from(length()?) {
                Ok(length) => {
                    let mut body = vec![0; length + 2];
                    reader.read_exact(&mut body)?;
                    body.truncate(length);
                    Ok(Self::Data(body))
                }
                Err(_) => Ok(Self::Nil),
            },
            Some(b'*') => match usize::try_from(length()?) {
                Ok(length) => {
                    (0..length).map(|_| Self::read(reader)).collect::<io::Result<_>>().map(Self::Array)
                }
                Err(_) => Ok(Self::Nil),
            },
            _ => Err(invalid(line)),
        }
    }

    /// As `redis-cli` prints it when it is not on a terminal, except that an error keeps its leading `-` and an absent
    /// value is `(nil)`, so that neither can be taken for data by accident.
    pub(super) fn rendered(self) -> Vec<u8> {
        match self {
            Self::Data(data) => data,
            Self::Error(text) => format!("-{text}").into_bytes(),
            Self::Nil => b"(nil)".to_vec(),
            Self::Array(items) => items.into_iter().map(Self::rendered).collect::<Vec<_>>().join(&b'\n'),
        }
    }
}

fn invalid(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a Redis reply: {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(reply: &[u8]) -> String {
        String::from_utf8(Reply::read(&mut &*reply).unwrap().rendered()).unwrap()
    }

    #[test]
    fn replies_are_rendered_as_text() {
        assert_eq!(rendered(b"+PONG\r\n"), "PONG");
        assert_eq!(rendered(b":42\r\n"), "42");
        assert_eq!(rendered(b"$3\r\na\nb\r\n"), "a\nb");
        assert_eq!(rendered(b"$-1\r\n"), "(nil)");
        assert_eq!(rendered(b"*2\r\n$1\r\na\r\n*1\r\n:7\r\n"), "a\n7");
    }

    #[test]
    fn an_error_cannot_be_taken_for_data() {
        assert_eq!(rendered(b"-ERR no\r\n"), "-ERR no");
    }

    #[test]
    fn a_cut_or_foreign_reply_is_an_error() {
        for reply in [&b""[..], b"$5\r\nab", b"VERSION 1.6\r\n", b"$x\r\n"] {
            assert!(Reply::read(&mut &*reply).is_err(), "{reply:?}");
        }
    }
}
