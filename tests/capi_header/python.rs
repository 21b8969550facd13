//! The Python binding that a header makes: enumerations, structures and functions for ctypes.

use std::fmt::Write;

const HEAD: &str = r#""""The interface of motionclone's C library, for ctypes. What everything means stands in motionclone.h.

This file is made by `cargo xtask header`; do not edit it.
"""

import ctypes as c
from enum import IntEnum
"#;

const FOOT: &str = r#"

def bind(library):
    """Gives the functions of a library that ctypes has loaded their types. AttributeError where one is missing."""
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
"#;

/// The text of a Python module for a header that cbindgen wrote.
pub fn binding(header: &str) -> String {
    let mut tokens = Tokens { left: tokens(header) };
    let mut text = String::from(HEAD);
    let mut functions = String::new();
    let version = header.lines().find_map(|line| line.strip_prefix("#define MOTIONCLONE_ABI_VERSION "));
    write!(text, "\nABI_VERSION = {}\n", version.expect("no version")).unwrap();
    while let Some(token) = tokens.next() {
        match token.as_str() {
            "extern" | "\"C\"" | "{" | "}" => {}
            "enum" => {
                let name = tokens.required();
                tokens.until("{");
                write!(text, "\n\nclass {}(IntEnum):\n", class(&name)).unwrap();
                let prefix = format!("{}_", name.to_uppercase());
                for member in tokens.until("}").split(|token| token == ",").filter(|member| !member.is_empty()) {
                    let [member, equals, value] = member else { panic!("{member:?} of {name}") };
                    assert_eq!(equals, "=");
                    writeln!(text, "    {} = {value}", member.strip_prefix(&prefix).unwrap()).unwrap();
                }
                tokens.until(";");
            }
            "typedef" => typedef(&mut tokens, &mut text),
            _ => {
                let mut result = vec![token];
                result.extend(tokens.until("("));
                let name = result.pop().unwrap();
                let arguments = tokens.until(")");
                tokens.until(";");
                let arguments: Vec<String> = parameters(&arguments).map(|argument| argument.1).collect();
                let result = declared(&result);
                writeln!(functions, "    \"{name}\": ({result}, [{}]),", arguments.join(", ")).unwrap();
            }
        }
    }
    let functions = functions.lines().map(wrapped).collect::<String>();
    write!(text, "\n\n# Name -> the type of its result and of its arguments.\nFUNCTIONS = {{\n{functions}}}\n{FOOT}")
        .unwrap();
    text
}

fn typedef(tokens: &mut Tokens, text: &mut String) {
    let first = tokens.required();
    let rest = tokens.until(if first == "struct" { "{" } else { ";" });
    match (first.as_str(), rest.as_slice()) {
        ("struct", _) => {
            let fields = tokens.until("}");
            let name = tokens.required();
            tokens.until(";");
            write!(text, "\n\nclass {}(c.Structure):\n    _fields_ = [\n", class(&name)).unwrap();
            for field in fields.split(|token| token == ";").filter(|field| !field.is_empty()) {
                let (name, kind) = named(field);
                writeln!(text, "        (\"{name}\", {kind}),").unwrap();
            }
            text.push_str("    ]\n");
        }
        // An enumeration's name for C before C23.
        ("enum", _) | ("uint32_t", [_]) => {}
        ("uint64_t", [name]) => write!(text, "\n\n{} = c.c_uint64\n", class(name)).unwrap(),
        ("void", [open, star, name, close, open_too, arguments @ .., close_too]) => {
            assert_eq!([open, star, close, open_too, close_too].map(String::as_str), ["(", "*", ")", "(", ")"]);
            let arguments: Vec<String> = parameters(arguments).map(|argument| argument.1).collect();
            write!(text, "\n\n{} = c.CFUNCTYPE(None, {})\n", class(name), arguments.join(", ")).unwrap();
        }
        other => panic!("a typedef of another kind: {other:?}"),
    }
}

/// A line of the table, over several where it is long.
fn wrapped(line: &str) -> String {
    if line.len() <= 120 {
        return format!("{line}\n");
    }
    let (name, rest) = line.split_once(": (").unwrap();
    let (result, arguments) = rest.strip_suffix("]),").unwrap().split_once(", [").unwrap();
    format!("{name}: (\n        {result},\n        [{arguments}],\n    ),\n")
}

/// The names and types of a function's parameters.
fn parameters(tokens: &[String]) -> impl Iterator<Item = (String, String)> {
    tokens.split(|token| token == ",").filter(|parameter| *parameter != ["void"]).map(named)
}

/// A declaration's name and type.
fn named(tokens: &[String]) -> (String, String) {
    match tokens {
        [kind @ .., name, open, length, close] if (open.as_str(), close.as_str()) == ("[", "]") => {
            (name.clone(), format!("{} * {length}", declared(kind)))
        }
        [kind @ .., name] => (name.clone(), declared(kind)),
        [] => panic!("an empty declaration"),
    }
}

/// A type as ctypes has it.
fn declared(tokens: &[String]) -> String {
    let base = tokens.iter().find(|token| !["const", "*"].contains(&token.as_str())).expect("a type").as_str();
    let stars = tokens.iter().filter(|token| *token == "*").count();
    let constant = tokens[0] == "const";
    match (base, stars) {
        ("char", 1) if constant => "c.c_char_p".into(),
        ("void", stars) => (1..stars).fold("c.c_void_p".into(), |inner, _| format!("c.POINTER({inner})")),
        (base, stars) => {
            let own = match base {
                "uint32_t" | "motionclone_status" => "c.c_uint32".into(),
                "uint64_t" => "c.c_uint64".into(),
                "int64_t" => "c.c_int64".into(),
                "size_t" => "c.c_size_t".into(),
                "double" => "c.c_double".into(),
                "char" => "c.c_char".into(),
                other => class(other),
            };
            (0..stars).fold(own, |inner, _| format!("c.POINTER({inner})"))
        }
    }
}

/// `motionclone_engine_options` as a class.
fn class(name: &str) -> String {
    let name = name.strip_prefix("motionclone_").unwrap_or_else(|| panic!("{name} is not of this library"));
    let word = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('_').map(word).collect()
}

/// Words and signs of a header, without comments and lines of the preprocessor.
fn tokens(header: &str) -> Vec<String> {
    let code: String = header.split("*/").map(|part| part.split("/*").next().unwrap_or_default()).collect();
    let mut tokens: Vec<String> = Vec::new();
    for line in code.lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut in_word = false;
        for letter in line.split("//").next().unwrap_or_default().chars() {
            let word = letter.is_alphanumeric() || letter == '_' || letter == '"';
            match tokens.last_mut() {
                Some(last) if word && in_word => last.push(letter),
                _ if !letter.is_whitespace() => tokens.push(letter.into()),
                _ => {}
            }
            in_word = word;
        }
    }
    tokens.reverse();
    tokens
}

struct Tokens {
    /// The next one is the last.
    left: Vec<String>,
}

impl Tokens {
    fn next(&mut self) -> Option<String> {
        self.left.pop()
    }

    fn required(&mut self) -> String {
        self.next().expect("the header ends early")
    }

    /// What comes before a sign, which is taken as well. Of brackets within, only whole pairs are passed.
    fn until(&mut self, sign: &str) -> Vec<String> {
        std::iter::from_fn(|| Some(self.required()).filter(|token| token != sign)).collect()
    }
}
