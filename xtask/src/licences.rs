//! The licences of all dependencies against the list in `deny.toml`, from what cargo itself knows: `cargo deny` would
//! take longer to build than all else.

use std::collections::BTreeSet;
use std::fs;

use crate::{Result, cargo, output, root};

/// Where the licences of everything inside lie in the tree.
pub const PLACE: &str = "share/doc/motionclone/licences";

/// Fails and names each dependency that no allowed licence covers.
pub fn check() -> Result<()> {
    let path = root().join("deny.toml");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let allowed = allowed(&text);
    let format = ["--prefix", "none", "--format", "{p}|{l}"];
    let tree = ["tree", "--workspace", "--locked", "--edges", "normal,build", "--target", "all"];
    let packages = output(&mut cargo(&[&tree[..], &format[..]].concat()))?;
    let refused: BTreeSet<String> = packages
        .lines()
        .filter_map(|line| line.trim_end_matches(" (*)").rsplit_once('|'))
        .filter(|(_, licence)| !permits(licence, &allowed))
        .map(|(package, licence)| format!("{} ({licence})", package.split(" (").next().unwrap_or(package)))
        .collect();
    if refused.is_empty() {
        println!("licences of all dependencies: allowed by deny.toml");
        return Ok(());
    }
    Err(format!("licences that deny.toml does not allow: {}", Vec::from_iter(refused).join(", ")))
}

/// The strings of `allow = [...]`.
fn allowed(deny: &str) -> Vec<&str> {
    let list = deny.split_once("allow = [").and_then(|(_, rest)| rest.split_once(']')).map_or("", |(list, _)| list);
    list.split('"').skip(1).step_by(2).collect()
}

/// Whether an SPDX expression is covered: one side of an OR, both sides of an AND; `/` is an old way to write OR.
fn permits(expression: &str, allowed: &[&str]) -> bool {
    let expression = expression.trim();
    if let Some((left, right)) = split(expression, " OR ").or_else(|| split(expression, "/")) {
        return permits(left, allowed) || permits(right, allowed);
    }
    if let Some((left, right)) = split(expression, " AND ") {
        return permits(left, allowed) && permits(right, allowed);
    }
    match expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => permits(inner, allowed),
        None => allowed.contains(&expression),
    }
}

/// Splits at the first operator that stands outside all brackets.
fn split<'a>(expression: &'a str, operator: &str) -> Option<(&'a str, &'a str)> {
    expression
        .match_indices(operator)
        .map(|(at, _)| (&expression[..at], &expression[at + operator.len()..]))
        .find(|(left, _)| left.matches('(').count() == left.matches(')').count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_understood() {
        let allowed =
            allowed("[licenses]\nallow = [\n  \"MIT\",\n  \"Zlib\", \"Apache-2.0 WITH LLVM-exception\",\n]\n");
        assert_eq!(allowed, ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"]);
        for expression in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/GPL-3.0",
            "(MIT OR GPL-3.0) AND Zlib",
            "Apache-2.0 WITH LLVM-exception",
            "(MIT AND Zlib) OR GPL-3.0",
        ] {
            assert!(permits(expression, &allowed), "{expression}");
        }
        for expression in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Zlib) AND MPL-2.0", "Apache-2.0"] {
            assert!(!permits(expression, &allowed), "{expression}");
        }
    }
}
