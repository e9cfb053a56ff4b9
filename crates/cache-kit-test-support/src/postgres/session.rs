//! As much of PostgreSQL's protocol as a question in SQL needs.

use std::io::{self, Read, Write};

/// Version 3.0 of the protocol.
const VERSION: u32 = 3 << 16;

/// A connection over which nothing is under way.
pub(super) struct Session<S>(S);

impl<S: Read + Write> Session<S> {
    /// Logs in where no password is asked for.
    pub(super) fn open(mut stream: S, user: &str) -> io::Result<Self> {
        let body =
            [&VERSION.to_be_bytes(), format!("user\0{user}\0database\0postgres\0\0").as_bytes()].concat();
        stream.write_all(&framed(&body)?)?;
        let mut session = Self(stream);
        session.answer()?;
        Ok(session)
    }

    /// Sends SQL. Rows are lines with `|` between columns, `NULL` is nothing.
    pub(super) fn ask(mut self, sql: &str) -> io::Result<String> {
        let body = [sql.as_bytes(), &[0]].concat();
        self.0.write_all(&[b"Q".as_slice(), &framed(&body)?].concat())?;
        let rows = self.answer()?;
        // Without a word of farewell the server logs that the client is lost.
        self.0.write_all(&[b"X".as_slice(), &framed(&[])?].concat())?;
        Ok(rows.join("\n"))
    }

    /// Reads up to where the server waits for the next question.
    fn answer(&mut self) -> io::Result<Vec<String>> {
        let mut rows = Vec::new();
        let mut failed = None;
        loop {
            let mut head = [0; 5];
            // An error that ends the connection is not followed by anything.
            if let Err(error) = self.0.read_exact(&mut head) {
                return Err(failed.unwrap_or(error));
            }
            let [kind, length @ ..] = head;
            let length = u32::from_be_bytes(length).checked_sub(4).ok_or_else(malformed)?;
            let mut body = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            self.0.read_exact(&mut body)?;
            match kind {
                b'D' => rows.push(row(&body).ok_or_else(malformed)?),
                b'E' => failed = Some(io::Error::other(message(&body))),
                b'R' if body != [0; 4] => {
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, "a password is asked for"));
                }
                b'Z' => return failed.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }
}

/// With the length before it, which counts itself.
fn framed(body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(body.len() + 4).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes(), body].concat())
}

/// The columns of a row, in text.
fn row(body: &[u8]) -> Option<String> {
    let (_, mut rest) = body.split_first_chunk::<2>()?;
    let mut columns = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        // A negative length is NULL.
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or_default();
        let (column, after) = after.split_at_checked(length)?;
        columns.push(String::from_utf8_lossy(column));
        rest = after;
    }
    Some(columns.join("|"))
}

/// What an error says in words: the field `M`.
fn message(body: &[u8]) -> String {
    let fields = body.split(|byte| *byte == 0).filter_map(<[u8]>::split_first);
    let words =
        fields.into_iter().find(|(kind, _)| **kind == b'M').map_or(b"an error".as_slice(), |(_, text)| text);
    String::from_utf8_lossy(words).into_owned()
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a message that is not of the protocol")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_its_columns_and_null_is_nothing() {
        let body = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\x01c";
        assert_eq!(row(body).as_deref(), Some("ab||c"));
        assert_eq!(row(b"\0\x01\0\0\0\x09ab"), None);
    }

    #[test]
    fn an_error_is_its_message() {
        assert_eq!(
            message(b"SFATAL\0C57P03\0Mthe database system is starting up\0\0"),
            "the database system is starting up"
        );
    }
}
