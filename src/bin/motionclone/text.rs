//! Text files as people's programs write them: UTF-8 or UTF-16, with or without a byte order mark, lines ended in any way.

use std::path::Path;

use motionclone::{Error, Result};

/// Larger files are refused.
const MAX_FILE: u64 = 16 << 20;

/// The text of a file, without a byte order mark.
///
/// # Errors
/// When the file cannot be read, is larger than 16 MiB, or is neither UTF-8 nor UTF-16.
pub fn read_text(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if size > MAX_FILE {
        return Err(Error::input(format!("has {size} bytes; at most {MAX_FILE} are read")).with_path(path));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    decode(&bytes).map_err(|what| Error::input(what).with_path(path))
}

fn decode(bytes: &[u8]) -> Result<String, String> {
    match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        // Such files begin with a character of ASCII.
        [first, 0, ..] if *first != 0 => utf16(bytes, u16::from_le_bytes),
        [0, second, ..] if *second != 0 => utf16(bytes, u16::from_be_bytes),
        _ => utf8(bytes),
    }
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = 1 + bytes[..e.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        format!("line {line}: neither UTF-8 nor UTF-16; save the file as UTF-8")
    })?;
    Ok(text.into())
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, String> {
    let (units, rest) = bytes.as_chunks::<2>();
    let broken = || "a damaged file of UTF-16; save it as UTF-8".to_string();
    if !rest.is_empty() {
        return Err(broken());
    }
    char::decode_utf16(units.iter().map(|pair| unit(*pair))).collect::<Result<_, _>>().map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_in_every_encoding_of_unicode() {
        let text = "{\"é\": \"😀\"}\r\n";
        let wide = |unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
        let marked = |mark: &[u8], bytes: &[u8]| [mark, bytes].concat();
        let (little, big) = (wide(u16::to_le_bytes), wide(u16::to_be_bytes));
        for bytes in [
            text.as_bytes().to_vec(),
            marked(&[0xef, 0xbb, 0xbf], text.as_bytes()),
            marked(&[0xff, 0xfe], &little),
            marked(&[0xfe, 0xff], &big),
            little,
            big,
        ] {
            assert_eq!(decode(&bytes).as_deref(), Ok(text), "{bytes:?}");
        }
        assert_eq!(decode(b"").as_deref(), Ok(""));
        assert!(decode(b"a\nb\xe9").is_err_and(|e| e.contains("line 2") && e.contains("UTF-8")));
        assert!(decode(b"\xff\xfea").is_err_and(|e| e.contains("UTF-16")));
        assert!(decode(b"\xff\xfe\x00\xd8").is_err_and(|e| e.contains("UTF-16")));
    }
}
