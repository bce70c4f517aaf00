//! Names and paths in JSON: a string, or where they are not UTF-8 `{"hex": "…"}`. Nothing is lost either way.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes that are mostly text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text(pub(crate) Vec<u8>);

impl Text {
    /// Takes bytes.
    pub(crate) fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Shows it to a person.
    pub(crate) fn visible(&self) -> String {
        crate::print::visible(&self.0)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form<'a> {
    Plain(std::borrow::Cow<'a, str>),
    Hex { hex: String },
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |four: u8| char::from(DIGITS[usize::from(four & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => Form::Plain(text.into()),
            Err(_) => Form::Hex { hex: hex(&self.0) },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Form::deserialize(deserializer)? {
            Form::Plain(text) => Ok(Self(text.as_bytes().to_vec())),
            Form::Hex { hex } => {
                let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
                let byte = |pair: &[u8; 2]| {
                    let digit = |d: u8| char::from(d).to_digit(16).map(|digit| digit as u8);
                    Some(digit(pair[0])? << 4 | digit(pair[1])?)
                };
                let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
                bytes
                    .filter(|_| rest.is_empty())
                    .map(Self)
                    .ok_or_else(|| de::Error::custom("expected pairs of hexadecimal digits"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_come_back() {
        for bytes in [&b"plain"[..], b"", "\u{e4}\n\"".as_bytes(), b"\xff\x00a", b"\xc3"] {
            let text = Text::new(bytes);
            let json = serde_json::to_string(&text).expect("it can be written");
            assert_eq!(serde_json::from_str::<Text>(&json).expect(&json), text);
        }
        assert_eq!(
            serde_json::to_string(&Text::new(*b"\xffa")).expect("json"),
            r#"{"hex":"ff61"}"#
        );
        assert!(serde_json::from_str::<Text>(r#"{"hex":"ff6"}"#).is_err());
        assert!(serde_json::from_str::<Text>(r#"{"hex":"+f"}"#).is_err());
    }
}
