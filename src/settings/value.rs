//! Values of settings, and how they are read from text and from JSON.

use serde::Serialize;

use crate::random::Noise;

/// The largest whole number that every number with a decimal point can stand for.
const MAX_EXACT: f64 = (1u64 << 53) as f64;

/// A setting's value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A whole number.
    Integer(u64),
    /// Any number.
    Number(f64),
    /// A text, or the name of a choice.
    Text(String),
    /// Names.
    List(Vec<String>),
    /// A seed that is drawn when it is set.
    #[serde(serialize_with = "random")]
    RandomSeed,
}

fn random<S: serde::Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(-1)
}

/// A setting's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number of at least 0.
    Integer,
    /// A whole number of 64 bits; −1 asks for one to be drawn.
    Seed,
    /// Any finite number.
    Number,
    /// A text.
    Text,
    /// One of these names.
    Choice(&'static [&'static str]),
    /// Names, in text with commas between.
    List,
}

impl Kind {
    /// Its name for programs: `integer`, `seed`, `number`, `text`, `choice`, `list`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Seed => "seed",
            Self::Number => "number",
            Self::Text => "text",
            Self::Choice(_) => "choice",
            Self::List => "list",
        }
    }

    /// The value that a text stands for. Whole numbers may be written with a decimal point (`64.0`).
    ///
    /// # Errors
    /// A sentence's end that says what it must be.
    pub fn parse(self, text: &str) -> Result<Value, String> {
        let text = if self == Self::Text { text } else { text.trim() };
        match self {
            Self::Integer => integer(text).map(Value::Integer).ok_or_else(|| "must be a whole number".into()),
            Self::Seed if number(text) == Some(-1.0) => Ok(Value::RandomSeed),
            Self::Seed => integer(text)
                .map(Value::Integer)
                .ok_or_else(|| format!("must be a whole number from 0 to {}, or -1 to draw one", u64::MAX)),
            Self::Number => number(text).map(Value::Number).ok_or_else(|| "must be a number".into()),
            Self::Text => Ok(Value::Text(text.into())),
            Self::Choice(names) => match names.iter().find(|name| name.eq_ignore_ascii_case(text)) {
                Some(name) => Ok(Value::Text((*name).into())),
                None => Err(format!("must be {}", names.join(" or "))),
            },
            Self::List => Ok(Value::List(text.split(',').map(|name| name.trim().to_string()).collect())),
        }
    }

    /// The value that stands in a JSON or YAML file.
    ///
    /// # Errors
    /// As [`Kind::parse`].
    pub fn read(self, value: &serde_json::Value) -> Result<Value, String> {
        use serde_json::Value as Json;
        match value {
            Json::Array(items) if self == Self::List => {
                let names = items.iter().map(|item| item.as_str().map(String::from)).collect::<Option<_>>();
                names.map(Value::List).ok_or_else(|| "must be a list of names".into())
            }
            Json::String(text) => self.parse(text),
            Json::Number(number) if self != Self::List => self.parse(&number.to_string()),
            _ => Err(match self {
                Self::List => "must be a list of names".into(),
                Self::Text => "must be a text".into(),
                _ => match self.parse("?") {
                    Err(wanted) => wanted,
                    Ok(_) => "must be a single value".into(),
                },
            }),
        }
    }
}

/// Whole numbers, also those written `64.0` or `1e3`.
fn integer(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| {
        let number = number(text)?;
        (number.fract() == 0.0 && (0.0..=MAX_EXACT).contains(&number)).then_some(number as u64)
    })
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A type that settings have.
pub(super) trait Field: Sized {
    fn to_value(&self) -> Value;
    /// `None` for a value of another kind.
    fn from_value(value: Value) -> Option<Self>;
}

impl Field for u64 {
    fn to_value(&self) -> Value {
        Value::Integer(*self)
    }

    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Integer(number) => Some(number),
            _ => None,
        }
    }
}

impl Field for usize {
    fn to_value(&self) -> Value {
        Value::Integer(*self as u64)
    }

    fn from_value(value: Value) -> Option<Self> {
        u64::from_value(value).and_then(|number| number.try_into().ok())
    }
}

impl Field for f64 {
    fn to_value(&self) -> Value {
        Value::Number(*self)
    }

    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Number(number) => Some(number),
            Value::Integer(number) => Some(number as Self),
            _ => None,
        }
    }
}

impl Field for String {
    fn to_value(&self) -> Value {
        Value::Text(self.clone())
    }

    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Field for Vec<String> {
    fn to_value(&self) -> Value {
        Value::List(self.clone())
    }

    fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::List(names) => Some(names),
            _ => None,
        }
    }
}

impl Field for Noise {
    fn to_value(&self) -> Value {
        Value::Text(Self::NAMES[*self as usize].into())
    }

    fn from_value(value: Value) -> Option<Self> {
        match String::from_value(value)?.as_str() {
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_others_write_them() {
        assert_eq!(Kind::Integer.parse("64.0"), Ok(Value::Integer(64)));
        assert_eq!(Kind::Integer.parse(" 1e3 "), Ok(Value::Integer(1000)));
        assert_eq!(Kind::Seed.parse("18446744073709551615"), Ok(Value::Integer(u64::MAX)));
        assert_eq!(Kind::Seed.parse("-1"), Ok(Value::RandomSeed));
        assert_eq!(Kind::Seed.parse("-1.0"), Ok(Value::RandomSeed));
        assert_eq!(Kind::Number.parse("7"), Ok(Value::Number(7.0)));
        assert_eq!(Kind::Choice(&["cpu", "cuda"]).parse("CUDA"), Ok(Value::Text("cuda".into())));
        assert_eq!(Kind::List.parse("a, b"), Ok(Value::List(vec!["a".into(), "b".into()])));
        for (kind, text) in [
            (Kind::Integer, "-1"),
            (Kind::Integer, "64.5"),
            (Kind::Integer, "1e300"),
            (Kind::Integer, ""),
            (Kind::Seed, "-2"),
            (Kind::Seed, "18446744073709551616"),
            (Kind::Number, "nan"),
            (Kind::Number, "inf"),
            (Kind::Number, "1,5"),
            (Kind::Choice(&["cpu", "cuda"]), "tpu"),
        ] {
            let wanted = kind.parse(text).expect_err(text);
            assert!(wanted.starts_with("must be "), "{wanted}");
        }
    }

    #[test]
    fn files_say_it_with_types() {
        use serde_json::json;
        assert_eq!(Kind::Integer.read(&json!(64.0)), Ok(Value::Integer(64)));
        assert_eq!(Kind::Integer.read(&json!("64")), Ok(Value::Integer(64)));
        assert_eq!(Kind::Seed.read(&json!(-1)), Ok(Value::RandomSeed));
        assert_eq!(Kind::Seed.read(&json!(u64::MAX)), Ok(Value::Integer(u64::MAX)));
        assert_eq!(Kind::List.read(&json!(["a"])), Ok(Value::List(vec!["a".into()])));
        assert_eq!(Kind::List.read(&json!("a")), Ok(Value::List(vec!["a".into()])));
        for (kind, value) in [
            (Kind::Integer, json!([1, 2])),
            (Kind::Number, json!("many")),
            (Kind::Number, json!(null)),
            (Kind::Seed, json!(true)),
            (Kind::Text, json!([])),
            (Kind::List, json!([1])),
            (Kind::List, json!(7)),
        ] {
            assert!(kind.read(&value).is_err(), "{kind:?} {value}");
        }
    }
}
