//! Lines, words and numbers: what every request and every reply is made of.

use super::Violation;

/// The longest line that is read, with its end. The longest that memcached writes are about 1 KiB (a key has 250
/// bytes, and its own buffer for a line has no more), and it takes no longer ones itself.
pub const MAX_LINE_LEN: usize = 2_048;

pub(super) const CRLF: &[u8] = b"\r\n";

/// The first line without its end, or `None` while its end has not arrived.
pub(super) fn first(input: &[u8]) -> Result<Option<&[u8]>, Violation> {
    let window = &input[..input.len().min(MAX_LINE_LEN)];
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        return if window.len() == MAX_LINE_LEN { Err(Violation::LineTooLong) } else { Ok(None) };
    };
    // A line is judged when it is complete, so that the verdict does not depend on how the bytes arrive.
    window[..end].strip_suffix(b"\r").map(Some).ok_or(Violation::BareLineFeed)
}

/// How many bytes a line takes with its end.
pub(super) const fn len_with_end(line: &[u8]) -> usize {
    line.len() + CRLF.len()
}

/// What is behind `word` and the space that follows it, or nothing if the line ends there.
pub(super) fn after_word<'l>(line: &'l [u8], word: &[u8]) -> Option<&'l [u8]> {
    let rest = line.strip_prefix(word)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b" ") }
}

/// The number that the digits are: no sign, nothing else, and not beyond 64 bits.
pub(super) fn number(digits: &[u8]) -> Result<u64, Violation> {
    // Zeros in front do not count, but no server writes so many.
    if digits.is_empty() || digits.len() > 20 {
        return Err(Violation::BadNumber);
    }
    let mut number = 0_u64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return Err(Violation::BadNumber);
        }
        let appended = number.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(digit - b'0')));
        number = appended.ok_or(Violation::BadNumber)?;
    }
    Ok(number)
}

/// A number of 32 bits.
pub(super) fn number_u32(digits: &[u8]) -> Result<u32, Violation> {
    u32::try_from(number(digits)?).map_err(|_| Violation::BadNumber)
}

/// Appends the decimal digits of a number, without the machinery of formatting.
pub(super) fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        // A remainder of ten fits.
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// What a server says, for people: printable characters of ASCII only, and 200 at most.
pub(super) fn cleaned(text: &[u8]) -> Box<str> {
    const MOST: usize = 200;
    let printable = |&byte: &u8| if matches!(byte, b' '..=b'~') { char::from(byte) } else { '?' };
    text.iter().take(MOST).map(printable).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_ends_with_both_characters() {
        assert_eq!(first(b""), Ok(None));
        assert_eq!(first(b"MN\r"), Ok(None));
        assert_eq!(first(b"MN\r\nHD"), Ok(Some(&b"MN"[..])));
        assert_eq!(first(b"\r\n"), Ok(Some(&b""[..])));
        assert_eq!(first(b"MN\n"), Err(Violation::BareLineFeed));
        assert_eq!(first(b"\n"), Err(Violation::BareLineFeed));
    }

    #[test]
    fn a_line_has_a_longest_length() {
        let mut longest = [b'x'; MAX_LINE_LEN + 1];
        longest[MAX_LINE_LEN - 2..MAX_LINE_LEN].copy_from_slice(CRLF);
        assert_eq!(first(&longest), Ok(Some(&longest[..MAX_LINE_LEN - 2])));
        assert_eq!(first(&longest[..MAX_LINE_LEN - 1]), Ok(None));
        let mut longer = [b'x'; MAX_LINE_LEN + 1];
        longer[MAX_LINE_LEN - 1..].copy_from_slice(CRLF);
        assert_eq!(first(&longer), Err(Violation::LineTooLong));
        assert_eq!(first(&longer[..MAX_LINE_LEN]), Err(Violation::LineTooLong));
    }

    #[test]
    fn numbers_are_digits_and_fit() {
        assert_eq!(number(b"0"), Ok(0));
        assert_eq!(number(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(number_u32(b"4294967295"), Ok(u32::MAX));
        for bad in ["", "18446744073709551616", "99999999999999999999", "-1", "+1", "1 ", "1a", "١"] {
            assert_eq!(number(bad.as_bytes()), Err(Violation::BadNumber), "{bad:?}");
        }
        assert_eq!(number(&[b'0'; 21]), Err(Violation::BadNumber));
        assert_eq!(number_u32(b"4294967296"), Err(Violation::BadNumber));
    }

    #[test]
    fn what_the_server_says_is_cleaned_and_cut() {
        assert_eq!(*cleaned(b"a\tb\x1b[1m\xff~"), *"a?b?[1m?~");
        assert_eq!(cleaned(&[b'x'; 500]).len(), 200);
    }

    proptest! {
        #[test]
        fn a_written_number_is_read_back(value in any::<u64>(), shift in 0..64_u32) {
            let value = value >> shift;
            let mut out = b"O".to_vec();
            push_number(&mut out, value);
            prop_assert_eq!(String::from_utf8_lossy(&out), format!("O{value}"));
            prop_assert_eq!(number(&out[1..]), Ok(value));
        }
    }
}
